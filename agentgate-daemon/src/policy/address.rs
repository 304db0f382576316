//! Which addresses may be dialled, whatever name led there: private, loopback, link-local and
//! metadata ranges are refused unless `[network] cidrs` names them.
//!
//! An IPv6 address that embeds an IPv4 one is judged as the worse of the two, because translators and
//! tunnels would deliver it to the embedded one. The documentation ranges (RFC 5737, RFC 3849) count
//! as public: nothing routes them, so refusing them protects nobody.
//!
//! The host's own addresses are loopback under another name, and its NAT64 prefixes are one more
//! embedding. Those prefixes are learned from DNS, which nobody signs, so they only ever make an address
//! worse: what is private by its own bits stays so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    facts::{Facts, LOCAL_NAT64},
    matcher::HostSet,
    permit::AddressRule,
    refusal::{self, would_block},
};
use crate::model::{Flag, Host, Mode, Refusal};

/// What an address is, from harmless to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressClass {
    /// Anything not named below.
    Public,
    /// RFC 1918, carrier-grade NAT (RFC 6598), link-local, ULA (RFC 4193), site-local.
    Private,
    /// Multicast, broadcast, benchmark (RFC 2544), and what IANA keeps for protocols or the future.
    Reserved,
    /// 127.0.0.0/8, ::1 and the addresses of the host's interfaces: for the daemon that dials, the host
    /// itself and the gate's own ports.
    Loopback,
    /// Where clouds hand out credentials.
    Metadata,
    /// 0.0.0.0 and ::, which connect(2) takes for loopback.
    Unspecified,
}

impl AddressClass {
    /// The `code` in `invariant:<code>`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Reserved => "reserved",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::Unspecified => "unspecified",
        }
    }

    /// In a sentence: "10.1.2.3 is …".
    pub(super) fn described(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Reserved => "a reserved address",
            Self::Loopback => "a loopback address",
            Self::Metadata => "a cloud metadata address",
            Self::Unspecified => "the unspecified address",
        }
    }

    /// Refused in every mode: what lies there is the host's own, or credentials.
    pub(super) fn is_invariant(self) -> bool {
        match self {
            Self::Public | Self::Private | Self::Reserved => false,
            Self::Loopback | Self::Metadata | Self::Unspecified => true,
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// Metadata addresses, each with the range within which an entry of `cidrs` must lie to name it: a
/// wider entry, such as 0.0.0.0/0 or 10.0.0.0/8, was not written with it in mind.
const METADATA_V4: [(Ipv4Addr, Ipv4Net); 8] = [
    // AWS, Google, Azure, DigitalOcean, Oracle, OpenStack, Hetzner
    (Ipv4Addr::new(169, 254, 169, 254), v4(169, 254, 0, 0, 16)),
    // AWS ECS task credentials
    (Ipv4Addr::new(169, 254, 170, 2), v4(169, 254, 0, 0, 16)),
    // AWS EKS pod identity
    (Ipv4Addr::new(169, 254, 170, 23), v4(169, 254, 0, 0, 16)),
    // Scaleway
    (Ipv4Addr::new(169, 254, 42, 42), v4(169, 254, 0, 0, 16)),
    // Tencent
    (Ipv4Addr::new(169, 254, 0, 23), v4(169, 254, 0, 0, 16)),
    // Alibaba
    (Ipv4Addr::new(100, 100, 100, 200), v4(100, 100, 100, 0, 24)),
    // Oracle, older images
    (Ipv4Addr::new(192, 0, 0, 192), v4(192, 0, 0, 0, 24)),
    // Azure's wire server
    (Ipv4Addr::new(168, 63, 129, 16), v4(168, 63, 129, 16, 32)),
];

const METADATA_V6: [(Ipv6Addr, Ipv6Net); 3] = [
    // AWS
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32)),
    // AWS EKS pod identity
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23), v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32)),
    // Google
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0], 32)),
];

const LOOPBACK_V4: Ipv4Net = v4(127, 0, 0, 0, 8);

