//! One crash, one record, in the right boot, with the right date, whatever kept its log.

use std::{fmt::Write as _, time::UNIX_EPOCH};

use livepatch_core::crash::{Precision, pstore::Header};

use super::*;

const RELEASE: &str = "6.1.0-50-cloud-amd64";
const OOPS: &str = "BUG: kernel NULL pointer dereference, address: 0000000000000001";
const HOUR: f64 = 3600.0;

/// A boot's log up to an oops at which the crash kernel takes over. `firmware` is when the
/// boot began by the firmware's clock; without it the log has lost its beginning.
pub(super) fn oops(firmware: Option<f64>, uptime: f64) -> String {
    let mut log = String::new();
    let mut line = |at: f64, text: &str| {
        let _ = writeln!(log, "[{at:12.6}] {text}");
    };
    if let Some(began) = firmware {
        line(0.0, &format!("Linux version {RELEASE} (x) #1 SMP"));
        let clock = format!("rtc_cmos 00:04: setting system clock to x UTC ({began:.0})");
        line(0.9, &clock.replace(" x ", " 2026-11-23T12:46:40 "));
    }
    line(uptime - 20.0, "eth0: link becomes ready");
    line(uptime, OOPS);
    for (index, text) in [
        "#PF: supervisor read access in kernel mode",
        "Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "CPU: 0 PID: 200 Comm: cat Kdump: loaded Tainted: G           OE K    6.1.0-50-cloud-amd64 #1  Debian",
        "RIP: 0010:lpm_show+0x12/0x30 [fix]",
        "RSP: 0018:ffff9c0a00297d50 EFLAGS: 00010246",
        "Call Trace:",
        " <TASK>",
        " seq_read_iter+0x123/0x470",
        " </TASK>",
        "Modules linked in: fix(OEK) virtio_blk",
        "CR2: 0000000000000001",
    ]
    .into_iter()
    .enumerate()
    {
        let lines = f64::from(u32::try_from(index).unwrap());
        line(uptime + 1e-4 * (lines + 1.0), text);
    }
    log
}

fn panicked(log: &str, uptime: f64) -> String {
    let at = uptime + 0.01;
    format!(
        "{log}[{at:12.6}] ---[ end trace 0000000000000000 ]---\n[{at:12.6}] Kernel panic - not syncing: Fatal exception\n"
    )
}

/// A boot that began at `start`, watched until `last`, with the patch in force.
pub(super) fn watched(id: &str, start: f64, last: f64, next: Option<f64>) -> Boot {
    let entry = |second: f64, entry| TimedEntry {
        unix_seconds: Some(start + second),
        ..at(second, entry)
    };
    let boot = Entry::Boot {
        boot_id: id.into(),
        release: RELEASE.into(),
    };
    let entries = vec![
        entry(1.0, boot),
        entry(2.0, patches(true)),
        entry(last, Entry::Watching),
    ];
    Boot::new(entries, next, SOAK)
}

pub(super) fn only(crashes: &[HostCrash]) -> &HostCrash {
    assert_eq!(crashes.len(), 1, "{crashes:#?}");
    &crashes[0]
}

fn when(crash: &HostCrash) -> (f64, Precision) {
    let when = crash.record.when;
    (when.unix_seconds.unwrap().round(), when.precision)
}

/// Parts of at most `size` bytes, as `pstore_dump` makes them: the newest is part 1. Each
/// is written some seconds after the one before.
fn parts(reason: &str, number: u32, log: &str, size: usize) -> Vec<(u32, String)> {
    let mut parts: Vec<String> = vec![String::new()];
    for line in log.lines().rev() {
        if parts.last().unwrap().len() + line.len() > size {
            parts.push(String::new());
        }
        let part = parts.last_mut().unwrap();
        *part = format!("<4>{line}\n{part}");
    }
    let numbered = (1..).zip(parts);
    numbered
        .map(|(part, text)| (part, format!("{reason}#{number} Part{part}\n{text}")))
        .collect()
}

impl Host {
    pub(super) fn kdump_log(&self, path: &str, text: &str) {
        let path = self.root.path().join("crash").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let written = UNIX_EPOCH + Duration::from_secs_f64(BEGAN + 3000.0);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(written).unwrap();
    }

    /// Parts of EFI's variables, over a second boundary after the third.
    fn efi(&self, reason: &str, number: u32, second: u32, log: &str) {
        fs::create_dir_all(self.root.path().join("pstore")).unwrap();
        for (part, text) in parts(reason, number, log, 200) {
            let second = second + u32::from(part > 3);
            let name = format!("dmesg-efi_pstore-{second}{part:02}{number:03}");
            fs::write(self.root.path().join("pstore").join(name), text).unwrap();
        }
    }

