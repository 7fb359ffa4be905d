//! How many series a host costs.

use livepatch_core::transition::KlpEvent;

use super::*;
use crate::{
    crash::store::Store,
    kernel::probes::{Method, ProbeStatus},
};

/// The most series, without `process_*`, of a host that is patched and at rest.
const MOST: usize = 60;

/// A host that has everything a series depends on, except a journal: a patch that is expected by
/// name and whose functions can be looked up; dpkg; the kernel's own counters; and every probe.
fn everything(root: &Path) -> Collectors {
    patched(root);
    for (file, text) in [
        (
            "var/lib/dpkg/status",
            "Package: a\nStatus: install ok installed\n",
        ),
        ("sys/kernel/oops_count", "0\n"),
        ("sys/kernel/warn_count", "0\n"),
        ("sys/kernel/livepatch/fix/vmlinux/patched", "1\n"),
        ("sys/kernel/livepatch/fix/replace", "1\n"),
        ("sys/kernel/tracing/enabled_functions", "hold (1) R I M\n"),
        ("sys/kernel/debug/kprobes/list", ""),
        ("sys/kernel/debug/error_injection/list", ""),
        ("sys/module/pstore/parameters/backend", "efi_pstore\n"),
        ("sys/kernel/kexec_crash_loaded", "1\n"),
        ("proc/modules", "fix 1 1 - Live 0x0 (OEK)\n"),
        ("proc/sys/kernel/panic", "10\n"),
        ("proc/sys/kernel/hung_task_detect_count", "0\n"),
        ("kmsg", ""),
    ] {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let probes: Vec<ProbeStatus> = EventKind::ALL
        .into_iter()
        .map(|kind| ProbeStatus {
            probe: kind.name(),
            method: Method::Fentry,
            problem: None,
        })
        .collect();
    let (procfs, sysfs) = (root.join("proc"), root.join("sys"));
    let start = crashes::Start {
        store: Some(Store::open(&root.join("state")).unwrap().store),
        boot_id: None,
        boot_unclean: Some(false),
        log: KernelLog::open(&root.join("kmsg")),
        procfs: procfs.clone(),
        sysfs: sysfs.clone(),
        soak: Duration::from_secs(600),
    };
    let expected = Expectations::new(root, "7.2.0", &[], &["fix".to_owned()]);
    Collectors {
        crashes: crashes::Crashes::new(start, &probes),
        expected: expected::ExpectedPatches::new(expected),
        crash_capture: crash_capture::CrashCapture::new(procfs.clone(), sysfs, None),
        monitor: monitor::Monitor::new(procfs, probes, BTreeSet::new()),
        ..collectors(root)
    }
}

fn exposition(collected: &Collected<Values>, collectors: &Collectors) -> String {
    let mut out = Exposition::default();
    for collector in collectors.all() {
        collector.export(collected, &mut out).unwrap();
    }
    out.into_text()
}

#[test]
fn a_host_that_is_patched_and_at_rest_has_few_series() {
    let root = tempfile::tempdir().unwrap();
    let collectors = everything(root.path());
    let mut collected = collect(&collectors);
    // What the scanner and the journal know, which no file of this host shows.
    collected.values.tasks.lost = Some(Vec::new());
    collected.values.transitions.forced = [("fix".to_owned(), false)].into();
    let text = exposition(&collected, &collectors);
    let series: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("process_"))
        .collect();
    // Since when the patch is in force, and how long its transition took.
    let of_journal = 2;
    assert!(
        series.len() + of_journal <= MOST,
        "{} series:\n{}",
        series.len() + of_journal,
        series.join("\n")
    );
    // Nothing is missing for which the bound would be too easy.
    for name in [
        "livepatch_patch_functions_in_force{",
        "livepatch_patch_object_patched{",
        "livepatch_patch_missing{",
        "livepatch_patch_forced{",
        "livepatch_patch_crashes_total{",
        "livepatch_modules_refused_total{",
        "livepatch_update_interrupted{",
        "livepatch_crash_signals_missed 0",
        "livepatch_crash_evidence_ready{source=\"kdump\"}",
        "livepatch_boot_unclean ",
        "livepatch_monitor_events_lost_total ",
        "livepatch_other_mechanisms ",
        "livepatch_crashes_total ",
    ] {
        assert!(
            series.iter().any(|line| line.starts_with(name)),
            "no {name} in:\n{text}"
        );
    }
}

/// Whatever a rule may ask the rate of is 0 before it counts.
#[test]
fn counters_begin_at_zero() {
    let root = tempfile::tempdir().unwrap();
    let collectors = everything(root.path());
    let mut collected = collect(&collectors);
    collected.values.tasks.lost = Some(Vec::new());
    let text = exposition(&collected, &collectors);
    for counter in contract() {
        let is_counter = counter.kind == crate::metrics::Kind::Counter;
        // Which patch a signal implicates is not known before.
        if !is_counter || counter.name == "livepatch_crash_signals_implicating_total" {
            continue;
        }
        let samples = text.lines().filter(|line| {
            let name = line.split(['{', ' ']).next();
            name == Some(counter.name)
        });
        let values: Vec<&str> = samples.filter_map(|line| line.rsplit(' ').next()).collect();
        assert!(!values.is_empty(), "{} is absent", counter.name);
        assert!(
            values.iter().all(|value| *value == "0"),
            "{}: {values:?}",
            counter.name
        );
    }
}

/// What belongs to a transition is there while one runs and a scan has succeeded.
#[test]
fn without_a_transition_no_task_is_pending_and_nothing_says_so() {
    let root = tempfile::tempdir().unwrap();
    let collectors = everything(root.path());
    let text = exposition(&collect(&collectors), &collectors);
    assert!(!text.contains("_tasks{"), "{text}");
    let event = KernelEvent::Livepatch(KlpEvent {
        time: clock::boot_time(),
        kind: EventKind::InitTransition,
        patch: Some("fix".to_owned()),
        target: Some(Direction::Patch),
        attempt: None,
        replace: None,
        object: None,
    });
    collectors.transitions.event(&event, &History::default());
    let mut collected = collect(&collectors);
    collected.values.tasks.found = Some(std::sync::Arc::default());
    let text = exposition(&collected, &collectors);
    for name in ["livepatch_pending_tasks{", "livepatch_stuck_tasks{"] {
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(rows.len(), 5, "{text}");
        assert!(rows.iter().all(|row| row.ends_with(" 0")), "{rows:?}");
    }
}
