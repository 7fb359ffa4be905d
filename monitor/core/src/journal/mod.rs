//! What must be known of a boot after it has ended badly: the entries of the journal, and
//! how they are framed in a file. Writing them is the exporter's part.

pub mod entry;
pub mod frame;
pub mod history;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
