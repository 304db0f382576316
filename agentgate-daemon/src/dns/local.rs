//! Names that are answered here, without asking anybody: what is the host's own, and what would lead a
//! client to another resolver.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, HINFO},
    },
};

use super::message::{Question, Reply, ede};
use crate::{
    model::{OWN_ADDRESS, OWN_NAME},
    policy::{AddressClass, classify},
};

/// Seconds that answers from here may be kept.
const TTL: u32 = 60;
/// The type that asks for all types.
const ANY: u16 = 255;

/// An answer from here, and why.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) reply: Reply,
    /// As in a verdict: `gate:<code>`.
    pub(super) rule: &'static str,
    pub(super) reason: &'static str,
    /// Not what the agent wanted.
    pub(super) refused: bool,
}

/// The answer to a question that is answered here; `text` is its name in words.
pub(super) fn answer(question: &Question, text: &str) -> Option<Local> {
    refused_kind(question).or_else(|| own_name(question, text))
}

fn refused_kind(question: &Question) -> Option<Local> {
    let refuse = |reply, rule, reason| Some(Local { reply, rule, reason, refused: true });
    // The registry of RFC 6895 3.1, by number: some of these have no name in any library.
    match u16::from(question.kind) {
        ANY => {
            // RFC 8482 4.2: an answer that says it is none, so that nobody asks again.
            let rdata = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            let mut reply = Reply::code(ResponseCode::NoError);
            reply.answers.push(Record::from_rdata(question.name.clone(), TTL, rdata));
            refuse(reply, "gate:any_query", "questions for all types are not answered (RFC 8482)")
        }
        // IXFR, AXFR, and the two for mailboxes, which are as old and ask for as much.
        251..=254 => refuse(
            Reply::extended(ResponseCode::Refused, ede::NOT_SUPPORTED, "zone transfers are not answered"),
            "gate:zone_transfer",
            "a zone transfer is no question that an agent asks",
        ),
        // Types that exist in messages only: OPT, TKEY, TSIG and the range that they are from.
        0 | 41 | 128..=250 => refuse(
            Reply::extended(ResponseCode::Refused, ede::NOT_SUPPORTED, "not a type of data"),
            "gate:meta_type",
            "the type exists in messages only",
        ),
        _ => None,
    }
}

fn own_name(question: &Question, text: &str) -> Option<Local> {
    if within(text, "localhost") {
        let addresses = [RData::A(A(Ipv4Addr::LOCALHOST)), RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))];
        let rdata = addresses.into_iter().filter(|rdata| rdata.record_type() == question.kind);
        let mut reply = Reply::code(ResponseCode::NoError);
        reply.answers.extend(rdata.map(|rdata| Record::from_rdata(question.name.clone(), TTL, rdata)));
        let reason = "localhost is never asked for elsewhere (RFC 6761 6.3)";
        return Some(Local { reply, rule: "gate:localhost", reason, refused: false });
    }
    if text == OWN_NAME {
        let mut reply = Reply::code(ResponseCode::NoError);
        if question.kind == RecordType::A {
            let rdata = RData::A(A(OWN_ADDRESS));
            reply.answers.push(Record::from_rdata(question.name.clone(), TTL, rdata));
        }
        let reason = "the gate itself, at which runtimes are tried for trust in it";
        return Some(Local { reply, rule: "gate:own_name", reason, refused: false });
    }
    let (rule, reason) = if within(text, "use-application-dns.net") {
        ("gate:canary", "says that clients are not to bring a resolver of their own")
    } else if within(text, "resolver.arpa") {
        ("gate:designated_resolver", "no resolver but this one is designated (RFC 9462)")
    } else if within(text, "invalid") || within(text, "onion") {
        ("gate:special_name", "exists nowhere (RFC 6761 6.4, RFC 7686)")
    } else if own_reverse(&question.name, text) {
        ("gate:private_reverse", "addresses of the host and its networks are nobody else's (RFC 6303)")
    } else {
        return None;
    };
    let reply = Reply::extended(ResponseCode::NXDomain, ede::PROHIBITED, "answered by the gate");
    Some(Local { reply, rule, reason, refused: true })
}

/// Whether a name is `domain` or below it.
fn within(text: &str, domain: &str) -> bool {
    text.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The reverse name of an address, or of a range of addresses, that is not a public one.
fn own_reverse(name: &Name, text: &str) -> bool {
    if !within(text, "in-addr.arpa") && !within(text, "ip6.arpa") {
        return false;
    }
    name.parse_arpa_name().is_ok_and(|net| match classify(net.addr()) {
        AddressClass::Public => false,
        AddressClass::Private
        | AddressClass::Reserved
        | AddressClass::Loopback
        | AddressClass::Metadata
        | AddressClass::Unspecified => true,
    })
}
