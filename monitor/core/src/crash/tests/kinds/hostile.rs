//! Names that users choose, in the lines that the kernel prints about their programs,
//! make no signal.

use proptest::{collection::vec, prelude::*};

use self::names::{LINES, STARTS};
use super::*;
use crate::crash::Signal;

mod names;

/// Pieces of a name: how reports start, and anything.
fn any_name() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        (0..STARTS.len()).prop_map(|start| STARTS[start].to_owned()),
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
    vec(piece, 1..5).prop_map(|pieces| pieces.concat().replace('\0', ""))
}

fn expect_nothing(line: usize, name: &str, timed: bool, dump: bool) -> Result<(), TestCaseError> {
    let text = names::line(line, name, timed);
    let behind = if dump {
        names::dump(name)
    } else {
        String::new()
    };
    let log = names::log(&text, &behind, timed);
    let parsed = parser::read(log.as_bytes(), &Reading::new(SOAK));
    prop_assert!(
        parsed.records.is_empty() && parsed.non_fatal.is_empty(),
        "{log}\n{parsed:#?}"
    );
    // The line as the live hook sees it: up to its first newline.
    let live: Option<Signal> = parser::signal(text.split('\n').next().unwrap());
    prop_assert!(live.is_none() || name.contains('\n'), "{text}");
    Ok(())
}

proptest! {
    #[test]
    fn no_name_is_a_signal(
        line in 0..LINES.len(),
        start in 0..STARTS.len(),
        before in "[a-z\n]{0,3}",
        behind in "[a-z \n]{0,6}",
        timed: bool,
        dump: bool,
    ) {
        let name = format!("{before}{}{behind}", STARTS[start]);
        expect_nothing(line, &name, timed, dump)?;
    }

    #[test]
    fn no_mixture_of_names_is_a_signal(
        line in 0..LINES.len(),
        name in any_name(),
        timed: bool,
        dump: bool,
    ) {
        expect_nothing(line, &name, timed, dump)?;
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
        for timed in [false, true] {
            expect_nothing(line, name, timed, false)?;
            expect_nothing(line, name, timed, true)?;
        }
    }
    Ok(())
}
