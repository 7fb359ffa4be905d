//! What this boot and those before it have recorded, opened at the start.

use std::time::Duration;

use tracing::warn;

use super::updates;
use crate::{
    crash::{
        closing::last_boot_unclean,
        gather::{ThisBoot, after_boot},
        store::Store,
    },
    exporter::{
        Options,
        journal::{
            error::JournalError,
            file::{EarlierBoot, JournalFile, read_only},
            saved,
            writer::Journal,
        },
        log_lines,
    },
    host::machine::{self, Adopted},
    kernel::clock,
};
use livepatch_core::{
    boots::Boot,
    journal::entry::{Entry, Saved, TimedEntry},
    transition::BootTime,
};

/// The journal and the crashes of the boots before this one.
pub(super) struct Records {
    pub(super) journal: Journal,
    pub(super) store: Option<Store>,
    pub(super) boot_unclean: Option<bool>,
    pub(super) pstore_full: Option<String>,
    /// What an earlier process of this boot saved.
    pub(super) saved: Option<Saved>,
    pub(super) problems: Vec<String>,
}

impl Records {
    /// Nothing is recorded, and what was recorded before is not touched.
    pub(super) fn none(options: &Options) -> Self {
        Self {
            journal: Journal::new(None, &[], options.soak),
            store: None,
            boot_unclean: None,
            pstore_full: None,
            saved: None,
            problems: Vec::new(),
        }
    }

