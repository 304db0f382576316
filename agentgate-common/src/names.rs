//! Names of programs, maps and pins, written once.

/// Map of [`crate::settings::Settings`], one entry.
pub const SETTINGS: &str = "SETTINGS";
/// Map from [`crate::flow::FlowKey`] to [`crate::flow::KernelFlow`].
pub const FLOWS: &str = "FLOWS";
/// Ring buffer of [`crate::event::KernelEvent`].
pub const EVENTS: &str = "EVENTS";
/// Per-CPU counters.
pub const COUNTERS: &str = "COUNTERS";
