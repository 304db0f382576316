//! A record as bytes: one and the same record gives the same bytes wherever and whenever it is encoded,
//! so that a digest of them says whether a record was changed.
//!
//! **Fields.** An encoding is a run of fields in rising order of their tags, fields of one tag in their
//! own order: `tag` (one byte below 128), `length` of the payload (LEB128, shortest form), payload. A
//! structure is a payload that is itself such a run. A reader keeps what it does not know: whoever
//! changes a record ([`ended`]) copies the fields it has no reason to touch, of any tag.
//!
//! **Payloads.** *number*: unsigned LEB128, shortest form. *time*: microseconds since 1970, zigzag, as a
//! number. *text*: UTF-8. *address*: 4 or 16 bytes; *socket*: an address and the port, big endian, and
//! where either is not 0 the scope and flow of IPv6, 4 bytes each. *pair*: length of the first text as
//! a number, both texts. Numbers that are 0, texts that are empty and lists without items are left out,
//! but where the table says *if there*: such a field is there or not, whatever its value.
//!
//! | tag | field | payload |
//! | --- | --- | --- |
//! | 1 | id | 8 bytes, little endian: always first, so that it can be filled in last |
//! | 2, 3 | kind, state | number, see [`code`] |
//! | 4, 5 | started; finished, if there | time |
//! | 6 | parent, if there | number |
//! | 7 | subject, if there | 1 session, 2 pid, 3 uid, 4 start if there, 5 comm, 6 exe if there, 7 argument…, 8 ancestor… (1 pid, 2 exe), 9 cgroup, 10 privilege… |
//! | 8 | flow, if there | 1 cookie, 2 original (socket), 3 pid, 4 uid, 5 gid, 6 comm, 7 cgroup, 8 session, 9 netns, 10 connected |
//! | 9 | authority, if there | 1 host, 2 port |
//! | 10 | protocol | text |
//! | 11 | verdict, if there | 1 action, 2 rule, 3 reason |
//! | 12 | flag… | 1 code, 2 severity, 3 evidence |
//! | 13 | request, if there | 1 method, 2 scheme, 3 target, 4 version, 5 header… (pair), 6 body |
//! | 14 | response, if there | 1 status, 2 version, 3 header… (pair), 4 body, 5 microseconds to the head |
//! | | body | 1 total, 2 truncated (1), 3 bytes kept, 4 their SHA-256 (32 bytes); 3 and 4 where bytes were kept |
//! | 15, 16 | bytes up, down | number |
//! | 17 | failure, if there | 1 blame, 2 code, 3 detail |
//! | 18 | question, if there | 1 name, 2 kind, 3 transport, 4 code, 5 address…, 6 answer…, 7 microseconds |
//! | 19 | loss, if there | 1 session, 2 window, 3 what, 4 cause |
//! | 20 | times | number; left out where it is 1 |
//! | 21 | note, if there | text |
//! | 22 | TLS, if there | 1 server name if there, 2 JA4, 3 offered…, 4 ECH (1), 5 version, 6 cipher, 7 chosen, each if there, 8 resumed (1), 9 version towards the origin if there, 10 resumed there (1) |
//! | 23 | websocket, if there | 1 client, 2 server (1 messages, 2 bytes, 3 decoded, 4 controls, 5 unseen), 3 closed if there (1 by, 2 code if there, 3 reason), 4 left out, 5 fault… |
//! | 24, 25 | what was seen of the request's, the response's body, if there | 1 captured, 2 total, 3 decoded if there, 4 truncated (1), 5 encoding, 6 fault if there |
//! | 26 | fact… | 1 name, and one of: 2 text, 3 integer, 4 millionths; if there. The two numbers are zigzag |

mod decode;
pub(super) mod fields;
mod seen;
mod texts;
mod tls;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use crate::model::{
    Action, Authority, Captured, Fact, FactValue, Failure, Flag, Flow, HeaderFields, Kind, Loss, Question,
    Record, RequestHead, ResponseHead, Severity, State, Subject, Timestamp, Verdict,
};

