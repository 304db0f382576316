//! The providers of models, as far as their clients need them, each at its own name. Formats follow the
//! providers' references and what their clients were seen to send and to take.

use std::time::Duration;

use hyper::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    body::{Body, whole},
    encoding::Coding,
    origin::Arrival,
    routes::{Received, event_stream, respond},
    world,
};

mod anthropic;
mod chatgpt;
mod gemini;
mod openai;
mod openai_chat;
pub(crate) mod openai_responses;
mod script;
mod side;

#[cfg(test)]
mod tests;

/// Between two events: long enough that a buffering gate shows.
const PAUSE: Duration = Duration::from_millis(25);

/// A request with where it came in.
#[derive(Clone, Copy)]
pub(crate) struct Visit<'a> {
    pub(crate) arrival: &'a Arrival,
    /// The journal's number for it.
    pub(crate) id: u64,
    pub(crate) received: &'a Received,
}

/// The answer, where the name and the path are a provider's.
pub(crate) fn answer(visit: Visit<'_>) -> Option<Response<Body>> {
    match visit.arrival.origin.site {
        world::ANTHROPIC => anthropic::answer(visit),
        world::OPENAI => openai::answer(visit),
        world::CHATGPT => chatgpt::answer(visit),
        world::GEMINI => gemini::answer(visit),
        _ => side::answer(visit),
    }
}

impl Visit<'_> {
    pub(crate) fn method(&self) -> &str {
        &self.received.method
    }

    pub(crate) fn path(&self) -> &str {
        &self.received.path
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.received.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.received.query.get(name).map(String::as_str)
    }

    /// The body as JSON, out of whatever coding it came in.
    pub(crate) fn json_body(&self) -> Option<Value> {
        match self.header("content-encoding") {
            None | Some("identity") => serde_json::from_slice(&self.received.body).ok(),
            Some(name) => {
                serde_json::from_slice(&Coding::named(name)?.decode(&self.received.body).ok()?).ok()
            }
        }
    }

    /// An answer in JSON, in a content coding if the client takes one.
    pub(crate) fn json(&self, status: StatusCode, value: &Value) -> Response<Body> {
        self.coded(status, "application/json", value.to_string().into_bytes())
    }

    /// An answer of any kind, in a content coding if the client takes one.
    pub(crate) fn coded(&self, status: StatusCode, kind: &'static str, plain: Vec<u8>) -> Response<Body> {
        let coding = self.header("accept-encoding").and_then(Coding::chosen);
        let coded = coding.and_then(|coding| Some((coding, coding.encode(&plain).ok()?)));
        let Some((coding, bytes)) = coded else { return respond(status, kind, whole(plain)) };
        let mut response = respond(status, kind, whole(bytes));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, http::HeaderValue::from_static(coding.name()));
        headers.insert(header::VARY, http::HeaderValue::from_static("accept-encoding"));
        response
    }

    /// An event stream, an event at a time, never coded.
    pub(crate) fn events(&self, events: Vec<String>) -> Response<Body> {
        event_stream(self.arrival.clone(), self.id, events, PAUSE)
    }

    /// Nothing but a status.
    pub(crate) fn empty(&self, status: StatusCode) -> Response<Body> {
        let mut response = Response::new(whole(Vec::new()));
        *response.status_mut() = status;
        response
    }

    /// `{}`, which is all that many a side call waits for.
    pub(crate) fn nothing(&self) -> Response<Body> {
        self.json(StatusCode::OK, &json!({}))
    }
}

/// The status that a model's name asks for, so that any client can be shown any error:
/// `anything-status-429`.
pub(crate) fn demanded(model: &str) -> Option<StatusCode> {
    let (_, status) = model.rsplit_once("-status-")?;
    StatusCode::from_bytes(status.as_bytes()).ok()
}

/// The model's name asks for an error after the stream has begun.
pub(crate) fn breaks(model: &str) -> bool {
    model.ends_with("-breaks")
}

pub(crate) fn str_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn list_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn flag_at(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool) == Some(true)
}
