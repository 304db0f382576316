//! What of an encoded record has words, as it lies there: for who knows most of it already.

use super::{
    Digest, code,
    decode::{NO_KIND, NO_STATE},
    fields::{Fields, Malformed, number, text},
    tag,
};

/// The parts of a record that may have words.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Texts<'b> {
    /// Of the authority.
    pub(in crate::store) host: &'b str,
    /// Whether bodies are the transcript of a WebSocket.
    pub(in crate::store) transcript: bool,
    /// Tag and payload, for [`decode_field`](super::decode_field): all but the heads.
    pub(in crate::store) fields: Vec<(u8, &'b [u8])>,
    pub(in crate::store) request: Option<Head<'b>>,
    pub(in crate::store) response: Option<Head<'b>>,
}

/// The head of a request or a response.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Head<'b> {
    pub(in crate::store) tag: u8,
    pub(in crate::store) payload: &'b [u8],
    pub(in crate::store) method: &'b str,
    pub(in crate::store) scheme: &'b str,
    pub(in crate::store) target: &'b str,
    /// Each as [`pair`](super::pair) reads it.
    pub(in crate::store) headers: Vec<&'b [u8]>,
    /// Of the body.
    pub(in crate::store) digest: Option<Digest>,
}

impl<'b> Texts<'b> {
    /// # Errors
    /// Where it is no record that could be decoded, as far as that is seen here.
    pub(in crate::store) fn at(encoded: &'b [u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let (mut kind, mut state) = (None, None);
        for field in Fields::of(encoded) {
            let (tag, payload) = field?;
            match tag {
                tag::KIND => kind = code::kind(number(payload)?),
                tag::STATE => state = code::state(number(payload)?),
                tag::ID
                | tag::STARTED
                | tag::FINISHED
                | tag::PARENT
                | tag::PROTOCOL
                | tag::BYTES_UP
                | tag::BYTES_DOWN
                | tag::LOSS
                | tag::TIMES
                | tag::REQUEST_SEEN
                | tag::RESPONSE_SEEN => {}
                tag::WEBSOCKET => found.transcript = true,
                tag::REQUEST => found.request = Some(Head::of_request(payload)?),
                tag::RESPONSE => found.response = Some(Head::of_response(payload)?),
                _ => {
                    if tag == tag::AUTHORITY {
                        found.host = super::fields::one_text(payload, 1)?;
                    }
                    found.fields.push((tag, payload));
                }
            }
        }
        kind.ok_or(NO_KIND)?;
        state.ok_or(NO_STATE)?;
        Ok(found)
    }
}

impl<'b> Head<'b> {
    fn of_request(payload: &'b [u8]) -> Result<Self, Malformed> {
        let mut head = Self { tag: tag::REQUEST, payload, ..Self::default() };
        for field in Fields::of(payload) {
            match field? {
                (1, payload) => head.method = text(payload)?,
                (2, payload) => head.scheme = text(payload)?,
                (3, payload) => head.target = text(payload)?,
                (5, payload) => head.headers.push(payload),
                (6, payload) => head.digest = super::fields::body_digest(payload)?,
                _ => {}
            }
        }
        Ok(head)
    }

    fn of_response(payload: &'b [u8]) -> Result<Self, Malformed> {
        let mut head = Self { tag: tag::RESPONSE, payload, ..Self::default() };
        for field in Fields::of(payload) {
            match field? {
                (3, payload) => head.headers.push(payload),
                (4, payload) => head.digest = super::fields::body_digest(payload)?,
                _ => {}
            }
        }
        Ok(head)
    }
}
