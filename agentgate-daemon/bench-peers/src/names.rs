//! The names of the origin; all lead to the same address.

/// Intercepted by whoever intercepts.
pub(crate) const INTERCEPTED: &str = "bench.example";
/// In the gate's list of hosts that pass as they are.
pub(crate) const RAW: &str = "raw.example";
/// Its certificate is by an authority that nobody trusts.
pub(crate) const UNTRUSTED: &str = "untrusted.example";
