//! A panic without an oops: panic() prints a call trace and no module list (kernel/panic.c,
//! lib/dump_stack.c), so only the log shows which patches there are.

use super::*;

/// A recorded panic during a transition, with these lines between the start of the transition and
/// the panic.
fn read(kernel: &str, lines: &[&str]) -> CrashRecord {
    let log = String::from_utf8(console(kernel, "transition")).unwrap();
    let panic = log.lines().position(|line| line.contains("sysrq: Trigger"));
    let mut text: Vec<&str> = log.lines().collect();
    let at = panic.unwrap();
    let stamp = text.get(at).unwrap().split_once(']').unwrap().0;
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("{stamp}] {line}"))
        .collect();
    text.splice(at..at, lines.iter().map(String::as_str));
    only(parser::read(text.join("\n").as_bytes(), &Reading::new(SOAK)).records)
}

const COMPLETE: &str = "livepatch: 'lpm_patch_a': patching complete";

#[test]
fn a_patch_that_the_log_has_last_put_in_force_is_still_there() {
    for kernel in KERNELS {
        let record = read(kernel, &[COMPLETE]);
        assert_eq!(record.phase, Phase::Soak, "{kernel}");
        assert!(record.modules.is_none(), "{kernel}");
        assert_eq!(record.unproven, [""; 0], "{kernel}");
        assert_eq!(record.implicated, Implicated::No, "{kernel}");
    }
}

#[test]
fn a_later_patch_may_have_replaced_it() {
    for kernel in KERNELS {
        let later = [
            COMPLETE,
            "livepatch: enabling patch 'lpm_patch_b'",
            "livepatch: 'lpm_patch_b': starting patching transition",
            "livepatch: 'lpm_patch_b': patching complete",
        ];
        for lines in [&later[..3], &later[..]] {
            let record = read(kernel, lines);
            assert_eq!(record.implicated, Implicated::Unknown, "{kernel}");
            assert_eq!(
                record.unproven,
                ["livepatch lpm_patch_a may have been replaced"],
                "{kernel}"
            );
        }
    }
}

#[test]
fn one_that_was_just_disabled_has_replaced_nothing() {
    for kernel in KERNELS {
        let record = read(
            kernel,
            &[
                COMPLETE,
                "livepatch: enabling patch 'lpm_patch_b'",
                "livepatch: 'lpm_patch_b': starting patching transition",
                "livepatch: 'lpm_patch_b': patching complete",
                "livepatch: 'lpm_patch_b': starting unpatching transition",
                "livepatch: 'lpm_patch_b': unpatching complete",
            ],
        );
        assert_eq!(record.implicated, Implicated::Unknown, "{kernel}");
        assert_eq!(
            record.unproven,
            ["livepatch lpm_patch_b has just been disabled"],
            "{kernel}"
        );
    }
}
