//! The judgement of a connection and of a request, in the order of the policy language: invariants,
//! deny list, passthrough list, allow list, `cidrs`, mode.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use http::request::Parts;

use super::{
    Policy,
    address::is_localhost,
    authority::{self, Named},
    inspect::{self, BodyFacts},
    matcher::HostSet,
    permit::{Destination, Permit, ReachPermit, Scheme, TunnelPermit, TunnelTo},
    provenance::{Given, Provenance},
    refusal::{self, would_block},
};
use crate::model::{Action, Authority, Flag, Host, Mode, OWN_NAME, Refusal, Subject, Verdict};

/// The lists that allow. The one that denies is with the address rules, which read it too.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    pub(super) allow: HostSet,
    pub(super) passthrough: HostSet,
    /// `opaque_tcp`: each pattern has its port.
    pub(super) opaque: HostSet,
}

/// A connection after its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Where the agent meant to go.
    pub original: SocketAddr,
    /// What its first bytes are.
    pub sniffed: Sniffed<'a>,
    /// How the agent came by that address.
    pub given: Given<'a>,
    /// Who connects.
    pub subject: &'a Subject,
}

/// What the first bytes of a connection are, as far as policy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed<'a> {
    /// A ClientHello; `ech`: with an encrypted inner one, whose name nobody here can read.
    Tls { sni: Option<&'a Host>, ech: bool },
    /// HTTP/1 or HTTP/2 in the clear.
    Http,
    /// Something else.
    Opaque,
    /// Nothing, within the sniffer's deadline.
    Silent,
}

/// What happens to a connection.
#[derive(Debug)]
pub enum Admission {
    /// Its requests are read and judged one by one. The permit is there where a request for the name of
    /// the connection would be allowed.
    Intercept(Option<ReachPermit>),
    /// It passes unread.
    Tunnel(TunnelPermit),
    /// It ends here.
    Deny(Refusal),
}

impl Admission {
    /// The verdict, where there is one yet.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Intercept(_) => None,
            Self::Tunnel(permit) => Some(permit.verdict()),
            Self::Deny(refusal) => Some(&refusal.verdict),
        }
    }

    /// What was flagged on the way.
    #[must_use]
    pub fn flags(&self) -> &[Flag] {
        match self {
            Self::Intercept(_) => &[],
            Self::Tunnel(permit) => permit.flags(),
            Self::Deny(refusal) => &refusal.flags,
        }
    }
}

/// What a request is judged by, besides its head.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// Where the agent meant to go.
    pub original: SocketAddr,
    /// Whether it came over TLS.
    pub scheme: Scheme,
    /// The name in the ClientHello.
    pub sni: Option<&'a Host>,
    /// How the agent came by that address.
    pub given: Given<'a>,
    /// Who asks.
    pub subject: &'a Subject,
    /// What is known of its body.
    pub body: BodyFacts<'a>,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Judgement {
    /// It is forwarded.
    Allow(Permit),
    /// It is not.
    Deny {
        refusal: Refusal,
        /// The head, for the record and the answer.
        head: Parts,
        /// Whom it was for, where that could be read.
        authority: Option<Authority>,
    },
}

impl Judgement {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        match self {
            Self::Allow(permit) => permit.verdict(),
            Self::Deny { refusal, .. } => &refusal.verdict,
        }
    }

    /// What was flagged on the way.
    #[must_use]
    pub fn flags(&self) -> &[Flag] {
        match self {
            Self::Allow(permit) => permit.flags(),
            Self::Deny { refusal, .. } => &refusal.flags,
        }
    }
}

/// An allow, before it becomes a permit.
pub(super) struct Allowed {
    pub(super) verdict: Verdict,
    pub(super) flags: Vec<Flag>,
}

pub(super) fn allowed(action: Action, rule: String, reason: String, flags: Vec<Flag>) -> Allowed {
    Allowed { verdict: Verdict { action, rule, reason }, flags }
}

