//! Collects what crashes left on this host: the journals of earlier boots, pstore, kdump's logs.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use livepatch_core::{
    boots::{Boot, is_of_signal},
    crash::{
        CrashRecord, HostCrash,
        parser::Reading,
        pstore::{self, Part},
    },
};

use super::{
    closing::{close, is_of_journal},
    kdump_config::Targets,
    look::{Candidate, Look, Untrusted},
    seen::Seen,
    sources::{Sources, is_image, is_log, is_report},
    store::{Store, StoreError},
    text::Text,
};
use crate::kernel::{
    dumps::{self, Found},
    kmsg::KmsgReader,
    pstore::kmsg_bytes,
};

/// Reads the files and directories that an operator names; the parts of a dump in pstore are
/// joined. Returns the problems.
pub fn texts<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
    visit: &mut dyn FnMut(Text),
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for path in paths {
        let errors = dumps::read(path, &mut |found| match found {
            Found::Log { path, text } => {
                visit(Text::of_file(path.to_string_lossy().into_owned(), text));
            }
            Found::Part(part) => parts.push(part),
        });
        problems.extend(errors.iter().map(ToString::to_string));
    }
    join(parts, &mut problems, visit);
    problems
}

fn join(parts: Vec<Part>, problems: &mut Vec<String>, visit: &mut dyn FnMut(Text)) {
    for dump in pstore::join(parts) {
        if dump.missing > 0 {
            problems.push(format!(
                "{}: {} of the dump's parts {} not there: look for the other files",
                dump.files.join(", "),
                dump.missing,
                if dump.missing == 1 { "is" } else { "are" },
            ));
        }
        visit(Text::of_pstore(dump));
    }
}

/// The running boot.
#[derive(Clone, Debug)]
pub struct ThisBoot {
    /// The boot's id (/proc/sys/kernel/random/boot_id); `None` if it cannot be read.
    pub id: Option<String>,
    /// When it began, in seconds since 1970.
    pub began: Option<f64>,
    /// The device of the kernel log.
    pub kmsg: PathBuf,
}

/// The kernel's log lines of the running boot.
struct KernelLines {
    /// Whether the log still has its beginning.
    complete: bool,
    lines: Vec<(Duration, String)>,
}

impl KernelLines {
    fn read(kmsg: &Path) -> Option<Self> {
        let mut reader = KmsgReader::open(kmsg).ok()?;
        let (mut first, mut lines) = (None, Vec::new());
        let read = reader.read_all(|line| {
            first.get_or_insert(line.sequence);
            if line.facility == 0 {
                lines.push((line.time, line.text.clone()));
            }
        });
        read.ok()?;
        Some(Self {
            complete: first == Some(0),
            lines,
        })
    }

    /// Whether a crash that the machine may have survived happened in this boot; `None` if unknown.
    fn have(&self, record: &CrashRecord) -> Option<bool> {
        let uptime = record.when.uptime_seconds?;
        let is_line = |(time, text): &(Duration, String)| {
            (time.as_secs_f64() - uptime).abs() < 1e-6 && text.ends_with(record.headline.as_str())
        };
        match self.lines.iter().any(is_line) {
            true => Some(true),
            false => self.complete.then_some(false),
        }
    }
}

/// The result of searching this host for crashes.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What could not be read, parsed or stored.
    pub problems: Vec<String>,
    /// Files that look like dumps but are not trusted.
    pub untrusted: Vec<Untrusted>,
    /// The number of further ones.
    pub more_untrusted: usize,
    /// Why pstore has no room for the next crash, if the last one shows that it has none.
    pub pstore_full: Option<String>,
}