const PRIVATE_V4: [Ipv4Net; 5] = [
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    v4(169, 254, 0, 0, 16),
];

/// RFC 6890 and its registry, without the documentation ranges.
const RESERVED_V4: [Ipv4Net; 6] = [
    v4(0, 0, 0, 0, 8),
    v4(192, 0, 0, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

const PRIVATE_V6: [Ipv6Net; 3] = [
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
];

const RESERVED_V6: [Ipv6Net; 6] = [
    // discard only (RFC 6666)
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    // where the IPv4 address stands in it is not known here
    LOCAL_NAT64,
    // benchmark (RFC 5180)
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48),
    // ORCHID and ORCHIDv2
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

/// What `ip` is, the IPv4 addresses within it included, on a host of which nothing is known.
#[must_use]
pub fn classify(ip: IpAddr) -> AddressClass {
    classify_on(&Facts::default(), ip)
}

/// What `ip` is on a host.
pub(super) fn classify_on(host: &Facts, ip: IpAddr) -> AddressClass {
    let ip = ip.to_canonical();
    let own = |ip: IpAddr| if host.is_own(ip) { AddressClass::Loopback } else { AddressClass::Public };
    let (within, translated) = match ip {
        IpAddr::V4(_) => (None, false),
        IpAddr::V6(ip) => {
            let all = embedded(ip).into_iter().flatten().chain(host.translated(ip));
            let worst = all.map(|v4| class_v4(v4).max(own(IpAddr::V4(v4)))).max();
            (worst, host.translated(ip).next().is_some())
        }
    };
    // The prefix of local use is reserved only because where the address stands in it is not known.
    let outer = match ip {
        IpAddr::V6(v6) if translated && LOCAL_NAT64.contains(&v6) => AddressClass::Public,
        IpAddr::V4(_) | IpAddr::V6(_) => outer_class(ip),
    };
    within.unwrap_or(AddressClass::Public).max(outer).max(own(ip))
}

/// What `ip` is by its own bits.
fn outer_class(ip: IpAddr) -> AddressClass {
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) if ip.is_unspecified() => AddressClass::Unspecified,
        IpAddr::V6(ip) if ip.is_loopback() => AddressClass::Loopback,
        IpAddr::V6(ip) if METADATA_V6.iter().any(|(metadata, _)| *metadata == ip) => AddressClass::Metadata,
        IpAddr::V6(ip) if PRIVATE_V6.iter().any(|net| net.contains(&ip)) => AddressClass::Private,
        IpAddr::V6(ip) if RESERVED_V6.iter().any(|net| net.contains(&ip)) => AddressClass::Reserved,
        IpAddr::V6(_) => AddressClass::Public,
    }
}

fn class_v4(ip: Ipv4Addr) -> AddressClass {
    if ip.is_unspecified() {
        AddressClass::Unspecified
    } else if LOOPBACK_V4.contains(&ip) {
        AddressClass::Loopback
    } else if METADATA_V4.iter().any(|(metadata, _)| *metadata == ip) {
        AddressClass::Metadata
    } else if PRIVATE_V4.iter().any(|net| net.contains(&ip)) {
        AddressClass::Private
    } else if RESERVED_V4.iter().any(|net| net.contains(&ip)) {
        AddressClass::Reserved
    } else {
        AddressClass::Public
    }
}

/// The IPv4 addresses that a translator or tunnel would read out of `ip`. Mapped addresses do not get
/// here: `to_canonical` has turned them into IPv4.
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        // IPv4-compatible (RFC 4291 2.5.5.1); :: and ::1 are their own
        [0, 0, 0, 0, 0, 0] if ip.is_unspecified() || ip.is_loopback() => [None, None],
        [0, 0, 0, 0, 0, 0]
        // IPv4-translated (RFC 2765)
        | [0, 0, 0, 0, 0xffff, 0]
        // NAT64 (RFC 6052)
        | [0x64, 0xff9b, 0, 0, 0, 0] => [Some(pair(g, h)), None],
        // 6to4 (RFC 3056)
        [0x2002, high, low, ..] => [Some(pair(high, low)), None],
        // Teredo (RFC 4380): the server, and the client with its bits inverted
        [0x2001, 0, high, low, ..] => [Some(pair(high, low)), Some(pair(!g, !h))],
        // ISATAP (RFC 5214), with the universal bit unset and set
        [_, _, _, _, 0 | 0x200, 0x5efe] => [Some(pair(g, h)), None],
        _ => [None, None],
    }
}

