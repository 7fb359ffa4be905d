use super::*;
use crate::patch::Function;
use crate::preflight::host::ProgramKind;

fn patch(name: &str, functions: &[(&str, &str)]) -> Patch {
    let mut objects: BTreeMap<&str, Vec<Function>> = BTreeMap::new();
    for (object, function) in functions {
        objects.entry(object).or_default().push(Function {
            name: (*function).to_owned(),
            sympos: 1,
        });
    }
    Patch {
        name: name.to_owned(),
        enabled: Some(true),
        transition: Some(false),
        objects: objects
            .into_iter()
            .map(|(name, functions)| Object {
                name: name.to_owned(),
                patched: Some(true),
                functions,
            })
            .collect(),
        ..Patch::default()
    }
}

fn traced(name: &str, flags: &str) -> Traced {
    Traced {
        name: name.to_owned(),
        ipmodify: flags.contains('I'),
        direct: flags.contains('D'),
        ..Traced::default()
    }
}

fn seen(traced: Vec<Traced>) -> Seen {
    Seen {
        traced: Ok(traced),
        redirected_elsewhere: 0,
        kprobes: Ok(Vec::new()),
        events: Vec::new(),
        overridable: Ok(BTreeSet::from(["should_failslab".to_owned()])),
        modules: Ok(["v2", "v1", "fix"].map(str::to_owned).to_vec()),
        programs: Err("not root".to_owned()),
    }
}

fn set(patches: &[Patch]) -> PatchSet {
    PatchSet {
        supported: true,
        patches: patches.to_vec(),
    }
}

/// The reason of the only function of `fix`.
fn why(function: &str, change: impl FnOnce(&mut PatchSet, &mut Seen)) -> Option<Why> {
    let mut set = set(&[patch("fix", &[(VMLINUX, function)])]);
    let mut seen = seen(vec![traced(function, "RI")]);
    change(&mut set, &mut seen);
    let judged = judge(&set, &seen);
    let fix = judged.iter().find(|one| one.patch == "fix").unwrap();
    assert_eq!(fix.in_force + fix.others.len(), 1, "{fix:?}");
    fix.others.first().map(|one| one.why.clone())
}

fn name(why: Option<Why>) -> &'static str {
    why.map_or("in_force", |why| why.name())
}

fn kprobe(name: &str) -> Kprobe {
    Kprobe {
        name: name.to_owned(),
        by_ftrace: true,
        ..Kprobe::default()
    }
}

#[test]
fn a_redirected_function_is_in_force() {
    assert_eq!(why("show", |_, _| {}), None);
}

#[test]
fn other_users_of_the_function_by_what_they_may_do() {
    // fentry and fexit on a function that nothing may override.
    assert_eq!(
        why("show", |_, seen| seen.traced =
            Ok(vec![traced("show", "RIDM")])),
        None
    );
    // A kprobe there: of tracefs, and another.
    let event = |at_entry| KprobeEvent {
        event: "kprobes/mine".to_owned(),
        name: "show".to_owned(),
        at_entry,
        ..KprobeEvent::default()
    };
    for (kprobes, events, expected) in [
        (1, vec![event(true)], "in_force"),
        (1, vec![event(false)], "unknown"),
        (1, Vec::new(), "unknown"),
        (2, vec![event(true)], "unknown"),
    ] {
        let found = why("show", |_, seen| {
            seen.kprobes = Ok(vec![kprobe("show"); kprobes]);
            seen.events = events;
        });
        assert_eq!(name(found), expected);
    }
    // The same where a program may override.
    let overridable = "should_failslab";
    let trampoline = |_: &mut PatchSet, seen: &mut Seen| {
        seen.traced = Ok(vec![traced("should_failslab", "RIDM")]);
    };
    let found = why(overridable, trampoline).unwrap();
    assert!(
        found
            .described()
            .contains("may be overridden by a BPF trampoline"),
        "{found:?}"
    );
    let found = why(overridable, |_, seen| {
        seen.kprobes = Ok(vec![kprobe(overridable)])
    })
    .unwrap();
    assert!(
        found.described().contains("bpf_override_return"),
        "{found:?}"
    );
    for harmless in [
        Kprobe {
            disabled: true,
            ..kprobe(overridable)
        },
        Kprobe {
            on_return: true,
            ..kprobe(overridable)
        },
        Kprobe {
            by_ftrace: false,
            offset: 9,
            ..kprobe(overridable)
        },
        Kprobe {
            module: Some("other".to_owned()),
            ..kprobe(overridable)
        },
    ] {
        assert_eq!(
            why(overridable, |_, seen| seen.kprobes = Ok(vec![harmless])),
            None
        );
    }
    for hook in [
        "security_file_open",
        "bpf_lsm_file_open",
        "update_socket_protocol",
    ] {
        let found = why(hook, |_, seen| seen.traced = Ok(vec![traced(hook, "RID")]));
        assert_eq!(name(found), "may_be_overridden", "{hook}");
    }
}

