//! The proof of an allow. Fields are private and constructors visible to `policy` only, so nothing
//! can be forwarded that was not judged, nor anywhere else than was judged.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::inspect::Inspection;
use crate::model::{Authority, Flag, Refusal, Verdict};

/// How the origin is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An approved origin: name and port; the daemon resolves the name itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub scheme: Scheme,
    pub authority: Authority,
}

/// Judges resolved addresses: private, loopback, link-local and metadata ranges are refused unless a
/// `cidrs` entry names them.
pub trait AddressRule: Send + Sync + std::fmt::Debug {
    /// Whether `ip` at `port` may be dialled.
    ///
    /// # Errors
    /// The refusal, with its reason.
    fn admits(&self, ip: IpAddr, port: u16) -> Result<(), Refusal>;

    /// What to flag where `ip` at `port` is dialled although it would be refused outside `audit`.
    fn flags(&self, _ip: IpAddr, _port: u16) -> Vec<Flag> {
        Vec::new()
    }

    /// Whether `ip` leads to this host itself, in any spelling: the gate's own ports are there.
    fn is_this_host(&self, ip: IpAddr) -> bool;
}

/// Leave to forward one request: owns the judged head and the approved destination.
#[derive(Debug)]
pub struct Permit {
    pub(in crate::policy) head: http::request::Parts,
    pub(in crate::policy) destination: Destination,
    pub(in crate::policy) verdict: Verdict,
    pub(in crate::policy) flags: Vec<Flag>,
    pub(in crate::policy) addresses: Arc<dyn AddressRule>,
    pub(in crate::policy) inspection: Inspection,
}

impl Permit {
    /// What of its body has to be inspected.
    #[must_use]
    pub fn inspection(&self) -> Inspection {
        self.inspection
    }

    /// The approved origin.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }
    /// What judges the addresses of the origin.
    #[must_use]
    pub fn addresses(&self) -> &Arc<dyn AddressRule> {
        &self.addresses
    }
    /// The verdict behind it.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
    /// What was flagged on the way.
    #[must_use]
    pub fn flags(&self) -> &[Flag] {
        &self.flags
    }
    /// The judged head.
    #[must_use]
    pub fn head(&self) -> &http::request::Parts {
        &self.head
    }
    /// Leave to connect to its origin, which it includes.
    #[must_use]
    pub fn reach(&self) -> ReachPermit {
        ReachPermit { destination: self.destination.clone(), addresses: self.addresses.clone() }
    }
    /// Gives up the permit for what it permits.
    #[must_use]
    pub fn into_parts(self) -> (http::request::Parts, Destination, Arc<dyn AddressRule>) {
        (self.head, self.destination, self.addresses)
    }
}

/// Leave to connect to an origin, and no more: to learn what it speaks before the agent is answered.
#[derive(Clone, Debug)]
pub struct ReachPermit {
    pub(in crate::policy) destination: Destination,
    pub(in crate::policy) addresses: Arc<dyn AddressRule>,
}

impl ReachPermit {
    /// The origin.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }
    /// What judges its addresses.
    #[must_use]
    pub fn addresses(&self) -> &Arc<dyn AddressRule> {
        &self.addresses
    }
}

/// Where a tunnel goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelTo {
    /// By name: the daemon resolves it.
    Name(Authority),
    /// By address: the connection was judged by its original destination.
    Address(SocketAddr),
}

/// Leave to tunnel one connection without reading it.
#[derive(Debug)]
pub struct TunnelPermit {
    pub(in crate::policy) to: TunnelTo,
    pub(in crate::policy) verdict: Verdict,
    pub(in crate::policy) flags: Vec<Flag>,
    pub(in crate::policy) addresses: Arc<dyn AddressRule>,
}

impl TunnelPermit {
    /// Where to.
    #[must_use]
    pub fn to(&self) -> &TunnelTo {
        &self.to
    }
    /// The verdict behind it.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
    /// What was flagged on the way.
    #[must_use]
    pub fn flags(&self) -> &[Flag] {
        &self.flags
    }
    /// Gives up the permit for what it permits.
    #[must_use]
    pub fn into_parts(self) -> (TunnelTo, Arc<dyn AddressRule>) {
        (self.to, self.addresses)
    }
}
