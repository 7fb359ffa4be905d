//! Which series of a host nobody at fleet level asks for.

/// `metric_relabel_configs` of a scrape configuration. It leaves what the shipped
/// rules and boards and the gate ask for; the host's own `/metrics` still has the rest.
pub(super) const RELABEL: &str = r#"  metric_relabel_configs:
    - source_labels: [__name__]
      regex: livepatch_transition_duration_seconds_.*|livepatch_crashes_total|livepatch_monitor_events_total|process_(max_fds|open_fds|threads|virtual_memory_bytes)
      action: drop
    - source_labels: [__name__, phase]
      regex: livepatch_crash_signals_total;(patched|unpatched|unknown)
      action: drop
"#;
