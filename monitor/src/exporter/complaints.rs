//! Problems that last, logged when they start or change.

use std::{collections::BTreeMap, sync::Mutex};

use tracing::warn;

use super::{collector::Step, lock};

/// The last problem in each step of each collector.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<BTreeMap<(&'static str, Step), String>>);

impl Complaints {
    /// Logs a problem if it differs from the previous one. An empty text means that there is none.
    pub(super) fn about(&self, subject: (&'static str, Step), text: &str) {
        let before = lock(&self.0).insert(subject, text.to_owned());
        if !text.is_empty() && before.as_deref() != Some(text) {
            warn!("{text}");
        }
    }
}
