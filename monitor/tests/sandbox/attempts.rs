//! Actions that a compromised program could attempt.

use std::{io, os::unix::net::UnixDatagram, path::Path};

/// Loads a program that does nothing, as a probe.
pub(crate) fn load_bpf() -> io::Result<()> {
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

/// Tries whether the parent process could be signalled.
pub(crate) fn signal_parent() -> io::Result<()> {
    // SAFETY: signal 0 signals nothing.
    match unsafe { libc::kill(libc::getppid(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A system call that fails for a reason other than being refused counts as permitted: these have
/// arguments that no kernel accepts.
pub(crate) fn attempt(number: libc::c_long, arguments: [libc::c_long; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the pointers among the arguments are null or have length zero.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    match io::Error::last_os_error() {
        error if result < 0 && error.raw_os_error() == Some(libc::EPERM) => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn parent() -> libc::c_long {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::getppid() }.into()
}

/// Starts a process that ends at once.
pub(crate) fn fork() -> io::Result<()> {
    // SAFETY: without a stack of its own it is a fork; the child only ends.
    match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
        // SAFETY: the child of a fork may end.
        0 => unsafe { libc::_exit(0) },
        child if child > 0 => {
            let child = i32::try_from(child).unwrap();
            // SAFETY: no status is requested.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn executable_memory() -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, kind, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping from above, which nothing uses.
    unsafe { libc::munmap(address, 4096) };
    Ok(())
}

/// Sends by sendmsg(), whose address is behind a pointer.
pub(crate) fn message_to(socket: &UnixDatagram, path: &Path) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, SocketAddrUnix, sendmsg_addr};
    let address = SocketAddrUnix::new(path)?;
    let text = [io::IoSlice::new(b"x")];
    let mut nothing = SendAncillaryBuffer::default();
    sendmsg_addr(socket, &address, &text, &mut nothing, SendFlags::empty())?;
    Ok(())
}

/// Takes ownership of another user's files.
pub(crate) fn give_away(path: &Path) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(1), None)
}
