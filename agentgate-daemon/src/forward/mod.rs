//! The way out. Everything here takes a permit by value: what was not judged cannot be sent, and
//! what was judged cannot be sent elsewhere.

mod connect;
mod error;
mod pool;
mod resolve;
mod spoken;
pub mod tunnel;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

pub use connect::OriginStream;
pub use error::ForwardError;
pub use resolve::Resolver;

use crate::{
    http::h1::Wire,
    model::{Action, Authority, Flag, Refusal, SessionId, Severity, Verdict},
    policy::{Destination, Permit, ReachPermit, Scheme, TunnelPermit, TunnelTo, permit::AddressRule},
    tls::{Alpn, Offer, OriginTls},
};
use pool::{Key, Pool};
use spoken::Spoken;
use tunnel::Terms;

/// The gate's own TCP ports: never dialled on a loopback address, whatever policy opens, or an agent
/// could reach the dashboard through the gate.
#[derive(Clone, Debug, Default)]
pub struct OwnPorts(pub Vec<u16>);

impl OwnPorts {
    /// The refusal for `address`, if it is one of the gate's own.
    fn objection(&self, address: SocketAddr, rule: &dyn AddressRule) -> Option<Refusal> {
        if !self.0.contains(&address.port()) || !rule.is_this_host(address.ip()) {
            return None;
        }
        let reason = "the gate's own ports are out of the agent's reach";
        Some(Refusal {
            verdict: Verdict {
                action: Action::Deny,
                rule: "invariant:gate_port".to_owned(),
                reason: reason.to_owned(),
            },
            flags: vec![Flag::new("gate_port", Severity::High, address.to_string())],
            status: 403,
            remedy: String::new(),
        })
    }
}

/// How long the origin may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For TCP and TLS together.
    pub connect: Duration,
    /// From the request to the response's head, and between two frames of a body.
    pub idle: Duration,
}

/// How long a connection that was left behind may have been idle for a request that may not be sent
/// twice: the least that servers wait is 5 s.
const RESTED: Duration = Duration::from_secs(2);

/// The forwarder: resolver, verified TLS, pool.
pub struct Forwarder {
    resolver: Resolver,
    tls: OriginTls,
    pool: Pool,
    spoken: Spoken,
    deadlines: Deadlines,
    own: OwnPorts,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("deadlines", &self.deadlines).finish_non_exhaustive()
    }
}

/// A connection that was just made.
#[derive(Debug)]
pub struct Dialled {
    pub stream: OriginStream,
    /// What the origin chose of the offer; `None` also where nothing was offered.
    pub alpn: Option<Alpn>,
    pub address: SocketAddr,
    /// What the policy flags about the address.
    pub flags: Vec<Flag>,
    key: Key,
}

/// An HTTP/1.1 connection to an origin, between requests.
#[derive(Debug)]
pub struct Origin {
    pub wire: Wire<OriginStream>,
    key: Key,
    /// When it was last used.
    since: Instant,
    /// Something was sent on it before.
    used: bool,
    /// What the policy flags about the address, for the record of its first request.
    flags: Vec<Flag>,
}

impl Origin {
    /// True where it has carried a request before, so that its origin may have closed it meanwhile.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// What the policy flags about the address, where that is on no record yet.
    #[must_use]
    pub fn take_flags(&mut self) -> Vec<Flag> {
        std::mem::take(&mut self.flags)
    }

    /// It carries a request from here on.
    pub fn set_used(&mut self) {
        self.used = true;
    }
}

/// What an agent's connection has towards its origin: nothing yet, the connection made to learn what the
/// origin speaks, or why there is none.
#[derive(Debug, Default)]
pub enum First {
    #[default]
    Nothing,
    Dialled(Box<Dialled>),
    Pooled(Box<Origin>),
    Failed(ForwardError),
}

impl First {
    /// As it is used for HTTP/1.1. While no request comes its origin may close it, or speak unasked: that
    /// is watched for as between requests.
    #[must_use]
    pub fn for_http1(self) -> Self {
        match self {
            Self::Dialled(dialled) if dialled.alpn != Some(Alpn::Http2) => {
                Self::Pooled(Box::new(dialled.into_http1()))
            }
            Self::Nothing | Self::Dialled(_) | Self::Pooled(_) | Self::Failed(_) => self,
        }
    }
}