pub(super) use decode::{decode, decode_field, pair, socket};
pub use fields::Malformed;
pub(super) use fields::{Fields, Glance, put_number, take, take_number};
pub(super) use texts::{Head, Texts};

use fields::put_signed;

/// SHA-256 (FIPS 180-4) of a body's captured bytes: every language's library has it.
pub(super) type Digest = [u8; 32];

/// The digest of a body.
pub(super) fn digest(body: &[u8]) -> Digest {
    let mut digest = Digest::default();
    let made = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    digest.copy_from_slice(made.as_ref());
    digest
}

/// Tags of a record's own fields.
pub(super) mod tag {
    pub(in crate::store) const ID: u8 = 1;
    pub(in crate::store) const KIND: u8 = 2;
    pub(in crate::store) const STATE: u8 = 3;
    pub(in crate::store) const STARTED: u8 = 4;
    pub(in crate::store) const FINISHED: u8 = 5;
    pub(in crate::store) const PARENT: u8 = 6;
    pub(in crate::store) const SUBJECT: u8 = 7;
    pub(in crate::store) const FLOW: u8 = 8;
    pub(in crate::store) const AUTHORITY: u8 = 9;
    pub(in crate::store) const PROTOCOL: u8 = 10;
    pub(in crate::store) const VERDICT: u8 = 11;
    pub(in crate::store) const FLAG: u8 = 12;
    pub(in crate::store) const REQUEST: u8 = 13;
    pub(in crate::store) const RESPONSE: u8 = 14;
    pub(in crate::store) const BYTES_UP: u8 = 15;
    pub(in crate::store) const BYTES_DOWN: u8 = 16;
    pub(in crate::store) const FAILURE: u8 = 17;
    pub(in crate::store) const QUESTION: u8 = 18;
    pub(in crate::store) const LOSS: u8 = 19;
    pub(in crate::store) const TIMES: u8 = 20;
    pub(in crate::store) const NOTE: u8 = 21;
    pub(in crate::store) const TLS: u8 = 22;
    pub(in crate::store) const WEBSOCKET: u8 = 23;
    pub(in crate::store) const REQUEST_SEEN: u8 = 24;
    pub(in crate::store) const RESPONSE_SEEN: u8 = 25;
    pub(in crate::store) const FACT: u8 = 26;
}

/// Bytes before the id: its tag and length.
const ID_AT: usize = 2;