    /// As systemd-pstore does: the latest name first, a copy of its text in dmesg.txt.
    fn systemd_pstore(&self) {
        let from = self.root.path().join("pstore");
        let mut files: Vec<_> = fs::read_dir(&from)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        for name in files.iter().rev() {
            let id = name.strip_prefix("dmesg-efi_pstore-").unwrap();
            let (time, count) = (&id[..id.len() - 5], &id[id.len() - 3..]);
            let to = self.root.path().join("systemd").join(time).join(count);
            fs::create_dir_all(&to).unwrap();
            let text = fs::read(from.join(name)).unwrap();
            let mut all = fs::read(to.join("dmesg.txt")).unwrap_or_default();
            all.extend(&text);
            fs::write(to.join("dmesg.txt"), all).unwrap();
            fs::write(to.join(name), text).unwrap();
            fs::remove_file(from.join(name)).unwrap();
        }
    }
}

#[test]
fn the_crash_kernel_takes_over_inside_an_oops() {
    let plain = oops(Some(BEGAN), 100.0);
    // makedumpfile shows who printed a line in its own way.
    let with_caller = plain.replace("] ", "] [    T200] ");
    for log in [plain, with_caller] {
        let host = Host::new();
        host.kdump_log("202611231249/dmesg.202611231249", &log);
        let boots = [watched("b1", BEGAN, 40.0, Some(BEGAN + 600.0))];
        let (crashes, unclean) = host.gather_twice(&boots);
        let crash = only(&crashes);
        assert_eq!(unclean, Some(true));
        assert_eq!(
            (crash.record.kind, crash.ended_boot),
            (Kind::Oops, Some(true))
        );
        assert_eq!(crash.boot_id.as_deref(), Some("b1"));
        assert_eq!(crash.record.implicated, Implicated::Yes);
    }
}

#[test]
fn kdump_pstore_and_systemd_pstore_have_the_same_crash() {
    let host = Host::new();
    let (began, uptime) = (1_795_438_000, 100.0);
    let log = oops(Some(BEGAN), uptime);
    let boots = [watched("b1", BEGAN, 40.0, Some(BEGAN + 600.0))];
    // The monitor starts before systemd-pstore.
    host.efi("Oops", 1, began + 100, &log);
    host.efi("Panic", 2, began + 104, &panicked(&log, uptime + 4.0));
    let (crashes, _) = host.gather_twice(&boots);
    let crash = only(&crashes);
    assert_eq!(
        (crash.record.kind, crash.ended_boot),
        (Kind::Oops, Some(true))
    );
    assert_eq!(crash.record.panic.as_deref(), Some("Fatal exception"));
    assert_eq!(when(crash), (BEGAN + 100.0, Precision::Dump));
    // kdump's files appear by the next search, and the records are moved.
    host.kdump_log("127.0.0.1-2026-11-23-13:00/vmcore-dmesg.txt", &log);
    host.systemd_pstore();
    let (crashes, _) = host.gather_twice(&boots);
    let files = &only(&crashes).record.files;
    assert!(
        files.iter().all(|file| std::path::Path::new(file).exists()),
        "{files:?}"
    );
    assert!(files.iter().any(|file| file.contains("vmcore-dmesg")));
    // Nothing but the copies is left, two texts of one dump.
    let systemd = host.root.path().join("systemd");
    let fresh = Host::new();
    for folder in fs::read_dir(systemd).unwrap() {
        let folder = folder.unwrap().path();
        for count in ["001", "002"] {
            if let Ok(text) = fs::read(folder.join(count).join("dmesg.txt")) {
                let name = folder.file_name().unwrap().to_string_lossy();
                let to = fresh.root.path().join("systemd").join(&*name).join(count);
                fs::create_dir_all(&to).unwrap();
                fs::write(to.join("dmesg.txt"), text).unwrap();
            }
        }
    }
    let (crashes, _) = fresh.gather_twice(&boots);
    assert_eq!(only(&crashes).ended_boot, Some(true));
}

