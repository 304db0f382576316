//! What is offered by ALPN (RFC 7301): by an agent, to an origin, and back to the agent.

/// A version of HTTP, as ALPN settles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    Http1,
    Http2,
}

impl Alpn {
    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// The version of a registered name; `None` for any other protocol.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2].into_iter().find(|alpn| alpn.name() == name)
    }
}

/// What an agent offered of HTTP, and so what an origin is offered for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Offer {
    /// No ALPN at all, or nothing of HTTP in it.
    #[default]
    None,
    Http1,
    Http2,
    /// Both; as nearly all do, HTTP/2 first.
    Both,
    /// Both, HTTP/1.1 first.
    Http1First,
}

impl Offer {
    /// Each that there is, in no order that matters.
    pub const ALL: [Self; 5] = [Self::None, Self::Http1, Self::Http2, Self::Both, Self::Http1First];

    /// What `protocols`, in this order, offer of HTTP.
    #[must_use]
    pub fn of<P: AsRef<[u8]>>(protocols: &[P]) -> Self {
        let mut known = protocols.iter().filter_map(|name| Alpn::of(name.as_ref()));
        let Some(first) = known.next() else { return Self::None };
        match (first, known.any(|other| other != first)) {
            (Alpn::Http1, false) => Self::Http1,
            (Alpn::Http2, false) => Self::Http2,
            (Alpn::Http2, true) => Self::Both,
            (Alpn::Http1, true) => Self::Http1First,
        }
    }

    /// In the order of preference.
    #[must_use]
    pub fn protocols(self) -> &'static [Alpn] {
        match self {
            Self::None => &[],
            Self::Http1 => &[Alpn::Http1],
            Self::Http2 => &[Alpn::Http2],
            Self::Both => &[Alpn::Http2, Alpn::Http1],
            Self::Http1First => &[Alpn::Http1, Alpn::Http2],
        }
    }

    /// As a TLS configuration wants it.
    pub(super) fn names(self) -> Vec<Vec<u8>> {
        self.protocols().iter().map(|alpn| alpn.name().to_vec()).collect()
    }
}

/// What the agent is offered back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentAlpn {
    /// Nothing is chosen, whatever was offered: so does an origin that knows no ALPN.
    Unsaid,
    /// This one; an agent that did not offer it gets `no_application_protocol`.
    Only(Alpn),
    /// What the agent prefers of its own offer. One that offered protocols and none of HTTP gets
    /// `no_application_protocol`.
    AsAsked(Offer),
}

impl AgentAlpn {
    /// What an origin chose.
    #[must_use]
    pub fn chosen(alpn: Option<Alpn>) -> Self {
        alpn.map_or(Self::Unsaid, Self::Only)
    }

    /// As a TLS configuration wants it.
    pub(super) fn names(self) -> Vec<Vec<u8>> {
        match self {
            Self::Unsaid => Vec::new(),
            Self::Only(alpn) => vec![alpn.name().to_vec()],
            // An empty list would let an agent that speaks something else through.
            Self::AsAsked(Offer::None) => Offer::Both.names(),
            Self::AsAsked(offer) => offer.names(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_keep_their_order_and_leave_out_the_rest() {
        let rows: [(&[&[u8]], Offer); 9] = [
            (&[], Offer::None),
            (&[b"imap", b""], Offer::None),
            (&[b"http/1.1"], Offer::Http1),
            (&[b"h2"], Offer::Http2),
            (&[b"h2", b"h2"], Offer::Http2),
            (&[b"h2", b"http/1.1"], Offer::Both),
            (&[b"\x0a\x0a", b"h2", b"spdy/3", b"http/1.1", b"http/1.0"], Offer::Both),
            (&[b"http/1.1", b"h2"], Offer::Http1First),
            (&[b"H2", b"http/1.1"], Offer::Http1),
        ];
        for (protocols, expect) in rows {
            assert_eq!(Offer::of(protocols), expect, "{protocols:?}");
        }
        for offer in Offer::ALL {
            assert_eq!(Offer::of(&offer.names()), offer);
        }
    }
}
