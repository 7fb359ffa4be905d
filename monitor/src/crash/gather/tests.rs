use std::fs;

use proptest::{collection::vec, prelude::*};
use rustix::fs::Mode;

use super::*;
use crate::crash::{closing::last_boot_unclean, look::Limits};
use livepatch_core::{
    crash::{HostCrash, Implicated, Kind, Phase, Signal},
    function_ref::FunctionRef,
    journal::{
        entry::{Entry, LoadedPatch, TimedEntry},
        testing::any_entry,
    },
    transition::{BootTime, Direction, Outcome},
};

mod kdump;
mod scenarios;

const SOAK: Duration = Duration::from_secs(1800);
/// When the boots of these tests began.
const BEGAN: f64 = 1_795_438_000.0;

fn at(second: f64, entry: Entry) -> TimedEntry {
    TimedEntry {
        time: BootTime::from_duration(Duration::from_secs_f64(second)),
        unix_seconds: Some(BEGAN + second),
        entry,
    }
}

fn boot_entry() -> Entry {
    Entry::Boot {
        boot_id: "b1".into(),
        release: "6.1.0-50-cloud-amd64".into(),
    }
}

fn patches(enabled: bool) -> Entry {
    let function = FunctionRef {
        object: "vmlinux".into(),
        function: "sysrq_handle_crash".into(),
    };
    Entry::Patches {
        patches: vec![LoadedPatch {
            name: "fix".into(),
            enabled: Some(enabled),
            srcversion: None,
            functions: vec![function],
        }],
    }
}

fn running() -> Entry {
    Entry::Transition {
        patch: Some("fix".into()),
        direction: Direction::Patch,
        start: Some(BootTime::from_nanos(20_000_000_000)),
    }
}

fn boot(entries: &[TimedEntry]) -> Boot {
    Boot::new(entries.to_vec(), Some(BEGAN + 600.0), SOAK)
}

struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        // What others may write to is not believed.
        rustix::process::umask(Mode::WGRP | Mode::WOTH);
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn sources(&self) -> Sources {
        Sources {
            pstore: self.root.path().join("pstore"),
            systemd_pstore: self.root.path().join("systemd"),
            kdump: self.root.path().join("crash"),
            sysfs: self.root.path().join("sys"),
            rootfs: self.root.path().join("root"),
            owner: rustix::process::getuid().as_raw(),
            limits: Limits::default(),
        }
    }

    fn this(&self) -> ThisBoot {
        ThisBoot {
            id: Some("b2".into()),
            began: Some(BEGAN + 600.0),
            kmsg: self.root.path().join("kmsg"),
        }
    }

    fn gather(&self, boots: &[Boot]) -> (Vec<HostCrash>, Option<bool>) {
        let mut store = Store::open(self.root.path()).unwrap().store;
        let gathered = after_boot(&mut store, boots, &self.this(), &self.sources(), SOAK);
        assert!(gathered.problems.is_empty(), "{:?}", gathered.problems);
        let unclean = last_boot_unclean(&store, boots);
        (store.crashes().to_vec(), unclean)
    }

    /// The same again finds nothing new.
    fn gather_twice(&self, boots: &[Boot]) -> (Vec<HostCrash>, Option<bool>) {
        let first = self.gather(boots);
        assert_eq!(self.gather(boots), first);
        first
    }

    /// A dump as kdump leaves it, from the recorded consoles.
    fn kdump(&self, case: &str) {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/crash/6.1/");
        let text = fs::read(format!("{fixtures}{case}.log")).unwrap();
        let folder = self.root.path().join("crash/202611231248");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("dmesg.202611231248"), text).unwrap();
        fs::write(folder.join("dump.202611231248"), b"KDUMP   ").unwrap();
    }
}

#[test]
fn a_boot_that_was_stopped_in_order_is_no_crash() {
    let boot = boot(&[at(1.0, boot_entry()), at(30.0, Entry::Stopped)]);
    let (crashes, unclean) = Host::new().gather_twice(&[boot]);
    assert_eq!((crashes.len(), unclean), (0, Some(false)));
}

#[test]
fn a_monitor_stopped_long_before_the_next_boot_knows_nothing() {
    let mut boot = boot(&[at(1.0, boot_entry()), at(30.0, Entry::Stopped)]);
    boot.next_began = Some(BEGAN + 7200.0);
    let (crashes, unclean) = Host::new().gather_twice(&[boot]);
    assert_eq!((crashes.len(), unclean), (0, None));
}

