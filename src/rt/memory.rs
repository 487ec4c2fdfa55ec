//! How this process gets memory from the kernel.

/// Larger pieces are the kernel's again as soon as they are freed. Frames are of this size and above, and live for
/// milliseconds; kept in heaps for each thread they were more than half of an agent.
#[cfg(target_env = "gnu")]
const KEPT_BYTES_MAX: libc::c_int = 128 << 10;

/// Gives large pieces back at once. Called before the first thread starts.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the C library's allocator; no other thread is there yet. A refused one stays as it was.
    // A threshold that is set does not grow with what is freed, as the one by default does.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES_MAX);
    }
}
