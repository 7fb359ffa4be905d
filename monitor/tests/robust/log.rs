//! A log that cannot be written.

use std::{
    fs::{self, File, OpenOptions},
    io::Read as _,
    process::Stdio,
};

use livepatch_monitor_test_support::host::FakeHost;

use crate::Monitor;

const LOST: &str = "livepatch_monitor_log_lines_lost_total";

/// A host on which each scrape can be made to log a problem.
fn host() -> FakeHost {
    let host = FakeHost::default();
    host.create_dir("sys/kernel/livepatch");
    host
}

/// Makes a scrape log a line, because the problem differs from the one before.
#[track_caller]
fn complain(host: &FakeHost, monitor: &Monitor, number: usize) {
    let enabled = format!("sys/kernel/livepatch/fix{number}/enabled");
    host.write(&enabled, format!("invalid {number}\n"));
    monitor.metrics();
    fs::remove_dir_all(host.path(&enabled).parent().unwrap()).unwrap();
}

/// Lost log lines are counted, and affect neither the process nor its responses.
#[track_caller]
fn goes_on(host: &FakeHost, monitor: Monitor) {
    let before = monitor.value(LOST);
    for number in 0..5 {
        complain(host, &monitor, number);
    }
    let lost = monitor.value(LOST) - before;
    assert!(lost >= 5.0, "{lost} lines counted");
    assert_eq!(monitor.stop(), Some(0));
}

#[test]
fn the_reader_of_the_log_has_gone() {
    let host = host();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let monitor = Monitor::start(&host, "", writer);
    monitor.metrics();
    // It already existed at the start.
    assert!(reader.read(&mut [0; 64]).unwrap() > 0);
    drop(reader);
    goes_on(&host, monitor);
}

#[test]
fn the_disk_of_the_log_is_full() {
    let host = host();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let monitor = Monitor::start(&host, "", full);
    // Every line of the start is lost too.
    assert!(monitor.value(LOST) >= 1.0);
    goes_on(&host, monitor);
}

/// The reader is alive and does not read, so the pipe is full.
#[test]
fn the_reader_of_the_log_hangs() {
    let host = host();
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let monitor = Monitor::start(&host, "", writer);
    for number in 0..60 {
        complain(&host, &monitor, 100 + number);
    }
    goes_on(&host, monitor);
    drop(reader);
}

#[test]
fn the_log_file_has_reached_its_limit_and_can_grow_again() {
    let host = host();
    let path = host.path("log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap();
    // In units of 512 bytes (POSIX) or 1024: the file has room for the lines of the start.
    let monitor = Monitor::start(&host, "ulimit -f 16;", Stdio::from(log));
    let mut number = 0;
    while monitor.value(LOST) < 3.0 {
        complain(&host, &monitor, number);
        number += 1;
        assert!(number < 2000, "no line is lost");
    }
    let lost = monitor.value(LOST);
    fs::write(&path, "").unwrap();
    complain(&host, &monitor, number);
    let text = fs::read_to_string(&path).unwrap();
    let report = text
        .lines()
        .find(|line| line.contains("can be written again"));
    let report = report.unwrap_or_else(|| panic!("no report in {text}"));
    assert!(report.contains(&format!("lines={lost}")), "{report}");
    assert!(report.contains("File too large"), "{report}");
    // The next line does not continue the torn one.
    assert!(
        !text.lines().any(|line| line.matches("WARN").count() > 1),
        "{text}"
    );
    assert_eq!(monitor.value(LOST).to_bits(), lost.to_bits());
    assert_eq!(monitor.stop(), Some(0));
}
