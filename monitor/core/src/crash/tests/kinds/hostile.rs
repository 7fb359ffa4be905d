//! Names that users choose, in the lines that the kernel prints about their programs,
//! make no signal.

use proptest::{collection::vec, prelude::*};

use self::names::{FORMS, Form, LINES, SIGNS, STARTS};
use super::*;

mod names;

/// Pieces of a name: how reports start, and anything.
fn any_name() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        (0..STARTS.len()).prop_map(|start| STARTS[start].to_owned()),
        (0..SIGNS.len()).prop_map(|sign| SIGNS[sign].to_owned()),
        ".{0,6}",
        Just("\n".to_owned()),
        Just("\r".to_owned()),
        Just("\u{8}".repeat(99)),
        Just("[    5.000001] ".to_owned()),
        Just("\u{1b}[".to_owned()),
        Just("\u{1b}k".to_owned()),
        Just("\u{1b}(".to_owned()),
        Just("\u{7}".to_owned()),
        Just("\u{9b}".to_owned()),
        Just(" ".to_owned()),
    ];
    vec(piece, 1..8).prop_map(|pieces| pieces.concat().replace('\0', ""))
}

/// Messages of the kernel's, by the number of their line and the name in them.
fn expect_nothing(form: Form, messages: &[String], later: bool) -> Result<(), TestCaseError> {
    let log = names::log(form, messages, later);
    let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
    prop_assert!(
        parsed.records.is_empty() && parsed.non_fatal.is_empty(),
        "{form:?}:\n{log}\n{parsed:#?}"
    );
    Ok(())
}

/// The message as the live hook sees it: all of it, or its first line.
fn expect_no_live_signal(text: &str) -> Result<(), TestCaseError> {
    let first = text.split('\n').next().unwrap();
    prop_assert_eq!(parser::signal(text), None, "{}", text);
    prop_assert_eq!(parser::signal(first), None, "{}", first);
    Ok(())
}

proptest! {
    #[test]
    fn no_name_is_a_signal(
        line in 0..LINES.len(),
        start in 0..STARTS.len(),
        before in "[a-z\n]{0,3}",
        behind in "[a-z \n]{0,6}",
        form in 0..FORMS.len(),
        dump in proptest::option::of(any::<bool>()),
    ) {
        let name = format!("{before}{}{behind}", STARTS[start]);
        let text = names::line(line, &name);
        expect_no_live_signal(&text)?;
        let mut messages = vec![text];
        // Of the same task or of another.
        let own = |own| names::dump(if own { &name } else { "a.out" });
        messages.extend(dump.map(own).unwrap_or_default());
        expect_nothing(FORMS[form], &messages, false)?;
    }

    /// One name has what starts a report, another what proves one, with or without other
    /// lines between.
    #[test]
    fn no_two_names_are_a_signal(
        lines in (0..LINES.len(), 0..LINES.len()),
        start in 0..STARTS.len(),
        signs in vec(0..SIGNS.len(), 1..5),
        ends in ("[a-z\n]{0,3}", "[a-z\n]{0,3}", "[a-z\n]{0,3}"),
        between in 0..3_usize,
        form in 0..FORMS.len(),
        later: bool,
        dump: bool,
    ) {
        let signs: Vec<&str> = signs.into_iter().map(|sign| SIGNS[sign]).collect();
        let one = names::line(lines.0, &format!("{}{}\n{}", ends.0, STARTS[start], ends.1));
        let two = names::line(lines.1, &format!("{}\n{}\n{}", ends.2, signs.join("\n"), ends.1));
        let mut messages = vec![one];
        messages.extend((0..between).map(|at| format!("usb 1-{at}: USB disconnect")));
        messages.push(two);
        if dump {
            messages.extend(names::dump("a.out"));
        }
        expect_nothing(FORMS[form], &messages, later)?;
    }

    #[test]
    fn no_mixture_of_names_is_a_signal(
        named in vec((0..LINES.len(), any_name()), 1..4),
        form in 0..FORMS.len(),
        later: bool,
        dump in proptest::option::of(any::<bool>()),
    ) {
        let mut messages = Vec::new();
        for (line, name) in &named {
            let text = names::line(*line, name);
            expect_no_live_signal(&text)?;
            messages.push(text);
        }
        let own = |own| names::dump(if own { &named[0].1 } else { "a.out" });
        messages.extend(dump.map(own).unwrap_or_default());
        expect_nothing(FORMS[form], &messages, later)?;
    }
}

