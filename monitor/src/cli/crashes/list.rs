//! `livepatch-monitor crashes` and `crashes show`

use std::{borrow::Cow, fmt::Write as _, os::unix::ffi::OsStrExt as _, process::ExitCode};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::render::{described, show, show_update};
use crate::{
    cli::{Cli, print},
    crash::{
        gather::{ThisBoot, after_boot},
        look::Untrusted,
        store::Store,
    },
    host::{
        machine,
        packages::{Image, Interrupted, Manager, Packages},
    },
    kernel::{clock, procfs},
};
use livepatch_core::{
    blockers::printable,
    crash::{
        HostCrash,
        display::{self, date, shown},
    },
    transition::BootTime,
};

/// Width of the headline in the table, in characters.
const HEADLINE: usize = 60;

#[derive(Debug, Args)]
pub(super) struct Show {
    /// ID of the crash, or an unambiguous prefix of it
    #[arg(value_parser = id)]
    id: String,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty; `livepatch-monitor crashes` lists them".to_owned()),
        text => Ok(text.to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct List<'a> {
    crashes: Vec<&'a HostCrash>,
    updates: &'a [Interrupted],
    /// Package managers of which it is unknown whether an update is unfinished.
    at_work: &'a [Manager],
    images: &'a [Image],
    untrusted: Vec<NotTrusted<'a>>,
    problems: &'a [String],
}

/// A file that looks like a dump and is not trusted.
#[derive(Debug, Serialize)]
struct NotTrusted<'a> {
    path: Cow<'a, str>,
    reason: &'a str,
}

/// The crashes that the exporter has stored. If no exporter has ever run, the existing dumps are
/// read and nothing is stored.
fn known(cli: &Cli) -> anyhow::Result<(Vec<HostCrash>, Vec<String>)> {
    let opened = Store::open(&cli.paths.state_dir)?;
    let mut problems = cli.paths.problems();
    problems.extend(opened.problems.iter().map(ToString::to_string));
    let mut store = opened.store;
    if machine::is_of_another(&cli.paths.state_dir, &cli.paths.rootfs) {
        problems.push(format!(
            "--state-dir {} was copied from another machine: these are its crashes; the exporter \
             sets them aside when it starts",
            cli.paths.state_dir.display()
        ));
    }
    if !store.exists() && !cli.paths.state_dir.join("recorder").is_dir() {
        let this = ThisBoot {
            id: procfs::boot_id(&cli.paths.procfs).ok(),
            began: clock::unix_seconds(BootTime::from_nanos(0)),
            kmsg: cli.paths.kmsg.clone(),
        };
        store.forget_disk();
        let soak = livepatch_core::crash::SOAK;
        let sources = cli.paths.sources();
        problems.extend(after_boot(&mut store, &[], &this, &sources, soak).problems);
        problems.push(format!(
            "no exporter has run with --state-dir {}: only crashes with a dump are listed",
            cli.paths.state_dir.display()
        ));
    }
    Ok((store.crashes().to_vec(), problems))
}

fn complain(problems: &[String]) {
    for problem in problems {
        crate::cli::complain(&printable(problem.as_bytes()));
    }
}

