//! Runs the binary with a limit on its memory.

use std::process::Command;

use livepatch_monitor_test_support::{
    http,
    process::{Answer, Process},
};

use crate::{Ends, Row, inputs::Inputs};

const BINARY: &str = env!("CARGO_BIN_EXE_livepatch-monitor");
/// Address space: far less than the largest file.
const MEMORY: &str = "--as=2147483648";

/// The binary, limited, and without root's right to read files that it may not.
pub(crate) fn binary() -> Command {
    let mut command = Command::new("prlimit");
    command.arg(MEMORY);
    if rustix::process::geteuid().is_root() {
        command.args(["setpriv", "--bounding-set=-dac_override,-dac_read_search"]);
    }
    command.arg(BINARY);
    command
}

/// The command of a row, on the inputs' host unless the row says otherwise.
pub(crate) fn command(inputs: &Inputs, line: &[&str]) -> Command {
    let mut command = binary();
    for word in line {
        command.arg(inputs.argument(word));
    }
    let given = |flag: &str| line.iter().any(|word| word.starts_with(flag));
    let serves = line.first() == Some(&"serve");
    let listens = ["--web.listen-address", "--web.systemd-socket", "--textfile"];
    if serves && !listens.iter().any(|flag| given(flag)) {
        command.args(["--web.listen-address", "127.0.0.1:0"]);
    }
    inputs.host.complete(&mut command, line);
    command
}

/// Runs these arguments and no others.
pub(crate) fn plainly(inputs: &Inputs, line: &[&str]) -> Answer {
    let mut command = binary();
    for word in line {
        command.arg(inputs.argument(word));
    }
    Process::run(command)
}

/// Problem with the answer to a scrape, if the process has an address.
fn scraped(process: &Process) -> Option<String> {
    let address = process.find_address()?;
    match http::body(&address, "/metrics") {
        Ok(metrics) if metrics.contains("livepatch_monitor_build_info") => None,
        Ok(metrics) => Some(format!("a scrape gets {metrics}")),
        Err(error) => Some(error.to_string()),
    }
}

/// Problem with a row's outcome.
pub(crate) fn check(inputs: &Inputs, row: &Row) -> Result<(), String> {
    let mut process = Process::start(command(inputs, row.line));
    let fault = |problem: String, text: &str| {
        Err(format!(
            "{:?} ({}): {problem} in:\n{text}",
            row.line, row.about
        ))
    };
    let answer = match row.ends {
        Ends::With(_) => process.finish(),
        Ends::Serves => {
            if !process.listens() {
                return fault("it did not start serving".into(), &process.text());
            }
            if let Some(problem) = scraped(&process) {
                return fault(problem, &process.text());
            }
            let answer = process.stop();
            if answer.code != Some(0) {
                return fault(format!("it stops with {:?}", answer.code), &answer.text());
            }
            answer
        }
    };
    if let Ends::With(code) = row.ends
        && answer.code != Some(code)
    {
        return fault(format!("exit code {:?}", answer.code), &answer.text());
    }
    for word in row.says {
        if !answer.text().contains(word) {
            return fault(format!("no {word:?}"), &answer.text());
        }
    }
    if answer.text().contains("panicked") {
        return fault("a panic".into(), &answer.text());
    }
    if std::env::var_os("SHOW").is_some() {
        println!("ROW {:?}\n{}", row.line, answer.text());
    }
    Ok(())
}