/// Counts of what the properties found.
#[test]
fn names_that_once_were_signals() -> Result<(), TestCaseError> {
    for (line, name) in [
        (
            11,
            "\rBUG: kernel NULL pointer dereference, address: 0000000000000010",
        ),
        (
            7,
            "[    5.000001] INFO: task a:1 blocked for more than 120 seconds.",
        ),
        (
            0,
            "BUG: kernel NULL pointer dereference\n[    5.000001] kernel BUG at mm/slub.c:1!",
        ),
        (0, "BUG: KASAN: x\u{1b}k"),
        (0, "BUG: KASAN: x\u{1b}["),
    ] {
        for form in FORMS {
            let mut messages = vec![names::line(line, name)];
            expect_nothing(form, &messages, false)?;
            messages.extend(names::dump(name));
            expect_nothing(form, &messages, false)?;
        }
    }
    Ok(())
}

/// A first line in one name and its proof in another.
#[test]
fn a_report_in_two_names() -> Result<(), TestCaseError> {
    let name = |text: &str| format!("overlayfs: failed to resolve 'x\n{text}\n': -2");
    for (at, start) in STARTS.iter().enumerate() {
        for form in FORMS {
            for sign in [0, 1, 4 + at % (SIGNS.len() - 4)] {
                let between = "usb 1-1: USB disconnect".to_owned();
                let messages = [name(start), between, name(SIGNS[sign])];
                expect_nothing(form, &messages, true)?;
            }
        }
    }
    Ok(())
}

/// A whole report in one name, each of its lines with what a log may have before a message's
/// first: who prints, another host, an earlier and a later time, a code block. `wide` bytes that are
/// no UTF-8 come before: a name is not longer for their being shown as more.
#[test]
fn a_whole_report_in_one_name() -> Result<(), TestCaseError> {
    let report = [STARTS[0], SIGNS[0], SIGNS[1], SIGNS[4], SIGNS[5]];
    for before in [
        "",
        "[T1] ",
        "[  T1] ",
        "Nov 29 12:03:21 other kernel: ",
        "<4>",
        "```\n",
        "    ",
    ] {
        for wide in [0, 330] {
            let lines = report.map(|line| format!("{before}{line}\n")).concat();
            let wide = "\u{fffd}".repeat(wide);
            let message = format!("overlayfs: failed to resolve '{wide}\n{lines}': -2");
            for form in FORMS {
                expect_nothing(form, std::slice::from_ref(&message), false)?;
            }
        }
    }
    Ok(())
}

/// Names cannot hide a crash, nor count it twice, nor implicate a livepatch in it.
#[test]
fn a_crash_beside_hostile_names() -> Result<(), TestCaseError> {
    let report = [
        "BUG: kernel NULL pointer dereference, address: 0000000000000010",
        "Oops: 0000 [#1] SMP",
        "CPU: 1 PID: 7 Comm: own Tainted: G           OE      6.12.0 #1",
        "RIP: 0010:own_place+0x1/0x20",
        "Modules linked in: acme(OE)",
        "---[ end trace 0000000000000000 ]---",
    ];
    for name in [
        "x\n__CURSOR=s=1\n_TRANSPORT=audit\nMESSAGE=x\n",
        "x\n[    9.000001] a\n[    8.000001] b\n[    7.000001] c\n",
        "x\n{ \"MESSAGE\" : \"x\" }\n",
        "x\n  [  150.000001] a\n",
    ] {
        for form in [
            Form::Console,
            Form::Callers,
            Form::Indented,
            Form::Journal,
            Form::Kmsg,
        ] {
            let mut messages: Vec<String> = (0..30)
                .map(|_| format!("overlayfs: failed to resolve '{name}': -2"))
                .collect();
            messages.push("usb 1-1: new high-speed USB device number 3 using xhci_hcd".to_owned());
            messages.extend(report.map(str::to_owned));
            let log = names::log(form, &messages, true);
            let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
            let found = parsed.records.iter().map(|record| record.implicated);
            prop_assert!(
                found.clone().count() == 1 && found.clone().all(|it| it != Implicated::Yes),
                "{form:?} {name:?}: {:?} {:?}",
                found.collect::<Vec<_>>(),
                parsed.problems
            );
        }
    }
    Ok(())
}