#[test]
fn what_was_noted_live_is_the_same_crash() {
    let host = Host::new();
    let mut boot = watched("b1", BEGAN, 40.0, Some(BEGAN + 600.0));
    // The log's clock is two seconds behind the boot's.
    let signal = Entry::Signal {
        signal: Signal::Oops,
        headline: OOPS.into(),
    };
    boot.entries.push(at(102.0, signal));
    let boot = Boot::new(boot.entries, boot.next_began, SOAK);
    let (crashes, _) = host.gather_twice(std::slice::from_ref(&boot));
    let id = only(&crashes).id.clone();
    host.kdump_log("202611231249/dmesg.202611231249", &oops(None, 100.0));
    let (crashes, _) = host.gather_twice(&[boot]);
    let crash = only(&crashes);
    assert_eq!((&crash.id, crash.ended_boot), (&id, Some(true)));
    assert_eq!(crash.record.function.as_ref().unwrap().name, "lpm_show");
    assert_eq!(
        crash.record.when.unix_seconds.unwrap().round(),
        BEGAN + 102.0
    );
}

/// Three boots, and a firmware whose clock is wrong until it is corrected: the crash is the
/// middle one's by its uptime and the journal, and its date is the journal's.
#[test]
fn a_wrong_firmware_clock_moves_no_crash() {
    for off in [-5.0 * HOUR, -2.0 * HOUR, 0.0, 2.0 * HOUR, 5.0 * HOUR] {
        let host = Host::new();
        let second = BEGAN - 2.0 * HOUR;
        let starts = [BEGAN - 4.0 * HOUR, second, second + 2400.0];
        let boots = [
            watched("b1", starts[0], 400.0, Some(starts[1])),
            watched("b2", starts[1], 2000.0, Some(starts[2])),
            watched("b3", starts[2], 300.0, Some(BEGAN + 600.0)),
        ];
        let log = oops(Some(starts[1] + off), 2100.0);
        host.kdump_log("202611231249/dmesg.202611231249", &log);
        let (crashes, _) = host.gather_twice(&boots);
        let of_dump: Vec<_> = crashes
            .iter()
            .filter(|crash| crash.record.kind == Kind::Oops)
            .collect();
        assert_eq!(of_dump.len(), 1, "{off}");
        assert_eq!(of_dump[0].boot_id.as_deref(), Some("b2"), "{off}");
        assert_eq!(when(of_dump[0]), (starts[1] + 2100.0, Precision::Journal));
        // The other two ended without a message.
        assert_eq!(crashes.len(), 3);
    }
}

/// This boot's clock is two hours behind: what the last one left has times within this boot.
#[test]
fn a_panic_is_never_the_running_boots() {
    let host = Host::new();
    let start = BEGAN + 2.0 * HOUR;
    let boots = [watched("b1", start, 40.0, Some(BEGAN + 600.0))];
    host.kdump_log("202611231449/dmesg.202611231449", &oops(Some(start), 100.0));
    let (crashes, unclean) = host.gather_twice(&boots);
    let crash = only(&crashes);
    assert_eq!(
        (crash.boot_id.as_deref(), unclean),
        (Some("b1"), Some(true))
    );
    assert_eq!(when(crash), (start + 100.0, Precision::Journal));
}

/// A log that has lost its beginning, of a boot whose log's clock is 1 % slow.
#[test]
fn uptime_and_journal_give_date_and_soak() {
    for (drift, soak) in [(1.0, 60.0), (0.99, 40.0)] {
        let host = Host::new();
        let ended = Entry::Ended {
            patch: Some("fix".into()),
            direction: Some(Direction::Patch),
            outcome: Some(Outcome::Completed),
            took_seconds: None,
        };
        let mut boot = watched("b1", BEGAN, 400.0, Some(BEGAN + 3000.0));
        boot.entries.push(at(1940.0, ended));
        let boot = Boot::new(boot.entries, boot.next_began, SOAK);
        host.kdump_log("202611231449/dmesg", &oops(None, 2000.0 * drift));
        let (crashes, _) = host.gather_twice(&[boot]);
        let record = &only(&crashes).record;
        assert_eq!(record.phase, Phase::Soak);
        let last = record.last_transition.as_ref().unwrap();
        let ago = last.seconds.unwrap();
        assert!((ago - 60.0).abs() <= soak, "{ago}");
        assert_eq!(when(only(&crashes)).1, Precision::Journal);
    }
}

#[test]
fn crashes_alike_to_the_microsecond_stay_apart() {
    let host = Host::new();
    let day = 24.0 * HOUR;
    for number in 0..3 {
        let log = oops(Some(BEGAN - f64::from(number) * 3.0 * day), 100.0);
        host.kdump_log(&format!("{number}/dmesg.{number}"), &log);
    }
    let (crashes, _) = host.gather_twice(&[]);
    assert_eq!(crashes.len(), 3);
}

