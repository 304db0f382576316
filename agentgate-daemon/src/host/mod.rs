//! Keeps policy and kernel told what the host's own addresses and NAT64 prefixes are.
//!
//! Addresses are read once and after each notice of the kernel's; prefixes are asked for as often, and
//! from time to time, because they change without the host being told. A start waits for no resolver: the
//! first answer about prefixes comes while the gate runs. Judges nothing: what follows from an address is
//! policy's.

mod addresses;
mod nat64;

use std::{fmt, io, pin::Pin, sync::Arc, time::Duration};

use ipnet::Ipv6Net;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use self::addresses::Notices;
use crate::{
    drain::told,
    forward::Resolver,
    kernel::{Kernel, KernelError},
    policy::HostFacts,
    reload::PolicyHandle,
};

/// How often prefixes are asked for although no address changed: a network that gets another translator
/// changes nothing on the host.
const RECHECK: Duration = Duration::from_secs(600);
/// The same after something could not be done.
const RETRY: Duration = Duration::from_secs(30);

/// Why the host's addresses are not known to policy and kernel.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// By rtnetlink.
    #[error("the addresses of the host's interfaces cannot be read: {0}")]
    Addresses(#[source] io::Error),
    /// Into the map.
    #[error("the kernel does not take the host's addresses: {0}")]
    Kernel(#[from] KernelError),
}

/// Follows the host's addresses.
pub struct Follower {
    notices: Notices,
    resolver: Resolver,
    kernel: Arc<dyn Kernel>,
    policy: PolicyHandle,
    /// As installed.
    facts: HostFacts,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Follower {
    /// Reads and installs what the host itself knows: when it returns, its own addresses are closed. Asks
    /// nobody on the network, so that a silent resolver does not delay the gate.
    ///
    /// # Errors
    /// [`HostError`]: then the gate must not open.
    pub fn start(
        resolver: Resolver,
        kernel: Arc<dyn Kernel>,
        policy: PolicyHandle,
    ) -> Result<Self, HostError> {
        // Before reading, so that no change falls between.
        let notices = Notices::open().map_err(HostError::Addresses)?;
        let facts = HostFacts::default();
        let mut follower = Self { notices, resolver, kernel, policy, facts };
        follower.read_addresses()?;
        Ok(follower)
    }

    /// Follows changes until the drain.
    pub async fn run(mut self, mut drain: watch::Receiver<bool>) {
        // Beside the notices: while a resolver is silent, the host's addresses are followed all the same.
        let mut asking = self.asking();
        let mut next = None;
        loop {
            tokio::select! {
                notice = self.notices.changed() => {
                    let read = match notice {
                        Ok(()) => self.read_addresses(),
                        Err(error) => self.reopen(error).await,
                    };
                    next = Some(Instant::now() + read.map_or_else(kept, |()| Duration::ZERO));
                }
                found = &mut asking, if next.is_none() => {
                    next = Some(Instant::now() + self.learn(found));
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    next = match self.read_addresses() {
                        Ok(()) => None,
                        Err(error) => Some(Instant::now() + kept(error)),
                    };
                    asking = self.asking();
                }
                () = told(&mut drain) => return,
            }
        }
    }

    fn asking(&self) -> Pin<Box<dyn Future<Output = Option<Vec<Ipv6Net>>> + Send>> {
        let resolver = self.resolver.clone();
        Box::pin(async move { nat64::discover(&resolver).await })
    }

    /// Installs the prefixes that were found; where nobody can say, what was known stays. Gives the time
    /// after which to ask again.
    fn learn(&mut self, found: Option<Vec<Ipv6Net>>) -> Duration {
        let Some(nat64) = found else { return RETRY };
        let installed = self.install(HostFacts { addresses: self.facts.addresses.clone(), nat64 });
        installed.map_or_else(kept, |()| RECHECK)
    }

    /// A socket that failed tells nothing more: another one, and all is read anew.
    async fn reopen(&mut self, error: io::Error) -> Result<(), HostError> {
        tracing::error!(%error, "notices of changed addresses");
        // Not at once: what fails for good must not spin.
        sleep(Duration::from_secs(1)).await;
        self.notices = Notices::open().map_err(HostError::Addresses)?;
        self.read_addresses()
    }

    fn read_addresses(&mut self) -> Result<(), HostError> {
        let addresses = addresses::read().map_err(HostError::Addresses)?;
        self.install(HostFacts { addresses, nat64: self.facts.nat64.clone() })
    }

    fn install(&mut self, facts: HostFacts) -> Result<(), HostError> {
        // Policy first: it judges what the kernel lets come to the listener.
        if self.policy.set_host(facts.clone()) {
            tracing::info!(addresses = facts.addresses.len(), nat64 = ?facts.nat64, "the host's own addresses");
        }
        self.kernel.set_host_addresses(&facts.addresses)?;
        self.facts = facts;
        Ok(())
    }
}

/// What could not be installed: what was before stays, until this time is over.
fn kept(error: HostError) -> Duration {
    tracing::error!(%error, "the host's addresses before stay installed; trying again");
    RETRY
}
