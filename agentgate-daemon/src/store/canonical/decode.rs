//! Bytes as a record.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::Arc,
};

use super::{
    Digest, code,
    fields::{Fields, Malformed, number, signed, take, take_number, text, time},
    seen, tag, tls,
};
use crate::model::{
    Ancestor, Authority, Captured, Fact, FactValue, Failure, Flag, Flow, HeaderFields, Host, Kind, Loss,
    OriginalDestination, Question, Record, RecordId, RequestHead, ResponseHead, SessionId, Severity, Subject,
    Timestamp, Verdict,
};

/// Length and digest of the bytes kept of the request's and the response's body.
pub(in crate::store) type Digests = [Option<(u64, Digest)>; 2];

/// The record, without the bytes of its bodies, and what is known of these. Fields with tags that this
/// program does not know are passed over.
pub(in crate::store) fn decode(encoded: &[u8]) -> Result<(Record, Digests), Malformed> {
    let mut record = Record::new(Kind::Flow, Timestamp(0));
    let mut digests = [None, None];
    let (mut kind, mut state) = (None, None);
    for field in Fields::of(encoded) {
        match field? {
            (tag::KIND, payload) => kind = code::kind(number(payload)?),
            (tag::STATE, payload) => state = code::state(number(payload)?),
            (tag, payload) => take_field(&mut record, &mut digests, tag, payload)?,
        }
    }
    record.kind = kind.ok_or(NO_KIND)?;
    record.state = state.ok_or(NO_STATE)?;
    Ok((record, digests))
}

pub(super) const NO_KIND: Malformed = Malformed("of no kind that is known");
pub(super) const NO_STATE: Malformed = Malformed("in no state that is known");

/// A record that has this field of another, and nothing else.
pub(in crate::store) fn decode_field(tag: u8, payload: &[u8]) -> Result<Record, Malformed> {
    let mut record = Record::new(Kind::Flow, Timestamp(0));
    take_field(&mut record, &mut [None, None], tag, payload)?;
    Ok(record)
}

fn take_field(record: &mut Record, digests: &mut Digests, tag: u8, payload: &[u8]) -> Result<(), Malformed> {
    match tag {
        tag::ID => {
            let id = payload.try_into().map_err(|_| Malformed("an id has 8 bytes"))?;
            record.id = RecordId(u64::from_le_bytes(id));
        }
        tag::STARTED => record.started = time(payload)?,
        tag::FINISHED => record.finished = Some(time(payload)?),
        tag::PARENT => record.parent = Some(RecordId(number(payload)?)),
        tag::SUBJECT => record.subject = Some(Arc::new(subject(payload)?)),
        tag::FLOW => record.flow = Some(Arc::new(flow(payload)?)),
        tag::AUTHORITY => record.authority = Some(authority(payload)?),
        tag::PROTOCOL => record.protocol = text(payload)?.to_owned(),
        tag::VERDICT => record.verdict = Some(verdict(payload)?),
        tag::FLAG => record.flags.push(flag(payload)?),
        tag::REQUEST => {
            let (head, digest) = request(payload)?;
            record.request = Some(head);
            digests[0] = digest;
        }
        tag::RESPONSE => {
            let (head, digest) = response(payload)?;
            record.response = Some(head);
            digests[1] = digest;
        }
        tag::BYTES_UP => record.bytes_up = number(payload)?,
        tag::BYTES_DOWN => record.bytes_down = number(payload)?,
        tag::FAILURE => record.failure = Some(failure(payload)?),
        tag::QUESTION => record.question = Some(question(payload)?),
        tag::LOSS => record.loss = Some(loss(payload)?),
        tag::TIMES => record.times = number(payload)?,
        tag::NOTE => record.note = Some(text(payload)?.to_owned()),
        tag::TLS => record.tls = Some(Box::new(tls::tls(payload)?)),
        tag::WEBSOCKET => record.websocket = Some(Box::new(seen::websocket(payload)?)),
        tag::REQUEST_SEEN => record.request_seen = Some(Box::new(seen::inspected(payload)?)),
        tag::RESPONSE_SEEN => record.response_seen = Some(Box::new(seen::inspected(payload)?)),
        tag::FACT => record.facts.extend(fact(payload)?),
        _ => {}
    }
    Ok(())
}