#[test]
fn one_part_of_a_panic_is_a_panic() {
    let host = Host::new();
    fs::create_dir_all(host.root.path().join("pstore")).unwrap();
    let text = "Panic#1 Part5\n<6>[  901.1] livepatch: enabling patch 'fix'\n<5>[  901.2] livepatch: 'fix': starting patching transition\n";
    let id = ((1_795_438_000_u64 + 902) << 32) + 1;
    let file = host.root.path().join(format!("pstore/dmesg-erst-{id}"));
    fs::write(&file, text).unwrap();
    assert!(Header::parse(text.as_bytes()).is_some());
    let mut store = Store::open(host.root.path()).unwrap().store;
    let boots = [watched("b1", BEGAN, 880.0, Some(BEGAN + 1000.0))];
    let gathered = after_boot(&mut store, &boots, &host.this(), &host.sources(), SOAK);
    let crash = only(store.crashes());
    assert_eq!(
        crash.record.headline,
        "a panic of which pstore kept one part of 5"
    );
    assert_eq!(
        (crash.record.kind, crash.ended_boot),
        (Kind::Panic, Some(true))
    );
    assert_eq!(crash.boot_id.as_deref(), Some("b1"));
    assert_eq!(crash.record.implicated, Implicated::Unknown);
    assert!(gathered.problems[0].contains("4 of the dump's parts are not there"));
    // Nor will the next one fit.
    assert!(gathered.pstore_full.unwrap().contains("erst"));
}

#[test]
fn an_oops_that_was_survived_is_this_boots() {
    let host = Host::new();
    fs::create_dir_all(host.root.path().join("pstore")).unwrap();
    // The kernel's log of this boot has the line; the dates say nothing.
    let line = format!("1,7,100000000,-;{OOPS}\n");
    fs::write(host.root.path().join("kmsg"), line).unwrap();
    let log = oops(None, 100.0);
    for (part, text) in parts("Oops", 1, &log, 4096) {
        let name = format!("pstore/dmesg-ramoops-{}", part - 1);
        fs::write(host.root.path().join(name), text).unwrap();
    }
    let boots = [watched("b1", BEGAN, 40.0, Some(BEGAN + 600.0))];
    let (crashes, _) = host.gather_twice(&boots);
    let of_dump = crashes.iter().find(|crash| crash.record.kind == Kind::Oops);
    let crash = of_dump.unwrap();
    assert_eq!(
        (crash.boot_id.as_deref(), crash.ended_boot),
        (Some("b2"), Some(false))
    );
}

/// The store of EFI's variables was full after the oops: the panic that followed is not
/// there, but nothing of that boot is known after the oops.
#[test]
fn an_oops_and_nothing_after_it_ended_the_boot() {
    let host = Host::new();
    host.efi("Oops", 1, 1_795_438_100, &oops(Some(BEGAN), 100.0));
    let boots = [watched("b1", BEGAN, 40.0, Some(BEGAN + 600.0))];
    let (crashes, _) = host.gather_twice(&boots);
    assert_eq!(only(&crashes).ended_boot, Some(true));
    // It went on for long: what ended it later is another matter.
    let host = Host::new();
    host.efi("Oops", 1, 1_795_438_100, &oops(Some(BEGAN), 100.0));
    let boots = [watched("b1", BEGAN, 500.0, Some(BEGAN + 600.0))];
    let (crashes, _) = host.gather_twice(&boots);
    let kinds: Vec<_> = crashes
        .iter()
        .map(|it| (it.record.kind, it.ended_boot))
        .collect();
    assert_eq!(kinds, [(Kind::Oops, None), (Kind::Reset, Some(true))]);
}

#[test]
fn one_without_a_date_is_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap().store;
    let record = |uptime, unix_seconds| {
        let mut record = CrashRecord {
            headline: OOPS.into(),
            ..CrashRecord::empty(Kind::Oops)
        };
        record.when.uptime_seconds = Some(uptime);
        record.when.unix_seconds = unix_seconds;
        if unix_seconds.is_some() {
            record.when.precision = Precision::Dump;
        }
        record
    };
    store
        .put(record(1.0, Some(BEGAN)), None, Some(true))
        .unwrap();
    store.put(record(2.0, None), None, Some(true)).unwrap();
    let last = Store::open(directory.path()).unwrap().store;
    let last = last.crashes().last().unwrap().record.when;
    assert_eq!((last.uptime_seconds, last.unix_seconds), (Some(2.0), None));
}
