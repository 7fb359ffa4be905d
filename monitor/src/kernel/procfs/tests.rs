use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A task as /proc shows it.
struct Task<'a> {
    tid: u32,
    tgid: u32,
    comm: &'a [u8],
    patch_state: &'a str,
    stack: &'a str,
}

fn procfs(tasks: &[Task<'_>]) -> TempDir {
    let procfs = tempfile::tempdir().unwrap();
    for task in tasks {
        let directory = thread(&procfs, task.tgid, task.tid);
        fs::create_dir_all(&directory).unwrap();
        let flags = if task.tgid == 2 {
            PF_KTHREAD | 0x40
        } else {
            0x40_0000
        };
        let mut stat = format!("{} (", task.tid).into_bytes();
        stat.extend(task.comm);
        stat.extend(
            format!(
                ") S 1 1 1 0 -1 {flags} 9 9 9 9 9 9 9 9 20 0 1 0 {} 9\n",
                task.tid * 10
            )
            .bytes(),
        );
        fs::write(directory.join("stat"), stat).unwrap();
        fs::write(directory.join("patch_state"), task.patch_state).unwrap();
        fs::write(directory.join("stack"), task.stack).unwrap();
        fs::write(directory.join("wchan"), "target_sleep").unwrap();
    }
    // Other entries of /proc.
    fs::create_dir_all(procfs.path().join("sys/kernel/random")).unwrap();
    fs::write(procfs.path().join("uptime"), "1 1").unwrap();
    symlink("1", procfs.path().join("self")).unwrap();
    procfs
}

fn thread(procfs: &TempDir, tgid: u32, tid: u32) -> PathBuf {
    procfs.path().join(format!("{tgid}/task/{tid}"))
}

const STACK: &str = "[<0>] target_sleep+0x1f/0x40 [klp_target]\n[<0>] proc_reg_read+0x56/0xa0\n";

fn four_tasks() -> TempDir {
    procfs(&[
        Task {
            tid: 1,
            tgid: 1,
            comm: b"init",
            patch_state: "1\n",
            stack: "",
        },
        Task {
            tid: 2,
            tgid: 2,
            comm: b"kthreadd",
            patch_state: "0\n",
            stack: STACK,
        },
        Task {
            tid: 30,
            tgid: 30,
            comm: b"a) R 1 (b",
            patch_state: "1\n",
            stack: STACK,
        },
        Task {
            tid: 31,
            tgid: 30,
            comm: b"odd\\n\\\\\xff)",
            patch_state: "0\n",
            stack: STACK,
        },
        Task {
            tid: 40,
            tgid: 40,
            comm: b"young",
            patch_state: "-1\n",
            stack: STACK,
        },
    ])
}

#[test]
fn pending_tasks_are_described() {
    let procfs = four_tasks();
    let walk = pending_tasks(procfs.path(), 1).unwrap();
    assert_eq!((walk.visited, walk.pending, walk.idle), (5, 2, 1));
    assert_eq!((walk.denied, walk.stack_denied), (0, 0));
    let [kthread, user] = &walk.tasks[..] else {
        panic!("{walk:?}")
    };
    assert_eq!((kthread.tid, kthread.tgid, kthread.kthread), (2, 2, true));
    assert_eq!(user.comm, b"odd\n\\\xff)");
    assert_eq!((user.tid, user.tgid, user.kthread), (31, 30, false));
    assert_eq!(
        (user.state, user.patch_state, user.start_ticks),
        ('S', 0, 310)
    );
    assert_eq!(user.wchan.as_deref(), Some("target_sleep"));
    let frame = CodePlace {
        name: "target_sleep".to_owned(),
        offset: Some(0x1f),
        size: Some(0x40),
        module: Some("klp_target".to_owned()),
    };
    assert_eq!(user.frames[0], frame);
    assert_eq!(user.frames.len(), 2);
    // The other direction.
    let back = pending_tasks(procfs.path(), 0).unwrap();
    assert_eq!(
        back.tasks.iter().map(|task| task.tid).collect::<Vec<_>>(),
        [1, 30]
    );
    assert_eq!(back.tasks[1].comm, b"a) R 1 (b");
}

#[test]
fn tasks_that_end_meanwhile_are_passed_over() {
    let procfs = four_tasks();
    // Between the listing and each file that is read.
    fs::remove_file(thread(&procfs, 2, 2).join("stat")).unwrap();
    fs::remove_file(thread(&procfs, 30, 30).join("patch_state")).unwrap();
    fs::remove_file(thread(&procfs, 30, 31).join("stack")).unwrap();
    fs::remove_file(thread(&procfs, 30, 31).join("wchan")).unwrap();
    fs::remove_dir_all(procfs.path().join("40/task")).unwrap();
    let walk = pending_tasks(procfs.path(), 1).unwrap();
    assert_eq!((walk.visited, walk.pending), (3, 1));
    assert_eq!((walk.tasks[0].tid, &walk.tasks[0].wchan), (31, &None));
    assert!(walk.tasks[0].frames.is_empty());
}

#[test]
fn what_may_not_be_read_is_counted() {
    for errno in [Errno::PERM, Errno::ACCESS] {
        let denied: io::Result<()> = Err(errno.into());
        assert!(
            matches!(sort_out(Path::new("x"), denied), Ok(Reading::Denied)),
            "{errno}"
        );
    }
    for errno in [Errno::NOENT, Errno::SRCH] {
        let absent: io::Result<()> = Err(errno.into());
        assert!(
            matches!(sort_out(Path::new("x"), absent), Ok(Reading::Absent)),
            "{errno}"
        );
    }
    let failed: io::Result<()> = Err(Errno::IO.into());
    assert!(matches!(
        sort_out(Path::new("x"), failed),
        Err(ProcError::Read { .. })
    ));
    let procfs = four_tasks();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(procfs.path(), 0o755);
    mode(&thread(&procfs, 30, 31).join("stack"), 0o000);
    mode(&thread(&procfs, 2, 2).join("patch_state"), 0o000);
    // Root ignores file modes, so a thread first gives up its capabilities.
    let walk = std::thread::scope(|scope| {
        let walker = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::process::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            pending_tasks(procfs.path(), 1).unwrap()
        });
        walker.join().unwrap()
    });
    assert_eq!((walk.denied, walk.stack_denied, walk.pending), (1, 1, 1));
    assert_eq!(walk.tasks[0].tid, 31);
}

