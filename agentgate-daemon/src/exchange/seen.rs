//! What of an exchange's bodies could be seen: put on record at its end.
//!
//! Content codings are not undone here. That would cost each compressed answer more than moving it does, for
//! bodies of which hardly any is ever looked at, and who looks has to decode anyway: the record says which
//! coding it was and whether the prefix is all, and `inspect::open` does the rest, within its cap.

use crate::{
    inspect,
    model::{Captured, HeaderFields, Inspected, Record},
};

/// Puts on record what was seen of both bodies.
pub(super) fn glance(record: &mut Record) {
    // Their bodies are transcripts, and tell by themselves what is not in them.
    if record.websocket.is_some() {
        return;
    }
    let request = record.request.as_ref().and_then(|head| of(&head.headers, &head.body));
    let response = record.response.as_ref().and_then(|head| of(&head.headers, &head.body));
    record.request_seen = request;
    record.response_seen = response;
}

fn of(headers: &HeaderFields, body: &Captured) -> Option<Box<Inspected>> {
    if body.total == 0 {
        return None;
    }
    inspect::glance(body, &inspect::recorded(headers)).map(Box::new)
}