/// The table, newest first.
pub(super) fn list(cli: &Cli, json: bool) -> anyhow::Result<ExitCode> {
    let (crashes, mut problems) = known(cli)?;
    let mut packages = Packages::new(&cli.paths.rootfs, &cli.paths.procfs);
    let (updates, unreadable) = packages.read();
    let at_work = packages.at_work();
    let (images, unreadable_images) = packages.images();
    problems.extend(unreadable);
    problems.extend(unreadable_images);
    let look = cli.paths.sources().untrusted();
    problems.extend(look.limits_reached());
    complain(&problems);
    let text = if json {
        let list = List {
            crashes: crashes.iter().rev().collect(),
            updates: &updates,
            at_work: &at_work,
            images: &images,
            untrusted: look.untrusted.iter().map(not_trusted).collect(),
            problems: &problems,
        };
        serde_json::to_string_pretty(&list)? + "\n"
    } else {
        let doubtful = doubtful(&look.untrusted, look.more_untrusted);
        table(&crashes) + &doubtful + &half_done(&updates) + &busy(&at_work) + &prepared(&images)
    };
    print(&text)?;
    Ok(if crashes.is_empty() {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

fn not_trusted(untrusted: &Untrusted) -> NotTrusted<'_> {
    NotTrusted {
        path: untrusted.path.to_string_lossy(),
        reason: &untrusted.reason,
    }
}

/// Files that look like dumps but may have been written by users other than root.
fn doubtful(untrusted: &[Untrusted], more: usize) -> String {
    let mut text = String::new();
    if !untrusted.is_empty() {
        text.push_str("\nNot trusted, and not counted (`crashes import FILE` shows one):\n");
    }
    for dump in untrusted {
        let path = printable(dump.path.as_os_str().as_bytes());
        let _ = writeln!(text, "  {path}: {}", dump.reason);
    }
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
    text
}

/// Describes packages that an update left unfinished.
fn half_done(updates: &[Interrupted]) -> String {
    let mut text = String::new();
    for update in updates.iter().filter(|update| !update.packages.is_empty()) {
        let manager = update.manager.name();
        let _ = writeln!(text, "\nLeft unfinished by {manager}:");
        for package in &update.packages {
            let (name, state) = (shown(&package.name), shown(&package.state));
            let _ = writeln!(text, "  {name}  {state}");
        }
        if let Some(run) = &update.run {
            let _ = writeln!(text, " by {}", described(run));
        }
        text.push_str(" Repair it with, in this order:\n");
        for command in &update.commands {
            let _ = writeln!(text, "  {}", shown(command));
        }
    }
    text
}

/// The package managers that are running.
fn busy(at_work: &[Manager]) -> String {
    let mut text = String::new();
    for manager in at_work {
        let _ = writeln!(
            text,
            "\n{} is running: whether an update is unfinished is not known yet",
            manager.name()
        );
    }
    text
}

/// What is prepared or failed on a host whose root is an image.
fn prepared(images: &[Image]) -> String {
    let mut text = String::new();
    for image in images {
        let _ = writeln!(text, "\n{}", shown(&image.text()));
    }
    text
}

fn table(crashes: &[HostCrash]) -> String {
    if crashes.is_empty() {
        return "no crash of this host is known\n".to_owned();
    }
    let mut rows = vec![
        [
            "WHEN",
            "KIND",
            "PHASE",
            "IMPLICATED",
            "PATCH",
            "ID",
            "HEADLINE",
        ]
        .map(str::to_owned),
    ];
    for crash in crashes.iter().rev() {
        let record = &crash.record;
        let patch = record.of_patches().first().copied();
        let mut headline: String = shown(&record.headline).chars().take(HEADLINE).collect();
        if headline.len() < record.headline.len() {
            headline.push('…');
        }
        rows.push([
            date(record.when.unix_seconds).unwrap_or_else(|| "unknown".to_owned()),
            record.kind.name().to_owned(),
            record.phase.name().to_owned(),
            record.implicated.name().to_owned(),
            patch.map_or_else(|| "-".to_owned(), shown),
            crash.id.clone(),
            headline,
        ]);
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

impl Show {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let (crashes, problems) = known(cli)?;
        complain(&problems);
        let fits = |crash: &&HostCrash| crash.id.starts_with(&self.id);
        let exact = crashes.iter().find(|crash| crash.id == self.id);
        let mut fitting = crashes.iter().filter(fits);
        let crash = match (exact, fitting.next(), fitting.next()) {
            (Some(crash), _, _) | (None, Some(crash), None) => crash,
            (None, None, _) => bail!(
                "no crash has the id {:?}; `livepatch-monitor crashes` lists them",
                self.id
            ),
            (None, Some(one), Some(other)) => bail!(
                "several ids begin with {:?}, among them {} and {}: give more of the id",
                self.id,
                one.id,
                other.id
            ),
        };
        let text = if self.json {
            serde_json::to_string_pretty(crash)? + "\n"
        } else {
            whole(crash)
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn whole(crash: &HostCrash) -> String {
    let mut text = format!("{}\n", crash.id);
    let ended = display::end(crash);
    let boot = crash.boot_id.as_deref().unwrap_or("not known");
    let _ = writeln!(text, "  {:<11} {boot}\n  {:<11} {ended}", "boot", "end");
    show(&mut text, &crash.record);
    if let Some(run) = &crash.update {
        show_update(&mut text, run, &crash.record.when);
    }
    text
}
