//! The judgement: an immutable `Policy`, pure functions, and the permits that only this module makes.
//!
//! No tokio, no files, no clock: `reload` reads the files and swaps the result in.

use std::sync::Arc;

use crate::model::Mode;

pub mod address;
mod authority;
pub mod compile;
pub mod decision;
mod document;
mod listed;
mod matcher;
mod name;
pub mod pattern;
pub mod permit;
mod refusal;
mod summary;

pub use crate::model::TextError as PolicyError;
pub use address::{AddressClass, classify};
pub use compile::{MOST_LOOPBACK_PORTS, Text, Texts};
pub use decision::{Admission, Connection, Judgement, RequestContext, Sniffed};
pub use listed::{Entry, Listed};
pub use name::{NameVerdict, Queried};
pub use pattern::{HostPattern, InvalidPattern, NamePattern};
pub use permit::{AddressRule, Destination, Permit, Scheme, TunnelPermit, TunnelTo};
pub use summary::PolicySummary;

/// A compiled policy: immutable, shared, without I/O.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: Mode,
    lists: decision::Lists,
    addresses: Arc<address::AddressRules>,
    loopback_ports: Vec<u16>,
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
        let summary = summary::of(Mode::Enforce, &lists, &addresses, &[]);
        Self {
            mode: Mode::Enforce,
            lists,
            addresses: Arc::new(addresses),
            loopback_ports: Vec::new(),
            summary,
        }
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
        &self.loopback_ports
    }

    /// The rule that judges addresses, for the daemon's own resolver and dialler.
    #[must_use]
    pub fn addresses(&self) -> Arc<dyn AddressRule> {
        Arc::clone(&self.addresses) as _
    }
}
