//! Loads the object with the programs.

use aya::{Ebpf, EbpfLoader};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

use super::{ProbesError, error::chain};
use crate::kernel::layout::Layout;

/// The BPF programs of `monitor/bpf`, which the build script copies.
static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.bpf"));

/// Prepares loading with the offsets and addresses of this kernel. No program is loaded yet.
pub(super) fn load(layout: &Layout, kernel_log: bool) -> Result<Ebpf, ProbesError> {
    let log_level: u8 = if kernel_log {
        aya_log::Level::Debug as u8
    } else {
        0
    };
    let mut loader = loader();
    // The object has no relocations for which the kernel's types would be needed.
    loader
        .btf(None)
        .override_global(aya_log::LEVEL, &log_level, false);
    for (global, offset) in &layout.offsets {
        loader.override_global(global, offset, true);
    }
    for (global, address) in &layout.addresses {
        loader.override_global(global, address, true);
    }
    loader.override_global("POSSIBLE_CPUS", &layout.possible_cpus, true);
    loader
        .load(PROGRAMS)
        .map_err(|error| ProbesError::Load(chain(&error)))
}

/// A loader that has not read the kernel's type information.
///
/// aya 0.14 reads and parses it when a loader is created (`EbpfLoader::new`), before
/// [`EbpfLoader::btf`] can say that it is not needed: 81 million instructions, and most of the
/// memory that the start would use. So for that moment this process may open no file. It has only
/// one thread at that point: the exporter starts others later, and the commands have no others.
fn loader() -> EbpfLoader<'static> {
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        maximum: limit.maximum,
    };
    let limited = setrlimit(Resource::Nofile, none);
    let loader = EbpfLoader::new();
    // The former limit, which is always allowed.
    if let Err(error) = limited.and_then(|()| setrlimit(Resource::Nofile, limit)) {
        debug!("the limit of open files: {error}");
    }
    loader
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_before() {
        let before = getrlimit(Resource::Nofile);
        drop(loader());
        assert_eq!(getrlimit(Resource::Nofile), before);
    }
}
