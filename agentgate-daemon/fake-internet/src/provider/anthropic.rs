//! The Messages API: an answer in JSON or as events, with thinking, text and tool calls; counting, models,
//! errors; and what Claude Code asks for beside it.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Visit, breaks, demanded, flag_at, list_at,
    script::{self, Asked, Given, Tool, Turn},
    str_at,
};
use crate::body::Body;

const REQUEST_ID: &str = "req_fake_0001";

/// The answer, where the path is one of the API's.
pub(super) fn answer(visit: Visit<'_>) -> Option<Response<Body>> {
    if visit.path().starts_with("/api/") || visit.path().starts_with("/mcp-registry/") {
        return Some(beside(visit));
    }
    if !visit.path().starts_with("/v1/") {
        return None;
    }
    let mut response = api(visit).unwrap_or_else(|(status, words)| refuse(visit, status, words));
    response.headers_mut().insert("request-id", http::HeaderValue::from_static(REQUEST_ID));
    Some(response)
}

/// What Claude Code asks its provider for besides answers of models.
fn beside(visit: Visit<'_>) -> Response<Body> {
    match (visit.method(), visit.path()) {
        ("HEAD", _) => visit.empty(StatusCode::OK),
        ("GET", "/api/hello") => visit.json(StatusCode::OK, &json!({ "message": "hello" })),
        ("GET", "/api/claude_code/policy_limits") => {
            visit.json(StatusCode::OK, &json!({ "restrictions": {} }))
        }
        ("GET", "/api/claude_code/settings") => {
            let settings = json!({ "uuid": "fake", "checksum": "sha256:fake", "settings": {} });
            visit.json(StatusCode::OK, &settings)
        }
        _ => visit.nothing(),
    }
}

fn api(visit: Visit<'_>) -> Result<Response<Body>, (StatusCode, &'static str)> {
    let key = visit.header("x-api-key").or_else(|| visit.header("authorization"));
    match key {
        None => return Err((StatusCode::UNAUTHORIZED, "x-api-key header is required")),
        Some(key) if key.contains("invalid") => {
            return Err((StatusCode::UNAUTHORIZED, "invalid x-api-key"));
        }
        Some(_) => {}
    }
    match (visit.method(), visit.path()) {
        ("GET", "/v1/models") => {
            let models = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"].map(model_info);
            let page = json!({
                "data": models, "has_more": false,
                "first_id": "claude-opus-5-5", "last_id": "claude-haiku-5-5",
            });
            return Ok(visit.json(StatusCode::OK, &page));
        }
        ("GET", path) if path.starts_with("/v1/models/") => {
            let id = path.trim_start_matches("/v1/models/");
            return Ok(visit.json(StatusCode::OK, &model_info(id)));
        }
        ("POST", "/v1/messages" | "/v1/messages/count_tokens") => {}
        ("GET" | "HEAD", "/v1/messages") => {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
        }
        _ => return Err((StatusCode::NOT_FOUND, "no such endpoint")),
    }
    let Some(request) = visit.json_body() else {
        return Err((StatusCode::BAD_REQUEST, "the body is not JSON"));
    };
    let Some(model) = request.get("model").and_then(Value::as_str) else {
        return Err((StatusCode::BAD_REQUEST, "model: field required"));
    };
    if let Some(status) = demanded(model) {
        return Err((status, "the model's name asked for this error"));
    }
    if visit.path().ends_with("/count_tokens") {
        return Ok(visit.json(StatusCode::OK, &json!({ "input_tokens": 25 })));
    }
    let message = message(model, &asked(&request));
    Ok(if flag_at(&request, "/stream") {
        visit.events(events(&message).iter().map(event).collect())
    } else {
        visit.json(StatusCode::OK, &message)
    })
}

fn model_info(id: &str) -> Value {
    json!({ "type": "model", "id": id, "display_name": id, "created_at": "2026-10-01T00:00:00Z" })
}

fn refuse(visit: Visit<'_>, status: StatusCode, words: &str) -> Response<Body> {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    let mut response = visit.json(status, &failure(kind, words));
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
    }
    response
}

fn failure(kind: &str, words: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": words }, "request_id": REQUEST_ID })
}

