//! Definitions that the host and the guest of the VM scenarios share.

pub mod protocol;
