//! The BPF programs that may override a function of the kernel: those of type fmod_ret and
//! LSM, found by the links that attach them.
//!
//! aya lists links, but does not give out the attach type and the target of one; so this asks
//! bpf(2) itself (include/uapi/linux/bpf.h: `BPF_LINK_GET_NEXT_ID`, `BPF_LINK_GET_FD_BY_ID`,
//! `BPF_OBJ_GET_INFO_BY_FD`; links 5.8, `tracing.target_btf_id` 5.12).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use super::btf::Btf;
use livepatch_core::{blockers::printable, in_force::Overrider, preflight::host::Known};

const LINK_GET_NEXT_ID: libc::c_long = 31;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Type of the links of fentry, fexit and fmod_ret programs: `BPF_LINK_TYPE_TRACING`
/// (include/uapi/linux/bpf.h).
const TRACING: u32 = 2;
/// `enum bpf_attach_type`, and what such a program is called.
const OVERRIDING: [(u32, &str); 2] = [(26, "fmod_ret"), (27, "lsm")];
/// `BPF_OBJ_NAME_LEN`, and where `bpf_prog_info` has the name.
const NAME: std::ops::Range<usize> = 64..80;
/// Links looked at; hosts have some hundreds.
const MAX_LINKS: usize = 16_384;

/// The start of `struct bpf_link_info`, as far as it is of a tracing link.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    attach_type: u32,
    target_object: u32,
    target: u32,
    end: u32,
}

/// Those attached to one of these functions of the kernel itself.
///
/// # Errors
/// They cannot be listed: without CAP_SYS_ADMIN, or without BTF.
pub fn overriders(sysfs: &Path, functions: &BTreeSet<&str>) -> Known<Vec<Overrider>> {
    // Without it the targets have no names; and another root than the kernel's own has none.
    let btf = sysfs.join("kernel/btf/vmlinux");
    if !btf.exists() {
        return Err(format!("no BTF ({})", btf.display()));
    }
    let links = links().map_err(|error| format!("cannot list BPF links: {error}"))?;
    let mut overriding = Vec::new();
    for link in links {
        let how = OVERRIDING
            .iter()
            .find(|(kind, _)| *kind == link.attach_type);
        if let Some((_, how)) = how.filter(|_| link.kind == TRACING) {
            overriding.push((link, *how));
        }
    }
    if overriding.is_empty() {
        return Ok(Vec::new());
    }
    let btf = Btf::from_sysfs(sysfs).map_err(|error| error.to_string())?;
    let targets: BTreeMap<u32, &str> = functions
        .iter()
        .flat_map(|name| btf.func_ids(name).into_iter().map(|id| (id, *name)))
        .collect();
    Ok(overriding
        .into_iter()
        .filter_map(|(link, how)| {
            let function = targets.get(&link.target)?;
            let name = program_name(link.program).unwrap_or_default();
            Some(Overrider {
                function: (*function).to_owned(),
                program: format!("{} (id {}, {how})", printable(&name), link.program),
            })
        })
        .collect())
}

fn links() -> io::Result<Vec<LinkInfo>> {
    let mut links = Vec::new();
    let mut id = 0;
    while links.len() < MAX_LINKS {
        let mut attributes = Attributes::of(id);
        match bpf(LINK_GET_NEXT_ID, &mut attributes) {
            Ok(_) => id = attributes.second,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        // It may be gone since.
        let mut info = LinkInfo::default();
        let address = (&raw mut info).expose_provenance();
        if let Ok(link) = descriptor(LINK_GET_FD_BY_ID, id)
            && object_info(&link, address, size_of::<LinkInfo>()).is_ok()
        {
            links.push(info);
        }
    }
    Ok(links)
}

fn program_name(id: u32) -> io::Result<Vec<u8>> {
    let program = descriptor(PROG_GET_FD_BY_ID, id)?;
    let mut info = [0_u8; NAME.end];
    let address = info.as_mut_ptr().expose_provenance();
    object_info(&program, address, info.len())?;
    let name = info.get(NAME).unwrap_or_default();
    Ok(name.iter().copied().take_while(|byte| *byte != 0).collect())
}

fn descriptor(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(command, &mut Attributes::of(id))?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the kernel write at most `size` bytes of an object's description to `address`.
fn object_info(object: &OwnedFd, address: usize, size: usize) -> io::Result<()> {
    let mut attributes = Attributes {
        first: u32::try_from(object.as_raw_fd()).map_err(io::Error::other)?,
        second: u32::try_from(size).map_err(io::Error::other)?,
        info: u64::try_from(address).map_err(io::Error::other)?,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(())
}

/// The attributes of the commands used here: `start_id` or `id` and `next_id`; or `bpf_fd`,
/// `info_len` and `info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attributes {
    first: u32,
    second: u32,
    info: u64,
}

impl Attributes {
    const fn of(id: u32) -> Self {
        Self {
            first: id,
            second: 0,
            info: 0,
        }
    }
}

fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    let size = size_of::<Attributes>();
    // SAFETY: the attributes are valid for `size` bytes during the call. The only address in
    // them is that of a buffer of the caller's, which holds the bytes that they allow.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
