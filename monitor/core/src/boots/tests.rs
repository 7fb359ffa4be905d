use proptest::prelude::*;

use super::*;
use crate::{crash::Signal, journal::entry::Entry};

const BEGAN: f64 = 1_795_438_000.0;
const SOAK: Duration = Duration::from_secs(1800);
const RELEASE: &str = "6.1.0-50-cloud-amd64";

fn at(second: f64, unix_seconds: f64, entry: Entry) -> TimedEntry {
    TimedEntry {
        time: BootTime::from_duration(Duration::from_secs_f64(second)),
        unix_seconds: Some(unix_seconds),
        entry,
    }
}

/// A boot that began at `start` and is watched until `last`.
fn boot(start: f64, last: f64, next: Option<f64>) -> Boot {
    let first = Entry::Boot {
        boot_id: "b".into(),
        release: RELEASE.into(),
    };
    let entries = vec![
        at(1.0, start + 1.0, first),
        at(last, start + last, Entry::Watching),
    ];
    Boot::new(entries, next, SOAK)
}

fn crash(uptime: f64, date: Option<(f64, Precision)>) -> CrashRecord {
    CrashRecord {
        headline: "BUG: x".into(),
        release: Some(RELEASE.into()),
        when: When {
            uptime_seconds: Some(uptime),
            unix_seconds: date.map(|(date, _)| date),
            precision: date.map_or(Precision::Unknown, |(_, precision)| precision),
        },
        ..CrashRecord::empty(Kind::Oops)
    }
}

/// The clock was set right two hours back, after the first entry: the boot began when the
/// last entry says.
#[test]
fn a_clock_that_was_set_right_dates_the_whole_boot() {
    let wrong = BEGAN + 7200.0;
    let first = Entry::Boot {
        boot_id: "b".into(),
        release: RELEASE.into(),
    };
    let entries = vec![
        at(1.0, wrong + 1.0, first),
        at(60.0, BEGAN + 60.0, Entry::Watching),
    ];
    let boot = Boot::new(entries, Some(BEGAN + 700.0), SOAK);
    assert_eq!(boot.began(), Some(BEGAN));
    let mut record = crash(600.0, Some((wrong + 600.0, Precision::LogClock)));
    assert!(boot.fit(&record, true).is_some());
    boot.supplement(&mut record, SOAK);
    assert_eq!(record.when.unix_seconds, Some(BEGAN + 600.0));
    assert_eq!(record.when.precision, Precision::Journal);
}

#[test]
fn a_date_of_the_systems_clock_stays() {
    let boot = boot(BEGAN, 60.0, Some(BEGAN + 8000.0));
    for (uptime, date) in [(600.0, 600.4), (600.0, 7500.0)] {
        let mut record = crash(uptime, Some((BEGAN + date, Precision::Dump)));
        boot.supplement(&mut record, SOAK);
        assert_eq!(record.when.unix_seconds, Some(BEGAN + date));
        assert_eq!(record.when.precision, Precision::Dump);
    }
    // Before the last entry it cannot have been.
    let mut record = crash(600.0, Some((BEGAN - 9000.0, Precision::Dump)));
    boot.supplement(&mut record, SOAK);
    assert_eq!(record.when.unix_seconds, Some(BEGAN + 600.0));
}

#[test]
fn what_a_boot_cannot_have_seen_is_not_its_own() {
    let boot = boot(BEGAN, 400.0, Some(BEGAN + 1000.0));
    let fits = |record: &CrashRecord, ended| boot.fit(record, ended).is_some();
    assert!(fits(&crash(500.0, None), true));
    // Over before the last entry; longer than the boot was; another day; another kernel.
    assert!(!fits(&crash(300.0, None), true));
    assert!(!fits(&crash(5000.0, None), true));
    let days_ago = BEGAN - 5.0 * 86400.0;
    for precision in [Precision::LogClock, Precision::Dump, Precision::File] {
        assert!(!fits(&crash(500.0, Some((days_ago, precision))), true));
    }
    let other = CrashRecord {
        release: Some("6.12".into()),
        ..crash(500.0, None)
    };
    assert!(!fits(&other, true));
    // The machine may have survived what came before the last entry.
    let survived = crash(300.0, Some((BEGAN + 300.0, Precision::Dump)));
    assert!(fits(&survived, false) && fits(&survived, true));
    // A firmware's clock that was never set says nothing.
    assert!(fits(
        &crash(500.0, Some((86400.0, Precision::LogClock))),
        true
    ));
}

