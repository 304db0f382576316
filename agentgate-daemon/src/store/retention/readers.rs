//! Who is to read entries before they go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far the log was read by who must have read it: the mirror. Shared with whoever that is.
#[derive(Debug)]
pub struct Readers {
    /// Entries from this one on are to be read yet.
    next: AtomicU64,
    /// Bodies as well.
    bodies: AtomicBool,
    waits: AtomicBool,
}

impl Default for Readers {
    /// Nobody reads.
    fn default() -> Self {
        Self { next: AtomicU64::new(u64::MAX), bodies: AtomicBool::new(false), waits: AtomicBool::new(false) }
    }
}

impl Readers {
    /// Entries before `next` were read, with their `bodies` where these are read too.
    pub fn came_to(&self, next: u64, bodies: bool) {
        self.bodies.store(bodies, Ordering::Relaxed);
        self.next.store(next, Ordering::Release);
    }

    /// Whether retention waits for them.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Says so once, when it begins and when it is over.
    pub(super) fn are_waited_for(&self, waits: bool) {
        if self.waits.swap(waits, Ordering::Relaxed) == waits {
            return;
        }
        let next = self.next.load(Ordering::Acquire);
        if waits {
            tracing::warn!(
                next,
                "retention waits for the mirror of the audit log, up to the bound in bytes: it has not come to \
                 what is to be pruned"
            );
        } else {
            tracing::info!(
                next,
                "retention goes on: the mirror of the audit log came on, or the bound in bytes holds"
            );
        }
    }

    /// Whether some of the entries before `end` are to be read yet.
    pub(super) fn need(&self, end: u64) -> bool {
        self.next.load(Ordering::Acquire) < end
    }

    /// The same of their bodies.
    pub(super) fn need_bodies(&self, end: u64) -> bool {
        self.bodies.load(Ordering::Relaxed) && self.need(end)
    }
}
