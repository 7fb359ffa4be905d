//! Task names chosen by an attacker.

use anyhow::{Context as _, Result, ensure};

use crate::{
    eventually::seconds, guest::Guest, helpers::Hold, livepatch::PATCH_A, monitor, target,
};

/// Names of 15 bytes at most: quotes and a new line, an escape code that clears
/// the terminal, invalid UTF-8, a backslash, a forged line of the exposition.
const NAMES: &[&[u8]] = &[
    b"a\"b'c\nd",
    b"\x1b[2J\x1b[1;31mx\x07",
    b"\xff\xfe\xc3(\x80",
    b"back\\slash\\n",
    b"\nup{x=\"y\"} 1\n",
    b"`$(reboot)`",
];

/// A task's name is in every output, and breaks none.
pub(super) fn names_break_nothing(guest: &mut Guest) -> Result<()> {
    guest.start_monitor(&["--stuck-after", "1s"])?;
    target::load()?;
    let mut holders = Vec::new();
    for name in NAMES {
        holders.push(guest.hold(&Hold {
            comm: Some(name.to_vec()),
            ..Hold::ONE
        })?);
    }
    PATCH_A.load()?;
    // A forged line would either be refused by the parser or be a metric called `up`.
    let sleeping = "livepatch_stuck_tasks{patch=lpm_patch_a,reason=sleeping}";
    let metrics = guest.wait_for(seconds(30), sleeping, 6.0)?;
    metrics.expect_absent("up")?;
    expect_safe("the exposition", metrics.text().as_bytes())?;

    let blockers = monitor::blockers()?;
    for holder in &holders {
        let task = blockers.task(holder.pid)?;
        ensure!(!task.comm.is_empty(), "no name in {task:?}");
    }
    for arguments in [
        &["blockers"][..],
        &["blockers", "--json"],
        &["status"],
        &["status", "--json"],
    ] {
        let answer = monitor::command(arguments)?;
        expect_safe(&format!("`{}`", arguments.join(" ")), &answer.output)?;
    }
    expect_safe("the log", monitor::log().as_bytes())?;
    target::release()
}

/// Safe for a terminal: UTF-8 without a control character other than the newline.
fn expect_safe(what: &str, output: &[u8]) -> Result<()> {
    let text =
        std::str::from_utf8(output).with_context(|| format!("{what} is not UTF-8: {output:?}"))?;
    let unsafe_line = text.lines().find(|line| line.chars().any(char::is_control));
    ensure!(
        unsafe_line.is_none(),
        "{what} has control characters: {:?}",
        unsafe_line.unwrap_or_default()
    );
    Ok(())
}