/// The record as bytes. `digests` are those of the bytes kept of its request and response bodies.
pub(super) fn encode(record: &Record, digests: [Option<Digest>; 2], out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag::ID, 8]);
    out.extend_from_slice(&record.id.0.to_le_bytes());
    number(out, tag::KIND, code::of_kind(record.kind));
    number(out, tag::STATE, code::of_state(record.state));
    time(out, tag::STARTED, record.started);
    if let Some(finished) = record.finished {
        time(out, tag::FINISHED, finished);
    }
    if let Some(parent) = record.parent {
        present(out, tag::PARENT, parent.0);
    }
    if let Some(subject) = &record.subject {
        nested(out, tag::SUBJECT, |out| put_subject(out, subject));
    }
    if let Some(flow) = &record.flow {
        nested(out, tag::FLOW, |out| put_flow(out, flow));
    }
    if let Some(authority) = &record.authority {
        nested(out, tag::AUTHORITY, |out| put_authority(out, authority));
    }
    text(out, tag::PROTOCOL, &record.protocol);
    if let Some(verdict) = &record.verdict {
        nested(out, tag::VERDICT, |out| put_verdict(out, verdict));
    }
    for flag in &record.flags {
        nested(out, tag::FLAG, |out| put_flag(out, flag));
    }
    let [of_request, of_response] = digests;
    if let Some(head) = &record.request {
        nested(out, tag::REQUEST, |out| put_request(out, head, of_request.as_ref()));
    }
    if let Some(head) = &record.response {
        nested(out, tag::RESPONSE, |out| put_response(out, head, of_response.as_ref()));
    }
    number(out, tag::BYTES_UP, record.bytes_up);
    number(out, tag::BYTES_DOWN, record.bytes_down);
    if let Some(failure) = &record.failure {
        nested(out, tag::FAILURE, |out| put_failure(out, failure));
    }
    if let Some(question) = &record.question {
        nested(out, tag::QUESTION, |out| put_question(out, question));
    }
    if let Some(loss) = &record.loss {
        nested(out, tag::LOSS, |out| put_loss(out, loss));
    }
    if record.times != 1 {
        present(out, tag::TIMES, record.times);
    }
    if let Some(note) = &record.note {
        bytes(out, tag::NOTE, note.as_bytes());
    }
    if let Some(tls) = &record.tls {
        nested(out, tag::TLS, |out| tls::put(out, tls));
    }
    if let Some(websocket) = &record.websocket {
        nested(out, tag::WEBSOCKET, |out| seen::put_websocket(out, websocket));
    }
    for (tag, inspected) in
        [(tag::REQUEST_SEEN, &record.request_seen), (tag::RESPONSE_SEEN, &record.response_seen)]
    {
        if let Some(inspected) = inspected {
            nested(out, tag, |out| seen::put_inspected(out, inspected));
        }
    }
    for fact in &record.facts {
        nested(out, tag::FACT, |out| put_fact(out, fact));
    }
}

/// Fills in the id of an encoded record.
pub(super) fn set_id(encoded: &mut [u8], id: u64) {
    if let Some(place) = encoded.get_mut(ID_AT..ID_AT + 8) {
        place.copy_from_slice(&id.to_le_bytes());
    }
}

/// An encoded record with another end; all else of it is copied as it is, known or not.
pub(super) fn ended(
    encoded: &[u8],
    state: State,
    finished: Timestamp,
    failure: Option<&Failure>,
) -> Result<Vec<u8>, Malformed> {
    let mut fresh = Vec::with_capacity(96);
    number(&mut fresh, tag::STATE, code::of_state(state));
    time(&mut fresh, tag::FINISHED, finished);
    if let Some(failure) = failure {
        nested(&mut fresh, tag::FAILURE, |out| put_failure(out, failure));
    }
    let replaced = |tag| tag == tag::STATE || tag == tag::FINISHED || tag == tag::FAILURE;
    let mut kept = Vec::new();
    for field in Fields::of(encoded) {
        let (tag, payload) = field?;
        if !replaced(tag) {
            kept.push((tag, payload));
        }
    }
    for field in Fields::of(&fresh) {
        kept.push(field?);
    }
    // Stable: fields of one tag keep their order.
    kept.sort_by_key(|(tag, _)| *tag);
    let mut out = Vec::with_capacity(encoded.len() + fresh.len());
    for (tag, payload) in kept {
        bytes(&mut out, tag, payload);
    }
    Ok(out)
}

/// Numbers of words. Part of the format: a number keeps its meaning.
pub(super) mod code {
    use super::{Action, Kind, Severity, State};

    pub(in crate::store) fn of_kind(kind: Kind) -> u64 {
        match kind {
            Kind::Flow => 1,
            Kind::Exchange => 2,
            Kind::Kernel => 3,
            Kind::Control => 4,
            Kind::Dns => 5,
            Kind::Guard => 6,
        }
    }

    pub(in crate::store) fn kind(code: u64) -> Option<Kind> {
        [Kind::Flow, Kind::Exchange, Kind::Kernel, Kind::Control, Kind::Dns, Kind::Guard]
            .into_iter()
            .find(|kind| of_kind(*kind) == code)
    }