/// Stores everything that can be found out about earlier crashes. If called again, it finds nothing
/// new and reads no file again.
pub fn after_boot(
    store: &mut Store,
    boots: &[Boot],
    this: &ThisBoot,
    sources: &Sources,
    soak: Duration,
) -> Gathered {
    let targets = Targets::read(&sources.rootfs);
    let (seen, unusable) = Seen::open(store.state_dir(), !store.exists());
    let mut gathering = Gathering {
        look: Look::new(sources.owner, sources.limits),
        seen,
        problems: unusable.iter().map(ToString::to_string).collect(),
        unstored: false,
        kernel_lines: OnceCell::new(),
        store,
        boots,
        this,
        sources,
        soak,
    };
    let (pstore, kdump) = sources.find(&mut gathering.look, &targets);
    gathering.pstore(&pstore);
    gathering.kdump(kdump);
    for boot in boots {
        let closed = close(gathering.store, boot, &targets, soak);
        gathering
            .problems
            .extend(closed.err().map(|error| error.to_string()));
    }
    let Gathering {
        look,
        seen,
        mut problems,
        unstored,
        store,
        ..
    } = gathering;
    let pstore_full = seen.pstore_full.clone();
    if store.exists()
        && !unstored
        && let Err(error) = seen.save()
    {
        problems.push(error.to_string());
    }
    problems.extend(targets.problems);
    problems.extend(look.limits_reached());
    problems.extend(look.problems);
    Gathered {
        problems,
        untrusted: look.untrusted,
        more_untrusted: look.more_untrusted,
        pstore_full,
    }
}

struct Gathering<'a> {
    look: Look,
    seen: Seen,
    problems: Vec<String>,
    /// A record is not on the disk, so its file must be read again.
    unstored: bool,
    kernel_lines: OnceCell<Option<KernelLines>>,
    store: &'a mut Store,
    boots: &'a [Boot],
    this: &'a ThisBoot,
    sources: &'a Sources,
    soak: Duration,
}

impl<'a> Gathering<'a> {
    /// The parts of a dump are in several files, so either all of them are read, or none if all
    /// were read before.
    fn pstore(&mut self, files: &[Candidate]) {
        if files.iter().all(|file| self.seen.knows(file)) {
            for file in files {
                let known = self.seen.recall(file);
                self.problems.extend(known.into_iter().flatten());
            }
            self.seen.keep_pstore_full();
            return;
        }
        let mut parts = Vec::new();
        let mut texts = Vec::new();
        for file in files {
            let mut problems = Vec::new();
            let Some(content) = self.look.read(file) else {
                continue;
            };
            match dumps::found(&file.path, content.bytes) {
                Ok(found) => {
                    for found in found {
                        match found {
                            Found::Part(part) => parts.push(Part {
                                written: self.written(file),
                                ..part
                            }),
                            Found::Log { path, text } => {
                                let path = path.to_string_lossy().into_owned();
                                texts.push(Text::of_file(path, text));
                            }
                        }
                    }
                }
                Err(error) => problems.push(error.to_string()),
            }
            self.problems.extend(problems.iter().cloned());
            self.seen.add(file, problems);
        }
        let in_pstore = |part: &&Part| Path::new(&part.file).starts_with(&self.sources.pstore);
        let kept: Vec<_> = parts.iter().filter(in_pstore).cloned().collect();
        let bytes = kmsg_bytes(&self.sources.sysfs);
        self.seen.pstore_full = pstore::join(kept)
            .last()
            .and_then(|last| last.did_not_fit(bytes));
        join(parts, &mut self.problems, &mut |text| texts.push(text));
        for text in texts {
            let problems = self.take(&text);
            self.problems.extend(problems);
        }
    }

    /// When a record of pstore was written: its file has that time, or the time at which pstore was
    /// mounted in this boot.
    fn written(&self, file: &Candidate) -> Option<u64> {
        let before = self.this.began.is_none_or(|began| seconds(file) < began);
        u64::try_from(file.modified.0).ok().filter(|_| before)
    }