/// `None` of one whose value is of a kind that a later version has.
fn fact(payload: &[u8]) -> Result<Option<Fact>, Malformed> {
    let (mut name, mut value) = (String::new(), None);
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => name = owned(payload)?,
            (2, payload) => value = Some(FactValue::Text(owned(payload)?)),
            (3, payload) => value = Some(FactValue::Integer(signed(payload)?)),
            (4, payload) => value = Some(FactValue::Micros(signed(payload)?)),
            _ => {}
        }
    }
    Ok(value.map(|value| Fact { name, value }))
}

pub(super) fn small<T: TryFrom<u64>>(payload: &[u8]) -> Result<T, Malformed> {
    T::try_from(number(payload)?).map_err(|_| Malformed("a number is too large"))
}

pub(super) fn owned(payload: &[u8]) -> Result<String, Malformed> {
    Ok(text(payload)?.to_owned())
}

fn subject(payload: &[u8]) -> Result<Subject, Malformed> {
    let mut subject = Subject::unknown(SessionId(String::new()), 0, 0);
    for field in Fields::of(payload) {
        let (tag, payload) = field?;
        match tag {
            1 => subject.session = SessionId(owned(payload)?),
            2 => subject.pid = small(payload)?,
            3 => subject.uid = small(payload)?,
            4 => subject.start = Some(number(payload)?),
            5 => subject.comm = owned(payload)?,
            6 => subject.exe = Some(owned(payload)?),
            7 => subject.cmdline.push(owned(payload)?),
            8 => subject.ancestors.push(ancestor(payload)?),
            9 => subject.cgroup = owned(payload)?,
            10 => subject.privileges.push(owned(payload)?),
            _ => {}
        }
    }
    Ok(subject)
}

fn ancestor(payload: &[u8]) -> Result<Ancestor, Malformed> {
    let mut ancestor = Ancestor { pid: 0, exe: String::new() };
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => ancestor.pid = small(payload)?,
            (2, payload) => ancestor.exe = owned(payload)?,
            _ => {}
        }
    }
    Ok(ancestor)
}

fn flow(payload: &[u8]) -> Result<Flow, Malformed> {
    let mut original = None;
    let mut numbers = [0_u64; 11];
    let mut comm = String::new();
    for field in Fields::of(payload) {
        let (tag, payload) = field?;
        match tag {
            2 => original = Some(socket(payload)?),
            6 => comm = owned(payload)?,
            1..=10 => {
                if let Some(place) = numbers.get_mut(usize::from(tag)) {
                    *place = number(payload)?;
                }
            }
            _ => {}
        }
    }
    let [_, cookie, _, pid, uid, gid, _, cgroup, session, netns, connected_ns] = numbers;
    let small = |number| u32::try_from(number).map_err(|_| Malformed("a number is too large"));
    Ok(Flow {
        cookie,
        original: OriginalDestination(original.ok_or(Malformed("a flow to nowhere"))?),
        pid: small(pid)?,
        uid: small(uid)?,
        gid: small(gid)?,
        comm,
        cgroup,
        session,
        netns,
        connected_ns,
    })
}

pub(in crate::store) fn socket(payload: &[u8]) -> Result<SocketAddr, Malformed> {
    let wrong = Malformed("an address has 4 or 16 bytes");
    let mut left = payload;
    let ip = address(take(&mut left, if payload.len() == 6 { 4 } else { 16 })?)?;
    let port = u16::from_be_bytes(take(&mut left, 2)?.try_into().map_err(|_| wrong)?);
    match (ip, left) {
        (_, []) => Ok(SocketAddr::new(ip, port)),
        (IpAddr::V6(ip), left) if left.len() == 8 => {
            let both = u64::from_be_bytes(left.try_into().map_err(|_| wrong)?);
            let (scope, flow) = ((both >> 32) as u32, both as u32);
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => Err(wrong),
    }
}

fn address(payload: &[u8]) -> Result<IpAddr, Malformed> {
    match (<[u8; 4]>::try_from(payload), <[u8; 16]>::try_from(payload)) {
        (Ok(four), _) => Ok(IpAddr::from(four)),
        (_, Ok(sixteen)) => Ok(IpAddr::from(sixteen)),
        (Err(_), Err(_)) => Err(Malformed("an address has 4 or 16 bytes")),
    }
}

fn authority(payload: &[u8]) -> Result<Authority, Malformed> {
    let (mut host, mut port) = ("", 0);
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => host = text(payload)?,
            (2, payload) => port = small(payload)?,
            _ => {}
        }
    }
    let host = Host::parse(host).map_err(|_| Malformed("a host that is none"))?;
    Ok(Authority { host, port })
}