#[test]
fn a_kernel_without_livepatch_is_reported() {
    let procfs = four_tasks();
    for (tgid, tid) in [(1, 1), (2, 2), (30, 30), (30, 31), (40, 40)] {
        fs::remove_file(thread(&procfs, tgid, tid).join("patch_state")).unwrap();
    }
    assert!(matches!(
        pending_tasks(procfs.path(), 1),
        Err(ProcError::NoPatchState { .. })
    ));
    let nothing = procfs.path().join("nothing");
    assert!(matches!(
        pending_tasks(&nothing, 1),
        Err(ProcError::Read { .. })
    ));
}

#[test]
fn nonsense_is_an_error_with_its_file() {
    let procfs = four_tasks();
    let path = thread(&procfs, 2, 2).join("patch_state");
    fs::write(&path, "yes\n").unwrap();
    let error = pending_tasks(procfs.path(), 1).unwrap_err().to_string();
    assert!(error.contains("2/task/2/patch_state"), "{error}");
    fs::write(&path, "0\n").unwrap();
    fs::write(thread(&procfs, 2, 2).join("stat"), "2 (kthreadd S\n").unwrap();
    assert!(matches!(
        pending_tasks(procfs.path(), 1),
        Err(ProcError::Malformed { .. })
    ));
}

#[test]
fn more_pending_tasks_than_are_described_are_counted() {
    let tasks: Vec<_> = (1..=u32::try_from(MAX_TASKS).unwrap() + 3)
        .map(|tid| Task {
            tid,
            tgid: 9,
            comm: b"many",
            patch_state: "0",
            stack: "",
        })
        .collect();
    let walk = pending_tasks(procfs(&tasks).path(), 1).unwrap();
    assert_eq!((walk.tasks.len(), walk.pending), (MAX_TASKS, MAX_TASKS + 3));
}

#[test]
fn frames_of_every_form() {
    let frame = |line: &str| parse_frame(line.as_bytes());
    let named = frame("[<0>] __x64_sys_read+0x0/0x20").unwrap();
    assert_eq!(
        (named.name.as_str(), named.offset, named.size),
        ("__x64_sys_read", Some(0), Some(32))
    );
    // Generated code has a pseudo-module.
    let bpf = frame("[<0>] bpf_trampoline_6442+0x5c/0x1000 [bpf]").unwrap();
    assert_eq!(
        (bpf.name.as_str(), bpf.module.as_deref()),
        ("bpf_trampoline_6442", Some("bpf"))
    );
    let bare = frame("[<0>] 0xffffffffc0001234").unwrap();
    assert_eq!(
        (bare.name.as_str(), bare.offset),
        ("0xffffffffc0001234", None)
    );
    let part = frame("[<ffffffff81234567>] a.part.0+0x1/0x2").unwrap();
    assert_eq!(part.name, "a.part.0");
    for none in [
        "",
        "[<0>]",
        "[<0>] ",
        "[<ffffffffffffffff>] 0xffffffffffffffff",
        "text",
        "[<0",
    ] {
        assert_eq!(frame(none), None, "{none:?}");
    }
}