#[test]
fn a_boot_without_a_last_word_is_a_reset_with_what_was_known() {
    let entries = [
        at(1.0, boot_entry()),
        at(20.0, running()),
        at(21.0, patches(true)),
    ];
    let (crashes, unclean) = Host::new().gather_twice(&[boot(&entries)]);
    assert_eq!((crashes.len(), unclean), (1, Some(true)));
    let crash = &crashes[0];
    let record = &crash.record;
    assert_eq!(crash.boot_id.as_deref(), Some("b1"));
    assert_eq!(crash.ended_boot, Some(true));
    assert_eq!(
        (record.kind, record.phase),
        (Kind::Reset, Phase::Transition)
    );
    assert_eq!(record.transition.as_ref().unwrap().patch, "fix");
    assert_eq!(record.implicated, Implicated::Unknown);
    assert_eq!(record.patches[0].name, "fix");
}

#[test]
fn a_reset_while_a_module_loads_names_it() {
    let load = Entry::Load {
        patch: "fix".into(),
    };
    let entries = [at(1.0, boot_entry()), at(20.0, load)];
    let (crashes, _) = Host::new().gather_twice(&[boot(&entries)]);
    let record = &crashes[0].record;
    assert_eq!((record.kind, record.phase), (Kind::Reset, Phase::Load));
    assert_eq!(record.evidence[0].patch.as_deref(), Some("fix"));
}

#[test]
fn a_lockup_that_was_the_last_word_is_the_crash() {
    let signal = |signal, headline: &str| Entry::Signal {
        signal,
        headline: headline.into(),
    };
    let stuck = "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:7]";
    let mut entries = vec![
        at(1.0, boot_entry()),
        at(2.0, patches(false)),
        at(40.0, signal(Signal::SoftLockup, stuck)),
    ];
    let (crashes, _) = Host::new().gather_twice(&[boot(&entries)]);
    assert_eq!(crashes.len(), 1);
    let record = &crashes[0].record;
    assert_eq!(
        (record.kind, record.phase),
        (Kind::SoftLockup, Phase::Unpatched)
    );
    assert_eq!(record.headline, stuck);
    // The machine went on: what ended it later is another matter.
    entries.push(at(60.0, Entry::Watching));
    let (crashes, _) = Host::new().gather_twice(&[boot(&entries)]);
    assert_eq!(crashes[0].record.kind, Kind::Reset);
}

#[test]
fn a_dump_belongs_to_the_boot_that_ended_and_takes_the_place_of_a_reset() {
    let host = Host::new();
    let entries = [at(1.0, boot_entry()), at(2.0, patches(true))];
    let boots = [boot(&entries)];
    let (crashes, _) = host.gather_twice(&boots);
    assert_eq!(crashes[0].record.kind, Kind::Reset);
    host.kdump("sysrq");
    let (crashes, unclean) = host.gather_twice(&boots);
    assert_eq!((crashes.len(), unclean), (1, Some(true)));
    let crash = &crashes[0];
    assert_eq!(crash.record.kind, Kind::Panic);
    assert_eq!(crash.boot_id.as_deref(), Some("b1"));
    assert_eq!(crash.ended_boot, Some(true));
    // Of what the patch replaces only the entries know.
    assert_eq!(crash.record.implicated, Implicated::Yes);
    assert_eq!(crash.record.evidence[0].patch.as_deref(), Some("fix"));
    assert!(crash.record.files[0].ends_with("dmesg.202611231248"));
}

proptest! {
    /// Whatever was recorded: one crash at most for a boot, and none when it ended well.
    #[test]
    fn each_boot_ends_once(entries in vec((0_u32..500, any_entry()), 0..12), stopped in any::<bool>()) {
        let mut all = vec![at(1.0, boot_entry())];
        for (second, entry) in entries {
            if !matches!(entry, Entry::Boot { .. }) {
                all.push(at(f64::from(second), entry));
            }
        }
        all.push(at(500.0, if stopped { Entry::Stopped } else { Entry::Watching }));
        let (crashes, unclean) = Host::new().gather_twice(&[boot(&all)]);
        prop_assert_eq!(crashes.len(), usize::from(!stopped));
        prop_assert_eq!(unclean, Some(!stopped));
    }

    #[test]
    fn an_end_is_an_end(outcome in prop::sample::select(Outcome::ALL.to_vec())) {
        let ended = Entry::Ended {
            patch: Some("fix".into()),
            direction: Some(Direction::Patch),
            outcome: Some(outcome),
            took_seconds: None,
        };
        let boot = boot(&[at(1.0, boot_entry()), at(20.0, running()), at(22.0, ended)]);
        let last = boot.last_word(SOAK);
        prop_assert_eq!(last.phase, Phase::Soak);
        prop_assert!(last.transition.is_none() && last.last_transition.is_some());
    }
}
