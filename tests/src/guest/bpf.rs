//! BPF programs of others, attached to a function of the kernel by a trampoline.
//!
//! Each only returns a number, so that no compiler is needed. What bpf(2) takes is in
//! include/uapi/linux/bpf.h (`union bpf_attr`).

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};

use crate::files;

const PROG_LOAD: libc::c_long = 5;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;

/// `bpf_prog_info`: the id, and how often it ran.
const ID: std::ops::Range<usize> = 4..8;
const RUNS: std::ops::Range<usize> = 200..208;

/// The name of every program.
pub(crate) const NAME: &str = "lpm_other";

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fentry,
    Fexit,
    FmodRet,
    Lsm,
}

impl Kind {
    /// `enum bpf_prog_type` and `enum bpf_attach_type`.
    const fn values(self) -> (u32, u32) {
        match self {
            Self::Fentry => (26, 24),
            Self::Fexit => (26, 25),
            Self::FmodRet => (26, 26),
            Self::Lsm => (29, 27),
        }
    }
}

/// A program that is attached until it is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Program {
    /// Attaches a program that returns this number.
    pub(crate) fn attach(kind: Kind, function: &str, returns: i32) -> Result<Self> {
        let target = function_id(function)?;
        let (program_type, attach_type) = kind.values();
        // r0 = RETURNS; exit.
        let mut code = [0_u8; 16];
        code[0] = 0xb7;
        code[4..8].copy_from_slice(&returns.to_ne_bytes());
        code[8] = 0x95;
        let license = c"Dual MIT/GPL";
        let mut log = vec![0_u8; 64 << 10];
        let mut attributes = Attributes::default();
        attributes.u32(0, program_type);
        attributes.u32(4, 2);
        attributes.address(8, code.as_ptr().expose_provenance());
        attributes.address(16, license.as_ptr().expose_provenance());
        attributes.u32(24, 1);
        attributes.u32(28, u32::try_from(log.len()).context("a long log")?);
        attributes.address(32, log.as_mut_ptr().expose_provenance());
        attributes.bytes(48, NAME.as_bytes());
        attributes.u32(68, attach_type);
        attributes.u32(108, target);
        // SAFETY: the program, the license and the log are alive and as long as is stated.
        let program = unsafe { descriptor(PROG_LOAD, &mut attributes) };
        let program = program.with_context(|| {
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0').to_owned();
            format!("cannot load a program for {function} as {kind:?}: {log}")
        })?;
        let mut attributes = Attributes::default();
        attributes.u32(8, raw(&program)?);
        // SAFETY: no address is handed over.
        let link = unsafe { descriptor(RAW_TRACEPOINT_OPEN, &mut attributes) };
        let link = link.with_context(|| format!("cannot attach to {function} as {kind:?}"))?;
        Ok(Self {
            program,
            _link: link,
        })
    }

    /// Its id, by which tools name it.
    pub(crate) fn id(&self) -> Result<u32> {
        let bytes = self.info(ID)?;
        Ok(u32::from_ne_bytes(bytes.as_slice().try_into()?))
    }

    /// How often it ran since [`count_runs`].
    pub(crate) fn runs(&self) -> Result<u64> {
        let bytes = self.info(RUNS)?;
        Ok(u64::from_ne_bytes(bytes.as_slice().try_into()?))
    }

    fn info(&self, range: std::ops::Range<usize>) -> Result<Vec<u8>> {
        let mut info = [0_u8; 208];
        let mut attributes = Attributes::default();
        attributes.u32(0, raw(&self.program)?);
        attributes.u32(4, u32::try_from(info.len()).context("a long info")?);
        attributes.address(8, info.as_mut_ptr().expose_provenance());
        // SAFETY: the buffer is alive and as long as is stated.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }.context("no bpf_prog_info")?;
        Ok(info.get(range).unwrap_or_default().to_vec())
    }
}

const STATS_ENABLED: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel counts how often programs run, until this is dropped.
#[derive(Debug)]
pub(crate) struct CountedRuns(());

/// Has the kernel count how often programs run.
pub(crate) fn count_runs() -> Result<CountedRuns> {
    files::write(STATS_ENABLED, "1")?;
    Ok(CountedRuns(()))
}

impl Drop for CountedRuns {
    fn drop(&mut self) {
        // It costs later scenarios time, and no more.
        let _ = files::write(STATS_ENABLED, "0");
    }
}

fn raw(fd: &OwnedFd) -> Result<u32> {
    u32::try_from(fd.as_raw_fd()).context("a negative descriptor")
}

/// `union bpf_attr`.
#[derive(Default)]
struct Attributes([u64; 16]);

impl Attributes {
    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        for (offset, byte) in bytes.iter().enumerate() {
            let (word, shift) = ((at + offset) / 8, (at + offset) % 8);
            if let Some(word) = self.0.get_mut(word) {
                let mut whole = word.to_ne_bytes();
                whole[shift] = *byte;
                *word = u64::from_ne_bytes(whole);
            }
        }
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.bytes(at, &value.to_ne_bytes());
    }

    fn address(&mut self, at: usize, address: usize) {
        self.bytes(at, &address.to_ne_bytes());
    }
}

/// # Safety
/// The addresses among the attributes must be those of buffers as long as the attributes say.
unsafe fn descriptor(command: libc::c_long, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let fd = unsafe { bpf(command, attributes) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// The addresses among the attributes must be those of buffers as long as the attributes say.
unsafe fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    let size = size_of::<Attributes>();
    // SAFETY: the attributes are valid for `size` bytes during the call; the rest is promised.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// The type id of a function in the kernel's BTF (include/uapi/linux/btf.h).
fn function_id(function: &str) -> Result<u32> {
    const FUNC: u32 = 12;
    let path = "/sys/kernel/btf/vmlinux";
    let blob = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let word = |at: usize| -> Result<usize> {
        let bytes = blob.get(at..at + 4).context("BTF ends early")?;
        Ok(usize::try_from(u32::from_ne_bytes(bytes.try_into()?))?)
    };
    let header = word(4)?;
    let (types, length) = (header + word(8)?, word(12)?);
    let strings = header + word(16)?;
    let is_named = |offset: usize| {
        let rest = blob.get(strings + offset..).unwrap_or_default();
        let rest = rest.strip_prefix(function.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&0))
    };
    let (mut at, mut id) = (types, 1);
    while at < types + length {
        let info = u32::try_from(word(at + 4)?)?;
        let (kind, count) = ((info >> 24) & 0x7f, usize::try_from(info & 0xff_ffff)?);
        if kind == FUNC && is_named(word(at)?) {
            return Ok(id);
        }
        at += 12
            + match kind {
                // INT, VAR, DECL_TAG.
                1 | 14 | 17 => 4,
                // ARRAY.
                3 => 12,
                // STRUCT, UNION, DATASEC, ENUM64.
                4 | 5 | 15 | 19 => 12 * count,
                // ENUM, FUNC_PROTO.
                6 | 13 => 8 * count,
                _ => 0,
            };
        id += 1;
    }
    bail!("BTF has no function {function}")
}
