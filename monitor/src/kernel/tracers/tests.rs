use super::*;
use proptest::prelude::*;
use std::{cell::Cell, fs};

fn of(enabled: &str, functions: &[&str]) -> Vec<Traced> {
    let functions = functions.iter().copied().collect();
    let mut list = InUse::default();
    for line in enabled.lines() {
        list.line(line, &functions);
    }
    list.found
}

#[test]
fn reads_ftraces_list() {
    let found = of(
        "cmdline_proc_show (1) R I     \ttramp: 0xffffffffc0a7e000 (klp_ftrace_handler+0x0/0x1e0) ->ftrace_regs_caller_end+0x0\n\
         other (1)           \ttramp: 0xffffffffc0a7e000 (x+0x0/0x10)\n\
         lpm_hold [lpm_target] (2) R   D   M \ttramp: 0xffffffffc0a80000 (kprobe_ftrace_handler+0x0/0x1c0)\n\
         \tdirect-->bpf_trampoline_6442536467+0x0/0xf3\n\
         elsewhere (1)\n\
         \tdirect-->bpf_trampoline_1+0x0/0xf3\n",
        &["cmdline_proc_show", "lpm_hold"],
    );
    assert_eq!(found.len(), 2);
    assert!(found[0].ipmodify && !found[0].direct && found[0].module.is_none());
    assert!(found[0].who.contains("klp_ftrace_handler"));
    assert!(!found[1].ipmodify && found[1].direct);
    assert_eq!(found[1].module.as_deref(), Some("lpm_target"));
    assert_eq!((found[0].users, found[1].users), (Some(1), Some(2)));
    let last = &found[1].who;
    assert!(
        last.contains("bpf_trampoline_6442536467") && !last.contains("bpf_trampoline_1+"),
        "{last}"
    );
}

#[test]
fn reads_kprobes_list() {
    let probe = parse_kprobe("ffffffff8a1b2c30  k  cmdline_proc_show+0x0    [FTRACE]").unwrap();
    assert_eq!(
        (probe.name.as_str(), probe.offset),
        ("cmdline_proc_show", 0)
    );
    assert!(!probe.on_return && !probe.disabled && probe.module.is_none());
    assert!(probe.by_ftrace);
    let probe =
        parse_kprobe("ffffffffc0a2b010  r  lpm_hold+0x4  lpm_target [DISABLED][FTRACE]").unwrap();
    assert_eq!(probe.module.as_deref(), Some("lpm_target"));
    assert!(probe.on_return && probe.disabled && probe.offset == 4);
    assert_eq!(
        parse_kprobe("ffffffffc0a2b010  k  gone+0x0  m [GONE]"),
        None
    );
    assert_eq!(parse_kprobe("ffffffffc0a2b010  k  ffffffffc0a2b010 "), None);
}

#[test]
fn reads_events() {
    let event = parse_event("r8:lpm/back lpm_target:lpm_hold+0 ret=$retval").unwrap();
    assert_eq!(event.event, "lpm/back");
    assert_eq!(
        (event.module.as_deref(), event.name.as_str()),
        (Some("lpm_target"), "lpm_hold")
    );
    assert!(!event.at_entry);
    for (line, at_entry) in [
        ("p:a/b f%return", false),
        ("p:a/b f+4", false),
        ("p:a/b f+0", true),
        ("p:a/b f x=%di", true),
    ] {
        let event = parse_event(line).unwrap();
        assert_eq!((event.name.as_str(), event.at_entry), ("f", at_entry));
    }
}

#[test]
fn open_lists_are_read_as_they_are_now() {
    let root = tempfile::tempdir().unwrap();
    let debug = root.path().join("kernel/debug");
    fs::create_dir_all(debug.join("kprobes")).unwrap();
    fs::create_dir_all(debug.join("tracing")).unwrap();
    let enabled = debug.join("tracing/enabled_functions");
    fs::write(
        &enabled,
        "f (1) R I   \t->klp_ftrace_handler\nother (1) R I\n",
    )
    .unwrap();
    fs::write(debug.join("kprobes/list"), "ffff  k  f+0x0  [FTRACE]\n").unwrap();
    let functions = BTreeSet::from(["f"]);
    let mut lists = Lists::open(root.path());
    let attached = lists.read(&functions, &|| false);
    assert!(attached.traced.unwrap()[0].ipmodify);
    assert_eq!(attached.redirected_elsewhere, 1);
    assert_eq!(attached.kprobes.unwrap().len(), 1);
    // A kernel without error injection lets no program override anything.
    assert_eq!(attached.overridable, Ok(BTreeSet::new()));
    fs::write(&enabled, "f (1) R\n").unwrap();
    let attached = lists.read(&functions, &|| false);
    assert!(!attached.traced.unwrap()[0].ipmodify);

    fs::create_dir_all(debug.join("error_injection")).unwrap();
    let list = debug.join("error_injection/list");
    fs::write(&list, "f [mod]\tEI_ETYPE_ERRNO\ng\tEI_ETYPE_NULL\n").unwrap();
    let overridable = Lists::open(root.path())
        .read(&functions, &|| false)
        .overridable;
    assert_eq!(overridable, Ok(BTreeSet::from(["f".to_owned()])));

    let nowhere = tempfile::tempdir().unwrap();
    let attached = Lists::open(nowhere.path()).read(&functions, &|| false);
    assert!(attached.traced.unwrap_err().contains("enabled_functions"));
    assert!(attached.kprobes.unwrap_err().contains("kprobes/list"));
    assert!(
        attached
            .overridable
            .unwrap_err()
            .contains("error_injection/list")
    );
}

#[test]
fn what_is_missing_is_named() {
    let root = tempfile::tempdir().unwrap();
    let tracers = read(root.path(), root.path(), &BTreeSet::new());
    assert!(tracers.ftrace.unwrap_err().contains("enabled_functions"));
    assert!(tracers.kprobes.unwrap_err().contains("kprobes/list"));
    let tracing = root.path().join("kernel/tracing");
    fs::create_dir_all(&tracing).unwrap();
    fs::write(tracing.join("enabled_functions"), "f (1) R  \n").unwrap();
    let tracers = read(root.path(), root.path(), &BTreeSet::from(["f"]));
    assert_eq!(tracers.ftrace.unwrap()[0].name, "f");
}

proptest! {
    #[test]
    fn never_panics(lines in proptest::collection::vec("[\t a-f(]{0,9}\\PC{0,60}", 0..6)) {
        let functions = BTreeSet::from(["a", "f", "ab"]);
        let mut list = InUse::default();
        for line in &lines {
            list.line(line, &functions);
            let _ = parse_kprobe(line);
            let _ = parse_event(line);
        }
        prop_assert!(list.found.iter().all(|traced| traced.who.len() <= MAX_WHO));
    }
}

/// A module that comes while the list is read has ftrace's lock to itself.
#[test]
fn a_list_is_given_up_when_a_module_is_being_loaded() {
    let lines = "f (1)\n".repeat(10 * LINES_BETWEEN_CHECKS);
    let looks = Cell::new(0);
    let comes = || {
        looks.set(looks.get() + 1);
        looks.get() == 3
    };
    let mut seen = 0;
    visit_lines(lines.as_bytes(), &comes, |_| seen += 1).unwrap_err();
    assert_eq!(seen, 3 * LINES_BETWEEN_CHECKS - 1);
    visit_lines(lines.as_bytes(), &|| false, |_| ()).unwrap();
}
