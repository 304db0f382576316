//! Why a program refused.

use agentgate_common::{flow::Endpoint, verdict::Denial};

/// A refused call: what the ring buffer tells the daemon beside the caller.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    /// Where to; zero for socket creation.
    pub(crate) destination: Endpoint,
    pub(crate) denial: Denial,
}

impl Refused {
    /// Names the destination of a denial.
    #[inline(always)]
    pub(crate) fn at(destination: Endpoint) -> impl Fn(Denial) -> Self {
        move |denial| Self { destination, denial }
    }
}
