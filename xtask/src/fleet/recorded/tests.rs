use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fleet")
}

fn facts() -> Facts<'static> {
    Facts {
        host: 3,
        now: 2_000.0,
        release: "6.1.0-test",
        monitor_start: 1_000.0,
        transition_start: None,
        complete: None,
        duration: None,
        crash: None,
    }
}

const TRANSITION: &str = "\
# HELP livepatch_transition_active Whether one runs.
# TYPE livepatch_transition_active gauge
livepatch_transition_active{direction=\"patch\",patch=\"lpm_patch_a\"} 1
livepatch_patch_info{patch=\"other\"} 1
livepatch_kernel_info{release=\"6.12\"} 1
livepatch_transition_start_timestamp_seconds{patch=\"lpm_patch_a\"} 1795735092.391
livepatch_transition_attempts_total 3
";

#[test]
fn patch_release_and_times_are_the_hosts_own() {
    let recording = Recording::parse(State::Transition, TRANSITION, "fix").unwrap();
    let text = recording.render(&Facts {
        transition_start: Some(1_990.5),
        ..facts()
    });
    assert_eq!(
        text,
        "\
# HELP livepatch_transition_active Whether one runs.
# TYPE livepatch_transition_active gauge
livepatch_transition_active{direction=\"patch\",patch=\"fix\"} 1
livepatch_patch_info{patch=\"other\"} 1
livepatch_kernel_info{release=\"6.1.0-test\"} 1
livepatch_transition_start_timestamp_seconds{patch=\"fix\"} 1990.5
livepatch_transition_attempts_total 10
"
    );
    assert_eq!(recording.series(), 5);
}

/// What a host costs, without `process_*`; docs/cost.md and docs/fleet.md name the numbers.
#[test]
fn recorded_hosts_have_as_many_series_as_the_documentation_says() {
    let recordings = Recordings::load(&folder(), "fix").unwrap();
    let process = 7;
    for (state, series) in [
        (State::Unpatched, 43),
        (State::Patched, 55),
        (State::Crashed, 48),
        // A patch of three objects; the pending and stuck tasks by reason, from the first look at
        // them.
        (State::Transition, 72),
        (State::Stuck, 72),
    ] {
        assert_eq!(recordings.of(state).series() - process, series, "{state}");
    }
}

#[test]
fn a_crash_in_soak_is_recognised() {
    let text = "\
livepatch_crashes_total 1
livepatch_last_crash_info{kind=\"reset\",patch=\"p\",phase=\"transition\"} 1
livepatch_last_crash_timestamp_seconds 5
livepatch_patch_crashes_total{patch=\"p\"} 1
livepatch_crash_signals_total{signal=\"oops\"} 0
";
    let recording = Recording::parse(State::Crashed, text, "fix").unwrap();
    let text = recording.render(&Facts {
        crash: Some((1_234.5, Phase::Soak)),
        ..facts()
    });
    assert_eq!(
        text,
        "\
livepatch_crashes_total 1
livepatch_last_crash_info{kind=\"reset\",patch=\"fix\",phase=\"soak\"} 1
livepatch_last_crash_timestamp_seconds 1234.5
livepatch_patch_crashes_total{patch=\"fix\"} 1
livepatch_crash_signals_total{signal=\"oops\"} 0
"
    );
}

#[test]
fn what_cannot_be_served_is_named() {
    for (text, complaint) in [
        ("", "no sample"),
        ("livepatch_patch_info{patch=\"a\" 1", "line 1"),
        ("process_cpu_seconds_total NaN", "blanked"),
        ("livepatch_supported 1", "livepatch_transition_active"),
        (
            "livepatch_transition_active{direction=\"patch\",patch=\"a\"} 1\n\
             livepatch_patch_info{patch=\"b\"} 1",
            "a, b",
        ),
        (
            "livepatch_transition_active{direction=\"patch\",patch=\"a\"} 1\n\
             livepatch_patching_duration_seconds{patch=\"a\"} 1",
            "livepatch_patching_duration_seconds does not belong",
        ),
    ] {
        let error = Recording::parse(State::Transition, text, "p").unwrap_err();
        assert!(format!("{error:#}").contains(complaint), "{error:#}");
    }
}

#[test]
fn the_recordings_are_of_their_states() {
    Recordings::load(&folder(), "fix").unwrap();
}

#[test]
fn what_is_served_is_a_recording_again() {
    let recordings = Recordings::load(&folder(), "fix_b").unwrap();
    let crash = Some((1_700.0, Phase::Transition));
    for (state, facts) in [
        (State::Unpatched, facts()),
        (
            State::Stuck,
            Facts {
                transition_start: Some(1_900.0),
                ..facts()
            },
        ),
        (
            State::Patched,
            Facts {
                complete: Some(1_900.0),
                duration: Some(2.5),
                ..facts()
            },
        ),
        (State::Crashed, Facts { crash, ..facts() }),
    ] {
        let text = recordings.of(state).render(&facts);
        let again = Recording::parse(state, &text, "fix_b").unwrap();
        assert_eq!(again.series(), recordings.of(state).series());
        assert!(!text.contains("NaN"), "{state}");
        assert!(!text.contains("lpm_patch_a"), "{state}");
    }
}

proptest! {
    #[test]
    fn any_text_is_served_or_refused(text in "\\PC{0,200}") {
        let _ = Recording::parse(State::Unpatched, &text, "p");
    }

    /// With any name of the patch, there are as many series, and the name replaces the recorded
    /// one.
    #[test]
    fn any_patch_name_is_written_so_that_it_is_read_back(patch in "\\PC{1,20}") {
        let recording = Recording::parse(State::Transition, TRANSITION, &patch).unwrap();
        let text = recording.render(&Facts { transition_start: Some(1.0), ..facts() });
        let read = samples(&text).unwrap();
        let named = read
            .iter()
            .filter(|sample| sample.label("patch") == Some(escaped(&patch).as_str()))
            .count();
        prop_assert_eq!(named, if patch == "other" { 3 } else { 2 });
        prop_assert_eq!(read.len(), recording.series());
    }

    /// Apart from the values of the host, a recording is served unchanged.
    #[test]
    fn other_lines_are_served_as_recorded(
        rows in proptest::collection::vec(("[a-z]{1,9}", "[^\\\\\"\n]{0,9}", any::<i16>()), 1..20)
    ) {
        let recorded: String = rows
            .iter()
            .map(|(label, value, number)| format!("some_metric{{{label}=\"{value}\"}} {number}\n"))
            .collect();
        let recording = Recording::parse(State::Unpatched, &recorded, "p").unwrap();
        prop_assert_eq!(recording.render(&facts()), recorded);
    }
}