/// One entry of `cidrs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CidrEntry {
    pub(super) net: IpNet,
    /// Sorted; empty: every port.
    pub(super) ports: Vec<u16>,
}

/// What an entry must be to lift the refusal of an address.
enum Lifted {
    ByAnyEntry,
    ByEntryWithin(IpNet),
    Never,
}

fn lifted(host: &Facts, ip: IpAddr) -> Lifted {
    // 127.0.0.1 is an interface's address as well, and its range says more.
    if host.is_own(ip) && outer_class(ip) < AddressClass::Loopback {
        return Lifted::ByEntryWithin(IpNet::from(ip));
    }
    match (outer_class(ip), ip) {
        (AddressClass::Loopback, IpAddr::V4(_)) => Lifted::ByEntryWithin(LOOPBACK_V4.into()),
        (AddressClass::Loopback, IpAddr::V6(ip)) => Lifted::ByEntryWithin(IpNet::from(IpAddr::V6(ip))),
        (AddressClass::Metadata, ip) => metadata_range(ip).map_or(Lifted::Never, Lifted::ByEntryWithin),
        (AddressClass::Unspecified, _) => Lifted::Never,
        // An embedding of an invariant address has no use but to get round it.
        (AddressClass::Public | AddressClass::Private | AddressClass::Reserved, ip) => {
            if classify_on(host, ip).is_invariant() { Lifted::Never } else { Lifted::ByAnyEntry }
        }
    }
}

/// Metadata addresses, each with the range within which an entry must lie to name it.
pub(super) fn metadata() -> impl Iterator<Item = (IpAddr, IpNet)> {
    let v4 = METADATA_V4.iter().map(|(at, range)| (IpAddr::V4(*at), IpNet::V4(*range)));
    let v6 = METADATA_V6.iter().map(|(at, range)| (IpAddr::V6(*at), IpNet::V6(*range)));
    v4.chain(v6)
}

fn metadata_range(ip: IpAddr) -> Option<IpNet> {
    match ip {
        IpAddr::V4(ip) => METADATA_V4.iter().find(|(at, _)| *at == ip).map(|(_, range)| (*range).into()),
        IpAddr::V6(ip) => METADATA_V6.iter().find(|(at, _)| *at == ip).map(|(_, range)| (*range).into()),
    }
}

/// The compiled `[network]` section, and the addresses of the deny list.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressRules {
    pub(super) mode: Mode,
    /// `private = "allow"`.
    pub(super) private: bool,
    pub(super) cidrs: Vec<CidrEntry>,
    /// The deny list: an address on it is not dialled either when a name led there.
    pub(super) deny: HostSet,
    /// The host that this runs on.
    pub(super) host: Facts,
}

impl AddressRules {
    /// The entry of `cidrs` that allows `ip` at `port`.
    pub(super) fn entry(&self, ip: IpAddr, port: u16) -> Option<&CidrEntry> {
        self.entries(ip).find(|entry| entry.ports.is_empty() || entry.ports.contains(&port))
    }

    /// The entries of `cidrs` that allow `ip` at any port.
    pub(super) fn entries(&self, ip: IpAddr) -> impl Iterator<Item = &CidrEntry> {
        let ip = ip.to_canonical();
        let lifted = lifted(&self.host, ip);
        self.cidrs.iter().filter(move |entry| {
            let named = match &lifted {
                Lifted::ByAnyEntry => true,
                Lifted::ByEntryWithin(range) => range.contains(&entry.net),
                Lifted::Never => false,
            };
            named && entry.net.contains(&ip)
        })
    }

