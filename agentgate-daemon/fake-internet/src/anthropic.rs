//! The Messages API as far as clients need it: an answer in JSON, or the event stream with text and a
//! tool call. The sequence follows the provider's streaming reference.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    body::{Body, whole},
    origin::Arrival,
    routes::{Received, event_stream, respond},
};

/// Between two events: long enough that a buffering gate shows.
const PAUSE: Duration = Duration::from_millis(40);

/// The answer, where the path is one of the API's.
pub(crate) fn answer(arrival: &Arrival, id: u64, received: &Received) -> Option<Response<Body>> {
    if !received.path.starts_with("/v1/") {
        return None;
    }
    let known = received.headers.contains_key("x-api-key") || received.headers.contains_key("authorization");
    if !known {
        return Some(error(StatusCode::UNAUTHORIZED, "authentication_error", "x-api-key header is required"));
    }
    if received.method != "POST" || received.path != "/v1/messages" {
        return Some(error(StatusCode::NOT_FOUND, "not_found_error", "no such endpoint"));
    }
    let Ok(request) = serde_json::from_slice::<Value>(&received.body) else {
        return Some(error(StatusCode::BAD_REQUEST, "invalid_request_error", "the body is not JSON"));
    };
    let Some(model) = request.get("model").and_then(Value::as_str) else {
        return Some(error(StatusCode::BAD_REQUEST, "invalid_request_error", "model: field required"));
    };
    let mut response = if request.get("stream").and_then(Value::as_bool) == Some(true) {
        event_stream(arrival.clone(), id, events(model), PAUSE)
    } else {
        respond(StatusCode::OK, "application/json", whole(message(model).to_string()))
    };
    response.headers_mut().insert("request-id", http::HeaderValue::from_static("req_fake_0001"));
    Some(response)
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let body = json!({
        "type": "error",
        "error": { "type": kind, "message": message },
        "request_id": "req_fake_0001",
    });
    respond(status, "application/json", whole(body.to_string()))
}

const SAID: &str = "Let me look at the files.";

fn message(model: &str) -> Value {
    json!({
        "id": "msg_fake_0001",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [
            { "type": "text", "text": SAID },
            { "type": "tool_use", "id": "toolu_fake_0001", "name": "bash", "input": { "command": "ls -la" } },
        ],
        "stop_reason": "tool_use",
        "stop_sequence": null,
        "usage": usage(41),
    })
}

fn usage(output_tokens: u32) -> Value {
    json!({
        "input_tokens": 25,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 12,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    })
}

fn events(model: &str) -> Vec<String> {
    let mut start = message(model);
    if let Some(fields) = start.as_object_mut() {
        fields.insert("content".to_owned(), json!([]));
        fields.insert("stop_reason".to_owned(), Value::Null);
        fields.insert("usage".to_owned(), usage(1));
    }
    let delta =
        |index: u32, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    let mut all = vec![
        json!({ "type": "message_start", "message": start }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "ping" }),
    ];
    all.extend(SAID.split_inclusive(' ').map(|word| delta(0, json!({ "type": "text_delta", "text": word }))));
    all.extend([
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({
            "type": "content_block_start",
            "index": 1,
            "content_block": { "type": "tool_use", "id": "toolu_fake_0001", "name": "bash", "input": {} },
        }),
    ]);
    all.extend(
        ["", "{\"comm", "and\": \"ls", " -la\"}"]
            .map(|piece| delta(1, json!({ "type": "input_json_delta", "partial_json": piece }))),
    );
    all.extend([
        json!({ "type": "content_block_stop", "index": 1 }),
        json!({
            "type": "message_delta",
            "delta": { "stop_reason": "tool_use", "stop_sequence": null },
            "usage": usage(41),
        }),
        json!({ "type": "message_stop" }),
    ]);
    all.iter().map(event).collect()
}

fn event(data: &Value) -> String {
    let name = data.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}
