//! What the BPF programs need to know about the running kernel: member offsets from its BTF,
//! addresses of variables from its symbol table.

use std::path::Path;

use livepatch_monitor_ebpf::UNKNOWN_OFFSET;

use super::{
    btf::Btf,
    kallsyms::{self, Found, KallsymsError},
};
use crate::bounded_read;
use livepatch_core::preflight::module::KlpLayout;

/// A member that the programs read, and the sizes in bytes that it may have. They read as much as
/// the smallest, the low bytes of a larger one. A member of another size is treated as missing
/// instead of being misread.
struct Member {
    global: &'static str,
    structure: &'static str,
    /// Its name, and its name in older kernels.
    names: &'static [&'static str],
    sizes: &'static [u32],
}

const fn member(
    global: &'static str,
    structure: &'static str,
    names: &'static [&'static str],
    sizes: &'static [u32],
) -> Member {
    Member {
        global,
        structure,
        names,
        sizes,
    }
}

/// Any size: a structure whose address is used, not its content.
const ANY: &[u32] = &[];
const WORD: &[u32] = &[4];
const LONG: &[u32] = &[8];

const MEMBERS: &[Member] = &[
    member("KLP_PATCH_MOD", "klp_patch", &["mod"], LONG),
    member("KLP_PATCH_REPLACE", "klp_patch", &["replace"], &[1]),
    member("KLP_PATCH_OBJ_LIST", "klp_patch", &["obj_list"], &[16]),
    member("KLP_PATCH_FREE_WORK", "klp_patch", &["free_work"], ANY),
    member("KLP_OBJECT_NAME", "klp_object", &["name"], LONG),
    member("KLP_OBJECT_MOD", "klp_object", &["mod"], LONG),
    member("KLP_OBJECT_FUNC_LIST", "klp_object", &["func_list"], &[16]),
    member("KLP_OBJECT_NODE", "klp_object", &["node"], &[16]),
    member("KLP_FUNC_OLD_NAME", "klp_func", &["old_name"], LONG),
    member("KLP_FUNC_OLD_FUNC", "klp_func", &["old_func"], LONG),
    member("KLP_FUNC_OLD_SIZE", "klp_func", &["old_size"], LONG),
    member("KLP_FUNC_NEW_FUNC", "klp_func", &["new_func"], LONG),
    member("KLP_FUNC_NEW_SIZE", "klp_func", &["new_size"], LONG),
    member("KLP_FUNC_NODE", "klp_func", &["node"], &[16]),
    member("KLP_FUNC_STACK_NODE", "klp_func", &["stack_node"], &[16]),
    member("MODULE_NAME", "module", &["name"], ANY),
    member("MODULE_KLP", "module", &["klp"], &[1]),
    member("TASK_PATCH_STATE", "task_struct", &["patch_state"], WORD),
    // `state`, a long, before 5.14: its low word contains every state.
    member("TASK_STATE", "task_struct", &["__state", "state"], &[4, 8]),
    member("TASK_FLAGS", "task_struct", &["flags"], WORD),
    // An int up to 6.12, a u8 in 7.2: the low byte is read.
    member("TASK_ON_CPU", "task_struct", &["on_cpu"], &[1, 4]),
    member("TASK_PID", "task_struct", &["pid"], WORD),
    member("TASK_TGID", "task_struct", &["tgid"], WORD),
    member("TASK_COMM", "task_struct", &["comm"], &[16]),
    member(
        "TASK_START_BOOTTIME",
        "task_struct",
        &["start_boottime"],
        LONG,
    ),
    member("TASK_CGROUPS", "task_struct", &["cgroups"], LONG),
    member("CSS_SET_DFL_CGRP", "css_set", &["dfl_cgrp"], LONG),
    member("CGROUP_KN", "cgroup", &["kn"], LONG),
    member("KERNFS_NODE_ID", "kernfs_node", &["id"], LONG),
];

impl Member {
    /// Where its low bytes are: on a big-endian machine they are its last ones.
    fn offset(&self, btf: &Btf) -> Option<u32> {
        self.names.iter().find_map(|name| {
            let offset = btf.member_offset(self.structure, name).ok()?;
            let size = btf.member_size(self.structure, name)?;
            let Some(read) = self.sizes.iter().min() else {
                return Some(offset);
            };
            if !self.sizes.contains(&size) {
                return None;
            }
            let skipped = if btf.is_big_endian() { size - read } else { 0 };
            offset.checked_add(skipped)
        })
    }
}

