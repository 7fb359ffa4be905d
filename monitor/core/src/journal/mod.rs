//! The entries of the journal, which keeps what must be known about a boot that ended uncleanly,
//! and their framing in a file. The exporter writes them.

pub mod entry;
pub mod frame;
pub mod history;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
