//! Names with answers of their own, the same wherever the sites are bound: what a resolver meets besides
//! hosts, and what somebody with a zone would try on one.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, SVCB, TXT,
            svcb::{Alpn, EchConfigList, IpHint, Mandatory, SvcParamKey, SvcParamValue},
        },
    },
};

/// HTTPS records with everything in them, and A.
pub const SERVICE: &str = "service.odd.example";
/// An HTTPS record that offers HTTP/3 only.
pub const HTTP3_ONLY: &str = "http3.odd.example";
/// Another name for [`PLAIN`].
pub const ALIAS: &str = "alias.odd.example";
/// One public address.
pub const PLAIN: &str = "plain.odd.example";
/// TXT, short.
pub const TEXT: &str = "text.odd.example";
/// TXT of more than any datagram carries.
pub const BIG: &str = "big.odd.example";
/// A private address and a public one.
pub const MIXED: &str = "mixed.odd.example";
/// Private addresses only, one of them mapped.
pub const INSIDE: &str = "inside.odd.example";
/// Where clouds hand out credentials.
pub const METADATA: &str = "metadata.odd.example";
/// An HTTPS record whose hints are private.
pub const INSIDE_SERVICE: &str = "inside-service.odd.example";
/// SERVFAIL.
pub const BROKEN: &str = "broken.odd.example";
/// Every name below it exists, as in the zone of a tunnel.
pub const ANYTHING: &str = "anything.example";

/// Where [`PLAIN`] is.
pub const PLAIN_AT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

/// What a name is told; `None` where it is not one of these.
pub(crate) fn answer(name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<(String, RData)>)> {
    let own = |data: Vec<RData>| {
        let rows = data.into_iter().filter(|data| data.record_type() == kind);
        Some((ResponseCode::NoError, rows.map(|data| (name.to_owned(), data)).collect()))
    };
    let a = |ip: [u8; 4]| RData::A(A(ip.into()));
    match name {
        SERVICE => own(vec![RData::HTTPS(HTTPS(service(Ipv4Addr::new(10, 0, 0, 1)))), RData::A(A(PLAIN_AT))]),
        INSIDE_SERVICE => {
            let hints = vec![A(Ipv4Addr::new(169, 254, 169, 254)), A(Ipv4Addr::new(127, 0, 0, 1))];
            let parameters = vec![(SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(hints)))];
            own(vec![RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), parameters)))])
        }
        HTTP3_ONLY => {
            let parameters = vec![
                (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h3".to_owned()]))),
                (SvcParamKey::NoDefaultAlpn, SvcParamValue::NoDefaultAlpn),
            ];
            own(vec![RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), parameters)))])
        }
        PLAIN => own(vec![RData::A(A(PLAIN_AT)), RData::AAAA(AAAA(mapped(PLAIN_AT)))]),
        ALIAS => {
            let mut rows =
                vec![(ALIAS.to_owned(), RData::CNAME(CNAME(Name::from_ascii(format!("{PLAIN}.")).ok()?)))];
            if kind == RecordType::A {
                rows.push((PLAIN.to_owned(), RData::A(A(PLAIN_AT))));
            }
            Some((ResponseCode::NoError, rows))
        }
        TEXT => own(vec![RData::TXT(TXT::new(vec!["hello".to_owned()]))]),
        BIG => own((0..60).map(|n| RData::TXT(TXT::new(vec![format!("{n:0>120}")]))).collect()),
        MIXED => own(vec![a([192, 168, 0, 1]), RData::A(A(PLAIN_AT))]),
        INSIDE => own(vec![a([10, 0, 0, 1]), RData::AAAA(AAAA(mapped(Ipv4Addr::new(10, 0, 0, 2))))]),
        METADATA => own(vec![a([169, 254, 169, 254])]),
        BROKEN => Some((ResponseCode::ServFail, Vec::new())),
        _ if name.strip_suffix(ANYTHING).is_some_and(|rest| rest.ends_with('.')) => {
            own(vec![RData::A(A(PLAIN_AT)), RData::TXT(TXT::new(vec!["more".to_owned()]))])
        }
        _ => None,
    }
}

fn mapped(ip: Ipv4Addr) -> Ipv6Addr {
    ip.to_ipv6_mapped()
}

fn service(inside: Ipv4Addr) -> SVCB {
    let protocols = ["h3", "h2", "h3-29"].map(ToOwned::to_owned).to_vec();
    let keys = vec![SvcParamKey::Alpn, SvcParamKey::EchConfigList];
    let six = vec![AAAA(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))];
    SVCB::new(
        1,
        Name::root(),
        vec![
            (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(keys))),
            (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(protocols))),
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A(PLAIN_AT), A(inside)]))),
            (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![0, 4, 1, 2, 3, 4]))),
            (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(six))),
        ],
    )
}
