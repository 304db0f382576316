//! Keeps policy and kernel told what the host's own addresses and NAT64 prefixes are.
//!
//! Addresses are read once and after each notice of the kernel's; prefixes are asked for as often, and
//! from time to time, because they change without the host being told. Judges nothing: what follows from
//! an address is policy's.

mod addresses;
mod nat64;

use std::{fmt, io, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

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
    /// Whether the prefixes could be asked for.
    asked: bool,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Follower {
    /// Reads and installs what there is: when it returns, the host's own addresses are closed.
    ///
    /// # Errors
    /// [`HostError`]: then the gate must not open.
    pub async fn start(
        resolver: Resolver,
        kernel: Arc<dyn Kernel>,
        policy: PolicyHandle,
    ) -> Result<Self, HostError> {
        // Before reading, so that no change falls between.
        let notices = Notices::open().map_err(HostError::Addresses)?;
        let facts = HostFacts::default();
        let mut follower = Self { notices, resolver, kernel, policy, facts, asked: false };
        follower.refresh().await?;
        Ok(follower)
    }

    /// Follows changes until the drain.
    pub async fn run(mut self, mut drain: watch::Receiver<bool>) {
        let mut pause = if self.asked { RECHECK } else { RETRY };
        loop {
            let notice = tokio::select! {
                notice = self.notices.changed() => notice,
                () = sleep(pause) => Ok(()),
                () = told(&mut drain) => return,
            };
            let refreshed = match notice {
                Ok(()) => self.refresh().await,
                Err(error) => self.reopen(error).await,
            };
            pause = match refreshed {
                Ok(()) if self.asked => RECHECK,
                Ok(()) => RETRY,
                Err(error) => {
                    tracing::error!(%error, "the host's addresses before stay installed; trying again");
                    RETRY
                }
            };
        }
    }

    /// A socket that failed tells nothing more: another one, and all is read anew.
    async fn reopen(&mut self, error: io::Error) -> Result<(), HostError> {
        tracing::error!(%error, "notices of changed addresses");
        // Not at once: what fails for good must not spin.
        sleep(Duration::from_secs(1)).await;
        self.notices = Notices::open().map_err(HostError::Addresses)?;
        self.refresh().await
    }

    async fn refresh(&mut self) -> Result<(), HostError> {
        let addresses = addresses::read().map_err(HostError::Addresses)?;
        // At once: the prefixes may take their time.
        self.install(HostFacts { addresses, nat64: self.facts.nat64.clone() })?;
        let found = nat64::discover(&self.resolver).await;
        self.asked = found.is_some();
        // Where nobody can say, what was known stays.
        let nat64 = found.unwrap_or_else(|| self.facts.nat64.clone());
        self.install(HostFacts { addresses: self.facts.addresses.clone(), nat64 })
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
