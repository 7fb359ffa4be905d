use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    crash::capture::Source as Evidence,
    patch::{self, Patch, PatchSet},
    preflight::{
        Verdict,
        host::{
            BpfProgram, Kprobe, KprobeEvent, Place, Policy, ProgramKind, Symbols, Traced, Tracers,
        },
        module::{Function, NeededSymbol, Object},
    },
};

fn function(name: &str, sympos: u64) -> Function {
    Function {
        name: name.to_owned(),
        sympos,
    }
}

fn module() -> Module {
    let object = |name: &str, function: Function| Object {
        name: name.to_owned(),
        functions: vec![function],
    };
    Module {
        name: "fix".to_owned(),
        livepatch: true,
        vermagic: Some("6.12 SMP mod_unload".to_owned()),
        srcversion: Some("AAA".to_owned()),
        depends: Vec::new(),
        signed: false,
        replace: Some(false),
        source: Source::KlpPatch,
        objects: vec![
            object("nf_tables", function("nft_do", 0)),
            object("vmlinux", function("show", 0)),
        ],
        needed: Vec::new(),
    }
}

fn host() -> Host {
    let place = |address| Place {
        address,
        size: Some(0x40),
    };
    let mut symbols = Symbols::default();
    symbols.add(None, "show", place(0x1000));
    symbols.add(Some("nf_tables"), "nft_do", place(0x9000));
    Host {
        release: Ok("6.12".to_owned()),
        patches: Ok(PatchSet {
            supported: true,
            patches: Vec::new(),
        }),
        modules: Ok(BTreeMap::from([("nf_tables".to_owned(), None)])),
        symbols: Ok(symbols),
        tracers: Tracers {
            ftrace: Ok(Vec::new()),
            kprobes: Ok(Vec::new()),
            events: Vec::new(),
            overridable: Ok(BTreeSet::new()),
            programs: Ok(Vec::new()),
        },
        trampolines_share: Some(true),
        policy: Policy::default(),
        evidence: vec![(Evidence::Pstore, true)],
        threads: Ok(100),
        cpus: Some(2),
    }
}

fn loaded(name: &str, transition: bool, functions: &[&str]) -> Patch {
    Patch {
        name: name.to_owned(),
        enabled: Some(true),
        transition: Some(transition),
        objects: vec![patch::Object {
            name: "vmlinux".to_owned(),
            patched: Some(true),
            functions: functions
                .iter()
                .map(|name| patch::Function {
                    name: (*name).to_owned(),
                    sympos: 1,
                })
                .collect(),
        }],
        ..Patch::default()
    }
}

/// The findings for a module or host that is changed in one way: the worst must have this severity
/// and check, and contain this text.
#[track_caller]
fn expect(change: impl Fn(&mut Module, &mut Host), severity: Severity, check: &str, says: &str) {
    let (mut module, mut host) = (module(), host());
    change(&mut module, &mut host);
    let findings = judge(&module, &host);
    let worst = findings
        .iter()
        .max_by_key(|finding| finding.severity)
        .unwrap();
    assert_eq!(worst.severity, severity, "{findings:?}");
    assert!(
        findings.iter().any(|finding| {
            finding.severity == severity && finding.check == check && finding.what.contains(says)
        }),
        "no {check} that says {says:?}: {findings:?}"
    );
}

fn patches(host: &mut Host, patches: Vec<Patch>) {
    host.patches = Ok(PatchSet {
        supported: true,
        patches,
    });
}

mod tracers;

use Severity::{Failure, Info, Unknown, Warning};

#[test]
fn a_fit_module_on_a_ready_host_is_clear() {
    assert_eq!(judge(&module(), &host()), []);
    assert_eq!(Verdict::of(&[]).exit_code(), 0);
}

#[test]
fn the_module_itself() {
    expect(
        |module, _| module.livepatch = false,
        Failure,
        "livepatch",
        "not a livepatch",
    );
    expect(
        |module, _| {
            module.source = Source::Nowhere;
            module.objects.clear();
        },
        Unknown,
        "livepatch",
        "cannot determine",
    );
    expect(
        |module, _| module.objects.clear(),
        Warning,
        "livepatch",
        "no function",
    );
    expect(
        |module, _| module.vermagic = Some("6.1 SMP".to_owned()),
        Failure,
        "kernel",
        "built for kernel 6.1, and this is 6.12",
    );
    expect(
        |module, _| module.vermagic = None,
        Failure,
        "kernel",
        "vermagic",
    );
    expect(
        |_, host| host.release = Err("?".to_owned()),
        Unknown,
        "kernel",
        "?",
    );
    expect(
        |module, _| module.depends.push("zstd".to_owned()),
        Warning,
        "depends",
        "zstd",
    );
}

#[test]
fn without_ftrace_no_livepatch_loads() {
    expect(
        |_, host| host.policy.ftrace_enabled = Some(false),
        Failure,
        "ftrace_enabled",
        "EBUSY",
    );
}

