//! What upstream answered, and what of it the agent is given: addresses that may be dialled, and no
//! service parameters that would lead round the gate.

use std::net::IpAddr;

use hickory_proto::rr::{
    DNSClass, RData, Record, RecordType,
    rdata::{
        HTTPS, SVCB,
        svcb::{Alpn, IpHint, Mandatory, SvcParamKey, SvcParamValue},
    },
};

use super::message::kind_word;
use crate::model::{Flag, Refusal, Severity, Verdict};

/// Records that one answer may have.
const MOST: usize = 128;
/// Answers that are written into the record, and how much of each.
const TOLD: usize = 16;
const TOLD_BYTES: usize = 200;
/// Longest that an answer holds, in seconds: what moves is noticed.
const TTL: u32 = 300;

/// What an agent is given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) records: Vec<Record>,
    /// Addresses in them, hints included.
    pub(super) addresses: Vec<IpAddr>,
    /// In words, for the record: all but addresses, and what was left out.
    pub(super) told: Vec<String>,
    pub(super) flags: Vec<Flag>,
    /// Why addresses were left out, where none was left.
    pub(super) emptied: Option<Verdict>,
}

/// What an agent is not given.
#[derive(Default)]
struct LeftOut {
    addresses: Vec<IpAddr>,
    worst: Option<Severity>,
    /// Of the first of them.
    verdict: Option<Verdict>,
}

/// Judges each address of an answer.
pub(super) trait Admits {
    /// Whether the agent may be given it.
    fn admits(&self, ip: IpAddr) -> Result<(), Refusal>;
    /// What to flag although it is given.
    fn flags(&self, ip: IpAddr) -> Vec<Flag>;
}

/// Goes through the answer to a question for `kind`.
pub(super) fn give(answers: &[Record], kind: RecordType, rule: &dyn Admits) -> Given {
    let mut given = Given::default();
    let mut left_out = LeftOut::default();
    for record in answers.iter().take(MOST) {
        // Nothing but what was asked for, and the chain that leads there.
        let wanted = [kind, RecordType::CNAME, RecordType::DNAME].contains(&record.record_type());
        if !wanted || record.dns_class != DNSClass::IN {
            continue;
        }
        let mut record = record.clone();
        record.ttl = record.ttl.min(TTL);
        let kept = if let RData::A(a) = &record.data {
            given.address(IpAddr::V4(a.0), rule, &mut left_out)
        } else if let RData::AAAA(a) = &record.data {
            given.address(IpAddr::V6(a.0), rule, &mut left_out)
        } else if let RData::HTTPS(HTTPS(service)) | RData::SVCB(service) = &mut record.data {
            let kept = given.service(service, rule, &mut left_out);
            if kept {
                given.tell(&record);
            }
            kept
        } else {
            given.tell(&record);
            true
        };
        if !kept {
            continue;
        }
        given.records.push(record);
    }
    let LeftOut { addresses, worst, verdict } = left_out;
    if !addresses.is_empty() {
        let listed: Vec<String> = addresses.iter().take(8).map(ToString::to_string).collect();
        let more = addresses.len().saturating_sub(listed.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let evidence = format!("the answer pointed to {}{more}", listed.join(", "));
        given.flags.push(Flag::new("dns_rebinding", worst.unwrap_or(Severity::Medium), evidence));
        given.emptied = verdict.filter(|_| given.addresses.is_empty());
    }
    given
}

impl Given {
    /// Whether an address may stay; takes note either way.
    fn address(&mut self, ip: IpAddr, rule: &dyn Admits, left_out: &mut LeftOut) -> bool {
        let ip = ip.to_canonical();
        match rule.admits(ip) {
            Ok(()) => {
                self.flags.extend(rule.flags(ip));
                self.addresses.push(ip);
                true
            }
            Err(refusal) => {
                self.say(format!("left out {ip}: {}", refusal.verdict.reason));
                left_out.addresses.push(ip);
                let worst = refusal.flags.iter().map(|flag| flag.severity).max();
                left_out.worst = left_out.worst.max(worst);
                left_out.verdict.get_or_insert(refusal.verdict);
                false
            }
        }
    }

    /// Takes out of service parameters what the gate cannot carry; false where nothing usable is left.
    fn service(&mut self, service: &mut SVCB, rule: &dyn Admits, left_out: &mut LeftOut) -> bool {
        let mut default_protocol = true;
        let mut protocols = None;
        let mut removed: Vec<SvcParamKey> = Vec::new();
        service.svc_params.retain_mut(|(key, value)| {
            let keep = match value {
                // The gate must read the name that a client hello is for.
                SvcParamValue::EchConfigList(_) => false,
                SvcParamValue::Alpn(Alpn(ids)) => {
                    ids.retain(|id| over_tcp(id));
                    protocols = Some(ids.len());
                    !ids.is_empty()
                }
                SvcParamValue::NoDefaultAlpn => {
                    default_protocol = false;
                    true
                }
                SvcParamValue::Ipv4Hint(IpHint(hints)) => {
                    hints.retain(|ip| self.address(IpAddr::V4(ip.0), rule, left_out));
                    !hints.is_empty()
                }
                SvcParamValue::Ipv6Hint(IpHint(hints)) => {
                    hints.retain(|ip| self.address(IpAddr::V6(ip.0), rule, left_out));
                    !hints.is_empty()
                }
                SvcParamValue::Mandatory(_) | SvcParamValue::Port(_) | SvcParamValue::Unknown(_) => true,
            };
            if !keep {
                removed.push(*key);
            }
            keep
        });
        for key in &removed {
            self.say(format!("left out the parameter {key}"));
        }
        // A client must ignore a record whose mandatory parameters are not there (RFC 9460 8).
        service.svc_params.retain_mut(|(_, value)| {
            let SvcParamValue::Mandatory(Mandatory(keys)) = value else { return true };
            keys.retain(|key| !removed.contains(key));
            !keys.is_empty()
        });
        // Without a protocol there is no service (RFC 9460 7.1.2): not even the name's own.
        default_protocol || protocols.is_some_and(|left| left > 0)
    }

    fn tell(&mut self, record: &Record) {
        self.say(format!("{} {}", kind_word(record.record_type()), record.data));
    }

    fn say(&mut self, mut line: String) {
        if self.told.len() < TOLD {
            if line.len() > TOLD_BYTES {
                line.truncate(line.floor_char_boundary(TOLD_BYTES));
                line.push('…');
            }
            self.told.push(line);
        }
    }
}

/// Whether a protocol of ALPN runs over TCP: HTTP/3 and its drafts, DNS over QUIC and other users of
/// QUIC do not.
fn over_tcp(protocol: &str) -> bool {
    !["h3", "hq", "doq", "quic", "moq", "webtransport"].iter().any(|other| protocol.starts_with(other))
}
