//! What the kernel counted for one session: the other side of the audit log's balance.

/// Key of a count. Hooks and outcomes are those of [`crate::verdict::counter`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// [`crate::subject::Task::session`].
    pub session: u64,
    /// [`window`] of what the audit log is to hold: of [`crate::event::KernelEvent::at_ns`] for a
    /// refusal, of [`crate::flow::KernelFlow::connected_ns`] for a connection that was tied to the
    /// listener. 0 for counts that nothing is balanced against.
    pub window: u32,
    /// [`crate::event::Hook`] as a number.
    pub hook: u16,
    /// A [`crate::verdict::Denial`] or [`crate::verdict::Passage`] as a number.
    pub outcome: u16,
}

/// The window of time that a moment (nanoseconds since boot) is in: 4.3 s each. A window that is over is
/// counted to its end, so that it can be balanced exactly while counting goes on, and what a daemon lost
/// when it was killed is told apart from what the next one is about to record.
#[must_use]
#[inline(always)]
pub const fn window(ns: u64) -> u32 {
    (ns >> WINDOW_SHIFT) as u32
}

/// The first moment after a window.
#[must_use]
pub const fn window_end(window: u32) -> u64 {
    (window as u64 + 1) << WINDOW_SHIFT
}

const WINDOW_SHIFT: u32 = 32;