fn verdict(payload: &[u8]) -> Result<Verdict, Malformed> {
    let (mut action, mut rule, mut reason) = (None, String::new(), String::new());
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => action = code::action(number(payload)?),
            (2, payload) => rule = owned(payload)?,
            (3, payload) => reason = owned(payload)?,
            _ => {}
        }
    }
    Ok(Verdict { action: action.ok_or(Malformed("a verdict that is not known"))?, rule, reason })
}

fn flag(payload: &[u8]) -> Result<Flag, Malformed> {
    let mut flag = Flag { code: String::new(), severity: Severity::Info, evidence: String::new() };
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => flag.code = owned(payload)?,
            (2, payload) => {
                flag.severity =
                    code::severity(number(payload)?).ok_or(Malformed("a severity that is not known"))?;
            }
            (3, payload) => flag.evidence = owned(payload)?,
            _ => {}
        }
    }
    Ok(flag)
}

fn request(payload: &[u8]) -> Result<(RequestHead, Option<(u64, Digest)>), Malformed> {
    let mut head = RequestHead::default();
    let mut digest = None;
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => head.method = owned(payload)?,
            (2, payload) => head.scheme = owned(payload)?,
            (3, payload) => head.target = owned(payload)?,
            (4, payload) => head.version = owned(payload)?,
            (5, payload) => header(payload, &mut head.headers)?,
            (6, payload) => (head.body, digest) = body(payload)?,
            _ => {}
        }
    }
    Ok((head, digest))
}

fn response(payload: &[u8]) -> Result<(ResponseHead, Option<(u64, Digest)>), Malformed> {
    let mut head = ResponseHead::default();
    let mut digest = None;
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => head.status = small(payload)?,
            (2, payload) => head.version = owned(payload)?,
            (3, payload) => header(payload, &mut head.headers)?,
            (4, payload) => (head.body, digest) = body(payload)?,
            (5, payload) => head.first_byte_us = number(payload)?,
            _ => {}
        }
    }
    Ok((head, digest))
}

fn header(payload: &[u8], into: &mut HeaderFields) -> Result<(), Malformed> {
    let (name, value) = pair(payload)?;
    into.push(name, value);
    Ok(())
}

/// Name and value of a header field.
pub(in crate::store) fn pair(mut payload: &[u8]) -> Result<(&str, &str), Malformed> {
    let length = take_number(&mut payload)?;
    Ok((text(take(&mut payload, length)?)?, text(payload)?))
}

fn body(payload: &[u8]) -> Result<(Captured, Option<(u64, Digest)>), Malformed> {
    let mut body = Captured::default();
    let (mut kept, mut digest) = (0, None);
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => body.total = number(payload)?,
            (2, payload) => body.truncated = number(payload)? == 1,
            (3, payload) => kept = number(payload)?,
            (4, payload) => {
                digest = Some(Digest::try_from(payload).map_err(|_| Malformed("a digest has 32 bytes"))?);
            }
            _ => {}
        }
    }
    Ok((body, digest.map(|digest| (kept, digest))))
}

fn failure(payload: &[u8]) -> Result<Failure, Malformed> {
    let mut failure = Failure { blame: String::new(), code: String::new(), detail: String::new() };
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => failure.blame = owned(payload)?,
            (2, payload) => failure.code = owned(payload)?,
            (3, payload) => failure.detail = owned(payload)?,
            _ => {}
        }
    }
    Ok(failure)
}

fn question(payload: &[u8]) -> Result<Question, Malformed> {
    let mut question = Question::default();
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => question.name = owned(payload)?,
            (2, payload) => question.kind = owned(payload)?,
            (3, payload) => question.transport = owned(payload)?,
            (4, payload) => question.code = owned(payload)?,
            (5, payload) => question.addresses.push(address(payload)?),
            (6, payload) => question.answers.push(owned(payload)?),
            (7, payload) => question.took_us = number(payload)?,
            _ => {}
        }
    }
    Ok(question)
}

fn loss(payload: &[u8]) -> Result<Loss, Malformed> {
    let mut loss = Loss { session: 0, window: 0, what: String::new(), cause: String::new() };
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => loss.session = number(payload)?,
            (2, payload) => loss.window = small(payload)?,
            (3, payload) => loss.what = owned(payload)?,
            (4, payload) => loss.cause = owned(payload)?,
            _ => {}
        }
    }
    Ok(loss)
}