#[test]
fn a_boot_after_one_that_was_set_back_says_nothing_of_the_gap() {
    let stopped = |next| {
        let mut boot = boot(BEGAN, 400.0, next);
        boot.history.stopped = true;
        boot.unclean()
    };
    assert_eq!(stopped(Some(BEGAN + 460.0)), Some(false));
    assert_eq!(stopped(Some(BEGAN + 9000.0)), None);
    assert_eq!(stopped(Some(BEGAN - 7200.0)), None);
}

#[test]
fn what_came_after_a_crash_tells_nothing_about_it() {
    let mut boot = boot(BEGAN, 400.0, None);
    let ended = Entry::Ended {
        patch: Some("fix".into()),
        direction: Some(crate::transition::Direction::Patch),
        outcome: None,
        took_seconds: None,
    };
    let none = Entry::Patches {
        patches: Vec::new(),
    };
    boot.entries.insert(1, at(2.0, BEGAN + 2.0, none));
    boot.entries.push(at(500.0, BEGAN + 500.0, ended));
    let boot = Boot::new(boot.entries, None, SOAK);
    let phase = |uptime| {
        let mut record = crash(uptime, Some((BEGAN + uptime, Precision::Dump)));
        boot.supplement(&mut record, SOAK);
        (record.phase, record.last_transition.is_some())
    };
    assert_eq!(phase(450.0), (Phase::Unpatched, false));
    assert_eq!(phase(510.0), (Phase::Soak, true));
}

/// A wrapped log may have a module list without the patch that is being loaded.
#[test]
fn the_journal_takes_a_no_back() {
    let mut boot = boot(BEGAN, 400.0, None);
    let load = Entry::Load {
        patch: "fix".into(),
    };
    boot.entries.push(at(490.0, BEGAN + 490.0, load));
    let boot = Boot::new(boot.entries, None, SOAK);
    let mut record = CrashRecord {
        phase: Phase::Unpatched,
        implicated: Implicated::No,
        signals: vec![Signal::Oops],
        ..crash(500.0, None)
    };
    boot.supplement(&mut record, SOAK);
    assert_eq!(record.phase, Phase::Load);
    assert_eq!(record.implicated, Implicated::Unknown);
    assert!(!record.unproven.is_empty());
}

fn any_precision() -> impl Strategy<Value = Precision> {
    prop::sample::select(vec![
        Precision::Unknown,
        Precision::After,
        Precision::LocalTime,
        Precision::File,
        Precision::LogClock,
        Precision::Journal,
        Precision::Dump,
        Precision::Line,
    ])
}

proptest! {
    /// Whatever the firmware says, a crash that the boot can have seen gets a date in it.
    #[test]
    fn a_date_is_in_its_boot(
        uptime in 400.0_f64..900.0,
        date in prop::option::of((-90_000.0_f64..90_000.0, any_precision())),
    ) {
        let boot = boot(BEGAN, 400.0, Some(BEGAN + 1000.0));
        let date = date.map(|(off, precision)| (BEGAN + off, precision));
        let mut record = crash(uptime, date);
        if boot.fit(&record, true).is_some() {
            boot.supplement(&mut record, SOAK);
            let when = record.when.unix_seconds.unwrap();
            prop_assert!((BEGAN + 300.0..=BEGAN + 1060.0).contains(&when), "{when}");
        }
    }

    #[test]
    fn agreement_has_no_order(
        one in (-90_000.0_f64..90_000.0, any_precision()),
        other in (-90_000.0_f64..90_000.0, any_precision()),
    ) {
        let when = |(date, precision): (f64, Precision)| crash(500.0, Some((BEGAN + date, precision))).when;
        let (one, other) = (when(one), when(other));
        prop_assert_eq!(one.agrees_with(&other), other.agrees_with(&one));
        prop_assert!(one.agrees_with(&one));
    }
}
