//! What is read from and written to the loaded programs' maps, and the task iterator's output.

use std::io;

use aya::{
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::Iter,
};
use livepatch_monitor_ebpf::{EventKind, ScanMode};

use super::{Probes, ProbesError, attach::program, error::chain};

impl Probes {
    /// Takes the ring buffer of events; possible only once.
    ///
    /// # Errors
    /// The buffer was taken before or cannot be mapped.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, ProbesError> {
        let map = self
            .ebpf
            .take_map("EVENTS")
            .ok_or_else(|| ProbesError::Map("EVENTS", "does not exist".into()))?;
        RingBuf::try_from(map).map_err(|error| ProbesError::Map("EVENTS", chain(&error)))
    }

    /// Events lost since the start, by kind, in the order of [`EventKind::ALL`].
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn lost_events(&self) -> Result<Vec<(EventKind, u64)>, ProbesError> {
        let failed = |error: String| ProbesError::Map("LOST", error);
        let map = self
            .ebpf
            .map("LOST")
            .ok_or_else(|| failed("does not exist".into()))?;
        let lost: PerCpuArray<_, u64> =
            PerCpuArray::try_from(map).map_err(|error| failed(chain(&error)))?;
        EventKind::ALL
            .into_iter()
            .map(|kind| {
                let values = lost
                    .get(&(kind as u32), 0)
                    .map_err(|error| failed(chain(&error)))?;
                Ok((kind, values.iter().sum()))
            })
            .collect()
    }

    /// Reads one scan of the task iterator: the raw records.
    ///
    /// # Errors
    /// The iterator is not loaded, or the kernel refuses it.
    pub fn scan(&mut self) -> io::Result<std::fs::File> {
        let program: &mut Iter = program(&mut self.ebpf, "scan_tasks").map_err(io::Error::other)?;
        // A file is read once; each scan needs a new one.
        let link = program.attach().map_err(io::Error::other)?;
        let link = program.take_link(link).map_err(io::Error::other)?;
        link.into_file().map_err(io::Error::other)
    }

    /// Sets what the next scan shows.
    ///
    /// # Errors
    /// The kernel refuses to write the map.
    pub fn set_scan_mode(&mut self, mode: ScanMode) -> Result<(), ProbesError> {
        let failed = |error: String| ProbesError::Map("SCAN_MODE", error);
        let map = self
            .ebpf
            .map_mut("SCAN_MODE")
            .ok_or_else(|| failed("does not exist".into()))?;
        let mut array: Array<_, u32> =
            Array::try_from(map).map_err(|error| failed(chain(&error)))?;
        array
            .set(0, mode as u32, 0)
            .map_err(|error| failed(chain(&error)))
    }

    /// The reader of the BPF programs' log; useful only if that log was requested in
    /// [`Probes::attach`].
    ///
    /// # Errors
    /// The log's buffer cannot be mapped.
    pub fn take_log(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, ProbesError> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
            .map_err(|error| ProbesError::Map("AYA_LOGS", chain(&error)))
    }
}
