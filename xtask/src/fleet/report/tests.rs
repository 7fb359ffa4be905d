use super::*;

fn figures(hosts: usize, cores: f64, peak_mib: f64) -> Figures {
    Figures {
        hosts,
        scrape_interval_seconds: 60,
        evaluation_interval_seconds: 15,
        series_per_host: 350.0,
        samples_per_scrape: 345.0,
        active_series: 1.0,
        first_scrapes_seconds: 1.0,
        samples_per_second: 1.0,
        scrape_seconds_median: 0.001,
        scrape_seconds_p99: 0.002,
        resident_bytes: 0.0,
        peak_bytes: peak_mib * MIB,
        cores,
        simulator_cores: 0.1,
        waited_per_cpu_second: 0.0,
        rule_groups: BTreeMap::from([
            ("a".to_owned(), GroupTime::of(&[0.3, 0.1, 9.0])),
            ("b".to_owned(), GroupTime::of(&[0.5])),
        ]),
        slowest_rules: Vec::new(),
        rule_failures: 0.0,
        rules_missed: 0.0,
        rule_errors: Vec::new(),
        alerts: vec![AlertTime {
            name: "LivepatchStopRollout".to_owned(),
            of: "p".to_owned(),
            seconds: Some(70.0),
            intervals: Some(70.0 / 60.0),
        }],
        gate: vec![gate::Answer {
            moment: "before",
            code: 0,
            seconds: 0.4,
            text: String::new(),
        }],
        machine_load: 0.5,
    }
}

fn report(sizes: Vec<Figures>) -> Report {
    Report {
        sizes,
        ..Report::default()
    }
}

#[test]
fn aims_that_are_met_hold_and_none_may_be_missed() {
    assert!(report(vec![figures(1_000, 0.1, 500.0)]).holds());
    assert!(!report(Vec::new()).holds());
    let missed: [fn(&mut Figures); 6] = [
        |size| size.rule_groups = BTreeMap::from([("b".to_owned(), GroupTime::of(&[1.2]))]),
        |size| size.rule_errors = vec!["broken".to_owned()],
        |size| size.alerts[0].intervals = Some(2.1),
        |size| size.alerts[0].intervals = None,
        |size| size.gate[0].seconds = 2.5,
        |size| size.gate.clear(),
    ];
    for corrupt in missed {
        let mut size = figures(1_000, 0.1, 500.0);
        corrupt(&mut size);
        let report = report(vec![size]);
        assert!(!report.holds(), "{report:?}");
        assert!(report.table().contains("MISSED"), "{}", report.table());
    }
    let mut report = report(vec![figures(1_000, 0.1, 500.0)]);
    report.not_measured.insert(14_000, "no memory".to_owned());
    assert!(!report.holds());
    assert!(
        report
            .table()
            .contains("14000 hosts were not measured: no memory")
    );
}

#[test]
fn a_host_costs_what_the_sizes_differ_by() {
    // 100 MiB, and 1 MiB a host; 6 ms a scrape.
    let report = report(vec![
        figures(100, 0.01, 200.0),
        figures(1_000, 0.1, 1_100.0),
    ]);
    let text = report.cost_of_a_host().unwrap();
    assert!(text.contains("1.00 MiB of memory and 6.0 ms"), "{text}");
    assert!(text.contains("take 13.8 GiB, and 1.40 cores"), "{text}");
}

#[test]
fn the_table_has_a_column_a_size() {
    let table = report(vec![figures(1, 0.1, 1.0), figures(2, 0.1, 2.0)]).table();
    let mut rows = table.lines().take_while(|line| line.starts_with('|'));
    assert!(rows.all(|row| row.matches('|').count() == 4), "{table}");
    assert!(
        table.contains("0.50 s (b; at most 0.50 s; 0.50 s without waiting)"),
        "{table}"
    );
}