impl Policy {
    /// Judges a connection by its destination and first bytes.
    #[must_use]
    pub fn admit(&self, c: &Connection<'_>) -> Admission {
        let original = canonical(c.original);
        if let Some(refusal) = self.invariant_address(original) {
            return Admission::Deny(refusal);
        }
        match c.sniffed {
            // Each request names its own host.
            Sniffed::Http => Admission::Intercept(None),
            Sniffed::Tls { sni: Some(sni), ech } => self.admit_named(original, sni, ech, c.given),
            Sniffed::Tls { sni: None, ech } => match self.mode {
                Mode::Enforce => Admission::Deny(refusal::missing_sni(original, ech)),
                // RFC 6066 3: an address is never sent as SNI, so the address is the name.
                Mode::Blocklist | Mode::Audit => {
                    self.intercept(original, &Host::from(original.ip()), c.given)
                }
            },
            Sniffed::Opaque => self.admit_opaque(original, false, c.given),
            Sniffed::Silent => self.admit_opaque(original, true, c.given),
        }
    }

    /// Judges a request by its head. The head comes back in either answer.
    #[must_use]
    pub fn judge(&self, r: RequestContext<'_>, head: Parts) -> Judgement {
        let original = canonical(r.original);
        let authority_of = |named: &Named| Authority { host: named.host.clone(), port: original.port() };
        let named = match authority::read(&head, r.scheme) {
            Ok(named) => named,
            Err(misnamed) => {
                let authority = misnamed.named.as_ref().map(authority_of);
                return Judgement::Deny { refusal: misnamed.refusal, head, authority };
            }
        };
        let authority = authority_of(&named);
        let decided = match disagreement(&r, original, &named) {
            Some(refusal) => Err(refusal),
            None => self.decide(original, &authority, r.given),
        };
        let seen =
            decided.and_then(|allowed| inspect::judge(self.inspection, allowed, &head.headers, r.body));
        match seen {
            Ok(Allowed { verdict, flags }) => Judgement::Allow(Permit {
                head,
                destination: Destination { scheme: r.scheme, authority },
                verdict,
                flags,
                addresses: Arc::clone(&self.addresses) as _,
                inspection: self.inspection,
            }),
            Err(refusal) => Judgement::Deny { refusal, head, authority: Some(authority) },
        }
    }

    /// TLS with a name: a tunnel where the name is passed through, else its requests are judged. A
    /// denied name is intercepted as well, so that the refusal can be said in HTTP.
    fn admit_named(&self, original: SocketAddr, sni: &Host, ech: bool, given: Given<'_>) -> Admission {
        let port = original.port();
        // Nothing is behind it, whatever the lists say.
        if sni.as_str() == OWN_NAME {
            return Admission::Intercept(None);
        }
        // An address in SNI that is not where the connection goes is refused by `judge`.
        let elsewhere = sni.as_ip().is_some_and(|ip| ip != original.ip());
        if elsewhere || self.addresses.deny.find(sni, port).is_some() {
            return Admission::Intercept(None);
        }
        let Some(hit) = self.lists.passthrough.find(sni, port) else {
            return self.intercept(original, sni, given);
        };
        if let Some(refusal) = self.invariant_name(sni, port) {
            return Admission::Deny(refusal);
        }
        let provenance = self.provenance(original, sni, given);
        if let Some(refusal) = provenance.refusal {
            return Admission::Deny(refusal);
        }
        let mut flags = provenance.flags;
        if ech {
            // Read, it would be answered for the outer name; in a tunnel, the inner one is what counts.
            let hidden = refusal::encrypted_hello(sni);
            match self.mode {
                Mode::Enforce => return Admission::Deny(hidden),
                Mode::Blocklist | Mode::Audit => flags.extend(hidden.flags),
            }
        }
        let pattern = hit.pattern;
        let reason = format!("the passthrough list has {pattern}");
        let rule = format!("passthrough:{pattern}");
        let verdict = allowed(Action::Passthrough, rule, reason, flags);
        self.tunnel(TunnelTo::Name(Authority { host: sni.clone(), port }), verdict)
    }

