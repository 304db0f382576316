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
