//! What inspection saw, as bytes and back: WebSockets, and how much of bodies.

use super::{
    bytes,
    decode::{owned, small},
    fields::{Fields, Malformed, number as read},
    nested, number, present, text,
};
use crate::model::{
    Inspected, WebSocket,
    websocket::{Closed, Passed, Sender},
};

pub(super) fn put_websocket(out: &mut Vec<u8>, websocket: &WebSocket) {
    for (tag, passed) in [(1, &websocket.client), (2, &websocket.server)] {
        nested(out, tag, |out| {
            number(out, 1, passed.messages);
            number(out, 2, passed.bytes);
            number(out, 3, passed.decoded);
            number(out, 4, passed.controls);
            number(out, 5, passed.unseen);
        });
    }
    if let Some(closed) = &websocket.closed {
        nested(out, 3, |out| {
            number(out, 1, of_sender(closed.by));
            if let Some(code) = closed.code {
                present(out, 2, code.into());
            }
            text(out, 3, &closed.reason);
        });
    }
    number(out, 4, websocket.left_out);
    for fault in &websocket.faults {
        bytes(out, 5, fault.as_bytes());
    }
}

pub(super) fn put_inspected(out: &mut Vec<u8>, inspected: &Inspected) {
    number(out, 1, inspected.captured);
    number(out, 2, inspected.total);
    if let Some(decoded) = inspected.decoded {
        present(out, 3, decoded);
    }
    number(out, 4, inspected.truncated.into());
    text(out, 5, &inspected.encoding);
    if let Some(fault) = &inspected.fault {
        bytes(out, 6, fault.as_bytes());
    }
}

/// Part of the format: a number keeps its meaning.
fn of_sender(sender: Sender) -> u64 {
    match sender {
        Sender::Client => 1,
        Sender::Server => 2,
    }
}

pub(super) fn websocket(payload: &[u8]) -> Result<WebSocket, Malformed> {
    let mut websocket = WebSocket::default();
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => websocket.client = passed(payload)?,
            (2, payload) => websocket.server = passed(payload)?,
            (3, payload) => websocket.closed = Some(closed(payload)?),
            (4, payload) => websocket.left_out = read(payload)?,
            (5, payload) => websocket.faults.push(owned(payload)?),
            _ => {}
        }
    }
    Ok(websocket)
}

fn passed(payload: &[u8]) -> Result<Passed, Malformed> {
    let mut passed = Passed::default();
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => passed.messages = read(payload)?,
            (2, payload) => passed.bytes = read(payload)?,
            (3, payload) => passed.decoded = read(payload)?,
            (4, payload) => passed.controls = read(payload)?,
            (5, payload) => passed.unseen = read(payload)?,
            _ => {}
        }
    }
    Ok(passed)
}

fn closed(payload: &[u8]) -> Result<Closed, Malformed> {
    let (mut by, mut code, mut reason) = (None, None, String::new());
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => {
                let number = read(payload)?;
                by = [Sender::Client, Sender::Server].into_iter().find(|by| of_sender(*by) == number);
            }
            (2, payload) => code = Some(small(payload)?),
            (3, payload) => reason = owned(payload)?,
            _ => {}
        }
    }
    Ok(Closed { by: by.ok_or(Malformed("a close by nobody that is known"))?, code, reason })
}

pub(super) fn inspected(payload: &[u8]) -> Result<Inspected, Malformed> {
    let mut inspected = Inspected::default();
    for field in Fields::of(payload) {
        match field? {
            (1, payload) => inspected.captured = read(payload)?,
            (2, payload) => inspected.total = read(payload)?,
            (3, payload) => inspected.decoded = Some(read(payload)?),
            (4, payload) => inspected.truncated = read(payload)? == 1,
            (5, payload) => inspected.encoding = owned(payload)?,
            (6, payload) => inspected.fault = Some(owned(payload)?),
            _ => {}
        }
    }
    Ok(inspected)
}
