use std::sync::Mutex;

use livepatch_core::transition::KlpEvent;
use livepatch_monitor_ebpf::EventKind;

use super::*;
use crate::{
    exporter::lock,
    metrics::{self, Exposition, ExpositionError},
};

/// What a test's collector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Works,
    Fails,
    Panics,
    PanicsWithItsLock,
    IsRefused,
    PanicsAtExport,
}

#[derive(Debug)]
struct Fake {
    name: &'static str,
    label: Option<&'static str>,
    metric: Metric,
    behaviour: Behaviour,
    state: Mutex<u32>,
}

/// Which collectors ran before.
type Values = Vec<&'static str>;

impl Fake {
    fn new(name: &'static str, label: Option<&'static str>, behaviour: Behaviour) -> Self {
        let metric = Metric {
            name,
            kind: metrics::Kind::Gauge,
            labels: &[],
            help: "A test's.",
        };
        Self {
            name,
            label,
            metric,
            behaviour,
            state: Mutex::new(0),
        }
    }
}

impl Collector<Values> for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn label(&self) -> Option<&'static str> {
        self.label
    }

    fn metrics(&self) -> &'static [Metric] {
        &[]
    }

    fn event(&self, _: &KernelEvent, _: &History) -> Vec<Effect> {
        let mut state = lock(&self.state);
        *state += 1;
        match self.behaviour {
            Behaviour::Panics => panic!("on purpose"),
            _ => vec![Effect::Save],
        }
    }

    fn collect(&self, _: &Moment, values: &mut Values) -> Outcome {
        let mut state = lock(&self.state);
        *state += 1;
        match self.behaviour {
            Behaviour::PanicsWithItsLock => panic!("on purpose"),
            Behaviour::Panics => {
                drop(state);
                panic!("on purpose")
            }
            Behaviour::Fails => Outcome::of(vec!["no such file".to_owned()]),
            Behaviour::Works | Behaviour::IsRefused | Behaviour::PanicsAtExport => {
                values.push(self.name);
                Outcome {
                    effects: vec![Effect::Save],
                    ..Outcome::default()
                }
            }
        }
    }

    fn export(&self, _: &Collected<Values>, out: &mut Exposition) -> Result<(), ExpositionError> {
        out.gauge(&self.metric, [([], 1.0)])?;
        match self.behaviour {
            Behaviour::IsRefused => out.gauge(&self.metric, [(["no label"], 1.0)]),
            Behaviour::PanicsAtExport => panic!("on purpose"),
            _ => Ok(()),
        }
    }
}

#[derive(Default)]
struct Heard {
    effects: usize,
    problems: Vec<(&'static str, String)>,
}

impl Listener for Heard {
    fn moment(&self) -> Moment {
        Moment::default()
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        self.effects += effects.len();
    }

    fn problems(&mut self, collector: &'static str, _: Step, problems: &[String]) {
        self.problems
            .extend(problems.iter().map(|text| (collector, text.clone())));
    }
}

fn all(fakes: &[Fake]) -> Vec<&dyn Collector<Values>> {
    fakes.iter().map(|fake| fake as &dyn Collector<_>).collect()
}

#[test]
fn one_that_panics_costs_itself_only() {
    let fakes = [
        Fake::new("before", Some("one"), Behaviour::Works),
        Fake::new("broken", Some("two"), Behaviour::PanicsWithItsLock),
        Fake::new("after", Some("three"), Behaviour::Works),
    ];
    for round in 1..=2 {
        let mut heard = Heard::default();
        let mut collected = collect(&all(&fakes), &mut heard);
        assert_eq!(collected.values, ["before", "after"]);
        assert_eq!(heard.effects, 2);
        let [(of, problem)] = heard.problems.as_slice() else {
            unreachable!("{:?}", heard.problems);
        };
        assert!(*of == "broken" && problem.contains("panicked"), "{problem}");
        let success: Vec<_> = collected.runs.iter().map(|run| run.success).collect();
        assert_eq!(success, [true, false, true]);
        let said = &collected.degradations[0].what;
        assert!(said.contains("collector two"), "{said}");
        let exposition = export(&all(&fakes), &mut collected, &mut heard);
        assert_eq!(exposition.names(), ["before", "broken", "after"]);
        // Its lock is usable again, and nobody else's was touched.
        for fake in &fakes {
            assert_eq!(*lock(&fake.state), round, "{}", fake.name);
        }
    }
}

#[test]
fn one_that_fails_says_so_under_its_label() {
    let fakes = [
        Fake::new("good", Some("shared"), Behaviour::Works),
        Fake::new("bad", Some("shared"), Behaviour::Fails),
        Fake::new("silent", None, Behaviour::Fails),
        Fake::new("other", Some("alone"), Behaviour::Works),
    ];
    let collected = collect(&all(&fakes), &mut Heard::default());
    let success: Vec<_> = collected
        .runs
        .iter()
        .map(|run| (run.label, run.success))
        .collect();
    assert_eq!(success, [("shared", false), ("alone", true)]);
    assert_eq!(
        collected.degradations[0].what,
        "collector shared could not read all it needs: no such file"
    );
    assert_eq!(collected.degradations.len(), 1);
}

#[test]
fn metrics_that_are_refused_are_left_out_alone() {
    for behaviour in [Behaviour::IsRefused, Behaviour::PanicsAtExport] {
        let fakes = [
            Fake::new("refused", Some("one"), behaviour),
            Fake::new("accepted", Some("two"), Behaviour::Works),
        ];
        let mut heard = Heard::default();
        let mut collected = collect(&all(&fakes), &mut heard);
        let exposition = export(&all(&fakes), &mut collected, &mut heard);
        assert_eq!(exposition.names(), ["accepted"]);
        let text = exposition.into_text();
        assert!(!text.contains("refused"), "{text}");
        assert!(!collected.runs[0].success && collected.runs[1].success);
        assert_eq!(heard.problems.len(), 1);
    }
}

#[test]
fn an_event_that_makes_one_panic_reaches_the_others() {
    let fakes = [
        Fake::new("broken", None, Behaviour::Panics),
        Fake::new("good", None, Behaviour::Works),
    ];
    let happened = KernelEvent::Livepatch(KlpEvent {
        time: BootTime::from_nanos(1),
        kind: EventKind::FreePatch,
        patch: None,
        target: None,
        attempt: None,
        replace: None,
        object: None,
    });
    let history = History::default();
    let taken: Vec<_> = all(&fakes)
        .into_iter()
        .map(|it| guarded(it.name(), || it.event(&happened, &history)))
        .collect();
    assert!(taken[0].as_ref().is_err_and(|text| text.contains("broken")));
    assert!(taken[1].as_ref().is_ok_and(|effects| effects.len() == 1));
}
