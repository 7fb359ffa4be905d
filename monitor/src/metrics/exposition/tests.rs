use std::collections::BTreeMap;

use prometheus::{
    Encoder as _, GaugeVec, IntCounterVec, Opts, Registry, core::Collector as Library,
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::metrics::Kind;

const fn metric(kind: Kind, labels: &'static [&'static str]) -> Metric {
    Metric {
        name: "livepatch_test_total",
        kind,
        labels,
        help: "With a \\ and a \n, and \"quotes\".",
    }
}

/// What the metrics library itself would write.
fn encoded(metrics: impl Library + 'static) -> String {
    let registry = Registry::new();
    registry.register(Box::new(metrics)).unwrap();
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .unwrap();
    String::from_utf8(text).unwrap()
}

/// The rows that the library keeps apart: the crate `prometheus` 0.14 hashes the values of a
/// series without separators, so that ("a", "") and ("", "a") are one to it.
fn kept_apart<const N: usize>(rows: &[([String; N], f64)]) -> Vec<([String; N], f64)> {
    let mut seen = BTreeMap::new();
    let mut is_first = |labels: &[String; N]| {
        let first = seen
            .entry(labels.concat())
            .or_insert_with(|| labels.clone());
        first == labels
    };
    rows.iter()
        .filter(|(labels, _)| is_first(labels))
        .cloned()
        .collect()
}

fn gauges<const N: usize>(metric: &Metric, rows: &[([String; N], f64)]) -> (String, String) {
    let rows = &kept_apart(rows);
    let options = Opts::new(metric.name, metric.help);
    let library = GaugeVec::new(options, metric.labels).unwrap();
    for (labels, value) in rows {
        library.with_label_values(labels.as_slice()).set(*value);
    }
    let mut ours = Exposition::default();
    let row = |(labels, value): &'_ ([String; N], f64)| (labels.clone(), *value);
    let rows: Vec<_> = rows.iter().map(row).collect();
    let rows = rows
        .iter()
        .map(|(labels, value)| (labels.each_ref().map(String::as_str), *value));
    ours.gauge(metric, rows).unwrap();
    (ours.into_text(), encoded(library))
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,2}", "[\\\\\"\n{},= é]{0,6}", any::<String>()]
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        (0_u32..20).prop_map(f64::from),
        any::<i32>().prop_map(f64::from),
        Just(EXACT),
        Just(EXACT - 1.0),
        Just(-0.0),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::NAN),
    ]
}

proptest! {
    /// The same bytes as the library's, whatever the labels, their order, and the values.
    #[test]
    fn gauges_are_written_as_the_library_writes_them(
        none in vec((Just([]), value()), 0..3),
        one in vec(([label()], value()), 0..8),
        two in vec(([label(), label()], value()), 0..8),
        three in vec(([label(), label(), label()], value()), 0..8),
    ) {
        for (ours, library) in [
            gauges(&metric(Kind::Gauge, &[]), &none),
            gauges(&metric(Kind::Gauge, &["patch"]), &one),
            gauges(&metric(Kind::Gauge, &["signal", "phase"]), &two),
            gauges(&metric(Kind::Gauge, &["patch", "object", "function"]), &three),
        ] {
            prop_assert_eq!(ours, library);
        }
    }

    #[test]
    fn counters_are_written_as_the_library_writes_them(
        rows in vec(([label()], any::<u32>().prop_map(u64::from)), 0..8),
        large in any::<u64>(),
    ) {
        let metric = metric(Kind::Counter, &["event"]);
        let options = Opts::new(metric.name, metric.help);
        let library = IntCounterVec::new(options, metric.labels).unwrap();
        let mut rows = rows;
        rows.push((["the large one".to_owned()], large));
        for (labels, value) in &rows {
            library.with_label_values(labels.as_slice()).inc_by(*value);
        }
        let mut ours = Exposition::default();
        let rows = rows.iter();
        ours.counter(&metric, rows.map(|(labels, value)| ([labels[0].as_str()], *value))).unwrap();
        prop_assert_eq!(ours.into_text(), encoded(library));
    }
}

#[test]
fn values_that_are_one_when_joined_are_two_series() {
    let mut ours = Exposition::default();
    let metric = metric(Kind::Gauge, &["patch", "object"]);
    ours.gauge(&metric, [(["a", ""], 1.0), (["", "a"], 2.0)])
        .unwrap();
    let text = ours.into_text();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(series.count(), 2, "{text}");
}

#[test]
fn families_are_sorted_wherever_they_come_from() {
    let named = |name| Metric {
        name,
        ..metric(Kind::Gauge, &[])
    };
    let library = GaugeVec::new(Opts::new("m", "Of the library."), &["a"]).unwrap();
    for value in ["2", "1"] {
        library.with_label_values(&[value]).set(0.5);
    }
    let mut all = Exposition::default();
    all.gauge(&named("n"), [([], 3.0)]).unwrap();
    all.gauge(&named("z"), [([], 1.0)]).unwrap();
    all.gauge(&named("b"), [([], 2.0)]).unwrap();
    all.gauge(&named("without_series"), Vec::<([&str; 0], f64)>::new())
        .unwrap();
    all.library(library.collect()).unwrap();
    assert_eq!(all.names(), ["n", "z", "b", "m"]);
    let text = all.into_text();
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        samples,
        ["b 2", "m{a=\"1\"} 0.5", "m{a=\"2\"} 0.5", "n 3", "z 1"]
    );
    assert_eq!(text.lines().count(), 13);
}

#[test]
fn a_wrong_number_of_labels_is_refused() {
    let mut out = Exposition::default();
    let metric = metric(Kind::Gauge, &["patch", "object"]);
    let error = out.gauge(&metric, [(["fix"], 1.0)]).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("livepatch_test_total has 2 labels and was given 1"),
        "{message}"
    );
    assert_eq!(out.into_text(), "");
}