    pub(in crate::store) fn of_state(state: State) -> u64 {
        match state {
            State::Open => 1,
            State::Done => 2,
            State::Refused => 3,
            State::Failed => 4,
            State::Cancelled => 5,
        }
    }

    pub(in crate::store) fn state(code: u64) -> Option<State> {
        [State::Open, State::Done, State::Refused, State::Failed, State::Cancelled]
            .into_iter()
            .find(|state| of_state(*state) == code)
    }

    pub(in crate::store) fn of_action(action: Action) -> u64 {
        match action {
            Action::Allow => 1,
            Action::Deny => 2,
            Action::Passthrough => 3,
        }
    }

    pub(in crate::store) fn action(code: u64) -> Option<Action> {
        [Action::Allow, Action::Deny, Action::Passthrough]
            .into_iter()
            .find(|action| of_action(*action) == code)
    }

    pub(in crate::store) fn of_severity(severity: Severity) -> u64 {
        match severity {
            Severity::Info => 1,
            Severity::Low => 2,
            Severity::Medium => 3,
            Severity::High => 4,
        }
    }

    pub(in crate::store) fn severity(code: u64) -> Option<Severity> {
        [Severity::Info, Severity::Low, Severity::Medium, Severity::High]
            .into_iter()
            .find(|severity| of_severity(*severity) == code)
    }
}

fn put_subject(out: &mut Vec<u8>, subject: &Subject) {
    text(out, 1, &subject.session.0);
    number(out, 2, subject.pid.into());
    number(out, 3, subject.uid.into());
    if let Some(start) = subject.start {
        present(out, 4, start);
    }
    text(out, 5, &subject.comm);
    if let Some(exe) = &subject.exe {
        bytes(out, 6, exe.as_bytes());
    }
    for argument in &subject.cmdline {
        bytes(out, 7, argument.as_bytes());
    }
    for ancestor in &subject.ancestors {
        nested(out, 8, |out| {
            number(out, 1, ancestor.pid.into());
            text(out, 2, &ancestor.exe);
        });
    }
    text(out, 9, &subject.cgroup);
    for privilege in &subject.privileges {
        bytes(out, 10, privilege.as_bytes());
    }
}

fn put_flow(out: &mut Vec<u8>, flow: &Flow) {
    number(out, 1, flow.cookie);
    nested(out, 2, |out| put_socket(out, flow.original.0));
    number(out, 3, flow.pid.into());
    number(out, 4, flow.uid.into());
    number(out, 5, flow.gid.into());
    text(out, 6, &flow.comm);
    number(out, 7, flow.cgroup);
    number(out, 8, flow.session);
    number(out, 9, flow.netns);
    number(out, 10, flow.connected_ns);
}

