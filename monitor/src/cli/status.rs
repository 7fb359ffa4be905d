//! `livepatch-monitor status`

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{
    Cli,
    transition::{self, Now, Running},
};
use crate::{
    host::expected::{Expectations, Expected, State},
    kernel::{bpf_links, live_modules::LiveModules, modules, tracers::Lists},
};
use livepatch_core::{
    blockers::{Counts, Reason},
    crash::display::shown,
    function_ref::FunctionRef,
    in_force::{self, ObjectInForce},
    patch::{Beside, Mechanism, Patch, PatchSet},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 no transition is running, 1 a transition is running, 2 unknown or an error."
)]
pub(super) struct Status {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    patches: &'a PatchSet,
    transition: Option<&'a Running>,
    pending: Option<usize>,
    in_force: &'a [ObjectInForce],
    left_over: &'a [String],
    other_mechanisms: &'a [Mechanism],
    expected: Vec<ExpectedReport<'a>>,
}

/// An installed livepatch and its state.
#[derive(Serialize)]
struct ExpectedReport<'a> {
    patch: &'a str,
    missing: bool,
    superseded_by: Option<&'a str>,
    detail: String,
    cves: &'a [String],
}

impl<'a> ExpectedReport<'a> {
    fn of(expected: &'a Expected) -> Self {
        Self {
            patch: &expected.patch,
            missing: expected.state.is_missing(),
            superseded_by: match &expected.state {
                State::Superseded { by, .. } => Some(by),
                _ => None,
            },
            detail: expected.state.described(),
            cves: &expected.cves,
        }
    }
}

/// What is loaded in addition to the patches in force, and which patches should be in force.
#[derive(Default)]
struct Surroundings {
    beside: Beside,
    expected: Vec<Expected>,
    in_force: Vec<ObjectInForce>,
    problems: Vec<String>,
}

impl Surroundings {
    fn look(cli: &Cli, patches: &PatchSet) -> Self {
        let paths = &cli.paths;
        let (beside, mut problems) = LiveModules::default().beside(&paths.sysfs, patches);
        let expected = match modules::release(&paths.procfs) {
            Ok(release) => {
                let mut expectations = Expectations::new(&paths.rootfs, &release, &[], &[]);
                let (expected, unreadable) = expectations.compare(patches, &beside);
                problems.extend(unreadable);
                expected
            }
            Err(error) => {
                problems.push(format!(
                    "{error}; which livepatches are installed is unknown"
                ));
                Vec::new()
            }
        };
        let functions = in_force::functions(patches);
        let in_force = match functions.is_empty() {
            true => Vec::new(),
            false => {
                let programs = bpf_links::programs(&paths.procfs, &paths.sysfs, &functions);
                let mut lists = Lists::open(&paths.sysfs);
                in_force::judge(patches, &lists.seen(&paths.procfs, patches, programs))
            }
        };
        Self {
            beside,
            expected,
            in_force,
            problems,
        }
    }
}

