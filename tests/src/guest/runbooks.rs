//! Follows runbooks to the letter: their commands are read from the page and run while the alert's
//! condition holds. The machine has no shell and no systemd: what a page looks up in the journal is
//! looked up in the log that the journal would contain, and programs that the machine lacks are
//! left out.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{files, guest::Guest, kernel_log, monitor};

macro_rules! pages {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../dashboards/runbooks/", $name, ".md")))),+]
    };
}

/// The pages whose conditions occur in a machine, with their text.
const PAGES: &[(&str, &str)] = pages![
    "LivepatchBootUnclean",
    "LivepatchCrashImplicatesPatch",
    "LivepatchCrashSignal",
    "LivepatchForced",
    "LivepatchHostCrashed",
    "LivepatchHostSilentInSoak",
    "LivepatchHostSilentInTransition",
    "LivepatchLoadFailed",
    "LivepatchMonitorDegraded",
    "LivepatchNoCrashEvidence",
    "LivepatchNotInForce",
    "LivepatchPatchMissing",
    "LivepatchReversed",
    "LivepatchStopRollout",
    "LivepatchTransitionStuck",
    "LivepatchTransitionStuckLong",
];

/// Programs that no test machine has.
const ELSEWHERE: &[&str] = &[
    "apt-get",
    "bpftool",
    "chronyc",
    "curl",
    "date",
    "df",
    "dnf",
    "dnf5",
    "dpkg",
    "insmod",
    "ipmitool",
    "kpatch",
    "ls",
    "modprobe",
    "rmmod",
    "ssh",
    "systemctl",
    "timedatectl",
    "uptime",
    "yum",
    "yum-complete-transaction",
    "zypper",
];

/// Programs that are run, or whose work is done here.
const HERE: &[&str] = &[
    "cat",
    "dmesg",
    "echo",
    "grep",
    "journalctl",
    "livepatch-monitor",
];

/// Context for following a page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk<'a> {
    /// The page.
    pub(crate) page: &'a str,
    /// The values of its placeholders, such as PATCH.
    pub(crate) given: &'a [(&'a str, &'a str)],
    /// Text that must be seen in the output of the monitor's commands and in the logs.
    pub(crate) seen: &'a [&'a str],
}

/// Follows a page from top to bottom. A command that cannot work is an error: one that is refused,
/// one that ends with "cannot determine", a search that finds nothing, a file that does not exist.
pub(crate) fn follow(guest: &Guest, walk: &Walk<'_>) -> Result<()> {
    let known = PAGES.iter().find(|(name, _)| *name == walk.page);
    let (_, text) = known.with_context(|| format!("no runbook {}", walk.page))?;
    let mut output = String::new();
    let (mut ran, mut done) = (0, BTreeSet::new());
    for line in commands(text) {
        let Some(words) = filled(&line, walk.given) else {
            continue;
        };
        let (first, rest) = words.split_first().context("an empty command")?;
        // A page may name a command twice.
        if ELSEWHERE.contains(&first.as_str()) || !done.insert(line.clone()) {
            continue;
        }
        let said = run(first, rest).with_context(|| format!("{}: `{line}`", walk.page))?;
        output.push_str(&said);
        ran += 1;
    }
    guest.note(format!("{}: {ran} commands", walk.page))?;
    ensure!(ran > 0, "{} has no command for this machine", walk.page);
    for words in walk.seen {
        ensure!(
            output.contains(words),
            "{}: its commands do not show {words:?}: {output}",
            walk.page
        );
    }
    Ok(())
}

/// The lines of code below "What to look at" and "What to do", and the commands in their
/// sentences, in order.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut to_follow, mut fenced) = (false, false);
    let mut prose = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            found.append(&mut in_prose(&std::mem::take(&mut prose)));
            to_follow = matches!(title, "What to look at" | "What to do");
            continue;
        }
        if line.trim() == "```" {
            found.append(&mut in_prose(&std::mem::take(&mut prose)));
            fenced = !fenced;
            continue;
        }
        match (to_follow, fenced) {
            (true, true) if is_command(line.trim()) => found.push(line.trim().to_owned()),
            (true, false) => {
                prose.push_str(line.trim());
                prose.push(' ');
            }
            _ => {}
        }
    }
    found.append(&mut in_prose(&prose));
    found
}

/// The commands between backquotes; one may be split over two lines.
fn in_prose(prose: &str) -> Vec<String> {
    let quoted = prose.split('`').skip(1).step_by(2);
    let commands = quoted.filter(|text| is_command(text) && text.contains(' '));
    commands.map(str::to_owned).collect()
}

fn is_command(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    HERE.contains(&first) || ELSEWHERE.contains(&first)
}

/// The words of a command with its placeholders replaced; `None` if one has no value here.
fn filled(line: &str, given: &[(&str, &str)]) -> Option<Vec<String>> {
    let mut words = words(line);
    for word in &mut words {
        for (placeholder, value) in given {
            *word = word.replace(placeholder, value);
        }
    }
    let is_placeholder = |word: &String| {
        word.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|part| PLACEHOLDERS.contains(&part))
    };
    (!words.iter().any(is_placeholder)).then_some(words)
}

/// The placeholders that pages use.
const PLACEHOLDERS: &[&str] = &[
    "DIR", "FILE", "HOST", "ID", "MODULE", "NAMES", "PATCH", "URL",
];

