//! The BPF programs that trampolines call from functions of the kernel: fentry, fexit, fmod_ret and
//! LSM programs, found by the links that attach them.
//!
//! aya lists links, but does not expose the attach type and the target of one, so this calls bpf(2)
//! itself (include/uapi/linux/bpf.h: `BPF_LINK_GET_NEXT_ID`, `BPF_LINK_GET_FD_BY_ID`,
//! `BPF_OBJ_GET_INFO_BY_FD`). Links do not show their target on 5.10, and do on 6.1 and later
//! (`tracing.target_btf_id`); a trampoline and a livepatch can share a function since 6.0.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use super::btf::Btf;
use crate::bounded_read;
use livepatch_core::{
    blockers::printable,
    preflight::host::{BpfProgram, Known, ProgramKind},
};

const LINK_GET_NEXT_ID: libc::c_long = 31;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const BTF_GET_FD_BY_ID: libc::c_long = 19;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Type of the links of fentry, fexit and fmod_ret programs: `BPF_LINK_TYPE_TRACING`
/// (include/uapi/linux/bpf.h).
const TRACING: u32 = 2;
/// `enum bpf_attach_type`, 5.10 to 7.2. `BPF_TRACE_FENTRY_MULTI` and the like (7.2) have links of
/// another type, which do not show their targets; none of them overrides a function.
const KINDS: [(u32, ProgramKind); 5] = [
    (24, ProgramKind::Fentry),
    (25, ProgramKind::Fexit),
    (26, ProgramKind::FmodRet),
    (27, ProgramKind::Lsm),
    (58, ProgramKind::Fsession),
];
/// `BPF_OBJ_NAME_LEN`, and where `bpf_prog_info` has the name.
const NAME: std::ops::Range<usize> = 64..80;
/// Name of the kernel's own type information among BTF objects (`btf_parse_vmlinux`,
/// kernel/bpf/btf.c).
const VMLINUX: &[u8] = b"vmlinux";
/// Most links that are examined; hosts have some hundreds.
const MAX_LINKS: usize = 16_384;
/// Most processes named that hold one program.
const MAX_HOLDERS: usize = 4;
/// Most open files that are examined to find them.
const MAX_FILES: usize = 262_144;

/// The start of `struct bpf_link_info`, as a tracing link has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    attach_type: u32,
    /// Id of the BTF object that `target` is in, or of the BPF program whose function it is.
    target_object: u32,
    target: u32,
    end: u32,
}

/// `struct bpf_btf_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct BtfInfo {
    btf: u64,
    btf_size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    kernel_btf: u32,
}

/// The links to one of these functions of the kernel itself.
///
/// # Errors
/// They cannot be listed: without CAP_SYS_ADMIN, or without BTF, or because one of them cannot be
/// examined.
pub fn programs(procfs: &Path, sysfs: &Path, functions: &BTreeSet<&str>) -> Known<Vec<BpfProgram>> {
    // Without it the targets have no names; and a root other than the kernel's own has none.
    let btf = sysfs.join("kernel/btf/vmlinux");
    if !btf.exists() {
        return Err(format!("no BTF ({})", btf.display()));
    }
    let links = links().map_err(|error| format!("cannot list BPF links: {error}"))?;
    let mut attached = Vec::new();
    for link in links {
        let kind = KINDS.iter().find(|(value, _)| *value == link.attach_type);
        if let Some((_, kind)) = kind.filter(|_| link.kind == TRACING) {
            attached.push((link, *kind));
        }
    }
    if attached.is_empty() {
        return Ok(Vec::new());
    }
    let btf = Btf::from_sysfs(sysfs).map_err(|error| error.to_string())?;
    let targets: BTreeMap<u32, &str> = functions
        .iter()
        .flat_map(|name| btf.func_ids(name).into_iter().map(|id| (id, *name)))
        .collect();
    let mut found = Vec::new();
    for (link, kind) in attached {
        let Some(function) = targets.get(&link.target) else {
            continue;
        };
        // The functions of BPF programs are numbered separately.
        let of_kernel = is_vmlinux(link.target_object).map_err(|error| {
            format!(
                "cannot determine what BPF program {} is attached to: {error}",
                link.program
            )
        })?;
        if !of_kernel {
            continue;
        }
        // It may have been detached since.
        let name = program_name(link.program).unwrap_or_default();
        found.push(BpfProgram {
            function: (*function).to_owned(),
            name: printable(&name),
            id: link.program,
            kind,
            holders: Vec::new(),
        });
    }
    if found.iter().any(|program| program.kind.overrides()) {
        let mut holders = holders(procfs);
        for program in &mut found {
            program.holders = holders.remove(&program.id).unwrap_or_default();
        }
    }
    Ok(found)
}

