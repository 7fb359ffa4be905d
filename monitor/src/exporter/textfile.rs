//! Writes the exposition to a file for node_exporter's textfile collector, for hosts that allow no
//! further port.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;
use tracing::{info, warn};

use super::{Exporter, collectors::monitor, lock};
use crate::{
    kernel::clock,
    replace_file::{self, How},
};

/// node_exporter reads files whose names end in `.prom`.
const NAME: &str = "livepatch_monitor.prom";

/// The usual scrape interval. An older file means that the monitor does not run.
const EVERY: Duration = Duration::from_secs(15);
/// The interval while a transition runs.
const IN_TRANSITION: Duration = Duration::from_secs(2);
/// From a change to the new file, so that several events with one cause are written once.
const SETTLE: Duration = Duration::from_millis(300);
/// How long the end of the process waits for the file system.
pub(super) const REMOVAL: Duration = Duration::from_secs(2);

/// Another user reads the file.
const HOW: How = How {
    mode: 0o644,
    durable: false,
};

/// Why the file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; see --textfile", path.display())]
struct TextfileError {
    path: PathBuf,
    source: io::Error,
}

/// The text file of an exporter.
#[derive(Debug)]
pub(super) struct Textfile {
    path: PathBuf,
    /// Whether the process is stopping: a file written now would remain. Held while the file is
    /// replaced.
    ended: Mutex<bool>,
}

impl Textfile {
    /// The file in this directory.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(NAME),
            ended: Mutex::default(),
        }
    }

    /// Removes what a killed process left unfinished. If that fails, writing fails too, which is
    /// logged.
    fn remove_unfinished(&self) {
        let _ = replace_file::remove_unfinished(&self.path);
    }

    /// Collects the metrics and writes them.
    ///
    /// # Errors
    /// What is wrong, with the remedy.
    pub(super) fn write(&self, scrape: impl FnOnce() -> String) -> Result<(), String> {
        self.store(&scrape()).map_err(|error| error.to_string())
    }

    fn store(&self, exposition: &str) -> Result<(), TextfileError> {
        let mut text = of_livepatch(exposition);
        if let Some(now) = clock::unix_seconds(clock::boot_time()) {
            text.push_str(&monitor::heartbeat(now));
        }
        let ended = lock(&self.ended);
        if *ended {
            return Ok(());
        }
        let replaced = replace_file::replace(&self.path, text.as_bytes(), HOW);
        replaced.map_err(|source| self.failed(source))
    }

    /// Removes the file, because it would no longer be current.
    fn remove(&self) -> Result<(), TextfileError> {
        let mut ended = lock(&self.ended);
        *ended = true;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> TextfileError {
        TextfileError {
            path: self.path.clone(),
            source,
        }
    }
}

/// Keeps the file current until the process stops; without one it never returns.
pub(super) async fn keep(
    exporter: Arc<Exporter>,
    file: Option<Arc<Textfile>>,
) -> anyhow::Result<()> {
    let Some(file) = file else {
        return std::future::pending().await;
    };
    info!(file = %file.path.display(), "writing the metrics");
    let mut problem = String::new();
    let mut is_first = true;
    loop {
        let (writer, file, before) = (exporter.clone(), file.clone(), problem);
        // Reading from the kernel must not delay its events. The problem is logged in the closure,
        // so that it is logged even if the process is stopped meanwhile.
        let writing = move || {
            if is_first {
                file.remove_unfinished();
            }
            let problem = file.write(|| writer.scrape()).err().unwrap_or_default();
            if !problem.is_empty() && problem != before {
                warn!("{problem}");
            }
            problem
        };
        problem = tokio::task::spawn_blocking(writing).await?;
        is_first = false;
        let most = match exporter.transition_runs() {
            true => IN_TRANSITION,
            false => EVERY,
        };
        if timeout(most, exporter.changed.notified()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// Removes the file, if its file system responds in time: the process ends in any case.
pub(super) async fn remove(file: Option<Arc<Textfile>>) {
    let Some(file) = file else {
        return;
    };
    let removing = {
        let file = file.clone();
        tokio::task::spawn_blocking(move || file.remove())
    };
    match timeout(REMOVAL, removing).await {
        Ok(Ok(Err(error))) => warn!("{error}"),
        Ok(_) => {}
        Err(_) => warn!(
            "{}: the file system does not respond; the file was not removed",
            file.path.display()
        ),
    }
}

/// The exposition without `process_*`: node_exporter has its own and refuses the whole file if a
/// name occurs twice.
fn of_livepatch(exposition: &str) -> String {
    let own = |line: &&str| {
        let series = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        let series = series.unwrap_or(line);
        !series.starts_with("process_") && !series.starts_with(monitor::OF_SCRAPE)
    };
    exposition.split_inclusive('\n').filter(own).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
        let file = Textfile::new(directory.path());
        for text in ["livepatch_a 1\n", "livepatch_b 2\n"] {
            file.store(text).unwrap();
            let written = fs::read_to_string(&file.path).unwrap();
            assert!(written.starts_with(text), "{written}");
            assert!(
                written.contains("\nlivepatch_monitor_textfile_timestamp_seconds "),
                "{written}"
            );
            let mode = fs::metadata(&file.path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let missing = Textfile::new(&directory.path().join("no"));
        let error = missing.store("").unwrap_err().to_string();
        assert!(error.contains("--textfile"), "{error}");
    }

    #[test]
    fn nothing_is_written_after_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = Textfile::new(directory.path());
        file.store("livepatch_a 1\n").unwrap();
        file.remove().unwrap();
        file.store("livepatch_a 1\n").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
