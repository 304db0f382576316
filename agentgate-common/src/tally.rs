//! What the kernel counted for one session: the other side of the audit log's balance.

/// Key of a count. Hooks and outcomes are those of [`crate::verdict::counter`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// [`crate::subject::Task::session`].
    pub session: u64,
    /// [`crate::event::Hook`] as a number.
    pub hook: u32,
    /// A [`crate::verdict::Denial`] or [`crate::verdict::Passage`] as a number.
    pub outcome: u32,
}

/// Key of a count that the audit log is balanced against: of a connection that was tied to the listener,
/// or of a refusal that was reported, and of nothing else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Booked {
    /// [`crate::subject::Task::session`] of the flow or event.
    pub session: u64,
    /// [`window`] of [`crate::flow::KernelFlow::connected_ns`] or [`crate::event::KernelEvent::at_ns`].
    pub window: u32,
    /// [`crate::verdict::Passage::Listener`], [`crate::verdict::REPLACED`] or a
    /// [`crate::verdict::Denial`] as a number.
    pub outcome: u32,
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