/// Words as a shell splits them; single quotes keep a word together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        match number % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// Runs a command; returns its output.
fn run(program: &str, arguments: &[String]) -> Result<String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (program, arguments.as_slice()) {
        ("livepatch-monitor", arguments) => of_the_monitor(monitor::command(arguments)?),
        ("dmesg", ["|", "livepatch-monitor", arguments @ ..]) => of_the_monitor(piped(arguments)?),
        ("cat", [path]) if is_kernels(path) => files::read(path),
        // A file of the distribution.
        ("cat", [_]) => Ok(String::new()),
        ("grep", [".", pattern]) => matching(pattern),
        ("echo", [value, ">", path]) => {
            files::write(path, value)?;
            Ok(String::new())
        }
        ("journalctl", arguments) => searched(arguments),
        _ => bail!("not a command that is known here"),
    }
}

/// Exit code 2 is that of a command that cannot work, and of one that cannot determine the answer.
fn of_the_monitor(answer: monitor::Answer) -> Result<String> {
    let text = String::from_utf8_lossy(&answer.output).into_owned() + &answer.errors;
    ensure!(answer.code < 2, "it ended with {}: {text}", answer.code);
    Ok(text)
}

/// Gives a command of the monitor the kernel log in dmesg's format.
fn piped(arguments: &[&str]) -> Result<monitor::Answer> {
    // The target of a link; udev, which makes the link, is not in the machine.
    let arguments = arguments.iter().map(|word| match *word {
        "/dev/stdin" => "/proc/self/fd/0",
        word => word,
    });
    let mut child = Command::new(monitor::PROGRAM)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the monitor")?;
    let mut input = child.stdin.take().context("no pipe")?;
    input
        .write_all(kernel_log::as_dmesg()?.as_bytes())
        .context("cannot write to the pipe")?;
    drop(input);
    let output = child.wait_with_output().context("cannot wait for it")?;
    Ok(monitor::Answer {
        code: output.status.code().context("it was killed")?,
        output: output.stdout,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn is_kernels(path: &str) -> bool {
    path.starts_with("/sys/") || path.starts_with("/proc/")
}

/// The files that match a pattern with one `*`, which must exist.
fn matching(pattern: &str) -> Result<String> {
    let (before, after) = pattern.split_once('*').context("no * in the pattern")?;
    let mut text = String::new();
    for entry in fs::read_dir(before).with_context(|| format!("cannot read {before}"))? {
        let path = entry.context("an entry")?.path();
        let path = format!("{}{after}", path.display());
        text.push_str(&files::read(&path)?);
    }
    ensure!(!text.is_empty(), "no file matches");
    Ok(text)
}

/// What journalctl would find, in the monitor's log or the kernel's. A pattern without
/// capitals matches both cases (journalctl(1)).
fn searched(arguments: &[&str]) -> Result<String> {
    let value = |flag: &str| {
        let at = arguments.iter().position(|word| *word == flag)?;
        arguments.get(at + 1).copied()
    };
    let Some(pattern) = value("-g") else {
        return Ok(String::new());
    };
    let log = match (value("-u"), arguments.contains(&"-k")) {
        (Some("livepatch-monitor"), _) => monitor::log(),
        (None, true) => kernel_log::as_dmesg()?,
        // Other units are not in the machine.
        _ => return Ok(String::new()),
    };
    let is_hit = |line: &&str| {
        let line = match pattern.chars().any(char::is_uppercase) {
            true => (*line).to_owned(),
            false => line.to_lowercase(),
        };
        pattern.split('|').any(|one| line.contains(one))
    };
    let hits: Vec<&str> = log.lines().filter(is_hit).collect();
    ensure!(!hits.is_empty(), "nothing is found in\n{log}");
    Ok(hits.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_order() {
        let page = "# X\n\n## What it means\n\n`echo no > /x`\n\n## What to look at\n\nRun `livepatch-monitor\nstatus` or:\n\n\
                    ```\njournalctl -u a -g 'b c'\nup{x=\"y\"}\n```\n\n## What to do\n\n1. `force`, `cat /proc/x`\n";
        assert_eq!(
            commands(page),
            [
                "livepatch-monitor status",
                "journalctl -u a -g 'b c'",
                "cat /proc/x"
            ]
        );
        assert_eq!(words("a -g 'b c' d"), ["a", "-g", "b c", "d"]);
        assert_eq!(filled("echo 0 > /sys/PATCH/enabled", &[]), None);
        let given = [("PATCH", "fix")];
        let words = filled("echo 0 > /sys/PATCH/enabled", &given).unwrap();
        assert_eq!(words, ["echo", "0", ">", "/sys/fix/enabled"]);
    }

    /// No page has a line of code that is neither a command known here nor a query.
    #[test]
    fn every_line_of_code_is_known() {
        for (name, text) in PAGES {
            let mut blocks = text.split("```");
            let mut before = blocks.next().unwrap();
            while let (Some(code), after) = (blocks.next(), blocks.next()) {
                let said = before.trim().rsplit("\n\n").next().unwrap();
                let is_query = said.contains("Prometheus") || code.contains("livepatch_");
                let unknown = code.trim().lines().find(|line| !is_command(line.trim()));
                assert!(is_query || unknown.is_none(), "{name}: {unknown:?}");
                before = after.unwrap_or_default();
            }
        }
    }
}
