//! How an agent came by the address that it connects to: from an answer of the gate's DNS server, from
//! somebody who wrote it down in policy, or from elsewhere.

use std::net::{IpAddr, SocketAddr};

use super::{
    Policy,
    decision::{Allowed, allowed},
    refusal::{self, would_block},
};
use crate::model::{Action, Flag, Host, Mode, Refusal};

/// What the gate's DNS server told the session about the address that a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// The address was in no answer.
    Never,
    /// The names that it was an answer for, the one told longest ago first.
    Names(&'a [Host]),
}

impl<'a> Given<'a> {
    /// From what was remembered.
    #[must_use]
    pub fn of(names: Option<&'a [Host]>) -> Self {
        names.map_or(Self::Never, Self::Names)
    }

    pub(super) fn names(self) -> &'a [Host] {
        match self {
            Self::Never => &[],
            Self::Names(names) => names,
        }
    }
}

/// What is to be said of how an agent came by an address.
#[derive(Default)]
pub(super) struct Provenance {
    pub(super) flags: Vec<Flag>,
    pub(super) refusal: Option<Refusal>,
}

impl Policy {
    /// What `opaque_tcp` says of the names that an address was given for; the one told last first,
    /// because the connection most likely follows it. Several names may share an address, and the agent
    /// may have meant another one of them: it gets the one that is allowed, by the gate's own resolution.
    pub(super) fn opaque_by_name(
        &self,
        port: u16,
        given: Given<'_>,
    ) -> Option<Result<(Host, Allowed), Refusal>> {
        let mut refused = None;
        for host in given.names().iter().rev() {
            let Some(hit) = self.lists.opaque.find(host, port) else { continue };
            if let Some(denied) = self.addresses.deny.find(host, port) {
                refused = refused.or(Some(refusal::denied(&denied)));
                continue;
            }
            if let Some(refusal) = self.invariant_name(host, port) {
                refused = refused.or(Some(refusal));
                continue;
            }
            let reason = format!("opaque_tcp has {}, and its address was given for {host}", hit.pattern);
            let rule = format!("opaque_tcp:{}", hit.pattern);
            return Some(Ok((host.clone(), allowed(Action::Passthrough, rule, reason, Vec::new()))));
        }
        refused.map(Err)
    }

    /// How the agent came by the address that it reaches `host` at.
    pub(super) fn provenance(&self, original: SocketAddr, host: &Host, given: Given<'_>) -> Provenance {
        let (ip, port) = (original.ip(), original.port());
        match given {
            Given::Names(names) if names.contains(host) || host.as_ip() == Some(ip) => Provenance::default(),
            // Not refused: the gate dials its own resolution of the approved name, so the agent's choice
            // of an address decides nothing, and clients that know two names to share one address use it
            // for both.
            Given::Names(names) => {
                Provenance { flags: vec![refusal::given_for_another(host, original, names)], refusal: None }
            }
            Given::Never if self.names_address(ip, port) => Provenance::default(),
            Given::Never => {
                let refusal = refusal::unresolved(original);
                let mut flags = refusal.flags.clone();
                match self.mode {
                    Mode::Enforce => Provenance { flags, refusal: Some(refusal) },
                    Mode::Blocklist => Provenance { flags, refusal: None },
                    Mode::Audit => {
                        flags.push(would_block(&refusal));
                        Provenance { flags, refusal: None }
                    }
                }
            }
        }
    }

    /// Whether somebody wrote down this very address. `*` names none.
    fn names_address(&self, ip: IpAddr, port: u16) -> bool {
        let host = Host::from(ip);
        self.addresses.entry(ip, port).is_some()
            || self.lists.allow.find_exact(&host, port).is_some()
            || self.lists.passthrough.find_exact(&host, port).is_some()
    }
}
