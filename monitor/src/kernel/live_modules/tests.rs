use std::path::Path;

use super::*;
use livepatch_core::patch::Patch;

fn write(root: &Path, file: &str, content: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn module(root: &Path, name: &str, taint: &str, state: &str) {
    write(root, &format!("module/{name}/taint"), taint);
    write(root, &format!("module/{name}/initstate"), state);
}

fn set(names: &[&str]) -> PatchSet {
    let patches = names.iter().map(|name| Patch {
        name: (*name).to_owned(),
        ..Patch::default()
    });
    PatchSet {
        supported: true,
        patches: patches.collect(),
    }
}

#[test]
fn a_livepatch_that_is_loaded_and_not_in_force_is_left_over() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    module(root, "fix_v1", "OEK\n", "live\n");
    module(root, "fix_v2", "OEK\n", "live\n");
    module(root, "fix_v3", "OEK\n", "coming\n");
    module(root, "nf_tables", "\n", "live\n");
    module(root, "zfs", "POE\n", "live\n");
    // Built in: it has parameters and nothing else.
    write(root, "module/printk/parameters/time", "Y\n");
    let mut modules = LiveModules::default();
    let (found, problems) = modules.beside(root, &set(&["fix_v2"]));
    assert_eq!(
        (found.left_over, problems),
        (vec!["fix_v1".to_owned()], vec![])
    );
    assert!(found.mechanisms.is_empty());

    // Loaded after the patches were read.
    write(root, "kernel/livepatch/fix_v1/enabled", "1\n");
    let (found, _) = modules.beside(root, &set(&["fix_v2"]));
    assert!(found.left_over.is_empty(), "{found:?}");

    // Removed.
    fs::remove_dir_all(root.join("kernel/livepatch/fix_v1")).unwrap();
    fs::remove_dir_all(root.join("module/fix_v1")).unwrap();
    let (found, _) = modules.beside(root, &set(&["fix_v2"]));
    assert!(found.left_over.is_empty(), "{found:?}");
}

#[test]
fn other_mechanisms_are_named_and_are_no_left_overs() {
    for (names, core, mechanisms) in [
        (
            &["ksplice_q3k1xx", "ksplice_q3k1xx_vmlinux_new"][..],
            None,
            &[Mechanism::Ksplice][..],
        ),
        (&["kcare"], None, &[Mechanism::KernelCare]),
        (
            &["kpatch", "kpatch_old"],
            Some("kernel/kpatch/kpatch_old"),
            &[Mechanism::KpatchCore],
        ),
        (
            &["kpatch_old"],
            Some("kernel/kpatch/patches/kpatch_old"),
            &[Mechanism::KpatchCore],
        ),
        // A livepatch from kpatch-build needs no core.
        (&["kpatcher", "ksplicer"], None, &[]),
    ] {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let taint = if *name == "kpatcher" { "\n" } else { "OE\n" };
            module(root.path(), name, taint, "live\n");
        }
        if let Some(core) = core {
            write(root.path(), &format!("{core}/enabled"), "1\n");
        }
        let (found, problems) = LiveModules::default().beside(root.path(), &set(&[]));
        assert_eq!(found.mechanisms, mechanisms, "{names:?}");
        assert!(
            found.left_over.is_empty() && problems.is_empty(),
            "{found:?}"
        );
    }
}

#[test]
fn a_kernel_without_modules_has_none() {
    let root = tempfile::tempdir().unwrap();
    let found = LiveModules::default().beside(root.path(), &set(&[]));
    assert_eq!(found, (Beside::default(), vec![]));
}
