//! The sandbox on this machine's kernel: what must not work fails, the rest works.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod attempts;
mod users;

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
};

use livepatch_monitor::sandbox::{self, Allowed, Cap, CapSet, Part, Sandbox};
use livepatch_monitor_test_support::left_out;

use attempts::{
    attempt, executable_memory, fork, give_away, load_bpf, message_to, parent, signal_parent,
};

/// Runs in a thread of its own, because a sandbox is permanent for its thread.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A field of this thread's status.
fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

fn is_root() -> bool {
    status("CapEff") != "0000000000000000"
}

/// What fails without the sandbox for root too, where the kernel is locked down or the
/// machine is a container or has no such device.
const MAY_FAIL_FOR_ROOT: &[&str] = &["/dev/mem", "load BPF", "load BPF (seccomp)", "mount"];

/// What other users may not do, and what Yama keeps from them.
const MAY_FAIL_FOR_OTHERS: &[&str] = &[
    "/etc/shadow",
    "/dev/mem",
    "load BPF",
    "give a file away",
    "mount",
    "trace the parent",
    "read the parent's memory",
    "perf events",
    "load BPF (seccomp)",
    "type into the terminal",
];

/// Folders to read, to write, and to leave alone.
struct Places {
    root: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["read", "write", "elsewhere"] {
            fs::create_dir(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("file"), "text").unwrap();
        }
        Self { root }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    fn enter(&self) -> Sandbox {
        sandbox::enter(&Allowed {
            read: vec![self.at("read"), "/proc".into(), self.at("no-such-folder")],
            write: vec![self.at("write")],
            ..Allowed::default()
        })
    }
}