    /// Each directory that kdump made is one crash. The latest comes first: if there is not enough
    /// time for all of them, the old ones wait.
    fn kdump(&mut self, files: Vec<Candidate>) {
        let mut directories: BTreeMap<PathBuf, Vec<Candidate>> = BTreeMap::new();
        for file in files {
            let directory = file.path.parent().unwrap_or(Path::new("/")).to_owned();
            directories.entry(directory).or_default().push(file);
        }
        let mut directories: Vec<_> = directories.into_values().collect();
        let latest = |files: &Vec<Candidate>| files.iter().map(|file| file.modified).max();
        directories.sort_by_key(|files| std::cmp::Reverse(latest(files)));
        for files in directories {
            self.kdump_directory(&files);
        }
    }

    fn kdump_directory(&mut self, files: &[Candidate]) {
        let (logs, others): (Vec<_>, Vec<_>) = files.iter().partition(|it| is_log(&it.name()));
        let mut has_text = false;
        for file in logs.iter().filter(|file| file.size > 0) {
            if let Some(problems) = self.seen.recall(file) {
                self.problems.extend(problems);
                has_text = true;
                continue;
            }
            let Some(content) = self.look.read(file) else {
                // It is read another time, and may have a log.
                has_text = true;
                continue;
            };
            let mut problems = Vec::new();
            let name = file.path.to_string_lossy().into_owned();
            if !content.whole {
                problems.push(format!("{name} is long; only its end was read"));
            }
            match dumps::found(&file.path, content.bytes) {
                Ok(found) => {
                    for found in found {
                        if let Found::Log { text, .. } = found {
                            let written = Some(seconds(file));
                            let text = Text::of_kdump(vec![name.clone()], text, written);
                            problems.extend(self.take(&text));
                            has_text = true;
                        }
                    }
                }
                Err(error) => problems.push(error.to_string()),
            }
            self.problems.extend(problems.iter().cloned());
            self.seen.add(file, problems);
        }
        let is_dump = |file: &&&Candidate| is_log(&file.name()) || is_image(&file.name());
        let first = logs.iter().chain(&others).find(is_dump);
        if let Some(first) = first.filter(|_| !has_text) {
            self.without_log(first, &others);
        }
        for report in others.iter().filter(|file| is_report(&file.name())) {
            self.problems.push(format!(
                "{} is a report of apport; unpack it with apport-unpack, and read VmCoreDmesg \
                 with `livepatch-monitor crashes import`",
                report.path.display()
            ));
        }
    }

    /// A crash whose log kdump could not save.
    fn without_log(&mut self, first: &Candidate, others: &[&Candidate]) {
        let image = others.iter().find(|file| is_image(&file.name()));
        let remedy = match image {
            Some(image) => format!("makedumpfile --dump-dmesg {} LOG", image.path.display()),
            None => "see why in kdump's own log".to_owned(),
        };
        let name = first.path.to_string_lossy().into_owned();
        self.problems.push(format!(
            "{name}: kdump saved no log of this crash: {remedy}"
        ));
        if self.seen.recall(first).is_none() {
            let text = Text::of_kdump(vec![name], Vec::new(), Some(seconds(first)));
            self.take(&text);
            self.seen.add(first, Vec::new());
        }
    }

    /// Stores the crashes found in a text; returns what could not be parsed.
    fn take(&mut self, text: &Text) -> Vec<String> {
        let reading = Reading::new(self.soak.as_secs_f64());
        let read = text.read(&reading);
        let mut again = BTreeMap::new();
        for (record, ended) in read.crashes {
            if let Err(error) = self.put(text, record, ended, &mut again) {
                self.problems.push(error.to_string());
                self.unstored = true;
            }
        }
        if text.bytes.is_empty() || read.log.problems.is_empty() {
            return Vec::new();
        }
        // Not in the log's own words, because anyone who may see the status page sees this.
        let files = text.files.join(", ");
        vec![format!(
            "{files}: some of it cannot be parsed and a crash in it may be missed; \
             `livepatch-monitor crashes import` says what"
        )]
    }

