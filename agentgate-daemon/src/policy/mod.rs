//! The judgement: an immutable `Policy`, pure functions, and the permits that only this module makes.
//!
//! No tokio, no files, no clock: `reload` reads the files and swaps the result in.

use std::{net::IpAddr, sync::Arc};

use crate::model::{Host, Mode, Refusal};

pub mod address;
mod authority;
pub mod compile;
pub mod decision;
mod document;
mod facts;
mod inspect;
mod listed;
mod matcher;
mod name;
pub mod pattern;
pub mod permit;
mod provenance;
mod refusal;
mod summary;
mod udp;

pub use crate::model::TextError as PolicyError;
pub use address::{AddressClass, classify, is_localhost};
pub use compile::{MOST_LOOPBACK_PORTS, Text, Texts};
pub use decision::{Admission, Connection, Judgement, RequestContext, Sniffed};
pub use facts::{HostFacts, embedded_in};
pub use inspect::{BodyFacts, Inspection, Uninspected};
pub use listed::{Entry, Listed};
pub use name::{NameVerdict, Queried};
pub use pattern::{HostPattern, InvalidPattern, NamePattern};
pub use permit::{AddressRule, Destination, Permit, ReachPermit, Scheme, TunnelPermit, TunnelTo};
pub use provenance::Given;
pub use summary::PolicySummary;
pub use udp::{MOST_UDP_PORTS, UdpRange};

/// A compiled policy: immutable, shared, without I/O.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: Mode,
    lists: decision::Lists,
    addresses: Arc<address::AddressRules>,
    network: summary::Network,
    /// What of requests has to be inspected.
    inspection: Inspection,
    /// What the kernel is told of `network.udp` on this host.
    udp: Vec<UdpRange>,
    summary: PolicySummary,
}

impl Policy {
    /// Compiles `texts`.
    ///
    /// # Errors
    /// Everything that is wrong with them; nothing of them takes effect then.
    pub fn compile(texts: &Texts<'_>) -> Result<Self, Vec<PolicyError>> {
        compile::compile(texts)
    }

    /// What runs when nothing compiles: `enforce` with empty lists, so nothing passes.
    #[must_use]
    pub fn closed() -> Self {
        let lists = decision::Lists::default();
        let addresses = address::AddressRules::default();
        let network = summary::Network::default();
        let inspection = Inspection::default();
        let summary = summary::of(Mode::Enforce, &lists, &addresses, &network, inspection);
        let (addresses, udp) = (Arc::new(addresses), Vec::new());
        Self { mode: Mode::Enforce, lists, addresses, network, inspection, udp, summary }
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The policy at a glance.
    #[must_use]
    pub fn summary(&self) -> PolicySummary {
        self.summary.clone()
    }

    /// Loopback ports that agents may reach directly, sorted; at most [`MOST_LOOPBACK_PORTS`].
    #[must_use]
    pub fn loopback_ports(&self) -> &[u16] {
        &self.network.loopback_ports
    }

    /// Whether a session reaches the loopback ports that it listens on itself.
    #[must_use]
    pub fn loopback_own(&self) -> bool {
        self.network.loopback_own
    }

    /// The UDP that passes, as the kernel looks it up: the most specific range decides alone. Sorted; at
    /// most [`MOST_UDP_PORTS`] ranges of ports each.
    #[must_use]
    pub fn udp_ranges(&self) -> &[UdpRange] {
        &self.udp
    }

    /// The same policy on a host of which this is known.
    #[must_use]
    pub fn with_host(self, host: &HostFacts) -> Self {
        let host = facts::Facts::of(host);
        let udp = udp::effective(&self.network.udp, &host);
        let addresses = address::AddressRules { host, ..Arc::unwrap_or_clone(self.addresses) };
        Self { addresses: Arc::new(addresses), udp, ..self }
    }

    /// Whether the DNS server may tell that `host` is at `ip`: the address can be reached at some port.
    ///
    /// # Errors
    /// The refusal, with what it is flagged as: a name that points into private, loopback, link-local or
    /// metadata ranges, as in DNS rebinding.
    pub fn admits_answer(&self, ip: IpAddr, host: &Host) -> Result<(), Refusal> {
        self.addresses.admits_answer(ip, host)
    }

    /// The rule that judges addresses, for the daemon's own resolver and dialler.
    #[must_use]
    pub fn addresses(&self) -> Arc<dyn AddressRule> {
        Arc::clone(&self.addresses) as _
    }
}
