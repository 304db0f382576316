//! Memory that nothing needs any more: what loading the programs took (the kernel's types alone are some tens
//! of megabytes), what else a start takes once, and what a time of traffic leaves behind.
#![expect(unsafe_code, reason = "the allocator has no safe wrapper for this")]

use std::ffi::c_long;

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc 3: milliseconds before what is free is given back to the system.
const PURGE_DELAY: mi_option_t = 15;
/// mimalloc's own setting. Under load what was freed is asked for again within it.
const UNDER_LOAD: c_long = 1000;

/// From here on everything that is freed is given back at once.
pub fn starting() {
    // SAFETY: takes no pointers, and may be called from any thread at any time.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}

/// From here on what is freed is kept for a while, for whoever needs it next.
pub fn started() {
    // SAFETY: as above.
    unsafe { mi_option_set(PURGE_DELAY, UNDER_LOAD) };
    give_back();
}

/// Gives back to the system what this thread has freed, and what lies about unused of other threads'. An
/// allocator does that only while somebody allocates, which in a gate at rest nobody does.
pub fn give_back() {
    // SAFETY: as above.
    unsafe { mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: as above.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, UNDER_LOAD, "what mimalloc has it at first");
    }
}
