//! The exposition as a file, for node_exporter's textfile collector: for hosts that
//! allow no further port.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;
use tracing::info;

use super::{Exporter, lock};

/// node_exporter reads what ends so.
const NAME: &str = "livepatch_monitor.prom";

/// As often as a Prometheus scrapes, and so that the file's age tells whether the
/// monitor lives.
const EVERY: Duration = Duration::from_secs(15);
/// While a transition runs.
const IN_TRANSITION: Duration = Duration::from_secs(2);
/// What has changed settles for a moment: several events of one cause are one file.
const SETTLE: Duration = Duration::from_millis(300);

/// Why the file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; see --textfile", path.display())]
struct TextfileError {
    path: PathBuf,
    source: io::Error,
}

impl Exporter {
    /// Keeps the file current until the process stops; for ever idle without one.
    pub(super) async fn keep_textfile(self: Arc<Self>) -> anyhow::Result<()> {
        let Some(directory) = self.options.textfile.clone() else {
            return std::future::pending().await;
        };
        info!(file = %directory.join(NAME).display(), "writing the metrics");
        loop {
            let exporter = self.clone();
            let directory = directory.clone();
            // Reads of the kernel must not hold up its events.
            tokio::task::spawn_blocking(move || exporter.write_textfile(&directory)).await?;
            let runs = lock(&self.transition_state).transitions.active().is_some();
            let most = if runs { IN_TRANSITION } else { EVERY };
            if timeout(most, self.changed.notified()).await.is_ok() {
                tokio::time::sleep(SETTLE).await;
            }
        }
    }

    fn write_textfile(&self, directory: &Path) {
        let written = self
            .scrape()
            .map_err(|error| format!("{error:#}"))
            .and_then(|text| store(directory, &text).map_err(|error| error.to_string()));
        self.complain("textfile", &written.err().unwrap_or_default());
    }

    /// What is not kept current any more says nothing.
    pub(super) fn remove_textfile(&self) {
        if let Some(directory) = &self.options.textfile {
            let removed = fs::remove_file(directory.join(NAME));
            if let Err(error) = removed.or_else(missing) {
                let path = directory.join(NAME);
                self.complain(
                    "textfile",
                    &TextfileError {
                        path,
                        source: error,
                    }
                    .to_string(),
                );
            }
        }
    }
}

fn missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Writes the file so that a reader sees the old or the new one, never a mixture.
fn store(directory: &Path, exposition: &str) -> Result<(), TextfileError> {
    let path = directory.join(NAME);
    let fresh = path.with_extension("new");
    File::create(&fresh)
        .and_then(|mut file| {
            file.write_all(of_livepatch(exposition).as_bytes())?;
            // Another user reads it, whatever the umask.
            file.set_permissions(Permissions::from_mode(0o644))?;
            fs::rename(&fresh, &path)
        })
        .map_err(|source| TextfileError { path, source })
}

/// Without `process_*`: node_exporter has its own, and refuses all if one name comes
/// twice.
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
