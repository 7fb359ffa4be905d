//! The lab: virtual machines with the supported kernels, and their contents.

pub(crate) mod artifacts;
pub(crate) mod command;
mod command_line;
pub(crate) mod host_files;
mod in_tree_modules;
pub(crate) mod initramfs;
pub(crate) mod interop;
pub(crate) mod kernels;
pub(crate) mod machine;
pub(crate) mod modules;
pub(crate) mod reboot_vm;
pub(crate) mod vm;