    pub(super) fn open(options: &Options, boot_id: Option<&str>, release: &str) -> Self {
        if options.once {
            return Self::read_only(options, boot_id);
        }
        let mut problems = Vec::new();
        problems.extend(adopt_state(options));
        let now = clock::boot_time();
        let began = clock::unix_seconds(BootTime::from_nanos(0));
        let Recorded {
            journal_file,
            entries,
            boots,
            another_monitor,
        } = Recorded::open(options, boot_id, began, &mut problems);
        let mut saved = None;
        if let Some(boot_id) = boot_id.filter(|_| journal_file.is_none()) {
            match saved::read(&options.state_dir, boot_id) {
                Ok(read) => saved = read,
                Err(error) => {
                    let problem = error.to_string();
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
        }
        let mut journal = Journal::new(journal_file, &entries, options.soak);
        let saved = saved.or_else(|| journal.history.saved.clone());
        if let Some(boot_id) = boot_id.filter(|_| entries.iter().all(is_state)) {
            let boot = Entry::Boot {
                boot_id: boot_id.to_owned(),
                release: release.to_owned(),
            };
            journal.record(now, boot);
        }
        journal.record(now, Entry::Watching);

        let mut boot_unclean = None;
        let mut pstore_full = None;
        let store = match Store::open(&options.state_dir) {
            Ok(opened) => {
                problems.extend(opened.problems.iter().map(ToString::to_string));
                let mut store = opened.store;
                let known: Vec<String> = ids(&store).map(str::to_owned).collect();
                let this = ThisBoot {
                    id: boot_id.map(str::to_owned),
                    began,
                    kmsg: options.kmsg.clone(),
                };
                // Assigning a dump to a boot needs the journal, which another monitor holds.
                if !another_monitor {
                    let sources = &options.sources;
                    let gathered = after_boot(&mut store, &boots, &this, sources, options.soak);
                    log_lines::untrusted(&gathered.untrusted, gathered.more_untrusted);
                    problems.extend(gathered.problems);
                    pstore_full = gathered.pstore_full;
                    problems.extend(updates::note(
                        &mut store,
                        &sources.rootfs,
                        &options.procfs,
                        &boots,
                    ));
                }
                let new = store.crashes().iter();
                for crash in new.filter(|crash| !known.contains(&crash.id)) {
                    log_lines::crash(crash);
                }
                boot_unclean = last_boot_unclean(&store, &boots);
                Some(store)
            }
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        Self {
            journal,
            store,
            boot_unclean,
            pstore_full,
            saved,
            problems,
        }
    }

    /// The crashes that a monitor has recorded, and the state that it saved. Nothing is recorded,
    /// and no dump is read: without a journal it is unknown which boot a dump is from.
    fn read_only(options: &Options, boot_id: Option<&str>) -> Self {
        let mut records = Self::none(options);
        if machine::is_of_another(&options.state_dir, &options.rootfs) {
            return records;
        }
        match Store::open(&options.state_dir) {
            Ok(mut opened) => {
                let problems = opened.problems.iter().map(ToString::to_string);
                records.problems.extend(problems);
                opened.store.forget_disk();
                records.store = Some(opened.store);
            }
            Err(error) => records.problems.push(error.to_string()),
        }
        match boot_id.map(|boot_id| saved::read(&options.state_dir, boot_id)) {
            Some(Ok(saved)) => records.saved = saved,
            Some(Err(error)) => records.problems.push(error.to_string()),
            None => {}
        }
        records
    }
}

/// Sets the state of another machine aside; returns why it could not be.
fn adopt_state(options: &Options) -> Option<String> {
    let state_dir = options.state_dir.display();
    match machine::adopt(&options.state_dir, &options.rootfs) {
        Ok(Adopted::Own) => None,
        Ok(Adopted::SetAside(aside)) => {
            warn!(
                "{state_dir} was copied from another machine: this one starts over, the other's \
                 records are in {}",
                aside.display()
            );
            None
        }
        Err(error) => Some(format!(
            "{state_dir} was copied from another machine, and its records cannot be set aside: \
             {error}; move them away"
        )),
    }
}

/// The journal of this boot, and what it and the boots before it have recorded.
struct Recorded {
    journal_file: Option<JournalFile>,
    entries: Vec<TimedEntry>,
    boots: Vec<Boot>,
    /// Another monitor holds the journal.
    another_monitor: bool,
}

impl Recorded {
    /// Adds what could not be opened or read to `problems`.
    fn open(
        options: &Options,
        boot_id: Option<&str>,
        began: Option<f64>,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut boots = Vec::new();
        let mut entries = Vec::new();
        let mut another_monitor = false;
        let journal_file = match boot_id
            .map(|boot_id| JournalFile::open(&options.state_dir, boot_id))
        {
            Some(Ok(opened)) => {
                entries = opened.entries;
                problems.extend(opened.problems);
                let earlier = opened
                    .journal_file
                    .earlier_boots()
                    .and_then(|(earlier, errors)| {
                        boots = boots_of(earlier, began, options.soak);
                        problems.extend(errors.iter().map(ToString::to_string));
                        // Files that cannot be read are not removed.
                        match errors.is_empty() {
                            true => opened.journal_file.prune(),
                            false => Ok(()),
                        }
                    });
                if let Err(error) = earlier {
                    problems.push(error.to_string());
                }
                Some(opened.journal_file)
            }
            Some(Err(error)) => {
                another_monitor = matches!(error, JournalError::Locked { .. });
                problems.push(error.to_string());
                // A directory in which nothing can be written may be read all the same.
                if !another_monitor
                    && let Some(Ok(read)) =
                        boot_id.map(|boot_id| read_only(&options.state_dir, boot_id))
                {
                    boots = boots_of(read.earlier, began, options.soak);
                    entries = read.entries;
                    problems.extend(read.problems.iter().map(ToString::to_string));
                    problems.dedup();
                }
                None
            }
            None => {
                problems.push(format!(
                    "cannot read the boot's id below {} (see --path.procfs): nothing is recorded",
                    options.procfs.display()
                ));
                None
            }
        };
        Self {
            journal_file,
            entries,
            boots,
            another_monitor,
        }
    }
}

/// A state that was taken over comes before the boot's first own entry.
fn is_state(recorded: &TimedEntry) -> bool {
    matches!(recorded.entry, Entry::State(_))
}

fn ids(store: &Store) -> impl Iterator<Item = &str> {
    store.crashes().iter().map(|crash| crash.id.as_str())
}

/// The boots in the journal, each with the start of the next one.
fn boots_of(earlier: Vec<EarlierBoot>, this_began: Option<f64>, soak: Duration) -> Vec<Boot> {
    let mut boots: Vec<Boot> = Vec::new();
    for earlier in earlier {
        let mut boot = Boot::new(earlier.entries, this_began, soak);
        // A file that lost its first entry still has a name.
        boot.history.boot_id.get_or_insert(earlier.boot_id);
        if let Some(before) = boots.last_mut() {
            before.next_began = boot.began();
        }
        boots.push(boot);
    }
    boots
}