/// The request as the script sees it.
fn asked(request: &Value) -> Asked {
    let messages = list_at(request, "/messages");
    let blocks = messages.last().map(|last| list_at(last, "/content")).unwrap_or_default();
    let results = blocks.iter().filter(|block| str_at(block, "/type") == "tool_result");
    let tools = list_at(request, "/tools").iter().filter(|tool| tool.get("input_schema").is_some());
    let mut said = script::text(request.get("system").unwrap_or(&Value::Null));
    said.extend(messages.iter().map(script::text));
    Asked {
        said,
        tools: tools.map(|tool| Tool::json(str_at(tool, "/name"), tool.get("input_schema"))).collect(),
        results: results.map(script::text).collect(),
        schema: request
            .pointer("/output_config/format/schema")
            .or(request.pointer("/output_format/schema"))
            .cloned(),
        turn: messages.len(),
        thinks: matches!(str_at(request, "/thinking/type"), "enabled" | "adaptive"),
    }
}

fn message(model: &str, asked: &Asked) -> Value {
    let mut content = Vec::new();
    if asked.thinks {
        content.push(json!({ "type": "thinking", "thinking": script::THOUGHT, "signature": "ZmFrZQ==" }));
    }
    let stop_reason = match asked.turn() {
        Turn::Say(text) => {
            content.push(json!({ "type": "text", "text": text }));
            "end_turn"
        }
        Turn::Call(calls) => {
            content.push(json!({ "type": "text", "text": script::PREFACE }));
            for call in calls {
                let input = match call.given {
                    Given::Json(input) => input,
                    Given::Text(text) => json!({ "text": text }),
                };
                content.push(json!({
                    "type": "tool_use", "id": format!("toolu_{}", call.id), "name": call.name, "input": input,
                }));
            }
            "tool_use"
        }
    };
    json!({
        "id": format!("msg_fake_{:03}", asked.turn),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": usage(41),
    })
}

fn usage(output_tokens: u32) -> Value {
    json!({
        "input_tokens": 25,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 12,
        "cache_creation": { "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 },
        "output_tokens": output_tokens,
        "service_tier": "standard",
    })
}

/// The message as events; one whose model breaks ends with an error in the middle.
fn events(message: &Value) -> Vec<Value> {
    let mut start = message.clone();
    if let Some(fields) = start.as_object_mut() {
        fields.insert("content".to_owned(), json!([]));
        fields.insert("stop_reason".to_owned(), Value::Null);
        fields.insert("usage".to_owned(), usage(1));
    }
    let mut all = vec![json!({ "type": "message_start", "message": start })];
    for (index, block) in list_at(message, "/content").iter().enumerate() {
        let (begun, deltas) = in_pieces(block);
        all.push(json!({ "type": "content_block_start", "index": index, "content_block": begun }));
        if index == 0 {
            all.push(json!({ "type": "ping" }));
        }
        all.extend(
            deltas
                .into_iter()
                .map(|delta| json!({ "type": "content_block_delta", "index": index, "delta": delta })),
        );
        all.push(json!({ "type": "content_block_stop", "index": index }));
    }
    if breaks(str_at(message, "/model")) {
        all.truncate(4);
        all.push(failure("overloaded_error", "Overloaded"));
        return all;
    }
    all.push(json!({
        "type": "message_delta",
        "delta": { "stop_reason": message.get("stop_reason"), "stop_sequence": null },
        "usage": usage(41),
    }));
    all.push(json!({ "type": "message_stop" }));
    all
}

/// A block as it begins, and what completes it.
fn in_pieces(block: &Value) -> (Value, Vec<Value>) {
    match str_at(block, "/type") {
        "thinking" => {
            let thoughts = script::pieces(str_at(block, "/thinking"))
                .map(|piece| json!({ "type": "thinking_delta", "thinking": piece }));
            let signature = json!({ "type": "signature_delta", "signature": block.get("signature") });
            let begun = json!({ "type": "thinking", "thinking": "", "signature": "" });
            (begun, thoughts.chain([signature]).collect())
        }
        "tool_use" => {
            let mut begun = block.clone();
            if let Some(fields) = begun.as_object_mut() {
                fields.insert("input".to_owned(), json!({}));
            }
            let input = block.get("input").map(Value::to_string).unwrap_or_default();
            let deltas = script::shards(&input)
                .into_iter()
                .map(|shard| json!({ "type": "input_json_delta", "partial_json": shard }));
            (begun, deltas.collect())
        }
        _ => {
            let deltas = script::pieces(str_at(block, "/text"))
                .map(|piece| json!({ "type": "text_delta", "text": piece }));
            (json!({ "type": "text", "text": "" }), deltas.collect())
        }
    }
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", str_at(data, "/type"))
}
