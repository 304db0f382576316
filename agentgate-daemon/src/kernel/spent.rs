//! Memory that loading the programs took and nothing needs any more: the kernel's types alone are some tens
//! of megabytes, once.

/// Gives it back to the system. The thread that loads goes to sleep afterwards, and an allocator gives back
/// what a thread has freed only while that thread allocates.
#[expect(unsafe_code, reason = "the allocator has no safe wrapper for this")]
pub fn give_back() {
    // SAFETY: takes no pointers, and may be called from any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
