//! What is installed on the host: packages that an update left half done, livepatches
//! that should be in force, what would be kept of a crash, which machine this is. Every reader takes its root
//! path.

pub mod crash_capture;
pub mod expected;
pub mod machine;
pub mod packages;
mod stamp;