    fn put(
        &mut self,
        text: &Text,
        mut record: CrashRecord,
        ended: Option<bool>,
        again: &mut BTreeMap<Option<String>, Vec<CrashRecord>>,
    ) -> Result<(), StoreError> {
        let boot = match self.boot_of(&record, ended) {
            Whose::This => {
                let id = self.this.id.as_deref();
                return self.store.put(record, id, Some(false)).map(drop);
            }
            Whose::Unknown(id) => {
                return self.store.put(record, id.as_deref(), ended).map(drop);
            }
            Whose::Earlier(boot) => boot,
        };
        // Parsed again with what is known about the boot's patches.
        let replaced = boot.history.replaced();
        if !replaced.is_empty() {
            let reading = Reading {
                replaced,
                ..Reading::new(self.soak.as_secs_f64())
            };
            let read = || {
                text.read(&reading)
                    .crashes
                    .into_iter()
                    .map(|(record, _)| record)
            };
            let of_boot = again.entry(boot.history.boot_id.clone());
            let again = of_boot.or_insert_with(|| read().collect());
            let same = again.iter().find(|again| again.same(&record));
            record = same.cloned().unwrap_or(record);
        }
        boot.supplement(&mut record, self.soak);
        let id = boot.history.boot_id.as_deref();
        // A crash known only from the journal is dated by the boot's clock, the log has its own.
        let made_up = |known: &&HostCrash| {
            known.boot_id.as_deref() == id
                && is_of_journal(known)
                && !known.record.same(&record)
                && is_of_signal(&known.record, &record)
        };
        let known = self.store.crashes().iter().find(made_up);
        match known.map(|known| known.id.clone()) {
            Some(known) => self.store.learn(&known, record, id, ended),
            None => self.store.put(record, id, ended).map(drop),
        }
    }

    fn in_this_boot(&self, record: &CrashRecord) -> Option<bool> {
        let read = || KernelLines::read(&self.this.kmsg);
        self.kernel_lines.get_or_init(read).as_ref()?.have(record)
    }

    /// The boot that a crash belongs to.
    fn boot_of(&self, record: &CrashRecord, ended: Option<bool>) -> Whose<'a> {
        let survived = ended != Some(true);
        let in_this = survived.then(|| self.in_this_boot(record)).flatten();
        if in_this == Some(true) {
            return Whose::This;
        }
        let id_of = |boot: &Boot| boot.history.boot_id.clone();
        let known = self
            .store
            .find(record)
            .and_then(|known| known.boot_id.clone());
        if known.is_some() && survived && known == self.this.id {
            return Whose::This;
        }
        let boots: &'a [Boot] = self.boots;
        let known_boot = known.as_ref().and_then(|id| {
            let boot = boots.iter().find(|boot| id_of(boot).as_ref() == Some(id))?;
            boot.fit(record, !survived).map(|_| boot)
        });
        if let Some(boot) = known_boot {
            return Whose::Earlier(boot);
        }
        // A boot ends once.
        let is_free = |boot: &Boot| {
            let other_end = |crash: &HostCrash| {
                crash.boot_id == id_of(boot)
                    && crash.ended_boot == Some(true)
                    && !is_of_journal(crash)
                    && !crash.record.same(record)
            };
            survived || !self.store.crashes().iter().any(other_end)
        };
        let fits = boots.iter().enumerate().filter_map(|(index, boot)| {
            let fit = boot.fit(record, !survived)?;
            Some(((is_free(boot), fit, index), boot))
        });
        let best = fits.max_by_key(|(rank, _)| *rank);
        let since = |began: f64| record.when.unix_seconds.is_some_and(|when| when >= began);
        match best {
            Some((_, boot)) => Whose::Earlier(boot),
            None if in_this.is_none() && survived && self.this.began.is_some_and(since) => {
                Whose::This
            }
            None => Whose::Unknown(known),
        }
    }
}

/// The boot that a record belongs to.
enum Whose<'a> {
    This,
    Earlier(&'a Boot),
    /// Its boot has no journal; the boot's id is known if the crash was stored before.
    Unknown(Option<String>),
}

/// When a file was written, in seconds since 1970.
fn seconds(file: &Candidate) -> f64 {
    u32::try_from(file.modified.0).map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests;
