//! Writes the manual pages and the shells' completions, from the flags' one
//! definition: `cargo run --package livepatch-monitor --example manual -- DIRECTORY`.

use std::{fs, io, path::Path, process::ExitCode};

use clap_complete::{Shell, generate_to};
use livepatch_monitor::cli;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("give the directory to write to");
        return ExitCode::FAILURE;
    };
    match write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", Path::new(&directory).display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    let (manual, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&manual)?;
    clap_mangen::generate_to(cli::command(), &manual)?;
    for (shell, folder) in [
        (Shell::Bash, "bash"),
        (Shell::Fish, "fish"),
        (Shell::Zsh, "zsh"),
    ] {
        let folder = completions.join(folder);
        fs::create_dir_all(&folder)?;
        let mut command = cli::command();
        generate_to(shell, &mut command, "livepatch-monitor", folder)?;
    }
    Ok(())
}