/// Nothing is known about a short report after a line that may contain a name, in a log without
/// times.
#[test]
fn a_report_that_may_be_a_name() {
    let (start, end) = (STARTS[0], "---[ end trace 0000000000000000 ]---");
    let texts = [start, SIGNS[0], SIGNS[1], end].map(str::to_owned);
    for (form, crashes) in [(Form::Untimed, 0), (Form::Console, 1), (Form::Kmsg, 1)] {
        let log = names::log(form, &texts, false);
        let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
        assert_eq!(parsed.records.len(), crashes, "{form:?}");
        assert_eq!(parsed.problems.len(), 1 - crashes, "{form:?}");
    }
}

/// The same lines as the kernel's own are a report, in each form.
#[test]
fn the_kernels_own_are_signals() {
    let lines = REPORT.split('\n').map(str::to_owned);
    let messages: Vec<String> = lines.collect();
    for form in FORMS {
        for later in [false, true] {
            let log = names::log(form, &messages, later);
            let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
            assert_eq!(parsed.records.len(), 1, "{form:?}:\n{log}{parsed:#?}");
            assert_eq!(parsed.problems, [""; 0], "{form:?}:\n{log}");
        }
    }
}

const REPORT: &str = "BUG: kernel NULL pointer dereference, address: 0000000000000010\n\
    #PF: supervisor read access in kernel mode\n\
    #PF: error_code(0x0000) - not-present page\n\
    PGD 0 P4D 0\n\
    Oops: Oops: 0000 [#1] SMP NOPTI\n\
    CPU: 1 UID: 0 PID: 642 Comm: io_helper Not tainted 6.12.0 #1\n\
    Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2-1 04/01/2014\n\
    RIP: 0010:acme_read+0x3a/0x1c0 [acme_net]\n\
    Code: 48 89 c7 e8 a7 5b c6 ff 48 8b 04 25 00 00 00 00 48 89 c7 e8 a7 5b c6 ff 48 8b 04 25\n\
    RSP: 0018:ffffc90000573e38 EFLAGS: 00010246\n\
    RAX: 0000000000000000 RBX: ffff888004b1e000 RCX: 0000000000000000\n\
    RDX: 0000000000000000 RSI: ffffffff81234567 RDI: ffff888004b1e000\n\
    RBP: ffff888004b1e000 R08: 0000000000000000 R09: 0000000000000000\n\
    R10: 0000000000000000 R11: 0000000000000000 R12: 0000000000000000\n\
    R13: 0000000000000000 R14: 0000000000000000 R15: 0000000000000000\n\
    FS:  00007f1c2b3d4740(0000) GS:ffff88803ec00000(0000) knlGS:0000000000000000\n\
    CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033\n\
    CR2: 0000000000000010 CR3: 0000000004a2e000 CR4: 00000000000006f0\n\
    Call Trace:\n <TASK>\n vfs_read+0xa1/0x310\n ksys_read+0x6f/0xf0\n\
    \x20do_syscall_64+0x9e/0x1a0\n entry_SYSCALL_64_after_hwframe+0x77/0x7f\n </TASK>\n\
    Modules linked in: acme_net(E)\nCR2: 0000000000000010\n\
    ---[ end trace 0000000000000000 ]---";
