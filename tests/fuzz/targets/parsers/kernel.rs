//! Data from the kernel: records of the probes and the task iterator, its types, and what it shows
//! about tasks, patches and symbols.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use livepatch_monitor::kernel::{btf::Btf, counts, events, kallsyms, modules, procfs, scan, sysfs, tracers};

pub fn parse(bytes: &[u8]) {
    crate::pick(bytes, [records, types, task, patch, symbols, hooks, values]);
}

fn records(bytes: &[u8]) {
    let _ = events::decode(bytes);
    for reliable in [false, true] {
        if let Ok(Some(scan)) = scan::decode(bytes, reliable) {
            assert!(scan.tasks.len() <= bytes.len());
        }
    }
    if let Ok(tasks) = scan::decode_tasks(bytes) {
        assert!(tasks.len() <= bytes.len());
    }
}

fn types(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    for name in ["a", "outer", "klp_patch", "task_struct"] {
        let _ = btf.struct_size(name);
        let _ = btf.member_offset(name, "a.b");
        let _ = btf.member_size(name, "list");
    }
    let _ = btf.has_func("klp_enable_patch");
    let _ = btf.has_enumerator("ftrace_ops_cmd", "X");
}

/// A root with the files of one task and one patch, in memory.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = crate::ROOT.join("kernel");
    for folder in [
        "proc/7/task/7",
        "sys/kernel/livepatch/fix/vmlinux/f,1",
        "sys/kernel/tracing",
        "sys/kernel/debug/kprobes",
        "sys/devices/system/cpu",
        "sys/module/fix",
        "proc/sys/kernel/random",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    put(&root, "proc/7/task/7/patch_state", b"0\n");
    put(
        &root,
        "proc/7/task/7/stat",
        b"7 (a) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n",
    );
    root
});

fn put(root: &Path, file: &str, bytes: &[u8]) {
    fs::write(root.join(file), bytes).unwrap();
}

/// The files of a task, split as the bytes determine.
fn task(bytes: &[u8]) {
    let root = &*ROOT;
    let files = ["stat", "stack", "patch_state", "cgroup", "wchan", "status"];
    let parts: Vec<&[u8]> = bytes.splitn(files.len(), |byte| *byte == 0xff).collect();
    for (name, content) in files.iter().zip(&parts) {
        put(root, &format!("proc/7/task/7/{name}"), content);
    }
    let procfs = root.join("proc");
    for walk in [
        procfs::every_task(&procfs),
        procfs::pending_tasks(&procfs, 1),
    ] {
        let Ok(walk) = walk else { continue };
        assert!(walk.tasks.len() <= 1 && walk.pending <= walk.visited);
        for task in &walk.tasks {
            assert!(task.frames.len() <= 128 && task.tid == 7);
        }
    }
    put(root, "proc/7/cgroup", bytes);
    if let Some(path) = procfs::cgroup_of(&procfs, 7) {
        let _ = procfs::unit_of(&path);
    }
    put(root, "proc/sys/kernel/random/boot_id", bytes);
    let _ = procfs::boot_id(&procfs);
}

fn patch(bytes: &[u8]) {
    let root = &*ROOT;
    let files = [
        "enabled",
        "transition",
        "replace",
        "stack_order",
        "vmlinux/patched",
    ];
    for (name, content) in files
        .iter()
        .zip(bytes.splitn(files.len(), |byte| *byte == 0xff))
    {
        put(root, &format!("sys/kernel/livepatch/fix/{name}"), content);
    }
    put(root, "sys/module/fix/srcversion", bytes);
    let (set, _) = sysfs::read_patches(&root.join("sys")).unwrap();
    assert_eq!(set.patches.len(), 1);
    assert_eq!(set.patches[0].objects[0].functions[0].name, "f");
    put(root, "sys/module/fix/initstate", bytes);
    let _ = sysfs::is_loading(&root.join("sys"), "fix");
}

fn symbols(bytes: &[u8]) {
    let root = &*ROOT;
    put(root, "proc/kallsyms", bytes);
    let Ok(mut symbols) = kallsyms::Kallsyms::open(&root.join("proc")) else {
        return;
    };
    let wanted = ["klp_transition_patch", "f"];
    let mut addresses = BTreeSet::from([0xffff_ffff_8100_0010]);
    if let Ok(found) = kallsyms::find(&root.join("proc"), &wanted) {
        for (name, symbol) in found.iter() {
            assert!(wanted.contains(&name));
            addresses.insert(symbol.address);
        }
    }
    if let Ok(resolved) = kallsyms::resolve(&mut symbols, &addresses) {
        for (address, at) in &resolved {
            assert!(addresses.contains(address) && at.offset <= Some(*address));
        }
    }
}

fn hooks(bytes: &[u8]) {
    let root = &*ROOT;
    for file in [
        "sys/kernel/tracing/enabled_functions",
        "sys/kernel/tracing/kprobe_events",
        "sys/kernel/debug/kprobes/list",
    ] {
        put(root, file, bytes);
    }
    let functions = BTreeSet::from(["vfs_read", "f"]);
    let found = tracers::read(&root.join("proc"), &root.join("sys"), &functions);
    for traced in found.ftrace.unwrap() {
        assert!(functions.contains(traced.name.as_str()));
    }
    for kprobe in found.kprobes.unwrap() {
        assert!(functions.contains(kprobe.name.as_str()));
    }
}

fn values(bytes: &[u8]) {
    let root = &*ROOT;
    for file in [
        "proc/loadavg",
        "proc/modules",
        "proc/sys/kernel/osrelease",
        "sys/devices/system/cpu/online",
        "sys/kernel/warn_count",
    ] {
        put(root, file, bytes);
    }
    let (procfs, sysfs) = (root.join("proc"), root.join("sys"));
    let _ = modules::threads(&procfs);
    let _ = modules::cpus(&sysfs);
    let _ = modules::release(&procfs);
    let _ = modules::policy(&procfs, &sysfs);
    if let Ok(loaded) = modules::loaded(&procfs, &sysfs) {
        assert!(loaded.len() <= bytes.len() + 1);
    }
    let _ = counts::read(&procfs, &sysfs);
}