    /// The requests of a TLS connection for `host` are read; its origin may be reached before the first of
    /// them where they would be allowed.
    fn intercept(&self, original: SocketAddr, host: &Host, given: Given<'_>) -> Admission {
        let authority = Authority { host: host.clone(), port: original.port() };
        let allowed = self.decide(original, &authority, given).is_ok();
        Admission::Intercept(allowed.then(|| ReachPermit {
            destination: Destination { scheme: Scheme::Https, authority },
            addresses: Arc::clone(&self.addresses) as _,
        }))
    }

    /// Neither TLS nor HTTP: judged by address, or by a name that the address was given for, because it
    /// has none of its own.
    fn admit_opaque(&self, original: SocketAddr, silent: bool, given: Given<'_>) -> Admission {
        let (ip, port) = (original.ip(), original.port());
        let refusal = if let Some(hit) = self.addresses.deny.find(&Host::from(ip), port) {
            refusal::denied(&hit)
        } else if let Some(entry) = self.addresses.entry(ip, port) {
            let reason = format!("cidrs allows {} at port {port}", entry.net);
            let rule = format!("cidr:{}", entry.net);
            let verdict = allowed(Action::Passthrough, rule, reason, Vec::new());
            return self.tunnel(TunnelTo::Address(original), verdict);
        } else {
            match self.opaque_by_name(port, given) {
                Some(Ok((host, verdict))) => {
                    return self.tunnel(TunnelTo::Name(Authority { host, port }), verdict);
                }
                Some(Err(refusal)) => refusal,
                None => refusal::opaque(original, silent, given.names()),
            }
        };
        match self.mode {
            Mode::Enforce | Mode::Blocklist => Admission::Deny(refusal),
            Mode::Audit => {
                let mut verdict = audited(&refusal);
                verdict.verdict.action = Action::Passthrough;
                if given == Given::Never {
                    verdict.flags.push(refusal::address_not_resolved(original));
                }
                self.tunnel(TunnelTo::Address(original), verdict)
            }
        }
    }

    fn tunnel(&self, to: TunnelTo, allowed: Allowed) -> Admission {
        let Allowed { verdict, flags } = allowed;
        Admission::Tunnel(TunnelPermit { to, verdict, flags, addresses: Arc::clone(&self.addresses) as _ })
    }

    /// A destination that is refused in every mode.
    fn invariant_address(&self, original: SocketAddr) -> Option<Refusal> {
        let (ip, port) = (original.ip(), original.port());
        let class = self.addresses.objection(ip, port).filter(|class| class.is_invariant())?;
        Some(self.addresses.refusal(ip, port, class))
    }

    /// The gate's own name; and one that means this host, in every mode, unless `cidrs` opens loopback at
    /// this port.
    pub(super) fn invariant_name(&self, host: &Host, port: u16) -> Option<Refusal> {
        if host.as_str() == OWN_NAME {
            return Some(refusal::own_name(host));
        }
        let opened = |ip: IpAddr| self.addresses.entry(ip, port).is_some();
        let closed = is_localhost(host)
            && !opened(IpAddr::V4(Ipv4Addr::LOCALHOST))
            && !opened(IpAddr::V6(Ipv6Addr::LOCALHOST));
        closed.then(|| refusal::localhost(host, port))
    }

