//! The program's log on standard error. A log that cannot be written never stops the
//! program: what is lost is counted, and reported as soon as a line can be written again.

mod bounds;
mod writer;

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use self::writer::lost;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of text, for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log. `own` is the least severe level of the program's own lines and of its BPF
/// programs. Libraries log only warnings and errors, and a limited number of them.
pub fn start(own: LevelFilter, format: Format) {
    // The BPF programs log under the name of their own crate.
    let filter = Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_targets(["livepatch_monitor", "livepatch_monitor_bpf"].map(|name| (name, own)));
    let lines = fmt::layer()
        .with_writer(writer::Lines::new)
        // It would print to standard error, and panic if that fails.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(bounds::Bounds::default())
        .with(filter)
        .init();
}
