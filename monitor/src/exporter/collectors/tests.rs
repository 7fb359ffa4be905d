use std::{collections::BTreeSet, path::Path, sync::mpsc, thread, time::Duration};

use livepatch_core::{
    journal::entry::Entry,
    journal::history::History,
    transition::{self, BootTime, Direction, KlpEvent, Watching},
};
use livepatch_monitor_ebpf::EventKind;

use super::*;
use crate::{
    exporter::{
        collector::{self, Collected, Effect, Listener, Moment, Step},
        kernel_log::KernelLog,
    },
    host::{expected::Expectations, packages::Packages},
    kernel::{clock, events::KernelEvent, tasks::TaskScanner},
    metrics::{Exposition, Metric},
};

mod series;

/// Collectors of a host whose file system is at `root`.
fn collectors(root: &Path) -> Collectors {
    let (procfs, sysfs) = (root.join("proc"), root.join("sys"));
    let log = || KernelLog::open(&root.join("kmsg"));
    let stuck_after = Duration::from_secs(15);
    let start = crashes::Start {
        store: None,
        boot_id: None,
        boot_unclean: None,
        log: log(),
        procfs: procfs.clone(),
        sysfs: sysfs.clone(),
        soak: Duration::from_secs(600),
    };
    Collectors {
        patches: patches::Patches::new(sysfs.clone(), "7.2.0".to_owned(), None),
        transitions: transitions::Transitions::new(
            Watching::Probes,
            log(),
            procfs.clone(),
            stuck_after,
        ),
        tasks: tasks::Tasks::new(TaskScanner::new(None, &procfs), sysfs.clone(), stuck_after),
        crashes: crashes::Crashes::new(start, &[]),
        updates: updates::Updates::new(Some(Packages::new(root, Path::new("/proc")))),
        expected: expected::ExpectedPatches::new(Expectations::new(root, "7.2.0", &[], &[])),
        in_force: in_force::FunctionsInForce::new(procfs.clone(), &sysfs),
        crash_capture: crash_capture::CrashCapture::new(procfs.clone(), sysfs, None),
        refusals: refusals::Refusals::new(&root.join("kmsg")),
        monitor: monitor::Monitor::new(procfs, Vec::new(), BTreeSet::new()),
    }
}

/// The rows of all collectors.
pub(crate) fn contract() -> Vec<&'static Metric> {
    let root = tempfile::tempdir().unwrap();
    let collectors = collectors(root.path());
    let rows = collectors.all().into_iter().flat_map(Collector::metrics);
    rows.collect()
}

#[derive(Default)]
struct Ignored;

impl Listener for Ignored {
    fn moment(&self) -> Moment {
        Moment {
            now: clock::boot_time(),
            ..Moment::default()
        }
    }

    fn effects(&mut self, _: Vec<Effect>) {}

    fn problems(&mut self, _: &'static str, _: Step, _: &[String]) {}
}

fn collect(collectors: &Collectors) -> Collected<Values> {
    collector::collect(&collectors.all(), &mut Ignored)
}

/// A host with an enabled patch.
fn patched(root: &Path) {
    let patch = root.join("sys/kernel/livepatch/fix");
    std::fs::create_dir_all(patch.join("vmlinux/hold,1")).unwrap();
    for (file, text) in [("enabled", "1\n"), ("transition", "0\n")] {
        std::fs::write(patch.join(file), text).unwrap();
    }
}

fn event(time: BootTime, kind: EventKind) -> KernelEvent {
    KernelEvent::Livepatch(KlpEvent {
        time,
        kind,
        patch: Some("fix".to_owned()),
        target: Some(Direction::Patch),
        attempt: None,
        replace: None,
        object: None,
    })
}

/// Each family is declared by the collector that serves it, and by no other.
#[test]
fn every_family_is_in_its_collectors_rows() {
    let root = tempfile::tempdir().unwrap();
    patched(root.path());
    let collectors = collectors(root.path());
    let history = History::default();
    collectors.transitions.event(
        &event(clock::boot_time(), EventKind::InitTransition),
        &history,
    );
    let collected = collect(&collectors);
    let mut seen: Vec<String> = Vec::new();
    for collector in collectors.all() {
        let mut exposition = Exposition::default();
        collector.export(&collected, &mut exposition).unwrap();
        for name in exposition.names() {
            let declared = collector.metrics().iter().any(|row| row.name == name);
            assert!(
                declared || name.starts_with("process_"),
                "{name} is not a row of {}",
                collector.name()
            );
            assert!(
                !seen.iter().any(|known| known == name),
                "{name} comes twice"
            );
            seen.push(name.to_owned());
        }
    }
    assert!(
        seen.iter()
            .any(|name| name == "livepatch_transition_active")
    );
}

/// A scan that hangs behind a task delays neither the other collectors nor a scrape.
#[test]
fn a_scan_that_hangs_holds_nothing_up() {
    let root = tempfile::tempdir().unwrap();
    patched(root.path());
    // The first scan of a transition may take a while.
    for (seconds, is_awaited) in [(0, true), (6, false)] {
        scan_hangs(root.path(), seconds, is_awaited);
    }
}

/// The scan of a transition that began this many seconds ago hangs.
fn scan_hangs(root: &Path, seconds: u64, is_awaited: bool) {
    let collectors = collectors(root);
    let history = History::default();
    let began = clock::boot_time()
        .nanos()
        .saturating_sub(seconds * 1_000_000_000);
    collectors.transitions.event(
        &event(BootTime::from_nanos(began), EventKind::InitTransition),
        &history,
    );
    let scan = collectors.tasks.scanner();
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = done.send(collect(&collectors));
        });
        let collected = is_done.recv_timeout(Duration::from_secs(60));
        drop(scan);
        let collected = collected.unwrap();
        let success: Vec<_> = collected
            .runs
            .iter()
            .map(|run| (run.label, run.success))
            .collect();
        assert_eq!(
            success,
            [("sysfs", true), ("tasks", is_awaited), ("host", true)]
        );
        assert!(collected.values.tasks.found.is_none());
        assert!(collected.values.transitions.running.is_some());
    });
}

