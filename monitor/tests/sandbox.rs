//! The sandbox on this machine's kernel: what must not work does not, the rest does.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::Command,
    thread,
};

use livepatch_monitor::sandbox::{self, Allowed, Cap, CapSet, Part, Sandbox};
use livepatch_monitor_test_support::left_out;

/// Runs in a thread of its own: a sandbox binds the thread for good.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A value of this thread's status.
fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

fn is_root() -> bool {
    status("CapEff") != "0000000000000000"
}

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

/// Loads a program that does nothing, as a probe.
fn load_bpf() -> io::Result<()> {
    const PROG_LOAD: libc::c_int = 5;
    const KPROBE: u32 = 2;
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        code: u64,
        licence: u64,
        rest: [u64; 14],
    }
    // r0 = 0; exit
    let code: [u64; 2] = [0xb7, 0x95];
    let load = Load {
        kind: KPROBE,
        instructions: 2,
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        rest: [0; 14],
    };
    // SAFETY: the attributes, the code and the licence outlive the call, which only
    // reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { libc::close(i32::try_from(fd).unwrap()) };
    Ok(())
}

/// Asks whether the parent could be signalled.
fn signal_parent() -> io::Result<()> {
    // SAFETY: signal 0 signals nothing.
    match unsafe { libc::kill(libc::getppid(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A system call that fails for another reason than that it is refused has worked: these
/// have arguments that no kernel takes.
fn attempt(number: libc::c_long, arguments: [libc::c_long; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the pointers among the arguments are null or lengths of nothing.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    match io::Error::last_os_error() {
        error if result < 0 && error.raw_os_error() == Some(libc::EPERM) => Err(error),
        _ => Ok(()),
    }
}

fn parent() -> libc::c_long {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::getppid() }.into()
}

/// Starts a process that ends at once.
fn fork() -> io::Result<()> {
    // SAFETY: without a stack of its own it is a fork; the child only ends.
    match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
        // SAFETY: the child of a fork may end.
        0 => unsafe { libc::_exit(0) },
        child if child > 0 => {
            let child = i32::try_from(child).unwrap();
            // SAFETY: a status is not asked for.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn executable_memory() -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, where the kernel likes.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, kind, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping from above, which nobody uses.
    unsafe { libc::munmap(address, 4096) };
    Ok(())
}

/// Sends by sendmsg(), which carries its address behind a pointer.
fn message_to(socket: &UnixDatagram, path: &Path) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, SocketAddrUnix, sendmsg_addr};
    let address = SocketAddrUnix::new(path)?;
    let text = [io::IoSlice::new(b"x")];
    let mut nothing = SendAncillaryBuffer::default();
    sendmsg_addr(socket, &address, &text, &mut nothing, SendFlags::empty())?;
    Ok(())
}

/// Takes another user's files for its own.
fn give_away(path: &Path) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(1), None)
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
        (Part::SystemCalls, "signal (seccomp)", Box::new(signal_parent)),
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
            Box::new(|| local.send_to(b"x", places.at("elsewhere/datagrams")).map(drop)),
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
            // A thread that is no thread of this process, and ends at once.
            Box::new(fork),
        ),
        (
            Part::SystemCalls,
            "trace the parent",
            Box::new(|| attempt(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), parent(), 0, 0, 0])),
        ),
        (
            Part::SystemCalls,
            "read the parent's memory",
            Box::new(|| attempt(libc::SYS_process_vm_readv, [parent(), 0, 0, 0, 0])),
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
            "make a pipe with a name",
            Box::new(|| {
                let path = places.at("write/pipe");
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into())?;
                fs::remove_file(path)
            }),
        ),
    ];
    // Only what works without the sandbox shows that the sandbox keeps from it.
    let (work, do_not): (Vec<_>, Vec<_>) = attempts
        .iter()
        .partition(|(_, _, attempt)| attempt().is_ok());
    for (_, what, _) in do_not {
        left_out(what, "it fails without the sandbox too");
    }
    assert!(work.len() >= 27, "{} attempts work", work.len());
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
    // What does not hold is reported.
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
        // A thread that is started later is in it too.
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
        // Everything is as before.
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

/// As on a kernel without Landlock.
fn enter_without_landlock(places: &Places, read: Vec<std::path::PathBuf>) -> Sandbox {
    sandbox::enter(&Allowed {
        read,
        write: vec![places.at("write")],
        state_dir: Some(places.at("write")),
        without_landlock: Some("a test"),
        ..Allowed::default()
    })
}

#[test]
fn without_landlock_root_becomes_another_user() {
    if !is_root() {
        left_out("root becomes another user", "it takes root");
        return;
    }
    let places = Places::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(places.at(""), open).unwrap();
    fs::write(places.at("elsewhere/secret"), "root's").unwrap();
    let secret = places.at("elsewhere/secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    aside(|| {
        let sandbox = enter_without_landlock(&places, vec![places.at("read"), "/proc".into()]);
        let user = status("Uid");
        assert!(!user.split_whitespace().any(|id| id == "0"), "{user} {sandbox:?}");
        assert_eq!(status("Groups"), "");
        assert_eq!(status("CapPrm"), "0000000000000000");
        // Root's files are no longer its own, what it must use still is.
        assert!(File::open(&secret).is_err());
        assert!(File::options().append(true).open(places.at("read/file")).is_err());
        assert_eq!(fs::read(places.at("read/file")).unwrap(), b"text");
        fs::write(places.at("write/file"), "own").unwrap();
        fs::write(places.at("write/new"), "own").unwrap();
    });
}

#[test]
fn root_stays_where_another_user_could_not_read() {
    if !is_root() {
        left_out("root stays root", "it takes root");
        return;
    }
    let places = Places::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(places.at(""), open).unwrap();
    let key = places.at("read/file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    aside(|| {
        let sandbox = enter_without_landlock(&places, vec![places.at("read"), key.clone()]);
        assert!(status("Uid").starts_with('0'));
        let key = key.display().to_string();
        let named = sandbox.degradations.iter().any(|one| one.what.contains(&key));
        assert!(named, "{sandbox:?}");
        fs::write(places.at("write/new"), "own").unwrap();
    });
}