/// A request that may go, and the connection it goes on.
#[derive(Debug)]
pub struct Ready {
    pub origin: Origin,
    pub permit: Permit,
    /// The agent's connection had it already.
    pub kept: bool,
}

/// A tunnel that stands: nothing has passed yet.
#[derive(Debug)]
pub struct Tunnel {
    origin: TcpStream,
    /// What the policy flags about the address.
    pub flags: Vec<Flag>,
}

impl Tunnel {
    /// Moves bytes both ways until both sides are done.
    ///
    /// # Errors
    /// [`ForwardError::Tunnel`].
    pub async fn carry(self, agent: TcpStream, terms: Terms<'_>) -> Result<(), ForwardError> {
        tunnel::relay(agent, self.origin, terms).await
    }
}

impl Forwarder {
    /// A forwarder with an empty pool.
    #[must_use]
    pub fn new(resolver: Resolver, tls: OriginTls, deadlines: Deadlines, own: OwnPorts) -> Self {
        Self { resolver, tls, pool: Pool::default(), spoken: Spoken::default(), deadlines, own }
    }

    /// How long may pass without anything moving.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.deadlines.idle
    }

    /// What the origin of `permit` chose of `offer` when it was last asked; `None` where that is not known.
    #[must_use]
    pub fn known(&self, permit: &ReachPermit, offer: Offer) -> Option<Option<Alpn>> {
        // Nothing to choose from.
        if offer == Offer::None { Some(None) } else { self.spoken.known(permit.destination(), offer) }
    }

    /// What was believed of `destination` is not so.
    pub fn forget(&self, destination: &Destination) {
        self.spoken.forget(destination);
    }

    /// Connects to the origin of `permit` before there is a request for it, or finds a connection of the
    /// same session. `http1`: it is known to be spoken to in HTTP/1.1.
    pub async fn reach(&self, session: &SessionId, permit: &ReachPermit, offer: Offer, http1: bool) -> First {
        let key = Key {
            session: session.clone(),
            destination: permit.destination().clone(),
            offer,
            rule: permit.addresses().clone(),
        };
        // What it will be asked is not known, so the rule for what may not be sent twice holds.
        if http1 && let Some(origin) = self.pool.take(&key, RESTED) {
            return First::Pooled(Box::new(origin));
        }
        match self.dial(key).await {
            Ok(dialled) => First::Dialled(Box::new(dialled)),
            Err(error) => First::Failed(error),
        }
    }

    /// A connection for what `permit` permits: `kept`, which the agent's connection has, one that another
    /// of the session left behind, or a fresh one. `fresh` asks for the last.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn http1(
        &self,
        session: &SessionId,
        permit: Permit,
        offer: Offer,
        kept: First,
        fresh: bool,
    ) -> Result<Ready, ForwardError> {
        // RFC 9110 9.2.2: only what may be sent twice is sent again, so the rest takes no risks.
        let rested = if is_repeatable(permit.head()) { Duration::MAX } else { RESTED };
        let ready = |origin, permit, kept| Ready { origin, permit, kept };
        match kept {
            First::Failed(error) if !fresh => return Err(error),
            First::Pooled(mut origin) if !fresh => {
                let key = &origin.key;
                if key.is(session, permit.destination(), offer, permit.addresses()) && origin.wire.is_quiet()
                {
                    return Ok(ready(*origin, permit, true));
                }
                self.pool.put(*origin);
            }
            First::Nothing | First::Dialled(_) | First::Pooled(_) | First::Failed(_) => {}
        }
        let destination = permit.destination().clone();
        let key = Key { session: session.clone(), destination, offer, rule: permit.addresses().clone() };
        if !fresh && let Some(origin) = self.pool.take(&key, rested) {
            return Ok(ready(origin, permit, false));
        }
        let mut dialled = self.dial(key.clone()).await?;
        if dialled.alpn == Some(Alpn::Http2) {
            // It spoke HTTP/1.1 when the agent was told so.
            self.forget(&dialled.key.destination);
            dialled = self.dial(Key { offer: Offer::Http1, ..key }).await?;
        }
        Ok(ready(dialled.into_http1(), permit, false))
    }

    /// Keeps a connection that its agent has left for the session's next.
    pub fn give_back(&self, origin: Origin) {
        self.pool.put(origin);
    }

    /// Connects to where `permit` permits.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn tunnel(&self, permit: TunnelPermit) -> Result<Tunnel, ForwardError> {
        let (to, rule) = permit.into_parts();
        let addresses = match to {
            TunnelTo::Name(authority) => self.resolver.addresses(&authority, rule.as_ref()).await?,
            // Judged by this very address.
            TunnelTo::Address(address) => vec![address],
        };
        let (origin, _, flags) = self.open(addresses, rule.as_ref()).await?;
        Ok(Tunnel { origin, flags })
    }

    /// Closes pooled connections that have been idle too long.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    async fn dial(&self, key: Key) -> Result<Dialled, ForwardError> {
        let Key { destination, rule, offer, .. } = &key;
        let addresses = self.resolver.addresses(&destination.authority, rule.as_ref()).await?;
        let end = tokio::time::Instant::now() + self.deadlines.connect;
        let (tcp, address, flags) = self.open(addresses, rule.as_ref()).await?;
        let (stream, alpn) = if destination.scheme == Scheme::Http {
            (OriginStream::Tcp(tcp), None)
        } else {
            let Authority { host, port } = &destination.authority;
            let config = self.tls.towards(host, *port, *offer);
            let tls = connect::tls(config, host, tcp, (end, self.deadlines.connect)).await?;
            let alpn = tls.get_ref().1.alpn_protocol().and_then(Alpn::of);
            self.spoken.learn(destination, *offer, alpn);
            (OriginStream::Tls(Box::new(tls)), alpn)
        };
        Ok(Dialled { stream, alpn, address, flags, key })
    }

    /// The only place that opens a connection to an origin.
    async fn open(
        &self,
        mut addresses: Vec<SocketAddr>,
        rule: &dyn AddressRule,
    ) -> Result<(TcpStream, SocketAddr, Vec<Flag>), ForwardError> {
        let refused = addresses.iter().find_map(|address| self.own.objection(*address, rule));
        addresses.retain(|address| self.own.objection(*address, rule).is_none());
        if let Some(refusal) = refused
            && addresses.is_empty()
        {
            return Err(ForwardError::Address(Box::new(refusal)));
        }
        let (stream, address) = connect::tcp(&addresses, self.deadlines.connect).await?;
        Ok((stream, address, rule.flags(address.ip(), address.port())))
    }
}