#[test]
fn a_program_that_can_be_listed_is_named() {
    let with = |function: &str, programs: Vec<BpfProgram>| {
        why(function, |_, seen| {
            seen.traced = Ok(vec![traced(function, "RID")]);
            seen.programs = Ok(programs);
        })
    };
    let program = |function: &str, kind| BpfProgram {
        function: function.to_owned(),
        name: "guard".to_owned(),
        id: 12,
        kind,
        holders: vec!["agentd (411)".to_owned()],
    };
    const INJECTED: &str = "should_failslab";
    let guard = program(INJECTED, ProgramKind::FmodRet);
    let seen = program(INJECTED, ProgramKind::Fentry);
    let found = with(INJECTED, vec![seen.clone(), guard.clone()]).unwrap();
    assert_eq!(
        found.described(),
        "may be overridden by BPF program guard (id 12, fmod_ret, held by agentd (411))"
    );
    // The trampoline is of a program that cannot override.
    assert_eq!(with(INJECTED, vec![seen]), None);
    // Nobody is known who could have attached it.
    let elsewhere = program("other", ProgramKind::FmodRet);
    for unlisted in [vec![], vec![elsewhere]] {
        assert_eq!(name(with(INJECTED, unlisted)), "may_be_overridden");
    }
    // A program of a cgroup on a hook of BPF LSM is not listed.
    let hook = "bpf_lsm_file_open";
    let beside = vec![program(hook, ProgramKind::Fentry)];
    assert_eq!(name(with(hook, beside)), "may_be_overridden");
    let lsm = with(hook, vec![program(hook, ProgramKind::Lsm)]).unwrap();
    assert!(lsm.described().contains("guard (id 12, lsm"), "{lsm:?}");
}

#[test]
fn a_patch_that_was_loaded_later_replaces_it() {
    let later = |transition: bool, function: &str| {
        let newer = Patch {
            transition: Some(transition),
            ..patch("v2", &[(VMLINUX, function)])
        };
        why("show", |set, _| set.patches.push(newer))
    };
    assert_eq!(later(false, "show"), Some(Why::Replaced("v2".to_owned())));
    assert_eq!(later(true, "show"), Some(Why::InTransition));
    assert_eq!(later(false, "other"), None);
    // `fix` is the newest here.
    let found = why("show", |set, seen| {
        set.patches.push(patch("v2", &[(VMLINUX, "show")]));
        seen.modules = Ok(["fix", "v2"].map(str::to_owned).to_vec());
    });
    assert_eq!(found, None);
}

#[test]
fn what_is_not_there_and_what_is_not_known() {
    let reason = |change: fn(&mut PatchSet, &mut Seen)| name(why("show", change));
    assert_eq!(
        reason(|set, _| set.patches[0].transition = Some(true)),
        "in_transition"
    );
    assert_eq!(reason(|set, _| set.patches[0].transition = None), "unknown");
    assert_eq!(
        reason(|set, _| set.patches[0].objects[0].patched = Some(false)),
        "object_not_loaded"
    );
    // Kernels before 6.1 do not say whether an object is patched.
    assert_eq!(
        reason(|set, _| {
            set.patches[0].objects[0].patched = None;
            set.patches[0].objects[0].name = "nf_tables".to_owned();
        }),
        "object_not_loaded"
    );
    assert_eq!(reason(|_, seen| seen.traced = Ok(vec![])), "not_redirected");
    assert_eq!(
        reason(|_, seen| seen.traced = Ok(vec![traced("show", "R")])),
        "not_redirected"
    );
    assert_eq!(
        reason(|_, seen| {
            seen.traced = Ok(vec![]);
            seen.redirected_elsewhere = 1;
        }),
        "unknown"
    );
    assert_eq!(
        reason(|_, seen| seen.traced = Err("no tracefs".to_owned())),
        "unknown"
    );
    assert_eq!(
        reason(|_, seen| seen.modules = Err("no procfs".to_owned())),
        "unknown"
    );
    // Whether a kprobe is there is not known, unless the livepatch is the only user.
    for (users, expected) in [
        (None, "unknown"),
        (Some(2), "unknown"),
        (Some(1), "in_force"),
    ] {
        let found = why("show", |_, seen| {
            seen.kprobes = Err("no debugfs".to_owned());
            seen.traced = Ok(vec![Traced {
                users,
                ..traced("show", "RI")
            }]);
        });
        assert_eq!(name(found), expected, "{users:?}");
    }
    // Something is attached, and what it may do is not known.
    assert_eq!(
        reason(|_, seen| {
            seen.overridable = Err("no debugfs".to_owned());
            seen.kprobes = Ok(vec![kprobe("show")]);
        }),
        "unknown"
    );
    assert_eq!(
        reason(|_, seen| {
            seen.overridable = Err("no debugfs".to_owned());
            seen.kprobes = Err("no debugfs".to_owned());
        }),
        "unknown"
    );
    // Nothing is attached: it does not matter.
    assert_eq!(
        reason(|_, seen| seen.overridable = Err("no debugfs".to_owned())),
        "in_force"
    );
}

#[test]
fn unknown_is_not_zero() {
    let set = set(&[patch("fix", &[(VMLINUX, "show"), (VMLINUX, "store")])]);
    let mut facts = seen(vec![traced("show", "I")]);
    let judged = judge(&set, &facts);
    assert_eq!(
        (judged[0].known(), judged[0].reasons()["not_redirected"]),
        (Some(1), 1)
    );
    facts.traced = Err("no tracefs".to_owned());
    assert_eq!(judge(&set, &facts)[0].known(), None);
    facts.traced = Ok(Vec::new());
    assert_eq!(judge(&set, &facts)[0].known(), Some(0));
    assert_eq!(functions(&set), BTreeSet::from(["show", "store"]));
}

#[test]
fn a_disabled_patch_is_not_judged() {
    let disabled = Patch {
        enabled: Some(false),
        ..patch("fix", &[(VMLINUX, "show")])
    };
    assert_eq!(judge(&set(&[disabled]), &seen(vec![])), []);
}