fn put_socket(out: &mut Vec<u8>, socket: SocketAddr) {
    put_address(out, socket.ip());
    out.extend_from_slice(&socket.port().to_be_bytes());
    if let SocketAddr::V6(socket) = socket
        && (socket.scope_id() != 0 || socket.flowinfo() != 0)
    {
        out.extend_from_slice(&socket.scope_id().to_be_bytes());
        out.extend_from_slice(&socket.flowinfo().to_be_bytes());
    }
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

fn put_authority(out: &mut Vec<u8>, authority: &Authority) {
    text(out, 1, authority.host.as_str());
    number(out, 2, authority.port.into());
}

fn put_verdict(out: &mut Vec<u8>, verdict: &Verdict) {
    number(out, 1, code::of_action(verdict.action));
    text(out, 2, &verdict.rule);
    text(out, 3, &verdict.reason);
}

fn put_flag(out: &mut Vec<u8>, flag: &Flag) {
    text(out, 1, &flag.code);
    number(out, 2, code::of_severity(flag.severity));
    text(out, 3, &flag.evidence);
}

fn put_request(out: &mut Vec<u8>, head: &RequestHead, digest: Option<&Digest>) {
    text(out, 1, &head.method);
    text(out, 2, &head.scheme);
    text(out, 3, &head.target);
    text(out, 4, &head.version);
    put_headers(out, 5, &head.headers);
    nested(out, 6, |out| put_body(out, &head.body, digest));
}

fn put_response(out: &mut Vec<u8>, head: &ResponseHead, digest: Option<&Digest>) {
    number(out, 1, head.status.into());
    text(out, 2, &head.version);
    put_headers(out, 3, &head.headers);
    nested(out, 4, |out| put_body(out, &head.body, digest));
    number(out, 5, head.first_byte_us);
}

fn put_headers(out: &mut Vec<u8>, tag: u8, headers: &HeaderFields) {
    for (name, value) in headers.iter() {
        nested(out, tag, |out| {
            put_number(out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value.as_bytes());
        });
    }
}

fn put_body(out: &mut Vec<u8>, body: &Captured, digest: Option<&Digest>) {
    number(out, 1, body.total);
    number(out, 2, body.truncated.into());
    if let Some(digest) = digest {
        number(out, 3, body.bytes.len() as u64);
        bytes(out, 4, digest);
    }
}

fn put_failure(out: &mut Vec<u8>, failure: &Failure) {
    text(out, 1, &failure.blame);
    text(out, 2, &failure.code);
    text(out, 3, &failure.detail);
}

fn put_question(out: &mut Vec<u8>, question: &Question) {
    text(out, 1, &question.name);
    text(out, 2, &question.kind);
    text(out, 3, &question.transport);
    text(out, 4, &question.code);
    for address in &question.addresses {
        nested(out, 5, |out| put_address(out, *address));
    }
    for answer in &question.answers {
        bytes(out, 6, answer.as_bytes());
    }
    number(out, 7, question.took_us);
}

fn put_loss(out: &mut Vec<u8>, loss: &Loss) {
    number(out, 1, loss.session);
    number(out, 2, loss.window.into());
    text(out, 3, &loss.what);
    text(out, 4, &loss.cause);
}

fn put_fact(out: &mut Vec<u8>, fact: &Fact) {
    text(out, 1, &fact.name);
    match &fact.value {
        FactValue::Text(value) => bytes(out, 2, value.as_bytes()),
        FactValue::Integer(value) => nested(out, 3, |out| put_signed(out, *value)),
        FactValue::Micros(value) => nested(out, 4, |out| put_signed(out, *value)),
    }
}

/// A field of any payload.
fn bytes(out: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    out.push(tag);
    put_number(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// A text, left out where it is empty.
fn text(out: &mut Vec<u8>, tag: u8, text: &str) {
    if !text.is_empty() {
        bytes(out, tag, text.as_bytes());
    }
}

/// A number, left out where it is 0.
fn number(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number != 0 {
        present(out, tag, number);
    }
}

/// A number, also where it is 0.
fn present(out: &mut Vec<u8>, tag: u8, number: u64) {
    nested(out, tag, |out| put_number(out, number));
}

fn time(out: &mut Vec<u8>, tag: u8, time: Timestamp) {
    nested(out, tag, |out| put_signed(out, time.0));
}

/// A field whose payload `put` writes.
fn nested(out: &mut Vec<u8>, tag: u8, put: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    out.push(0);
    let start = out.len();
    put(out);
    let length = out.len() - start;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        if let Some(place) = out.get_mut(start - 1) {
            *place = short;
        }
        return;
    }
    // The length takes more than the one byte that was left for it: the payload moves up.
    let end = out.len();
    put_number(out, length as u64);
    let width = out.len() - end;
    let mut wide = [0; 10];
    wide[..width].copy_from_slice(&out[end..]);
    out.copy_within(start..end, start - 1 + width);
    out.truncate(end - 1 + width);
    out[start - 1..start - 1 + width].copy_from_slice(&wide[..width]);
}