#[test]
fn a_module_that_was_disabled_or_replaced_is_to_be_removed_first() {
    let left_over = |disabled: bool, srcversion: &str| {
        let (mut module, mut host) = (module(), host());
        module.objects.clear();
        host.modules = Ok(BTreeMap::from([(
            "fix".to_owned(),
            Some(srcversion.to_owned()),
        )]));
        let disabled = disabled.then(|| Patch {
            enabled: Some(false),
            ..loaded("fix", false, &[])
        });
        patches(&mut host, disabled.into_iter().collect());
        let findings = judge(&module, &host);
        let found = findings
            .into_iter()
            .find(|finding| finding.check == "loaded");
        found.unwrap()
    };
    for (disabled, srcversion) in [(false, "AAA"), (true, "AAA"), (false, "BBB")] {
        let finding = left_over(disabled, srcversion);
        assert_eq!(finding.severity, Failure);
        assert!(
            finding.what.contains("loaded and not in force"),
            "{finding:?}"
        );
        assert!(finding.remedy.starts_with("rmmod fix first"), "{finding:?}");
        let other = finding.what.contains("another build");
        assert_eq!(other, srcversion == "BBB", "{finding:?}");
    }
}

#[test]
fn what_is_loaded() {
    let with = |srcversion: Option<&str>| {
        let srcversion = srcversion.map(str::to_owned);
        move |_: &mut Module, host: &mut Host| {
            host.modules = Ok(BTreeMap::from([("fix".to_owned(), srcversion.clone())]));
            patches(host, vec![loaded("fix", false, &[])]);
        }
    };
    expect(
        with(Some("AAA")),
        Failure,
        "loaded",
        "already in force, from the same build",
    );
    expect(with(Some("BBB")), Failure, "loaded", "srcversion BBB");
    expect(with(None), Failure, "loaded", "no srcversion");
    expect(
        |_, host| patches(host, vec![loaded("other", true, &[])]),
        Failure,
        "transition",
        "other is in transition",
    );
    expect(
        |_, host| {
            let transition = None;
            let other = loaded("other", false, &[]);
            patches(
                host,
                vec![Patch {
                    transition,
                    ..other
                }],
            );
        },
        Unknown,
        "transition",
        "cannot determine whether livepatch other is in transition",
    );
    expect(
        |_, host| patches(host, vec![loaded("other", false, &["show"])]),
        Info,
        "stacked",
        "show is already patched by other",
    );
    expect(
        |module, host| {
            module.replace = Some(true);
            patches(host, vec![loaded("other", false, &[])]);
        },
        Info,
        "replace",
        "other",
    );
    expect(
        |_, host| host.patches = Ok(PatchSet::default()),
        Failure,
        "livepatch",
        "no livepatch support",
    );
    expect(
        |_, host| host.patches = Err("gone".to_owned()),
        Unknown,
        "transition",
        "gone",
    );
}

#[test]
fn what_the_kernel_asks_of_modules() {
    expect(
        |_, host| host.policy.signatures_enforced = Some(true),
        Failure,
        "module_policy",
        "not signed",
    );
    expect(
        |_, host| host.policy.lockdown = Some("integrity".to_owned()),
        Failure,
        "module_policy",
        "locked down (integrity)",
    );
    expect(
        |_, host| host.policy.modules_disabled = Some(true),
        Failure,
        "module_policy",
        "does not load modules",
    );
    let (mut module, mut host) = (module(), host());
    module.signed = true;
    host.policy.signatures_enforced = Some(true);
    host.policy.lockdown = Some("none".to_owned());
    assert_eq!(judge(&module, &host), []);
}

#[test]
fn symbols_that_the_kernel_will_look_up() {
    let none = |_: &mut Module, host: &mut Host| host.symbols = Ok(Symbols::default());
    expect(
        none,
        Failure,
        "symbols",
        "module nf_tables has no symbol nft_do",
    );
    expect(none, Failure, "symbols", "the kernel has no symbol show");
    let twice = |host: &mut Host| {
        let place = Place {
            address: 0x2000,
            size: None,
        };
        host.symbols.as_mut().unwrap().add(None, "show", place);
    };
    expect(
        |_, host| twice(host),
        Failure,
        "symbols",
        "2 symbols named show",
    );
    expect(
        |module, host| {
            twice(host);
            module.objects[1].functions[0].sympos = 3;
        },
        Failure,
        "symbols",
        "needs number 3",
    );
    let (mut chosen, mut two) = (module(), host());
    twice(&mut two);
    chosen.objects[1].functions[0].sympos = 2;
    assert_eq!(judge(&chosen, &two), []);
    expect(
        |_, host| host.modules = Ok(BTreeMap::new()),
        Info,
        "objects",
        "module nf_tables is not loaded",
    );
    expect(
        |_, host| host.symbols = Err("hidden".to_owned()),
        Unknown,
        "symbols",
        "hidden",
    );
    expect(
        |module, _| {
            module.needed.push(NeededSymbol {
                object: "vmlinux".to_owned(),
                name: "lost".to_owned(),
                sympos: 0,
            });
        },
        Failure,
        "symbols",
        "no symbol lost",
    );
}

#[test]
fn the_host() {
    expect(
        |_, host| host.evidence.clear(),
        Warning,
        "crash_evidence",
        "neither",
    );
    expect(
        |_, host| host.evidence.push((Evidence::Watchdog, false)),
        Info,
        "crash_evidence",
        "watchdog",
    );
    expect(
        |_, host| host.threads = Ok(100_000),
        Warning,
        "size",
        "100000 threads",
    );
    expect(|_, host| host.cpus = Some(256), Warning, "size", "256 CPUs");
}

#[test]
fn names_are_made_fit_for_a_terminal() {
    let mut module = module();
    module.vermagic = Some("\x1b[2J 1".to_owned());
    let findings = judge(&module, &host());
    assert!(findings[0].what.contains("\\x1b"), "{findings:?}");
}
