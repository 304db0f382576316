//! Memory that nothing needs any more: what loading the programs took (the kernel's types alone are some tens
//! of megabytes), what else a start takes once, and what a time of traffic leaves behind.

/// Gives back to the system what this thread has freed, and what lies about unused of other threads'. An
/// allocator does that only while somebody allocates, which in a gate at rest nobody does.
#[expect(unsafe_code, reason = "the allocator has no safe wrapper for this")]
pub fn give_back() {
    // SAFETY: takes no pointers, and may be called from any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
