//! Why a program refused.

use agentgate_common::{
    flow::Endpoint,
    verdict::{Denial, Passage},
};

/// A refused call: what the ring buffer tells the daemon beside the caller.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    /// Where to; zero for socket creation.
    pub(crate) destination: Endpoint,
    pub(crate) denial: Denial,
}

/// An outcome as the counters know it: a passage or a denial as a number.
#[inline(always)]
pub(crate) fn outcome(result: &Result<Passage, Refused>) -> u8 {
    match result {
        Ok(passage) => *passage as u8,
        Err(refused) => refused.denial as u8,
    }
}

impl Refused {
    /// Names the destination of a denial.
    #[inline(always)]
    pub(crate) fn at(destination: Endpoint) -> impl Fn(Denial) -> Self {
        move |denial| Self { destination, denial }
    }
}
