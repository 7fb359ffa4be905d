//! No circle between the modules of the monitor, and nothing imports upwards.

use std::path::Path;

use livepatch_monitor_test_support::layers::{Imports, LayersError};

/// The top-level modules, the lowest layer first. A module imports from lower layers only.
const LAYERS: &[&[&str]] = &[
    &["stable_storage"],
    &[
        "bounded_read",
        "logging",
        "metrics",
        "replace_file",
        "set_aside",
        "state_dir",
    ],
    &["sandbox"],
    &["kernel", "prometheus_client"],
    &["crash", "host"],
    &["exporter"],
    &["cli"],
];

fn imports() -> Result<Imports, LayersError> {
    Imports::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
}

#[test]
fn no_modules_form_a_circle() {
    assert_eq!(imports().unwrap().circles(), Vec::<String>::new());
}

#[test]
fn nothing_imports_upwards() {
    assert_eq!(
        imports().unwrap().out_of_layer(LAYERS),
        Vec::<String>::new()
    );
}
