//! Keeps the exporter small: memory that the start needs is returned to the kernel.

/// Blocks of at least this size are mapped separately, and unmapped when they are freed: the
/// kernel's type information and what is derived from it. A scrape's buffers are smaller.
const MAPPED_ALONE: libc::c_int = 512 << 10;
/// This much may be free at the end of the heap before it is returned.
const KEPT_FREE: libc::c_int = 256 << 10;

/// Must be called before other threads start and before much is allocated.
///
/// Without it, the kernel fills the holes of the heap with huge pages within a minute if
/// transparent huge pages are set to `always` (khugepaged), each thread gets a separate arena, and
/// the allocator raises its threshold for separate mappings when the first large block is freed.
pub(super) fn keep_small() {
    // SAFETY: takes no pointer; it only determines whether this process gets huge pages.
    let huge_pages = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if huge_pages != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(
            "cannot disable transparent huge pages for this process (it may use more memory): {error}"
        );
    }
    #[cfg(target_env = "gnu")]
    for (setting, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MAPPED_ALONE),
        (libc::M_TRIM_THRESHOLD, KEPT_FREE),
    ] {
        // SAFETY: mallopt takes no pointer and only changes the allocator's settings.
        unsafe {
            libc::mallopt(setting, value);
        }
    }
}

/// Returns the free pages of the heap to the kernel.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and only returns free pages.
    unsafe {
        libc::malloc_trim(0);
    }
}
