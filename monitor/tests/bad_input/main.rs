//! Everything that a user can get wrong: each flag, each file, each socket, in one table. A row
//! gives the arguments, the outcome, and words of the message that name the thing, the place and
//! the remedy. A flag without a row fails the test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod flags;
mod inputs;
mod rows;
mod run;
mod sockets;

use std::{sync::Mutex, thread};

use inputs::Inputs;
use livepatch_monitor_test_support::left_out;

/// Outcome of bad input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The command exits with this code.
    With(i32),
    /// `serve` reports it, does without, and serves.
    Serves,
}

/// A row of the table.
struct Row {
    /// The flag or positional that it covers: `gate --soak`, `preflight FILE`; those of all
    /// commands have no command.
    about: &'static str,
    /// All arguments, the command first. `@name` is replaced by the path of a prepared input.
    line: &'static [&'static str],
    ends: Ends,
    /// Words that the message must have.
    says: &'static [&'static str],
}

const fn row(
    about: &'static str,
    line: &'static [&'static str],
    ends: Ends,
    says: &'static [&'static str],
) -> Row {
    Row {
        about,
        line,
        ends,
        says,
    }
}

/// Refused: exit code 2.
const fn no(
    about: &'static str,
    line: &'static [&'static str],
    says: &'static [&'static str],
) -> Row {
    row(about, line, Ends::With(2), says)
}

impl Row {
    /// Whether it is about what is in a dump: only root's are read.
    fn needs_root(&self) -> bool {
        let of_a_dump = |word: &&str| {
            ["@pstore-", "@kdump-"]
                .iter()
                .any(|of| word.starts_with(of))
        };
        self.line.iter().any(of_a_dump) && !self.says.is_empty()
    }
}

fn table() -> Vec<Row> {
    [
        rows::common(),
        rows::serve(),
        rows::state(),
        rows::directories(),
        rows::commands(),
        rows::crashes(),
        rows::preflight(),
        rows::gate(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_row_ends_as_it_says() {
    let mut rows = table();
    if !rustix::process::geteuid().is_root() {
        for row in rows.extract_if(.., |row| row.needs_root()) {
            left_out(&format!("{:?}", row.line), "only root's dumps are read");
        }
    }
    let left = Mutex::new(rows.iter());
    let faults = Mutex::new(Vec::new());
    // Most of a row's time is the start of a process.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(row) = left.lock().unwrap().next() else {
                        return;
                    };
                    let inputs = Inputs::new();
                    if let Err(fault) = run::check(&inputs, row) {
                        faults.lock().unwrap().push(fault);
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(
        faults.is_empty(),
        "{} of {} rows:\n{}",
        faults.len(),
        rows.len(),
        faults.join("\n")
    );
}
