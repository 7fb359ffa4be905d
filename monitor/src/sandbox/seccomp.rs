//! Seccomp: refuses the system calls that the exporter can do without and that neither Landlock nor
//! the lack of capabilities blocks: sockets of every family, programs, other processes, namespaces,
//! new BPF programs, executable memory.
//!
//! It lists what is refused, not what is allowed, so that an unexpected call of the C library still
//! works. The systemd unit also has a list of what is allowed.

use std::collections::BTreeMap;

use livepatch_core::degradation::Degradation;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::{Part, Sandbox};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// System calls that are refused whatever their arguments.
const REFUSED: &[i64] = &[
    // Sockets. Those that are already open still work, and accept others.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    // Their address is behind a pointer, which a filter cannot follow.
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    // It would bypass all of this.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    // Memory, messages and semaphores of other processes of this user.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Special files, further names, other attributes.
    libc::SYS_mknodat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    // The kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    // Users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];

/// System calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kexec_file_load,
    libc::SYS_mknod,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Commands needed for reading maps and iterators (enum `bpf_cmd`, include/uapi/linux/bpf.h of
/// Linux 6.12): looking up, updating, deleting and listing elements, an object's description, an
/// iterator's link and descriptor, which each scan of the tasks creates again.
const BPF_COMMANDS: &[u64] = &[1, 2, 3, 4, 15, 28, 33];

/// Whether a descriptor is a terminal (`TCGETS`) and how wide (`TIOCGWINSZ`), how much it has to
/// read (`FIONREAD`), whether it blocks (`FIONBIO`) and is closed on exec (`FIOCLEX`):
/// include/uapi/asm-generic/ioctls.h. And `PERF_EVENT_IOC_DISABLE`, which detaches a probe at the
/// end.
const IOCTLS: &[u64] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5451, 0x2401];

/// `F_SETOWN`, `F_SETSIG` and `F_SETOWN_EX` (include/uapi/asm-generic/fcntl.h): the kernel then
/// sends this signal to this process when the descriptor can be read.
const OWNERS: &[u64] = &[8, 10, 15];

/// Calls that change a process, which is their first argument; 0 is the one that calls.
const OF_A_PROCESS: &[i64] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

/// Set in the number of a call by the x32 interface of x86-64, which has the same calls and
/// some of its own (arch/x86/entry/syscalls/syscall_64.tbl).
const X32: i64 = 0x4000_0000;
const X32_OWN: std::ops::RangeInclusive<i64> = 512..=547;

pub(super) fn enter(sandbox: &mut Sandbox) {
    match restrict() {
        Ok(()) => sandbox.holds.push(Part::SystemCalls),
        Err(error) => sandbox.degradations.push(Degradation {
            what: format!("system calls are not restricted: {error}"),
            remedy: "boot a kernel with CONFIG_SECCOMP_FILTER=y".into(),
        }),
    }
}

fn restrict() -> Result<(), seccompiler::Error> {
    apply(rules()?, libc::EPERM)?;
    // Its flags are behind a pointer. C libraries fall back to clone().
    apply(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        libc::ENOSYS,
    )
}

/// Makes these calls fail with this error.
fn apply(mut rules: Rules, error: i32) -> Result<(), seccompiler::Error> {
    if cfg!(target_arch = "x86_64") {
        let as_x32: Vec<_> = rules
            .iter()
            .map(|(number, rules)| (number | X32, rules.clone()))
            .collect();
        rules.extend(as_x32);
        rules.extend(X32_OWN.map(|number| (number | X32, Vec::new())));
    }
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let error = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, error, arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    apply_filter(&program)
}

fn rules() -> Result<Rules, seccompiler::Error> {
    let always = REFUSED.iter().chain(REFUSED_HERE);
    let mut rules: Rules = always.map(|number| (*number, Vec::new())).collect();
    let process = u64::from(std::process::id());
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let local = libc::AF_UNIX.unsigned_abs().into();
    for (number, conditions) in [
        // With an address; without one it is a send() on a connection.
        (
            libc::SYS_sendto,
            vec![SeccompCondition::new(4, Qword, SeccompCmpOp::Ne, 0)?],
        ),
        (
            libc::SYS_socketpair,
            vec![SeccompCondition::new(0, Dword, SeccompCmpOp::Ne, local)?],
        ),
        // Anything other than a thread.
        (
            libc::SYS_clone,
            vec![SeccompCondition::new(
                0,
                Qword,
                SeccompCmpOp::MaskedEq(thread),
                0,
            )?],
        ),
        // To another process; abort() signals its own process.
        (
            libc::SYS_tgkill,
            vec![SeccompCondition::new(0, Dword, SeccompCmpOp::Ne, process)?],
        ),
        (
            libc::SYS_mmap,
            vec![SeccompCondition::new(
                2,
                Qword,
                SeccompCmpOp::MaskedEq(executable),
                executable,
            )?],
        ),
        (
            libc::SYS_mprotect,
            vec![SeccompCondition::new(
                2,
                Qword,
                SeccompCmpOp::MaskedEq(executable),
                executable,
            )?],
        ),
        (
            libc::SYS_pkey_mprotect,
            vec![SeccompCondition::new(
                2,
                Qword,
                SeccompCmpOp::MaskedEq(executable),
                executable,
            )?],
        ),
        (libc::SYS_bpf, none_of(0, BPF_COMMANDS)?),
        (libc::SYS_ioctl, none_of(1, IOCTLS)?),
    ] {
        rules.insert(number, vec![SeccompRule::new(conditions)?]);
    }
    for number in OF_A_PROCESS {
        let other = none_of(0, &[0, process])?;
        rules.insert(*number, vec![SeccompRule::new(other)?]);
    }
    let mut owners = Vec::new();
    for command in OWNERS {
        let is = SeccompCondition::new(1, Dword, SeccompCmpOp::Eq, *command)?;
        owners.push(SeccompRule::new(vec![is])?);
    }
    rules.insert(libc::SYS_fcntl, owners);
    Ok(rules)
}

/// Matches if the argument is none of these values.
fn none_of(
    argument: u8,
    values: &[u64],
) -> Result<Vec<SeccompCondition>, seccompiler::BackendError> {
    let differs = |value: &u64| SeccompCondition::new(argument, Dword, SeccompCmpOp::Ne, *value);
    values.iter().map(differs).collect()
}
