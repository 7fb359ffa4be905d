//! Limits what libraries log, and reports what was dropped.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    warn,
};
use tracing_subscriber::{Layer, layer::Context};

use super::writer;

/// Lines of libraries in each [`WINDOW`]: each broken handshake of a client is a line.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// A layer around the one that writes the lines.
#[derive(Debug, Default)]
pub(super) struct Bounds(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
    /// Number of lines that the previous window dropped.
    unreported: u64,
}

impl Window {
    /// Whether a line may be written now.
    fn admit(&mut self, now: Instant) -> bool {
        let is_new = self
            .began
            .is_none_or(|began| now.duration_since(began) >= WINDOW);
        if is_new {
            *self = Self {
                began: Some(now),
                unreported: self.unreported + self.left_out,
                ..Self::default()
            };
        }
        self.lines = self.lines.saturating_add(1);
        let admitted = self.lines <= MOST;
        if !admitted {
            self.left_out += 1;
        }
        admitted
    }
}

impl<S: Subscriber> Layer<S> for Bounds {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        is_own(event) || self.window().admit(Instant::now())
    }

    // The layer below has written its line by now.
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        let left_out = std::mem::take(&mut self.window().unreported);
        if left_out > 0 {
            warn!("{left_out} more log lines of libraries were left out");
        }
        if let Some(losses) = writer::take_losses() {
            warn!(
                lines = losses.lines,
                "the log can be written again; lines before this one were lost: {}", losses.reason
            );
        }
    }
}

impl Bounds {
    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the line is from the program itself or one of its BPF programs.
fn is_own(event: &Event<'_>) -> bool {
    let mut target = LogTarget(None);
    event.record(&mut target);
    let target = target.0.as_deref();
    let target = target.unwrap_or_else(|| event.metadata().target());
    target.starts_with("livepatch_")
}

/// The target of a record of crate `log`, which `tracing-log` stores in a field.
struct LogTarget(Option<String>);

impl Visit for LogTarget {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_so_many_and_counts_the_rest() {
        let mut window = Window::default();
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| window.admit(start)).count();
        assert_eq!(admitted, MOST as usize);
        assert_eq!(window.unreported, 0);
        assert!(window.admit(start + WINDOW));
        assert_eq!(window.unreported, 1000 - u64::from(MOST));
        // A window that dropped nothing reports nothing.
        window.unreported = 0;
        assert!(window.admit(start + WINDOW * 2));
        assert_eq!(window.unreported, 0);
    }
}
