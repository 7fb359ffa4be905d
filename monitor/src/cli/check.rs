//! `serve --config.check`: checks the flags and the files they name without starting.

use std::{fs, io, net::TcpListener, path::Path, process::ExitCode};

use crate::{
    exporter::{Options, web},
    kernel::kmsg::KmsgReader,
};

/// Prints one line per problem.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let found = problems(options);
    for problem in &found {
        super::complain(problem);
    }
    if found.is_empty() {
        super::print("the configuration is valid\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(2))
}

fn problems(options: &Options) -> Vec<String> {
    let mut found = Vec::new();
    for address in &options.listen {
        if let Err(error) = TcpListener::bind(address)
            // A monitor that is already running holds the address.
            && error.kind() != io::ErrorKind::AddrInUse
        {
            found.push(format!("--web.listen-address {address}: {error}"));
        }
    }
    if let Err(error) = web::Source::open(options.web_config.as_deref()) {
        found.push(format!("--web.config.file: {error}"));
    }
    if !options.procfs.join("sys/kernel/osrelease").is_file() {
        found.push(format!(
            "--path.procfs {}: not a procfs",
            options.procfs.display()
        ));
    }
    if !options.sysfs.join("kernel").is_dir() {
        found.push(format!(
            "--path.sysfs {}: not a sysfs",
            options.sysfs.display()
        ));
    }
    if let Err(error) = KmsgReader::open(&options.kmsg) {
        found.push(format!("--path.kmsg: {error}"));
    }
    let directories = [("--path.rootfs", &options.rootfs)].into_iter();
    let expected = options.expected_directories.iter();
    for (flag, directory) in directories.chain(expected.map(|path| ("--expect-dir", path))) {
        if let Err(error) = fs::read_dir(directory) {
            found.push(format!("{flag} {}: {error}", directory.display()));
        }
    }
    // The exporter creates the state directory if it does not exist.
    let state = options.state_dir.ancestors().find(|path| path.exists());
    found.extend(state.and_then(|path| unwritable("--state-dir", path)));
    let textfile = options.textfile.as_deref();
    found.extend(textfile.and_then(|path| unwritable("--textfile", path)));
    found
}

/// Why no file can be created in the directory; `None` if one can.
fn unwritable(flag: &str, directory: &Path) -> Option<String> {
    let problem = match rustix::fs::access(directory, rustix::fs::Access::WRITE_OK) {
        Err(error) => io::Error::from(error).to_string(),
        Ok(()) if !directory.is_dir() => "not a directory".to_owned(),
        Ok(()) => return None,
    };
    Some(format!("{flag} {}: {problem}", directory.display()))
}
