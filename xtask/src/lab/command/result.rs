//! How a guest of `cargo xtask lab` ended, read from its console.

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
}

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
}

#[cfg(test)]
mod tests {
    use super::Ending;

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
