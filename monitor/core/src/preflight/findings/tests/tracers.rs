//! Findings about what else is attached to the functions.

use super::*;

fn traced(ipmodify: bool, direct: bool) -> Traced {
    Traced {
        name: "show".to_owned(),
        users: Some(1),
        ipmodify,
        direct,
        ..Traced::default()
    }
}

#[test]
fn who_else_sits_there() {
    let with = |traced: Traced| {
        move |_: &mut Module, host: &mut Host| host.tracers.ftrace = Ok(vec![traced.clone()])
    };
    expect(
        with(traced(true, false)),
        Failure,
        "tracers",
        "a tracer may redirect show",
    );
    expect(
        with(traced(false, true)),
        Warning,
        "tracers",
        "BPF trampoline",
    );
    expect(
        with(traced(false, false)),
        Info,
        "tracers",
        "works together",
    );
    expect(
        |_, host| {
            host.tracers.ftrace = Ok(vec![traced(false, true)]);
            host.trampolines_share = Some(false);
        },
        Failure,
        "tracers",
        "before 6.0",
    );
    // A livepatch's own redirection does not hinder the next one.
    expect(
        |_, host| {
            host.tracers.ftrace = Ok(vec![traced(true, false)]);
            patches(host, vec![loaded("other", false, &["show"])]);
        },
        Info,
        "stacked",
        "other",
    );
    // Nor is its own, where it is loaded already.
    let (module, mut own) = (module(), host());
    own.tracers.ftrace = Ok(vec![traced(true, false)]);
    patches(&mut own, vec![loaded("fix", false, &["show"])]);
    assert_eq!(judge(&module, &own), []);
    let kprobe = |offset| Kprobe {
        name: "show".to_owned(),
        offset,
        ..Kprobe::default()
    };
    expect(
        |_, host| host.tracers.kprobes = Ok(vec![kprobe(0)]),
        Warning,
        "tracers",
        "a kprobe is attached to show+0x0",
    );
    expect(
        |_, host| {
            host.tracers.kprobes = Ok(vec![kprobe(4)]);
            host.tracers.events = vec![KprobeEvent {
                at_entry: true,
                event: "lpm/seen".to_owned(),
                name: "show".to_owned(),
                module: None,
            }];
        },
        Warning,
        "tracers",
        "(lpm/seen) is attached to show+0x4: it is inside",
    );
    // With IBT, ftrace's call comes after endbr64.
    expect(
        |_, host| {
            host.tracers.ftrace = Ok(vec![traced(false, false)]);
            host.tracers.kprobes = Ok(vec![Kprobe {
                by_ftrace: true,
                ..kprobe(4)
            }]);
        },
        Warning,
        "tracers",
        "show+0x4: it still fires",
    );
    // It is in the list of kprobes, and ftrace does not call it.
    expect(
        |_, host| {
            host.tracers.kprobes = Ok(vec![Kprobe {
                by_ftrace: true,
                ..kprobe(4)
            }]);
        },
        Warning,
        "tracers",
        "a kprobe is registered on show+0x4 and not armed",
    );
    // The same where a BPF program may override the function.
    let overridable = |host: &mut Host| {
        host.tracers.overridable = Ok(BTreeSet::from(["show".to_owned()]));
    };
    expect(
        |_, host| {
            overridable(host);
            host.tracers.kprobes = Ok(vec![kprobe(0)]);
        },
        Warning,
        "tracers",
        "does not show which of them wins",
    );
    expect(
        |_, host| {
            overridable(host);
            host.tracers.ftrace = Ok(vec![traced(false, true)]);
        },
        Warning,
        "tracers",
        "the new code never runs",
    );
    expect(
        |_, host| {
            host.tracers.overridable = Err("no debugfs".to_owned());
            host.tracers.ftrace = Ok(vec![traced(false, true)]);
        },
        Warning,
        "tracers",
        "may override the patch (fmod_ret, LSM) is unknown",
    );
    // One that refuses the patch is not said to continue beside it.
    let mut refusing = self::host();
    refusing.tracers.ftrace = Ok(vec![traced(true, false)]);
    refusing.tracers.kprobes = Ok(vec![kprobe(0)]);
    let findings = judge(&module, &refusing);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].severity, Failure);
    // Of the same name, but another function.
    let elsewhere = |host: &mut Host| {
        host.tracers.kprobes = Ok(vec![Kprobe {
            module: Some("m".to_owned()),
            ..kprobe(0)
        }]);
    };
    let mut host = host();
    elsewhere(&mut host);
    assert_eq!(judge(&module, &host), []);
    host.tracers.kprobes = Err("no debugfs".to_owned());
    assert_eq!(judge(&module, &host)[0].severity, Warning);
}

