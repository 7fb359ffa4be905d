use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    blockers::{Frame, Symbol},
    function_ref::CodePlace,
    patch::{self, PatchSet},
    preflight::{
        host::{Place, Policy, Symbols, Tracers},
        module::{Object, Source},
    },
};

fn module() -> Module {
    Module {
        name: "fix".to_owned(),
        livepatch: true,
        vermagic: None,
        srcversion: None,
        depends: Vec::new(),
        signed: false,
        replace: Some(false),
        source: Source::KlpPatch,
        objects: vec![Object {
            name: "target".to_owned(),
            functions: vec![Function {
                name: "hold".to_owned(),
                sympos: 0,
            }],
        }],
        needed: Vec::new(),
    }
}

fn host() -> Host {
    let mut symbols = Symbols::default();
    let place = Place {
        address: 0x1000,
        size: Some(0x40),
    };
    symbols.add(Some("target"), "hold", place);
    Host {
        release: Ok(String::new()),
        patches: Ok(PatchSet::default()),
        modules: Ok(BTreeMap::new()),
        symbols: Ok(symbols),
        tracers: Tracers {
            ftrace: Ok(Vec::new()),
            kprobes: Ok(Vec::new()),
            events: Vec::new(),
            overridable: Ok(BTreeSet::new()),
            programs: Ok(Vec::new()),
        },
        trampolines_share: None,
        policy: Policy::default(),
        evidence: Vec::new(),
        threads: Ok(1),
        cpus: None,
    }
}

fn frame(address: u64, name: &str, module: Option<&str>) -> Frame {
    Frame {
        address: Some(address),
        symbol: Some(Symbol {
            place: CodePlace {
                name: name.to_owned(),
                offset: Some(0),
                size: None,
                module: module.map(str::to_owned),
            },
            generated: name.starts_with("bpf_"),
        }),
    }
}

fn task(tid: u32, stack: Vec<Frame>) -> PendingTask {
    PendingTask {
        tid,
        tgid: tid,
        comm: b"some".to_vec(),
        kthread: false,
        idle_cpu: None,
        on_cpu: Some(false),
        state: TaskState::Uninterruptible,
        patch_state: -1,
        cgroup_id: None,
        start_ns: Some(1),
        stack,
    }
}

fn forecast(host: &Host, samples: &[Vec<PendingTask>]) -> Forecast {
    let mut forecaster = Forecaster::new(&module(), host);
    for tasks in samples {
        let mut sample = empty_sample();
        sample.source = ScanSource::Iterator;
        sample.tasks.clone_from(tasks);
        forecaster.add(&mut sample);
    }
    forecaster.finish(Duration::from_secs(1))
}

#[test]
fn who_stays_in_a_function_is_a_likely_blocker() {
    let inside = || vec![frame(0x1020, "hold", Some("target"))];
    let outside = || vec![frame(0x1040, "other", Some("target"))];
    let forecast = forecast(
        &host(),
        &[
            vec![task(1, inside()), task(2, outside()), task(3, inside())],
            vec![task(1, inside()), task(2, outside()), task(3, outside())],
            vec![task(1, inside()), task(2, inside()), task(3, outside())],
        ],
    );
    let seen: Vec<_> = forecast
        .likely
        .iter()
        .map(|likely| (likely.tid, likely.seen))
        .collect();
    assert_eq!(seen, [(1, 3), (2, 1), (3, 1)]);
    let first = &forecast.likely[0];
    assert_eq!(first.function.as_deref(), Some("hold"));
    assert_eq!(first.object.as_deref(), Some("target"));
    assert!(
        first.detail.contains("no signal wakes it"),
        "{}",
        first.detail
    );
    assert!(forecast.stays(first) && !forecast.stays(&forecast.likely[1]));
    let findings = forecast.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].severity, Severity::Warning);
    assert!(
        findings[0]
            .what
            .contains("hold (module target): likely blockers"),
        "{findings:?}"
    );
}

