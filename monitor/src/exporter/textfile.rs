//! Writes the exposition to a file for node_exporter's textfile collector, for hosts that allow no
//! further port.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;
use tracing::{info, warn};

use super::Exporter;

/// node_exporter reads files whose names end in `.prom`.
const NAME: &str = "livepatch_monitor.prom";

/// The usual scrape interval. An older file means that the monitor does not run.
const EVERY: Duration = Duration::from_secs(15);
/// The interval while a transition runs.
const IN_TRANSITION: Duration = Duration::from_secs(2);
/// From a change to the new file, so that several events with one cause are written once.
const SETTLE: Duration = Duration::from_millis(300);

/// Why the file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; see --textfile", path.display())]
struct TextfileError {
    path: PathBuf,
    source: io::Error,
}

/// Keeps the file current until the process stops; without a directory it never returns.
pub(super) async fn keep(exporter: Arc<Exporter>) -> anyhow::Result<()> {
    let Some(directory) = exporter.options.textfile.clone() else {
        return std::future::pending().await;
    };
    info!(file = %directory.join(NAME).display(), "writing the metrics");
    let mut problem = String::new();
    loop {
        let (writer, directory, before) = (exporter.clone(), directory.clone(), problem);
        // Reading from the kernel must not delay its events. The problem is logged in the closure,
        // so that it is logged even if the process is stopped meanwhile.
        let writing = move || {
            let problem = write(&writer, &directory).err().unwrap_or_default();
            if !problem.is_empty() && problem != before {
                warn!("{problem}");
            }
            problem
        };
        problem = tokio::task::spawn_blocking(writing).await?;
        let most = match exporter.transition_runs() {
            true => IN_TRANSITION,
            false => EVERY,
        };
        if timeout(most, exporter.changed.notified()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

fn write(exporter: &Exporter, directory: &Path) -> Result<(), String> {
    store(directory, &exporter.scrape()).map_err(|error| error.to_string())
}

/// Removes the file, because it would no longer be current.
pub(super) fn remove(directory: Option<&Path>) {
    let Some(path) = directory.map(|directory| directory.join(NAME)) else {
        return;
    };
    if let Err(source) = fs::remove_file(&path).or_else(missing) {
        warn!("{}", TextfileError { path, source });
    }
}

fn missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Writes the file so that a reader sees either the old or the new one, never a mixture.
fn store(directory: &Path, exposition: &str) -> Result<(), TextfileError> {
    let path = directory.join(NAME);
    let fresh = path.with_extension("new");
    File::create(&fresh)
        .and_then(|mut file| {
            file.write_all(of_livepatch(exposition).as_bytes())?;
            // Another user must be able to read it, whatever the umask.
            file.set_permissions(Permissions::from_mode(0o644))?;
            fs::rename(&fresh, &path)
        })
        .map_err(|source| TextfileError { path, source })
}

/// The exposition without `process_*`: node_exporter has its own and refuses the whole file if a
/// name occurs twice.
fn of_livepatch(exposition: &str) -> String {
    let own = |line: &&str| {
        let series = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        !series.unwrap_or(line).starts_with("process_")
    };
    exposition.split_inclusive('\n').filter(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPOSITION: &str = "\
# HELP livepatch_supported Whether.
# TYPE livepatch_supported gauge
livepatch_supported 1
# HELP process_threads Threads.
# TYPE process_threads gauge
process_threads 3
# HELP livepatch_z Last.
";

    #[test]
    fn what_node_exporter_has_itself_is_left_out() {
        let kept = of_livepatch(EXPOSITION);
        assert!(!kept.contains("process_"), "{kept}");
        assert_eq!(kept.lines().count(), 4);
    }

    #[test]
    fn the_file_is_whole_and_readable_for_all() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["livepatch_a 1\n", "livepatch_b 2\n"] {
            store(directory.path(), text).unwrap();
            let path = directory.path().join(NAME);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o444, 0o444);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let error = store(&directory.path().join("no"), "")
            .unwrap_err()
            .to_string();
        assert!(error.contains("--textfile"), "{error}");
    }
}