#[test]
fn a_program_that_can_be_listed_is_judged_by_its_kind() {
    let with = |function: &'static str, kind| {
        move |module: &mut Module, host: &mut Host| {
            module.objects[1].functions[0].name = function.to_owned();
            if function != "show" {
                let place = host.symbols.as_ref().unwrap().places("vmlinux", "show")[0];
                host.symbols.as_mut().unwrap().add(None, function, place);
            }
            host.tracers.ftrace = Ok(vec![Traced {
                name: function.to_owned(),
                ..traced(false, true)
            }]);
            host.tracers.programs = Ok(vec![BpfProgram {
                function: function.to_owned(),
                name: "guard".to_owned(),
                id: 12,
                kind,
                holders: Vec::new(),
            }]);
        }
    };
    for (kind, severity, says) in [
        (ProgramKind::Fentry, Info, "filed under the old name"),
        (ProgramKind::Fexit, Warning, "hold the transition up"),
        (ProgramKind::Fsession, Warning, "hold the transition up"),
        (ProgramKind::FmodRet, Warning, "the new code never runs"),
        (ProgramKind::Lsm, Warning, "the new code never runs"),
    ] {
        expect(with("show", kind), severity, "tracers", says);
        expect(with("show", kind), severity, "tracers", "guard (id 12, ");
    }
    // Those of cgroups are not listed.
    expect(
        with("bpf_lsm_file_open", ProgramKind::Fentry),
        Warning,
        "tracers",
        "which BPF programs may override",
    );
}

#[test]
fn the_number_of_users_shows_who_is_not_named() {
    let entry = || Kprobe {
        name: "show".to_owned(),
        by_ftrace: true,
        ..Kprobe::default()
    };
    let shown = |users: u32, below: bool, redirected: bool, probed: bool| {
        let (module, mut host) = (module(), host());
        host.tracers.ftrace = Ok(vec![Traced {
            users: Some(users),
            ..traced(redirected, false)
        }]);
        if below {
            patches(&mut host, vec![loaded("other", false, &["show"])]);
        }
        if probed {
            host.tracers.kprobes = Ok(vec![entry()]);
        }
        let findings = judge(&module, &host);
        let says = |text: &str| findings.iter().any(|finding| finding.what.contains(text));
        (
            says("calls a tracer from show"),
            says("a kprobe is attached to show"),
            says("registered on show+0x0 and not armed"),
        )
    };
    let with = |users, below, probed| shown(users, below, below, probed);
    // A livepatch, and beside it a tracer, a kprobe, both, and a kprobe that is not armed.
    assert_eq!(with(1, true, false), (false, false, false));
    assert_eq!(with(2, true, false), (true, false, false));
    assert_eq!(with(2, true, true), (false, true, false));
    assert_eq!(with(3, true, true), (true, true, false));
    assert_eq!(with(1, true, true), (false, false, true));
    // The same without a livepatch.
    assert_eq!(with(1, false, false), (true, false, false));
    assert_eq!(with(1, false, true), (false, true, false));
    assert_eq!(with(2, false, true), (true, true, false));
    // A patch is enabled according to sysfs and does not redirect the function: it is no user.
    assert_eq!(shown(1, true, false, false), (true, false, false));
    assert_eq!(shown(1, true, false, true), (false, true, false));
    assert_eq!(shown(2, true, false, true), (true, true, false));
}
