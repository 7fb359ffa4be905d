//! The documentation: its links resolve, README stays short, and its table of commands
//! lists exactly the commands that exist.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Most lines that README may have: the rest belongs in docs/.
const MOST_LINES: usize = 160;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// All Markdown files below a directory.
fn markdown(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Every page whose links are checked.
fn pages() -> Vec<PathBuf> {
    let root = root();
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(|name| root.join(name))
        .to_vec();
    for directory in ["docs", "dashboards"] {
        markdown(&root.join(directory), &mut pages);
    }
    pages
}

/// The text outside fenced code blocks.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let mut rest = text;
    let mut links = Vec::new();
    while let Some((_, after)) = rest.split_once("](") {
        let Some((target, after)) = after.split_once(')') else {
            break;
        };
        links.push(target.to_owned());
        rest = after;
    }
    links
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| {
            heading
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// The problems of a page's relative links.
fn broken(page: &Path, text: &str) -> Vec<String> {
    let directory = page.parent().unwrap();
    let relative = |link: &String| !link.contains("://") && !link.starts_with("mailto:");
    links(&prose(text))
        .into_iter()
        .filter(relative)
        .filter_map(|link| {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = directory.join(path);
            if !target.exists() {
                return Some(format!("{}: {link} does not exist", page.display()));
            }
            let known = || match path {
                "" => anchors(text),
                _ => anchors(&fs::read_to_string(&target).unwrap()),
            };
            (!anchor.is_empty() && !known().contains(anchor))
                .then(|| format!("{}: {link} names no heading", page.display()))
        })
        .collect()
}

#[test]
fn relative_links_resolve() {
    let pages = pages();
    assert!(pages.len() > 30, "{pages:?}");
    let broken: Vec<String> = pages
        .iter()
        .flat_map(|page| broken(page, &fs::read_to_string(page).unwrap()))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn broken_links_are_found() {
    let page = root().join("README.md");
    let text = "# A title\n[x](#a-title) [x](https://example.org/y)\n```\n[x](no)\n```\n";
    assert_eq!(broken(&page, text), [""; 0]);
    let text = "[x](docs/no.md) [x](#nothing) [x](docs/metrics.md#label-values)";
    assert_eq!(broken(&page, text).len(), 2);
}

#[test]
fn readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = text.lines().count();
    assert!(
        lines <= MOST_LINES,
        "README.md has {lines} lines: move something to docs/"
    );
}

/// The first cells of the rows of the table under `## Commands`.
fn documented_commands(readme: &str) -> BTreeSet<String> {
    let (_, section) = readme.split_once("\n## Commands\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn readme_lists_every_command() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let command = livepatch_monitor::cli::command();
    let commands = command.get_subcommands();
    let commands: BTreeSet<String> = commands.map(|command| command.get_name().into()).collect();
    assert_eq!(documented_commands(&readme), commands);
}

/// Every long flag of every command, nested ones included.
fn flags(command: &clap::Command, found: &mut BTreeSet<String>) {
    let own = command.get_arguments().filter_map(|flag| flag.get_long());
    found.extend(own.map(str::to_owned));
    for command in command.get_subcommands() {
        flags(command, found);
    }
}

#[test]
fn the_reference_has_every_flag() {
    let text: String = ["docs/commands.md", "docs/gate.md"]
        .map(|page| fs::read_to_string(root().join(page)).unwrap())
        .concat();
    let mut all = BTreeSet::new();
    flags(&livepatch_monitor::cli::command(), &mut all);
    let missing: Vec<&String> = all
        .iter()
        .filter(|flag| {
            !text.contains(&format!("`--{flag}`")) && !text.contains(&format!("`--{flag} "))
        })
        .collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");
}

/// Each row of docs/security.md names tests that exist: functions of a file, scenarios, fuzz
/// targets.
#[test]
fn the_tests_of_the_security_table_exist() {
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let scenarios = fs::read_to_string(root().join("tests/src/protocol.rs")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let mut named = 0;
    // The first is the heading.
    for row in rows.skip(1) {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let words: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        let mut source = String::new();
        assert!(!words.is_empty(), "no test in {row}");
        for (index, word) in words.iter().enumerate() {
            named += 1;
            if !word.contains('/') {
                let function = format!("fn {word}(");
                assert!(source.contains(&function), "no {word} where {row} says");
                continue;
            }
            let path = ["monitor", ""]
                .map(|below| root().join(below).join(word))
                .into_iter()
                .find(|path| path.exists());
            let path = path.unwrap_or_else(|| panic!("no {word}"));
            source = fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let is_whole = word.starts_with("tests/fuzz/targets/")
                || word.starts_with("tests/src/guest/")
                    && scenarios.contains(&format!("\"{name}\""));
            let has_function = words.get(index + 1).is_some_and(|next| !next.contains('/'));
            assert!(is_whole || has_function, "{word} without a function: {row}");
        }
    }
    assert!(named > 20, "{named} tests named");
}