#[test]
fn what_is_forbidden_fails() {
    let places = Places::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let write = |path: &Path| File::options().append(true).open(path).map(drop);
    let _paths = [
        UnixListener::bind(places.at("elsewhere/socket")).map(OwnedFd::from),
        UnixDatagram::bind(places.at("elsewhere/datagrams")).map(OwnedFd::from),
    ];
    let abstract_name = format!("livepatch-monitor-test-{}", std::process::id());
    let abstract_name = SocketAddr::from_abstract_name(abstract_name).unwrap();
    let _abstract = UnixListener::bind_addr(&abstract_name).unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = UnixDatagram::unbound().unwrap();
    type Attempt<'a> = (Part, &'a str, Box<dyn Fn() -> io::Result<()> + Sync + 'a>);
    let outside = places.at("elsewhere/file");
    let attempts: Vec<Attempt<'_>> = vec![
        (
            Part::Files,
            "read elsewhere",
            Box::new(|| fs::read(&outside).map(drop)),
        ),
        (
            Part::Files,
            "list elsewhere",
            Box::new(|| fs::read_dir(places.at("elsewhere")).map(drop)),
        ),
        (Part::Files, "write elsewhere", Box::new(|| write(&outside))),
        (
            Part::Files,
            "write what is read",
            Box::new(|| write(&places.at("read/file"))),
        ),
        (
            Part::Files,
            "make a file elsewhere",
            Box::new(|| fs::write(places.at("elsewhere/new"), "")),
        ),
        (
            Part::Files,
            "make a directory elsewhere",
            Box::new(|| {
                fs::create_dir(places.at("elsewhere/directory"))?;
                fs::remove_dir(places.at("elsewhere/directory"))
            }),
        ),
        (
            Part::Files,
            "move a file out",
            Box::new(|| {
                let (from, to) = (places.at("write/file"), places.at("elsewhere/moved"));
                fs::rename(&from, &to)?;
                fs::rename(to, from)
            }),
        ),
        (
            Part::Files,
            "/etc/shadow",
            Box::new(|| write(Path::new("/etc/shadow"))),
        ),
        (
            Part::Files,
            "/etc/passwd",
            Box::new(|| fs::read("/etc/passwd").map(drop)),
        ),
        (
            Part::Files,
            "run a program",
            Box::new(|| Command::new("/bin/true").status().map(drop)),
        ),
        (
            Part::Capabilities,
            "/dev/mem",
            Box::new(|| File::open("/dev/mem").map(drop)),
        ),
        (Part::Capabilities, "load BPF", Box::new(load_bpf)),
        (
            Part::Capabilities,
            "give a file away",
            Box::new(|| give_away(&places.at("write/file"))),
        ),
        (
            Part::Truncation,
            "truncate elsewhere",
            Box::new(|| {
                let path = std::ffi::CString::new(outside.to_str().unwrap()).unwrap();
                // SAFETY: the path is a string that ends with NUL.
                match unsafe { libc::truncate(path.as_ptr(), 2) } {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            }),
        ),
        (
            Part::Tcp,
            "listen",
            Box::new(|| TcpListener::bind("127.0.0.1:0").map(drop)),
        ),
        (
            Part::Tcp,
            "connect",
            Box::new(|| TcpStream::connect(address).map(drop)),
        ),
        (Part::Signals, "signal", Box::new(signal_parent)),
        (
            Part::SystemCalls,
            "signal (seccomp)",
            Box::new(signal_parent),
        ),
        (
            Part::SystemCalls,
            "connect to a UNIX socket",
            Box::new(|| UnixStream::connect(places.at("elsewhere/socket")).map(drop)),
        ),
        (
            Part::SystemCalls,
            "connect to an abstract UNIX socket",
            Box::new(|| UnixStream::connect_addr(&abstract_name).map(drop)),
        ),
        (
            Part::SystemCalls,
            "open a UDP socket",
            Box::new(|| UdpSocket::bind("127.0.0.1:0").map(drop)),
        ),
        (
            Part::SystemCalls,
            "send on an open UDP socket",
            Box::new(|| datagrams.send_to(b"x", address).map(drop)),
        ),
        (
            Part::SystemCalls,
            "connect an open UDP socket",
            Box::new(|| datagrams.connect(address)),
        ),
        (
            Part::SystemCalls,
            "send on an open UNIX socket",
            Box::new(|| {
                local
                    .send_to(b"x", places.at("elsewhere/datagrams"))
                    .map(drop)
            }),
        ),
        (
            Part::SystemCalls,
            "send a message with an address",
            Box::new(|| message_to(&local, &places.at("elsewhere/datagrams"))),
        ),
        (
            Part::SystemCalls,
            "run a program",
            Box::new(|| Command::new("/bin/true").status().map(drop)),
        ),
        (
            Part::SystemCalls,
            "fork",
            // A task that is not a thread of this process, and exits at once.
            Box::new(fork),
        ),
        (
            Part::SystemCalls,
            "trace the parent",
            Box::new(|| {
                attempt(
                    libc::SYS_ptrace,
                    [libc::PTRACE_SEIZE.into(), parent(), 0, 0, 0],
                )
            }),
        ),
        (
            Part::SystemCalls,
            "read the parent's memory",
            Box::new(|| attempt(libc::SYS_process_vm_readv, [parent(), 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "limit the parent's resources",
            Box::new(|| {
                let limit = libc::RLIMIT_CPU.into();
                attempt(libc::SYS_prlimit64, [parent(), limit, 0, 0, 0])
            }),
        ),
        (
            Part::SystemCalls,
            "keep the parent from processors",
            Box::new(|| attempt(libc::SYS_sched_setaffinity, [parent(), 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "change how the parent is scheduled",
            Box::new(|| attempt(libc::SYS_sched_setscheduler, [parent(), -1, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "change the parent's scheduling parameters",
            Box::new(|| attempt(libc::SYS_sched_setparam, [parent(), 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "change the parent's scheduling attributes",
            Box::new(|| attempt(libc::SYS_sched_setattr, [parent(), 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "change the parent's I/O priority",
            Box::new(|| attempt(libc::SYS_ioprio_set, [1, parent(), -1, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "migrate the parent's pages",
            Box::new(|| attempt(libc::SYS_migrate_pages, [parent(), 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "move the parent's pages",
            Box::new(|| attempt(libc::SYS_move_pages, [parent(), 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "advise about a process's memory",
            Box::new(|| attempt(libc::SYS_process_madvise, [-1, 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "have the kernel signal the parent",
            Box::new(|| attempt(libc::SYS_fcntl, [-1, 8, parent(), 0, 0])),
        ),
        (
            Part::SystemCalls,
            "choose the signal that the kernel sends",
            Box::new(|| attempt(libc::SYS_fcntl, [-1, 10, 9, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "shared memory of System V",
            Box::new(|| attempt(libc::SYS_shmget, [1, 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "messages of System V",
            Box::new(|| attempt(libc::SYS_msgsnd, [-1, 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "semaphores of System V",
            Box::new(|| attempt(libc::SYS_semop, [-1, 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "message queues",
            Box::new(|| attempt(libc::SYS_mq_open, [0; 5])),
        ),
        (
            Part::SystemCalls,
            "mount",
            Box::new(|| attempt(libc::SYS_mount, [0; 5])),
        ),
        (
            Part::SystemCalls,
            "enter another namespace",
            Box::new(|| attempt(libc::SYS_setns, [-1, 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "io_uring",
            Box::new(|| attempt(libc::SYS_io_uring_setup, [0; 5])),
        ),
        (
            Part::SystemCalls,
            "perf events",
            Box::new(|| attempt(libc::SYS_perf_event_open, [0; 5])),
        ),
        (
            Part::SystemCalls,
            "load BPF (seccomp)",
            Box::new(|| attempt(libc::SYS_bpf, [5, 0, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "type into the terminal",
            Box::new(|| attempt(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "executable memory",
            Box::new(executable_memory),
        ),
        (
            Part::SystemCalls,
            "executable memory by a key",
            // No pages, readable, writable and executable, with the default key.
            Box::new(|| attempt(libc::SYS_pkey_mprotect, [0, 0, 7, -1, 0])),
        ),
        (
            Part::SystemCalls,
            "make a pipe with a name",
            Box::new(|| {
                let path = places.at("write/pipe");
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into())?;
                fs::remove_file(path)
            }),
        ),
    ];
    // An action shows that the sandbox blocks it only if it works without the sandbox.
    let (work, do_not): (Vec<_>, Vec<_>) = attempts
        .iter()
        .partition(|(_, _, attempt)| attempt().is_ok());
    let do_not: Vec<_> = do_not.into_iter().map(|(_, what, _)| *what).collect();
    for what in &do_not {
        left_out(what, "it fails without the sandbox too");
    }
    // Every other row shows something, on every machine.
    let may_fail = match is_root() {
        true => MAY_FAIL_FOR_ROOT,
        false => MAY_FAIL_FOR_OTHERS,
    };
    let unexpected = do_not.iter().filter(|what| !may_fail.contains(what));
    assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&&str>::new());
    let (sandbox, done) = aside(|| {
        let sandbox = places.enter();
        let done: Vec<_> = work
            .iter()
            .filter(|(part, _, attempt)| sandbox.holds.contains(part) && attempt().is_ok())
            .map(|(_, what, _)| *what)
            .collect();
        (sandbox, done)
    });
    assert_eq!(done, Vec::<&str>::new());
    assert!(sandbox.holds.contains(&Part::NoNewPrivs), "{sandbox:?}");
    assert!(sandbox.holds.contains(&Part::Capabilities), "{sandbox:?}");
    // What is not enforced is reported.
    let all = sandbox.holds.len() == Part::ALL.len();
    let reported = sandbox.degradations.iter().map(|one| one.what.as_str());
    let reported: Vec<_> = reported
        .filter(|what| !what.contains("threads started before"))
        .collect();
    assert_eq!(reported.is_empty(), all, "{sandbox:?}");
}

#[test]
fn what_is_allowed_works() {
    let places = Places::new();
    aside(|| {
        let sandbox = places.enter();
        assert_eq!(fs::read(places.at("read/file")).unwrap(), b"text");
        fs::create_dir(places.at("write/folder")).unwrap();
        fs::write(places.at("write/folder/new"), "new").unwrap();
        fs::rename(
            places.at("write/folder/new"),
            places.at("write/folder/newer"),
        )
        .unwrap();
        File::options()
            .write(true)
            .open(places.at("write/folder/newer"))
            .and_then(|file| file.set_len(1))
            .unwrap();
        fs::remove_file(places.at("write/folder/newer")).unwrap();
        if sandbox.holds.contains(&Part::Truncation) {
            fs::rename(places.at("write/file"), places.at("write/folder/file")).unwrap();
        }
        assert_eq!(status("NoNewPrivs"), "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(set), "0000000000000000", "{set}");
        }
        // A thread that is started later is sandboxed too.
        let inherited = aside(|| {
            (
                status("CapEff"),
                fs::read(places.at("elsewhere/file")).is_err(),
            )
        });
        let files = sandbox.holds.contains(&Part::Files);
        assert_eq!(inherited, ("0000000000000000".to_owned(), files));
    });
}

#[test]
fn other_threads_are_reported() {
    let sandbox = aside(|| Places::new().enter());
    let reported = sandbox
        .degradations
        .iter()
        .any(|one| one.what.contains("threads started before"));
    assert!(reported, "{sandbox:?}");
}

#[test]
fn what_is_needed_is_kept() {
    if !is_root() {
        left_out("capabilities that are needed are kept", "it takes root");
        return;
    }
    let places = Places::new();
    aside(|| {
        let mine = places.at("write/file");
        let candidates = [Cap::SYS_NICE, Cap::CHOWN, Cap::SYS_TIME];
        assert_eq!(sandbox::needed(&candidates, || true), CapSet::empty());
        assert_eq!(sandbox::needed(&candidates, || false), CapSet::empty());
        let needed = sandbox::needed(&candidates, || give_away(&mine).is_ok());
        assert_eq!(needed, CapSet::from_iter([Cap::SYS_NICE, Cap::CHOWN]));
        // Nothing has changed.
        assert!(status("CapEff") == status("CapPrm") && is_root());

        let sandbox = sandbox::enter(&Allowed {
            write: vec![places.at("write")],
            read: vec!["/proc".into()],
            capabilities: CapSet::from_iter([Cap::CHOWN]),
            ..Allowed::default()
        });
        assert_eq!(sandbox.kept, CapSet::from_iter([Cap::CHOWN]));
        assert!(!sandbox.holds.contains(&Part::Capabilities));
        assert_eq!(status("CapEff"), "0000000000000001");
        assert_eq!(status("CapBnd"), "0000000000000000");
        give_away(&mine).unwrap();
    });
}