#[test]
fn who_passes_through_is_no_warning() {
    let inside = task(1, vec![frame(0x1020, "hold", Some("target"))]);
    let outside = task(1, vec![frame(0x5000, "schedule", None)]);
    let samples = [vec![inside], vec![outside.clone()], vec![outside]];
    let findings = forecast(&host(), &samples).findings();
    assert_eq!(findings[0].severity, Severity::Info);
}

#[test]
fn a_new_task_of_the_same_id_is_another() {
    let inside = || vec![frame(0x1020, "hold", Some("target"))];
    let later = PendingTask {
        start_ns: Some(2),
        ..task(1, inside())
    };
    let forecast = forecast(&host(), &[vec![task(1, inside())], vec![later]]);
    assert_eq!(forecast.likely.len(), 2);
}

#[test]
fn a_stack_that_cannot_be_walked_holds_any_patch() {
    let stack = vec![frame(0x7000, "bpf_trampoline_1", Some("bpf"))];
    let forecast = forecast(&host(), &[vec![task(1, stack)]]);
    assert_eq!(forecast.likely[0].reason, Reason::UnreliableStack);
    assert!(forecast.findings()[0].what.contains("are unreliable"));
}

#[test]
fn under_a_patch_below_only_names_tell() {
    let mut host = host();
    host.patches = Ok(PatchSet {
        supported: true,
        patches: vec![Patch {
            name: "below".to_owned(),
            enabled: Some(true),
            objects: vec![patch::Object {
                name: "target".to_owned(),
                patched: Some(true),
                functions: vec![patch::Function {
                    name: "hold".to_owned(),
                    sympos: 1,
                }],
            }],
            ..Patch::default()
        }],
    });
    let stack = vec![frame(0x8000, "new_hold", Some("below"))];
    let result = forecast(&host, &[vec![task(1, stack)]]);
    assert_eq!(result.likely[0].reason, Reason::Unknown);
    assert!(
        result.likely[0].detail.contains("livepatch below"),
        "{result:?}"
    );
    // kpatch-build's replacements are called as what they replace.
    let stack = vec![frame(0x8000, "hold", Some("below"))];
    let result = forecast(&host, &[vec![task(1, stack)]]);
    assert_eq!(result.likely[0].function.as_deref(), Some("hold"));
}

#[test]
fn a_kernel_thread_that_never_sleeps_is_named_after_some_samples() {
    let spinner = || PendingTask {
        kthread: true,
        on_cpu: Some(true),
        state: TaskState::Running,
        ..task(1, Vec::new())
    };
    let samples = |count| vec![vec![spinner()]; count];
    assert_eq!(forecast(&host(), &samples(2)).likely, []);
    let result = forecast(&host(), &samples(3));
    assert_eq!(
        (result.likely[0].reason, result.likely[0].seen),
        (Reason::Running, 3)
    );
    let mut once_asleep = samples(3);
    once_asleep[1] = vec![task(1, vec![frame(0x5000, "schedule", None)])];
    assert_eq!(forecast(&host(), &once_asleep).likely, []);
}

#[test]
fn stacks_that_are_unknown_are_counted() {
    let result = forecast(
        &host(),
        &[vec![
            task(1, Vec::new()),
            task(2, vec![frame(0x5000, "x", None)]),
        ]],
    );
    assert_eq!((result.unread, result.tasks), (1, 2));
    assert!(result.findings()[0].what.contains("1 of 2 tasks"));
}

#[test]
fn a_function_that_is_not_there_holds_nothing_and_a_stack_does() {
    let mut host = host();
    host.symbols = Ok(Symbols::default());
    let inside = task(1, vec![frame(0x1020, "hold", Some("target"))]);
    let under_bpf = task(2, vec![frame(0x7000, "bpf_trampoline_1", Some("bpf"))]);
    let result = forecast(&host, &[vec![inside, under_bpf]]);
    let tids: Vec<_> = result.likely.iter().map(|likely| likely.tid).collect();
    assert_eq!(tids, [2]);
}