/// The processes that have a BPF program or its link open, by the program's id: `prog_id` in
/// /proc/PID/fdinfo (bpf_prog_show_fdinfo and bpf_link_show_fdinfo, kernel/bpf/syscall.c).
fn holders(procfs: &Path) -> BTreeMap<u32, Vec<String>> {
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let processes = fs::read_dir(procfs).into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    });
    let mut files = 0;
    for (pid, folder) in processes {
        let open = fs::read_dir(folder.join("fd")).into_iter().flatten();
        for file in open.flatten() {
            files += 1;
            if files > MAX_FILES {
                return found;
            }
            // Only descriptors of BPF: reading every fdinfo would take the locks of other files.
            let target = fs::read_link(file.path()).unwrap_or_default();
            let is_bpf = ["anon_inode:bpf-prog", "anon_inode:bpf_link"]
                .iter()
                .any(|kind| target.as_os_str() == *kind);
            if !is_bpf {
                continue;
            }
            let info = folder.join("fdinfo").join(file.file_name());
            let text = bounded_read::read_text(&info, bounded_read::VALUE).unwrap_or_default();
            let Some(id) = text.lines().find_map(program_of_line) else {
                continue;
            };
            let comm = bounded_read::read(&folder.join("comm"), bounded_read::VALUE);
            let comm = printable(comm.unwrap_or_default().trim_ascii_end());
            let holder = format!("{comm} ({pid})");
            let holders = found.entry(id).or_default();
            if holders.len() < MAX_HOLDERS && !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    found
}

fn program_of_line(line: &str) -> Option<u32> {
    line.strip_prefix("prog_id:")?.trim().parse().ok()
}

fn links() -> io::Result<Vec<LinkInfo>> {
    let next = |id| {
        let mut attributes = Attributes::of(id);
        bpf(LINK_GET_NEXT_ID, &mut attributes)?;
        Ok(attributes.second)
    };
    all_links(next, link_info)
}

fn link_info(id: u32) -> io::Result<Option<LinkInfo>> {
    let Some(link) = unless_gone(descriptor(LINK_GET_FD_BY_ID, id))? else {
        return Ok(None);
    };
    let mut info = LinkInfo::default();
    let address = (&raw mut info).expose_provenance();
    object_info(&link, address, size_of::<LinkInfo>())?;
    Ok(Some(info))
}

/// All links, where `next` returns the id after another one, and `info` the link of an id unless it
/// has been detached since. A link that cannot be examined may be one that matters.
fn all_links(
    next: impl Fn(u32) -> io::Result<u32>,
    info: impl Fn(u32) -> io::Result<Option<LinkInfo>>,
) -> io::Result<Vec<LinkInfo>> {
    let mut links = Vec::new();
    let mut id = 0;
    for _ in 0..MAX_LINKS {
        match unless_gone(next(id))? {
            Some(next) => id = next,
            None => return Ok(links),
        }
        links.extend(info(id)?);
    }
    match unless_gone(next(id))? {
        Some(_) => Err(io::Error::other(format!("more than {MAX_LINKS}"))),
        None => Ok(links),
    }
}

/// The kernel returns `ENOENT` for an id that it does not have (any more), and for the one after
/// the last.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether this BTF object is the kernel's own: kernels that show the target of a link give that
/// one an id as well (5.11, `btf_get_info_by_fd`, kernel/bpf/btf.c).
fn is_vmlinux(id: u32) -> io::Result<bool> {
    let Some(btf) = unless_gone(descriptor(BTF_GET_FD_BY_ID, id))? else {
        return Ok(false);
    };
    // The kernel needs room for the whole name and the zero after it, and cuts off a longer one.
    let mut name = [0_u8; VMLINUX.len() + 2];
    let mut info = BtfInfo {
        name: u64::try_from(name.as_mut_ptr().expose_provenance()).map_err(io::Error::other)?,
        name_len: u32::try_from(name.len()).map_err(io::Error::other)?,
        ..BtfInfo::default()
    };
    let address = (&raw mut info).expose_provenance();
    match object_info(&btf, address, size_of::<BtfInfo>()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(false),
        Err(error) => return Err(error),
    }
    let name = name.split(|byte| *byte == 0).next();
    Ok(info.kernel_btf == 1 && name == Some(VMLINUX))
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

/// Makes the kernel write at most `size` bytes of an object's description to `address`.
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
    // SAFETY: the attributes are valid for `size` bytes during the call. The only addresses in
    // them, and in what they refer to, are those of the caller's buffers, which have the given
    // sizes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use livepatch_monitor_test_support::left_out;

    use super::*;

    fn error<T>(number: i32) -> io::Result<T> {
        Err(io::Error::from_raw_os_error(number))
    }

    /// Links with the ids from 1 to `last`.
    fn links_up_to(
        last: usize,
        info: impl Fn(u32) -> io::Result<Option<LinkInfo>>,
    ) -> io::Result<Vec<LinkInfo>> {
        let next = |id| match usize::try_from(id).unwrap() < last {
            true => Ok(id + 1),
            false => error(libc::ENOENT),
        };
        all_links(next, info)
    }

    fn link(id: u32) -> LinkInfo {
        LinkInfo {
            id,
            ..LinkInfo::default()
        }
    }

    #[test]
    fn a_link_is_left_out_only_if_it_is_gone() {
        let found = links_up_to(3, |id| Ok((id != 2).then(|| link(id)))).unwrap();
        let ids: Vec<u32> = found.iter().map(|link| link.id).collect();
        assert_eq!(ids, [1, 3]);
        // Being attached just now; no descriptor left; refused.
        for number in [libc::EAGAIN, libc::EMFILE, libc::EPERM] {
            let failed = links_up_to(3, |id| match id {
                2 => unless_gone(error(number)),
                id => Ok(Some(link(id))),
            });
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(number));
            let failed = all_links(|_| error(number), |id| Ok(Some(link(id))));
            assert_eq!(failed.unwrap_err().raw_os_error(), Some(number));
        }
        assert_eq!(unless_gone::<()>(error(libc::ENOENT)).unwrap(), None);
    }

    #[test]
    fn as_many_links_as_are_looked_at_are_all() {
        let all = links_up_to(MAX_LINKS, |id| Ok(Some(link(id)))).unwrap();
        assert_eq!(all.len(), MAX_LINKS);
        let failed = links_up_to(MAX_LINKS + 1, |id| Ok(Some(link(id))));
        assert!(failed.unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn one_type_information_is_the_kernels_own() {
        const BTF_GET_NEXT_ID: libc::c_long = 23;
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return left_out("the kernel's BTF object", "this kernel has none");
        }
        let mut id = 0;
        let mut kernels = 0;
        loop {
            let mut attributes = Attributes::of(id);
            match unless_gone(bpf(BTF_GET_NEXT_ID, &mut attributes)) {
                Ok(Some(_)) => id = attributes.second,
                Ok(None) => break,
                Err(error) => return left_out("the kernel's BTF object", &error.to_string()),
            }
            kernels += usize::from(is_vmlinux(id).unwrap());
        }
        assert_eq!(kernels, 1);
        // A BPF program's id need not be an id of type information.
        assert!(!is_vmlinux(u32::MAX).unwrap());
    }

    #[test]
    fn processes_that_hold_a_program_are_found_whatever_they_are_called() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: u32, comm: &[u8], files: &[(&str, &str)]| {
            let folder = root.path().join(pid.to_string());
            fs::create_dir_all(folder.join("fd")).unwrap();
            fs::create_dir(folder.join("fdinfo")).unwrap();
            fs::write(folder.join("comm"), comm).unwrap();
            for (number, (target, info)) in files.iter().enumerate() {
                let number = number.to_string();
                symlink(target, folder.join("fd").join(&number)).unwrap();
                fs::write(folder.join("fdinfo").join(&number), info).unwrap();
            }
        };
        let link = "pos:\t0\nlink_type:\ttracing\nlink_id:\t3\nprog_tag:\t0\nprog_id:\t12\n";
        let program = "pos:\t0\nprog_type:\t26\nprog_id:\t12\nrun_cnt:\t0\n";
        process(
            7,
            b"\x1b[2Jag\xff\n",
            &[
                ("/dev/null", "prog_id:\t13\n"),
                ("anon_inode:bpf_link", link),
                ("anon_inode:bpf-prog", program),
                ("anon_inode:bpf-prog", "prog_id:\tx\n"),
            ],
        );
        process(8, b"sh\n", &[("anon_inode:[eventfd]", program)]);
        // One that has been detached since.
        fs::create_dir(root.path().join("9")).unwrap();
        let found = holders(root.path());
        assert_eq!(found.len(), 1, "{found:?}");
        let holders = &found[&12];
        assert_eq!(holders.len(), 1, "{holders:?}");
        assert!(
            holders[0].ends_with(" (7)") && !holders[0].chars().any(char::is_control),
            "{holders:?}"
        );
    }
}
