//! How a guest of `cargo xtask lab` ended, read from its console.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};

/// The end of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The command returned this exit code; after a signal it is 128 more than the signal.
    Exit(u8),
    /// The guest has no such command.
    Missing,
    /// The kernel panicked first.
    Panic,
    /// The guest powered off, or was reset, without a result.
    Unknown,
    /// It was ended from here after this time.
    Timeout(Duration),
}

/// The exit code of an error of this program's own, as `docker run` has it: what the
/// command returns is passed on, and may be 1.
const OWN_ERROR: u8 = 125;

/// What the guest's first process writes before the result.
const RESULT: &str = "lab-result: ";

impl Ending {
    /// Reads what the guest's first process wrote (`init.sh`); the last result counts, as
    /// a command may print to the console too.
    pub(super) fn read(console: &str) -> Self {
        let result = console
            .lines()
            .rev()
            .find_map(|line| line.trim_end().strip_prefix(RESULT));
        if let Some(result) = result {
            let code = result.strip_prefix("exit ").map(str::parse);
            return match (result, code) {
                (_, Some(Ok(code))) => Self::Exit(code),
                ("missing", _) => Self::Missing,
                _ => Self::Unknown,
            };
        }
        if console.contains("Kernel panic - not syncing") {
            Self::Panic
        } else {
            Self::Unknown
        }
    }

    /// The command's exit code. `console` is the end of the kernel's log, for where there is
    /// no code.
    pub(super) fn code(self, program: &str, console: &str) -> Result<u8> {
        match self {
            Self::Exit(code) => Ok(code),
            Self::Missing => bail!(
                "`{program}` is not in the guest; it has busybox's commands (`busybox --list`), \
                 livepatch-monitor, and what you reach by a path such as /modules"
            ),
            Self::Panic => {
                bail!("the guest's kernel panicked before `{program}` ended\n{console}")
            }
            Self::Unknown => bail!("the guest ended before `{program}` did\n{console}"),
            Self::Timeout(after) => bail!(
                "`{program}` did not finish within {} s of the guest's start; raise --timeout\n\
                 {console}",
                after.as_secs()
            ),
        }
    }
}

/// The exit code of the whole, with the message if the command has none.
pub(super) fn exit_code(code: Result<u8>) -> (u8, Option<String>) {
    match code {
        Ok(code) => (code, None),
        Err(error) => (OWN_ERROR, Some(format!("error: {error:#}"))),
    }
}

/// Says it, and returns it.
pub(super) fn exit(code: Result<u8>) -> ExitCode {
    let (code, error) = exit_code(code);
    if let Some(error) = error {
        eprintln!("{error}");
    }
    code.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ending: Ending) -> (u8, String) {
        let (code, error) = exit_code(ending.code("insmod", "the end of console.log:\nlast"));
        (code, error.unwrap_or_default())
    }

    #[test]
    fn the_code_of_the_command_is_passed_on() {
        for code in [0, 1, 2, 125, 139] {
            assert_eq!(said(Ending::Exit(code)), (code, String::new()));
        }
    }

    #[test]
    fn where_there_is_no_code_the_error_says_why() {
        for (ending, words, console) in [
            (Ending::Missing, "`insmod` is not in the guest", false),
            (Ending::Panic, "kernel panicked before `insmod` ended", true),
            (Ending::Unknown, "the guest ended before `insmod` did", true),
            (
                Ending::Timeout(Duration::from_secs(61)),
                "`insmod` did not finish within 61 s of the guest's start; raise --timeout",
                true,
            ),
        ] {
            let (code, error) = said(ending);
            assert_eq!(code, 125, "{ending:?}");
            assert!(error.starts_with("error: "), "{error}");
            assert!(error.contains(words), "{error}");
            assert_eq!(error.ends_with("last"), console, "{error}");
        }
    }

    #[test]
    fn the_result_is_the_last_line_of_its_kind() {
        let console = "[    1.0] Linux\r\n\r\nlab-result: exit 3\r\nlab-result: exit 139\r\n";
        assert_eq!(Ending::read(console), Ending::Exit(139));
        assert_eq!(Ending::read("x\nlab-result: missing\n"), Ending::Missing);
    }

    #[test]
    fn an_end_without_a_result_is_no_success() {
        let panic = "[    2.0] Kernel panic - not syncing: Fatal exception\n";
        assert_eq!(Ending::read(panic), Ending::Panic);
        for console in [
            "",
            "lab-result: exit\n",
            "lab-result: exit x\n",
            "lab-result: broken\n",
        ] {
            assert_eq!(Ending::read(console), Ending::Unknown, "{console:?}");
        }
    }
}