impl Status {
    pub(super) fn run(&self, cli: &Cli) -> anyhow::Result<ExitCode> {
        let now = transition::look(cli)?;
        let around = Surroundings::look(cli, &now.patches);
        let text = if self.json {
            let report = Report {
                patches: &now.patches,
                transition: now.running.as_ref(),
                pending: now.running.as_ref().map(|running| running.blockers.len()),
                in_force: &around.in_force,
                left_over: &around.beside.left_over,
                other_mechanisms: &around.beside.mechanisms,
                expected: around.expected.iter().map(ExpectedReport::of).collect(),
            };
            serde_json::to_string_pretty(&report)? + "\n"
        } else {
            text(&now, &around)
        };
        for problem in &around.problems {
            super::complain(problem);
        }
        for missing in &now.degradations {
            super::complain(&format!("{}; {}", missing.what, missing.remedy));
        }
        super::print(&text)?;
        Ok(if now.running.is_some() {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn text(now: &Now, around: &Surroundings) -> String {
    let mut text = String::new();
    let beside = &around.beside;
    if !now.patches.supported {
        return super::without_livepatch(beside);
    }
    for mechanism in &beside.mechanisms {
        let _ = writeln!(text, "{}", mechanism.sentence());
    }
    if now.patches.patches.is_empty() {
        match (beside.left_over.is_empty(), beside.mechanisms.is_empty()) {
            (true, true) => text.push_str("no livepatch is loaded\n"),
            (true, false) => {}
            (false, _) => text.push_str("no livepatch is in force\n"),
        }
    }
    for patch in &now.patches.patches {
        let _ = writeln!(text, "{}", line(patch));
        write_in_force(&mut text, patch, &around.in_force);
        let on_disk = around.expected.iter().find(|one| one.patch == patch.name);
        let on_disk = on_disk.filter(|one| is_loaded_build(one, patch) && !one.cves.is_empty());
        if let Some(one) = on_disk {
            let _ = writeln!(text, "  its file names {}", shown(&one.cves.join(", ")));
        }
    }
    for module in &beside.left_over {
        let _ = writeln!(
            text,
            "{}: loaded, not in force: it was disabled or replaced (rmmod removes it)",
            shown(module)
        );
    }
    for one in &around.expected {
        if now.patches.get(&one.patch).is_none() || one.state.problem().is_some() {
            let (patch, state) = (shown(&one.patch), one.state.described());
            let _ = writeln!(text, "{patch}: {}", shown(&state));
        }
    }
    match &now.running {
        Some(running) => {
            let _ = writeln!(text, "{}", transition::headline(running));
            let counts = Counts::of(&running.blockers);
            for reason in Reason::ALL {
                if counts.reason(reason) > 0 {
                    let _ = writeln!(text, "  {} {}", counts.reason(reason), reason.name());
                }
            }
            for (FunctionRef { object, function }, tasks) in counts.functions() {
                let _ = writeln!(
                    text,
                    "  {tasks} asleep in {} ({})",
                    shown(function),
                    shown(object)
                );
            }
            if !running.blockers.is_empty() {
                text.push_str(
                    "  run livepatch-monitor blockers --stack for their names and stacks\n",
                );
            }
        }
        None => text.push_str("no transition is running\n"),
    }
    text
}

/// Whether the file is known to be the loaded module's, so that its content applies to that too.
fn is_loaded_build(file: &Expected, patch: &Patch) -> bool {
    let is_known = file.srcversion.is_some();
    file.state == State::InForce && is_known && file.srcversion == patch.srcversion
}

/// Most functions that are named; `--json` has all of them.
const FUNCTIONS_SHOWN: usize = 50;

/// How many of its functions are in force, and why the others are not.
fn write_in_force(text: &mut String, patch: &Patch, objects: &[ObjectInForce]) {
    let objects = objects.iter().filter(|one| one.patch == patch.name);
    let objects: Vec<&ObjectInForce> = objects.collect();
    let all: usize = objects
        .iter()
        .map(|one| one.in_force + one.others.len())
        .sum();
    if all == 0 {
        return;
    }
    let known: Option<usize> = objects.iter().map(|one| one.known()).sum();
    let _ = match known {
        Some(known) => writeln!(text, "  {known} of {all} functions are in force"),
        None => writeln!(text, "  how many of its functions are in force is unknown"),
    };
    let others = objects.iter().flat_map(|object| {
        let others = object.others.iter();
        others.map(|one| (object.object.as_str(), one))
    });
    let others: Vec<_> = others.collect();
    for (object, one) in others.iter().take(FUNCTIONS_SHOWN) {
        let (function, why) = (shown(&one.function), shown(&one.why.described()));
        let _ = writeln!(text, "  {function} ({}) {why}", shown(object));
    }
    if let Some(more @ 1..) = others.len().checked_sub(FUNCTIONS_SHOWN) {
        let _ = writeln!(text, "  and {more} more functions: --json names them");
    }
}

fn line(patch: &Patch) -> String {
    let state = patch.state();
    let functions: usize = patch
        .objects
        .iter()
        .map(|object| object.functions.len())
        .sum();
    let objects: Vec<String> = patch
        .objects
        .iter()
        .map(|object| shown(&object.name))
        .collect();
    let replace = if patch.replace == Some(true) {
        ", replaces all others"
    } else {
        ""
    };
    let version = match &patch.version {
        Some(version) => format!(" version {}", shown(version)),
        None => String::new(),
    };
    format!(
        "{}{version}: {state}, {functions} functions in {}{replace}",
        shown(&patch.name),
        objects.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_build_is_the_loaded_module() {
        let fingerprint = |text: &str| Some(text.to_owned());
        for (disk, loaded, expected) in [
            (fingerprint("A1"), fingerprint("A1"), true),
            (fingerprint("A1"), None, false),
            (None, fingerprint("A1"), false),
            (None, None, false),
        ] {
            let file = Expected {
                patch: "fix".to_owned(),
                file: None,
                state: State::InForce,
                srcversion: disk,
                cves: vec!["CVE-2026-1".to_owned()],
            };
            let patch = Patch {
                name: "fix".to_owned(),
                srcversion: loaded,
                ..Patch::default()
            };
            assert_eq!(is_loaded_build(&file, &patch), expected);
        }
    }
}
