use std::{fs, os::unix::net::UnixListener, path::PathBuf, thread};

use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;

const NOW: Duration = Duration::from_millis(50);

fn folder() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name| path.join(name))
}

fn pipe(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
}

#[test]
fn what_is_no_regular_file_is_named() {
    let (_folder, at) = folder();
    pipe(&at("pipe"));
    let _socket = UnixListener::bind(at("socket")).unwrap();
    for (path, word) in [
        (at("."), "a directory"),
        (at("pipe"), "a pipe"),
        (at("socket"), "a socket"),
        ("/dev/zero".into(), "a device"),
        (at("absent"), "No such file"),
    ] {
        let error = read(&path, 10).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_file_is_read_up_to_its_limit() {
    let (_folder, at) = folder();
    fs::write(at("ten"), "0123456789").unwrap();
    assert_eq!(read(&at("ten"), 10).unwrap(), b"0123456789");
    assert_eq!(read_text(&at("ten"), 11).unwrap(), "0123456789");
    let error = read(&at("ten"), 9).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(10 << 30).unwrap();
    let error = read(&at("sparse"), 1 << 20).unwrap_err().to_string();
    assert_eq!(error, "larger than 1 MiB");
    fs::write(at("binary"), b"\xff\xfe").unwrap();
    let error = read_text(&at("binary"), 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn an_unwaiting_read_of_a_pipe_ends() {
    let (_folder, at) = folder();
    pipe(&at("pipe"));
    let mut bytes = Vec::new();
    let mut file = open_unwaiting(&at("pipe")).unwrap();
    assert_eq!(file.read_to_end(&mut bytes).unwrap(), 0);
}

#[test]
fn a_stream_ends_or_is_given_up() {
    let (_folder, at) = folder();
    pipe(&at("pipe"));
    let error = read_stream(&at("pipe"), 10, NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let writer = thread::spawn({
        let path = at("pipe");
        move || fs::write(path, "0123456789")
    });
    let patience = Duration::from_secs(20);
    assert_eq!(
        read_stream(&at("pipe"), 100, patience).unwrap(),
        b"0123456789"
    );
    writer.join().unwrap().unwrap();
    let endless = Path::new("/dev/zero");
    assert_eq!(read_stream(endless, 1000, patience).unwrap().len(), 1000);
    fs::write(at("file"), "text").unwrap();
    assert_eq!(read_stream(&at("file"), 100, patience).unwrap(), b"text");
}