/// A global of the programs, and the kernel variable whose address it gets.
const VARIABLES: &[(&str, &str)] = &[
    ("KLP_TRANSITION_PATCH", "klp_transition_patch"),
    ("KLP_TARGET_STATE", "klp_target_state"),
    ("KLP_SIGNALS_CNT", "klp_signals_cnt"),
    ("KLP_PATCHES", "klp_patches"),
    ("PER_CPU_OFFSET", "__per_cpu_offset"),
    ("IDLE_THREADS", "idle_threads"),
];

/// The function with which the unwinder recognises BPF frames.
const BPF_FRAME_POINTER: &str = "bpf_has_frame_pointer";

/// The values of the programs' globals.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Globals of the BPF programs and the member offset (in bytes) that each is set to.
    pub offsets: Vec<(&'static str, u32)>,
    /// Globals of the BPF programs and the kernel address that each is set to.
    pub addresses: Vec<(&'static str, u64)>,
    /// Number of possible CPUs; 0 if unknown.
    pub possible_cpus: u32,
    /// Whether the unwinder walks BPF frames reliably (arch/x86/net/bpf_jit_comp.c and
    /// arch/x86/kernel/unwind_orc.c of 7.2; 6.1 and 6.12 do not).
    pub bpf_frames_reliable: bool,
    /// Members that this kernel's BTF lacks, as `structure.member`.
    pub missing_members: Vec<String>,
    /// Variables that this kernel's symbol table lacks.
    pub missing_variables: Vec<&'static str>,
    /// Why the symbol table shows no addresses, if so.
    pub addresses_hidden: Option<String>,
}

impl Layout {
    /// Looks everything up. Without BTF every member is missing, without a symbol table
    /// every variable.
    #[must_use]
    pub fn find(btf: Option<&Btf>, procfs: &Path, sysfs: &Path) -> Self {
        let mut layout = Self {
            possible_cpus: possible_cpus(sysfs),
            ..Self::default()
        };
        for member in MEMBERS {
            let offset = btf.and_then(|btf| member.offset(btf));
            if offset.is_none() {
                let name = member.names.first().copied().unwrap_or_default();
                layout
                    .missing_members
                    .push(format!("{}.{name}", member.structure));
            }
            layout
                .offsets
                .push((member.global, offset.unwrap_or(UNKNOWN_OFFSET)));
        }
        let names: Vec<&str> = VARIABLES
            .iter()
            .map(|&(_, variable)| variable)
            .chain([BPF_FRAME_POINTER])
            .collect();
        let found = kallsyms::find_in_image(procfs, &names).unwrap_or_else(|error| {
            layout.addresses_hidden = Some(why_hidden(&error, procfs));
            Found::default()
        });
        layout.bpf_frames_reliable = found.in_vmlinux(BPF_FRAME_POINTER).is_some();
        for &(global, variable) in VARIABLES {
            let address = found.in_vmlinux(variable);
            if address.is_none() && layout.addresses_hidden.is_none() {
                layout.missing_variables.push(variable);
            }
            layout.addresses.push((global, address.unwrap_or(0)));
        }
        layout
    }

    /// Whether pending tasks can be distinguished from others. Without these members a scan would
    /// show no tasks, although it should report that they are unknown.
    #[must_use]
    pub fn can_scan(&self) -> bool {
        let known = |name| {
            self.offsets
                .iter()
                .any(|&(global, offset)| global == name && offset != UNKNOWN_OFFSET)
        };
        let variable = |name| {
            self.addresses
                .iter()
                .any(|&(global, address)| global == name && address != 0)
        };
        known("TASK_PATCH_STATE")
            && variable("KLP_TRANSITION_PATCH")
            && variable("KLP_TARGET_STATE")
    }
}

/// The error, with the setting that causes it, if any.
fn why_hidden(error: &KallsymsError, procfs: &Path) -> String {
    let path = procfs.join("sys/kernel/kptr_restrict");
    let setting = std::fs::read_to_string(path).unwrap_or_default();
    match (error, setting.trim()) {
        (KallsymsError::Hidden { .. }, "2") => {
            "kernel.kptr_restrict is 2, which hides the kernel's addresses from root too".into()
        }
        _ => error.to_string(),
    }
}

/// The member offsets of this kernel's livepatch structures; [`KlpLayout::KNOWN`] if its BTF does
/// not contain all of them.
#[must_use]
pub fn of_livepatches(btf: &Btf) -> KlpLayout {
    let member = |structure, name| {
        let offset = btf.member_offset(structure, name).ok()?;
        Some(u64::from(offset))
    };
    let size = |structure| btf.struct_size(structure).map(u64::from);
    let layout = || {
        Some(KlpLayout {
            patch_mod: member("klp_patch", "mod")?,
            patch_objs: member("klp_patch", "objs")?,
            patch_replace: member("klp_patch", "replace")?,
            object_name: member("klp_object", "name")?,
            object_funcs: member("klp_object", "funcs")?,
            object_size: size("klp_object").filter(|size| *size > 0)?,
            func_old_name: member("klp_func", "old_name")?,
            func_new_func: member("klp_func", "new_func")?,
            func_old_sympos: member("klp_func", "old_sympos")?,
            func_size: size("klp_func").filter(|size| *size > 0)?,
            module_name: member("module", "name")?,
        })
    };
    layout().unwrap_or(KlpLayout::KNOWN)
}

/// Whether a BPF trampoline and a livepatch may share a function: since 6.0
/// (kernel/trace/ftrace.c, enum ftrace_ops_cmd in include/linux/ftrace.h).
#[must_use]
pub fn trampolines_share(btf: &Btf) -> bool {
    btf.has_enumerator(
        "ftrace_ops_cmd",
        "FTRACE_OPS_CMD_ENABLE_SHARE_IPMODIFY_PEER",
    )
}

/// Number of possible CPUs from a list like `0-3,8`; 0 if the file is missing or invalid.
fn possible_cpus(sysfs: &Path) -> u32 {
    let Ok(text) = bounded_read::read_text(
        &sysfs.join("devices/system/cpu/possible"),
        bounded_read::VALUE,
    ) else {
        return 0;
    };
    text.trim()
        .split([',', '-'])
        .filter_map(|number| number.parse::<u32>().ok())
        .max()
        .and_then(|last| last.checked_add(1))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::tests::all_kinds_in;

    #[test]
    fn of_a_larger_member_the_low_bytes_are_read() {
        // An int of four bytes, at 0.
        for (sizes, little, big) in [
            (&[1, 4][..], Some(0), Some(3)),
            (&[4, 8], Some(0), Some(0)),
            (ANY, Some(0), Some(0)),
            (LONG, None, None),
        ] {
            let first = member("FIRST", "holder", &["first"], sizes);
            assert_eq!(
                first.offset(&all_kinds_in(false).btf()),
                little,
                "{sizes:?}"
            );
            assert_eq!(first.offset(&all_kinds_in(true).btf()), big, "{sizes:?}");
        }
    }

    #[test]
    fn hidden_addresses_cost_the_addresses_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/kernel");
        std::fs::create_dir_all(&folder).unwrap();
        let nothing = Path::new("/nowhere");
        let symbols = "0000000000000000 D klp_transition_patch\n";
        std::fs::write(root.path().join("kallsyms"), symbols).unwrap();
        for (setting, says) in [("1\n", "CAP_SYSLOG"), ("2\n", "kernel.kptr_restrict is 2")] {
            std::fs::write(folder.join("kptr_restrict"), setting).unwrap();
            let layout = Layout::find(None, root.path(), nothing);
            let why = layout.addresses_hidden.as_deref().unwrap_or_default();
            assert!(why.contains(says), "{why}");
            assert!(layout.missing_variables.is_empty() && !layout.can_scan());
            assert!(layout.addresses.iter().all(|&(_, address)| address == 0));
        }
        let symbols = "ffffffff81000000 D klp_transition_patch\n";
        std::fs::write(root.path().join("kallsyms"), symbols).unwrap();
        let layout = Layout::find(None, root.path(), nothing);
        assert_eq!(layout.addresses_hidden, None);
        assert_eq!(layout.missing_variables.len(), VARIABLES.len() - 1);
        assert!(
            Layout::find(None, nothing, nothing)
                .addresses_hidden
                .is_some()
        );
    }

    #[test]
    fn counts_possible_cpus() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("devices/system/cpu");
        std::fs::create_dir_all(&folder).unwrap();
        for (text, count) in [
            ("0\n", 1),
            ("0-1\n", 2),
            ("0-3,8-15\n", 16),
            ("", 0),
            ("x", 0),
            ("4294967295", 0),
        ] {
            std::fs::write(folder.join("possible"), text).unwrap();
            assert_eq!(possible_cpus(root.path()), count, "{text:?}");
        }
        assert_eq!(possible_cpus(Path::new("/nowhere")), 0);
    }
}