#[test]
fn cgroups_of_every_set_up() {
    let procfs = four_tasks();
    let cgroup = |content: &str| {
        fs::write(procfs.path().join("30/cgroup"), content).unwrap();
        cgroup_of(procfs.path(), 30)
    };
    let service = Some("/system.slice/a:b.service".to_owned());
    assert_eq!(cgroup("0::/system.slice/a:b.service\n"), service);
    assert_eq!(cgroup("0::/system.slice/a:b.service (deleted)\n"), service);
    let hybrid = "5:cpu,cpuacct:/x\n1:name=systemd:/system.slice/a:b.service\n0::/\n";
    assert_eq!(cgroup(hybrid), service);
    assert_eq!(
        cgroup("4:memory:/x\n1:name=systemd:/system.slice/a:b.service\n"),
        service
    );
    assert_eq!(cgroup("0::/\n"), Some("/".to_owned()));
    assert_eq!(cgroup("4:memory:/x\n"), None);
    assert_eq!(cgroup(""), None);
    assert_eq!(cgroup_of(procfs.path(), 99), None);
}

#[test]
fn units_of_cgroups() {
    for (path, unit) in [
        ("/system.slice/nginx.service", Some("nginx.service")),
        ("/system.slice/nginx.service/worker", Some("nginx.service")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope",
            Some("run-1.scope"),
        ),
        (
            "/system.slice/docker-0123abc.scope",
            Some("docker-0123abc.scope"),
        ),
        ("/system.slice/srv-data.mount", Some("srv-data.mount")),
        ("/system.slice/_cpu.service", Some("cpu.service")),
        ("/kubepods.slice", Some("kubepods.slice")),
        ("/-.slice", Some("-.slice")),
        ("/docker/0123abc", None),
        ("/a.service2/b.servic", None),
        ("/.service", None),
        ("/", None),
        ("", None),
    ] {
        assert_eq!(unit_of(path).as_deref(), unit, "{path}");
    }
}

#[test]
fn the_boot_has_an_id() {
    let procfs = four_tasks();
    let path = procfs.path().join("sys/kernel/random/boot_id");
    assert!(matches!(
        boot_id(procfs.path()),
        Err(ProcError::Read { .. })
    ));
    fs::write(&path, "0f5a3b1c-7a3e-4c51-9b0e-5d2f6f1f9a77\n").unwrap();
    assert_eq!(
        boot_id(procfs.path()).unwrap(),
        "0f5a3b1c-7a3e-4c51-9b0e-5d2f6f1f9a77"
    );
    for odd in ["", "0f5a3b1c", "0f5a3b1c-7a3e-4c51-9b0e+5d2f6f1f9a77"] {
        fs::write(&path, odd).unwrap();
        assert!(
            matches!(boot_id(procfs.path()), Err(ProcError::Malformed { .. })),
            "{odd}"
        );
    }
}

/// Escapes a task's name as seq_escape_str does.
fn escape(comm: &[u8]) -> Vec<u8> {
    comm.iter().fold(Vec::new(), |mut text, byte| {
        match byte {
            b'\n' => text.extend(b"\\n"),
            b'\\' => text.extend(b"\\\\"),
            byte => text.push(*byte),
        }
        text
    })
}

proptest! {
    #[test]
    fn any_name_comes_back(
        comm in proptest::collection::vec(1_u8.., 0..16),
        state in "[RSDTtXZPI]",
        flags: u32,
        start_ticks: u64,
    ) {
        let mut text = b"7 (".to_vec();
        text.extend(escape(&comm));
        text.extend(format!(") {state} 1 -1 0 0 -1 {flags} 0 0 0 0 0 0 0 0 -2 0 1 0 {start_ticks} 0 0\n").bytes());
        let state = state.chars().next().unwrap();
        prop_assert_eq!(parse_stat(&text), Some(Stat { comm, state, flags, start_ticks }));
    }

    #[test]
    fn frames_come_back(
        symbol in "[a-zA-Z_][a-zA-Z0-9_.+$]{0,30}",
        offset: u64,
        size: u64,
        module in prop::option::of("[a-z][a-z0-9_]{0,12}"),
    ) {
        let mut line = format!("[<0>] {symbol}+{offset:#x}/{size:#x}");
        if let Some(module) = &module {
            line += &format!(" [{module}]");
        }
        let frame = CodePlace { name: symbol, offset: Some(offset), size: Some(size), module };
        prop_assert_eq!(parse_frame(line.as_bytes()), Some(frame));
    }

    #[test]
    fn arbitrary_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_stat(&text);
        prop_assert!(parse_stack(&text).len() <= MAX_FRAMES);
        let mut line = b"[<0>] ".to_vec();
        line.extend(&text);
        let _ = parse_stack(&line);
    }
}
