//! The process ends in time, whoever delays it.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use livepatch_core::journal::{entry::Entry, frame};
use livepatch_monitor_test_support::host::{BOOT_ID, FakeHost};
use rustix::process::Signal;

use crate::Monitor;

/// The last entry of the journal on the disk.
fn last_entry(host: &FakeHost) -> Option<Entry> {
    let file = host.path(&format!("state/recorder/{BOOT_ID}.rec"));
    let decoded = frame::decode(&fs::read(file).ok()?).ok()?;
    decoded
        .entries
        .into_iter()
        .last()
        .map(|recorded| recorded.entry)
}

#[test]
fn a_slow_reader_does_not_turn_a_clean_stop_into_a_crash() {
    let host = FakeHost::default();
    let mut monitor = Monitor::start(&host, "", std::process::Stdio::null());
    monitor.metrics();
    // Far more answers than the sockets hold between them, and nobody reads them.
    let mut slow = TcpStream::connect(&monitor.address).unwrap();
    slow.set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let full = loop {
        if let Err(error) = slow.write_all(request) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
    // The monitor waits for the reader once nothing more arrives.
    let mut before = None;
    while before != Some(rustix::io::ioctl_fionread(&slow).unwrap()) {
        before = Some(rustix::io::ioctl_fionread(&slow).unwrap());
        thread::sleep(Duration::from_millis(500));
    }
    monitor.signal(Signal::TERM);
    while last_entry(&host) != Some(Entry::Stopped) {
        assert_eq!(monitor.child.try_wait().unwrap(), None, "no last entry");
        thread::sleep(Duration::from_millis(5));
    }
    // It is still waiting for the reader: a kill at this point does not turn the stop into a crash.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(monitor.child.try_wait().unwrap(), None, "it has ended");
    // Responses in progress arrive complete, and the connection is closed, not reset.
    let mut answers = Vec::new();
    slow.read_to_end(&mut answers).unwrap();
    assert_whole(&answers);
    assert_eq!(monitor.code(), Some(0));
    assert_eq!(last_entry(&host), Some(Entry::Stopped));
}

/// Each response has the length that it announces.
#[track_caller]
fn assert_whole(mut answers: &[u8]) {
    assert!(!answers.is_empty());
    while !answers.is_empty() {
        let end = answers.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, rest) = answers.split_at(end.expect("a head is cut short") + 4);
        let head = String::from_utf8_lossy(head).to_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        assert!(rest.len() >= length, "{} of {length} bytes", rest.len());
        answers = &rest[length..];
    }
}

#[test]
fn what_was_asked_before_the_end_is_answered_whole() {
    let host = FakeHost::default();
    let mut monitor = Monitor::start(&host, "", std::process::Stdio::null());
    monitor.metrics();
    // The monitor is stopped, so it reads none of these before the signal.
    monitor.signal(Signal::STOP);
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(&monitor.address).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            stream
        })
        .collect();
    monitor.signal(Signal::TERM);
    monitor.signal(Signal::CONT);
    for mut stream in asked {
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::ConnectionReset, "{answer}");
                panic!("{error}");
            }
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with('\n'), "{answer}");
    }
    assert_eq!(monitor.code(), Some(0));
}
