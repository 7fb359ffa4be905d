//! Checks that the table has a row for every flag.

use std::collections::BTreeSet;

use clap::{Arg, Command};

use crate::{inputs::Inputs, run, table};

/// A flag or positional, as rows name it, and the command that it belongs to.
struct Place {
    name: String,
    /// `--name`; `None` for a positional.
    flag: Option<String>,
    path: Vec<String>,
    takes_value: bool,
}

fn places() -> Vec<Place> {
    let mut found = Vec::new();
    walk(&livepatch_monitor::cli::command(), &[], &mut found);
    assert!(found.len() > 50, "{}", found.len());
    found
}

fn walk(command: &Command, path: &[String], found: &mut Vec<Place>) {
    let arguments = command.get_arguments();
    for argument in arguments.filter(|argument| !is_clap_s(argument)) {
        let flag = argument.get_long().map(|name| format!("--{name}"));
        let label = flag
            .clone()
            .unwrap_or_else(|| argument.get_value_names().unwrap()[0].to_string());
        let mut words = path.to_vec();
        words.push(label);
        found.push(Place {
            name: words.join(" "),
            flag,
            path: path.to_vec(),
            takes_value: argument.get_action().takes_values(),
        });
    }
    for below in command.get_subcommands() {
        if below.get_name() != "help" {
            let path = [path, &[below.get_name().to_owned()]].concat();
            walk(below, &path, found);
        }
    }
}

fn is_clap_s(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

#[test]
fn every_flag_has_a_row() {
    let rows = table();
    let known: BTreeSet<&str> = rows.iter().map(|row| row.about).collect();
    let places = places();
    let there: BTreeSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
    let missing: Vec<_> = there.difference(&known).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    let gone: Vec<_> = known.difference(&there).collect();
    assert!(gone.is_empty(), "rows for what is not there: {gone:?}");
}

/// A flag without its value, and a flag without values that is given one.
#[test]
fn a_missing_or_unexpected_value_is_named() {
    let inputs = Inputs::new();
    for place in places() {
        let Some(flag) = &place.flag else { continue };
        let mut line: Vec<String> = place.path.clone();
        // Every command accepts the flags that come before it.
        if line.is_empty() {
            line.push("status".into());
        }
        line.push(if place.takes_value {
            flag.clone()
        } else {
            format!("{flag}=yes")
        });
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let remedy = if place.takes_value {
            "a value is required"
        } else {
            "unexpected value 'yes'"
        };
        run::plainly(&inputs, &words).says(2, &[flag, remedy]);
    }
}