    /// Whether any entry of `cidrs` could allow `ip`.
    fn can_be_lifted(&self, ip: IpAddr) -> bool {
        match lifted(&self.host, ip.to_canonical()) {
            Lifted::ByAnyEntry | Lifted::ByEntryWithin(_) => true,
            Lifted::Never => false,
        }
    }

    /// What `ip` is, where that alone refuses it.
    pub(super) fn refused_class(&self, ip: IpAddr) -> Option<AddressClass> {
        let class = classify_on(&self.host, ip);
        let refused = match class {
            AddressClass::Public => false,
            AddressClass::Private => !self.private,
            AddressClass::Reserved
            | AddressClass::Loopback
            | AddressClass::Metadata
            | AddressClass::Unspecified => true,
        };
        refused.then_some(class)
    }

    /// Why `ip` at `port` is refused, whatever the mode says about it; `None` where it is not.
    pub(super) fn objection(&self, ip: IpAddr, port: u16) -> Option<AddressClass> {
        self.refused_class(ip).filter(|_| self.entry(ip, port).is_none())
    }

    /// The same in words.
    pub(super) fn refusal(&self, ip: IpAddr, port: u16, class: AddressClass) -> Refusal {
        refusal::address(ip, port, class, self.can_be_lifted(ip))
    }

    /// Whether `ip` may be told as an answer to `host`: it can be reached at some port.
    pub(super) fn admits_answer(&self, ip: IpAddr, host: &Host) -> Result<(), Refusal> {
        let ip = ip.to_canonical();
        if is_localhost(host) {
            // RFC 6761 6.3: loopback and nothing else; which of its ports, connect(2) judges.
            return if ip.is_loopback() { Ok(()) } else { Err(refusal::localhost_elsewhere(host, ip)) };
        }
        let Some(class) = self.refused_class(ip).filter(|_| self.entries(ip).next().is_none()) else {
            return Ok(());
        };
        if self.mode == Mode::Audit && !class.is_invariant() {
            return Ok(());
        }
        Err(refusal::answer(host, ip, class))
    }

    /// The refusal of an address, and whether it holds in `audit` as well.
    fn judge(&self, ip: IpAddr, port: u16) -> Option<(Refusal, bool)> {
        let objection = self.objection(ip, port);
        let invariant = objection.filter(|class| class.is_invariant());
        if let Some(class) = invariant {
            return Some((self.refusal(ip, port, class), true));
        }
        if let Some(hit) = self.deny.find_exact(&Host::from(ip), port) {
            return Some((refusal::denied(&hit), false));
        }
        objection.map(|class| (self.refusal(ip, port, class), false))
    }
}

/// `localhost` and every name below it: loopback, whatever a resolver says (RFC 6761 6.3).
#[must_use]
pub fn is_localhost(host: &Host) -> bool {
    let name = host.as_str();
    name == "localhost" || name.ends_with(".localhost")
}

impl AddressRule for AddressRules {
    fn admits(&self, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        match self.judge(ip, port) {
            Some((refusal, invariant)) if invariant || self.mode != Mode::Audit => Err(refusal),
            Some(_) | None => Ok(()),
        }
    }

    fn flags(&self, ip: IpAddr, port: u16) -> Vec<Flag> {
        match self.judge(ip, port) {
            Some((refusal, false)) if self.mode == Mode::Audit => vec![would_block(&refusal)],
            Some(_) | None => Vec::new(),
        }
    }

    fn is_this_host(&self, ip: IpAddr) -> bool {
        is_host_class(classify_on(&self.host, ip))
    }
}

/// Whether what is at an address of this class is the host itself.
fn is_host_class(class: AddressClass) -> bool {
    match class {
        AddressClass::Loopback | AddressClass::Unspecified => true,
        AddressClass::Public | AddressClass::Private | AddressClass::Reserved | AddressClass::Metadata => {
            false
        }
    }
}

#[cfg(test)]
mod tests;