    /// The order of the language, for a name that agrees with the connection.
    fn decide(
        &self,
        original: SocketAddr,
        authority: &Authority,
        given: Given<'_>,
    ) -> Result<Allowed, Refusal> {
        let Authority { host, port } = authority;
        if let Some(refusal) = self.invariant_address(original).or_else(|| self.invariant_name(host, *port)) {
            return Err(refusal);
        }
        let Provenance { flags, refusal: unresolved } = self.provenance(original, host, given);
        let mut decided = match self.objection(authority) {
            Some(refusal) if self.mode == Mode::Audit => Ok(audited(&refusal)),
            Some(refusal) => Err(refusal),
            None => self.permission(authority),
        };
        match &mut decided {
            Ok(allowed) => allowed.flags.extend(flags),
            Err(refusal) => refusal.flags.extend(flags),
        }
        match unresolved {
            Some(unresolved) if decided.is_ok() => Err(unresolved),
            Some(_) | None => decided,
        }
    }

    /// What speaks against a host: the deny list, or its being an address that may not be dialled.
    fn objection(&self, authority: &Authority) -> Option<Refusal> {
        let Authority { host, port } = authority;
        if let Some(hit) = self.addresses.deny.find(host, *port) {
            return Some(refusal::denied(&hit));
        }
        let ip = host.as_ip()?;
        self.addresses.objection(ip, *port).map(|class| self.addresses.refusal(ip, *port, class))
    }

    /// What speaks for a host: lists, `cidrs`, at last the mode.
    fn permission(&self, authority: &Authority) -> Result<Allowed, Refusal> {
        let Authority { host, port } = authority;
        for (list, set) in [("passthrough", &self.lists.passthrough), ("allow", &self.lists.allow)] {
            if let Some(hit) = set.find(host, *port) {
                let pattern = hit.pattern.text();
                let reason = ["the ", list, " list has ", &*pattern].concat();
                return Ok(allowed(Action::Allow, [list, ":", &*pattern].concat(), reason, Vec::new()));
            }
        }
        if let Some(entry) = host.as_ip().and_then(|ip| self.addresses.entry(ip, *port)) {
            let reason = format!("cidrs allows {} at port {port}", entry.net);
            return Ok(allowed(Action::Allow, format!("cidr:{}", entry.net), reason, Vec::new()));
        }
        match self.mode {
            Mode::Enforce => Err(refusal::unlisted(authority)),
            Mode::Blocklist | Mode::Audit => {
                let flag = (!self.lists.allow.is_empty()).then(|| refusal::not_allowlisted(authority));
                let reason = format!("no list has {host}, and the mode is {}", self.mode);
                Ok(allowed(Action::Allow, format!("mode:{}", self.mode), reason, flag.into_iter().collect()))
            }
        }
    }
}

/// How the names of a request and its connection differ, if they do.
fn disagreement(r: &RequestContext<'_>, original: SocketAddr, named: &Named) -> Option<Refusal> {
    if let Some(port) = named.port.filter(|port| *port != original.port()) {
        let other = format!("port {} instead of {port}", original.port());
        return Some(refusal::mismatch(&named.host, &other));
    }
    match (r.sni, r.scheme) {
        (Some(sni), _) if *sni != named.host => return Some(refusal::mismatch(&named.host, sni.as_str())),
        (None, Scheme::Https) if Host::from(original.ip()) != named.host => {
            return Some(refusal::mismatch(&named.host, &format!("{original} without a name")));
        }
        (Some(_) | None, Scheme::Http | Scheme::Https) => {}
    }
    // An address needs no resolving, so it must be the one the agent connected to.
    named
        .host
        .as_ip()
        .filter(|ip| *ip != original.ip())
        .map(|_| refusal::mismatch(&named.host, &original.to_string()))
}

/// What `audit` makes of a refusal.
fn audited(refusal: &Refusal) -> Allowed {
    let mut flags = refusal.flags.clone();
    flags.push(would_block(refusal));
    let reason = format!("the mode is audit; otherwise: {}", refusal.verdict.reason);
    allowed(Action::Allow, format!("mode:{}", Mode::Audit), reason, flags)
}

/// IPv4-mapped addresses as IPv4, so that one destination has one spelling.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