/// The journal has the steps that a snapshot brought about before the snapshot itself.
#[test]
fn steps_come_before_what_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    patched(root.path());
    let transition = root.path().join("sys/kernel/livepatch/fix/transition");
    std::fs::write(transition, "1\n").unwrap();
    let collectors = collectors(root.path());
    let (read, problems) = collectors.patches.read();
    assert!(problems.is_empty(), "{problems:?}");
    let effects = collectors
        .transitions
        .snapshot(read.read_at, &read.set.unwrap());
    let is_step = |effect: &Effect| {
        matches!(
            effect,
            Effect::Transition(_, transition::Effect::Started { .. })
        )
    };
    let is_entry = |effect: &Effect| matches!(effect, Effect::Record(_, Entry::Patches { .. }));
    let step = effects.iter().position(is_step).unwrap();
    let entry = effects.iter().position(is_entry).unwrap();
    assert!(step < entry, "{effects:?}");
    assert!(effects.iter().any(|it| matches!(it, Effect::Save)));
}

/// Nothing that could not be read is shown as a zero.
#[test]
fn what_is_unknown_has_no_series() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("sys")).unwrap();
    std::fs::write(root.path().join("sys/kernel"), "a file").unwrap();
    let collectors = collectors(root.path());
    let collected = collect(&collectors);
    assert!(collected.values.crashes.totals.is_none());
    assert!(collected.values.crashes.of_patch.is_empty());
    let mut exposition = Exposition::default();
    collectors
        .crashes
        .export(&collected, &mut exposition)
        .unwrap();
    assert_eq!(exposition.names(), ["livepatch_crash_signals_total"]);
}

/// A sum without one of its parts could be 0 although signals were missed.
#[test]
fn missed_signals_are_unknown_unless_all_counters_are_known() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("sys/kernel");
    std::fs::create_dir_all(&folder).unwrap();
    let (oops, warning) = (folder.join("oops_count"), folder.join("warn_count"));
    let missed = |collectors: &Collectors| {
        let mut values = Values::default();
        let outcome = collectors.crashes.collect(&Ignored.moment(), &mut values);
        let mut problems = outcome.problems.into_iter();
        let problem = problems.find(|problem| problem.contains("counter"));
        (values.crashes.missed, problem)
    };
    let unknown = Some("cannot read the kernel's counter of warning".to_owned());
    // A kernel that counts none of them.
    assert_eq!(missed(&collectors(root.path())), (None, None));
    std::fs::write(&oops, "3\n").unwrap();
    std::fs::write(&warning, "7\n").unwrap();
    let of_host = collectors(root.path());
    assert_eq!(missed(&of_host), (Some(0), None));
    std::fs::write(&oops, "5\n").unwrap();
    assert_eq!(missed(&of_host), (Some(2), None));
    std::fs::write(&warning, "").unwrap();
    assert_eq!(missed(&of_host), (None, unknown.clone()));
    std::fs::remove_file(&warning).unwrap();
    assert_eq!(missed(&of_host), (None, unknown.clone()));
    // It was not readable at the start.
    std::fs::write(&warning, "").unwrap();
    let of_host = collectors(root.path());
    std::fs::write(&warning, "8\n").unwrap();
    assert_eq!(missed(&of_host), (None, unknown));
}