impl Dialled {
    /// Where it leads, and what judged the address.
    #[must_use]
    pub fn to(&self) -> (&Destination, &Arc<dyn AddressRule>) {
        (&self.key.destination, &self.key.rule)
    }

    fn into_http1(self) -> Origin {
        let Self { stream, flags, key, .. } = self;
        Origin { wire: Wire::new(stream), key, since: Instant::now(), used: false, flags }
    }
}

/// RFC 9110 9.2.2: what may be sent twice without harm, and here without a body.
#[must_use]
pub fn is_repeatable(head: &http::request::Parts) -> bool {
    head.method.is_idempotent()
        && !head.headers.contains_key(http::header::CONTENT_LENGTH)
        && !head.headers.contains_key(http::header::TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{HostFacts, Policy};

    #[test]
    fn own_ports_are_own_in_every_spelling() {
        let own = OwnPorts(vec![7878]);
        let host = HostFacts {
            addresses: vec!["192.168.7.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
            nat64: vec!["2001:db8:64::/96".parse().unwrap()],
        };
        let rule = Policy::closed().with_host(&host).addresses();
        for (address, refused) in [
            ("127.0.0.1:7878", true),
            ("127.8.9.1:7878", true),
            ("[::1]:7878", true),
            ("[::ffff:127.0.0.1]:7878", true),
            ("0.0.0.0:7878", true),
            ("[::]:7878", true),
            ("192.168.7.5:7878", true),
            ("[::ffff:192.168.7.5]:7878", true),
            ("[2001:db8::5]:7878", true),
            ("[64:ff9b::127.0.0.1]:7878", true),
            ("[2001:db8:64::192.168.7.5]:7878", true),
            ("127.0.0.1:80", false),
            ("192.168.7.5:80", false),
            ("192.168.7.6:7878", false),
            ("198.51.100.10:7878", false),
        ] {
            assert_eq!(
                own.objection(address.parse().unwrap(), rule.as_ref()).is_some(),
                refused,
                "{address}"
            );
        }
    }
}
