//! The Generative Language API: whole answers, streams as events and as a JSON array, counting, models,
//! errors. The model is in the path alone.

use hyper::{
    Response, StatusCode,
    body::{Bytes, Frame},
};
use serde_json::{Value, json};

use super::{
    PAUSE, Visit, breaks, demanded, list_at,
    script::{self, Asked, Given, Tool, Turn},
    str_at,
};
use crate::{
    body::{Body, streamed},
    routes::respond,
};

/// The answer, where the path is one of the API's.
pub(super) fn answer(visit: Visit<'_>) -> Option<Response<Body>> {
    let path =
        ["/v1/", "/v1beta/", "/v1alpha/"].iter().find_map(|version| visit.path().strip_prefix(version))?;
    Some(api(visit, path).unwrap_or_else(|(status, words)| visit.json(status, &failure(status, words))))
}

fn failure(status: StatusCode, words: &str) -> Value {
    let name = match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        400..=499 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    };
    json!({ "error": { "code": status.as_u16(), "message": words, "status": name, "details": [] } })
}

fn api(visit: Visit<'_>, path: &str) -> Result<Response<Body>, (StatusCode, &'static str)> {
    let keys = [visit.header("x-goog-api-key"), visit.header("authorization"), visit.query("key")];
    match keys.into_iter().flatten().next() {
        None => return Err((StatusCode::FORBIDDEN, "Method doesn't allow unregistered callers.")),
        Some(key) if key.contains("invalid") => {
            return Err((StatusCode::BAD_REQUEST, "API key not valid. Please pass a valid API key."));
        }
        Some(_) => {}
    }
    if visit.method() == "GET" && path == "models" {
        let models = ["gemini-3.8-flash", "gemini-3.1-pro-preview"].map(model_info);
        return Ok(visit.json(StatusCode::OK, &json!({ "models": models })));
    }
    let Some(asked_of) = path.strip_prefix("models/") else {
        return Err((StatusCode::NOT_FOUND, "Not Found"));
    };
    let Some((model, method)) = asked_of.split_once(':') else {
        return Ok(visit.json(StatusCode::OK, &model_info(asked_of)));
    };
    if let Some(status) = demanded(model) {
        return Err((status, "the model's name asked for this error"));
    }
    let Some(request) = visit.json_body() else {
        return Err((StatusCode::BAD_REQUEST, "Invalid JSON payload received."));
    };
    match method {
        "generateContent" => {
            let parts = parts(&asked(&request));
            Ok(visit.json(StatusCode::OK, &chunk(model, &request, &parts, true)))
        }
        "streamGenerateContent" => Ok(stream(visit, model, &request)),
        "countTokens" => Ok(visit.json(StatusCode::OK, &json!({ "totalTokens": 37 }))),
        _ => Err((StatusCode::NOT_FOUND, "Not Found")),
    }
}

fn model_info(id: &str) -> Value {
    json!({
        "name": format!("models/{id}"), "version": "001", "displayName": id,
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    })
}

fn asked(request: &Value) -> Asked {
    let contents = list_at(request, "/contents");
    let parts = contents.last().map(|last| list_at(last, "/parts")).unwrap_or_default();
    let results = parts.iter().filter_map(|part| part.pointer("/functionResponse/response"));
    let tools = list_at(request, "/tools").iter().flat_map(|tool| list_at(tool, "/functionDeclarations"));
    let tool = |tool: &Value| {
        let schema = tool.get("parametersJsonSchema").or_else(|| tool.get("parameters"));
        Tool::json(str_at(tool, "/name"), schema)
    };
    let configured = |names: [&str; 2]| {
        names.iter().find_map(|name| request.pointer(&format!("/generationConfig/{name}"))).cloned()
    };
    let said = contents.iter().flat_map(|content| list_at(content, "/parts")).map(script::text);
    Asked {
        said: said.collect::<Vec<_>>().join("\n"),
        tools: tools.map(tool).collect(),
        results: results.map(Value::to_string).collect(),
        schema: configured(["responseJsonSchema", "responseSchema"]),
        turn: contents.len(),
        thinks: request.pointer("/generationConfig/thinkingConfig/includeThoughts")
            == Some(&Value::Bool(true)),
    }
}

/// What the answer consists of; calls are never split.
fn parts(asked: &Asked) -> Vec<Value> {
    let mut parts = Vec::new();
    if asked.thinks {
        parts.push(json!({ "text": script::THOUGHT, "thought": true }));
    }
    match asked.turn() {
        Turn::Say(text) => parts.extend(script::pieces(&text).map(|piece| json!({ "text": piece }))),
        Turn::Call(calls) => {
            parts.extend(script::pieces(script::PREFACE).map(|piece| json!({ "text": piece })));
            parts.extend(calls.into_iter().map(|call| {
                let args = match call.given {
                    Given::Json(args) => args,
                    Given::Text(text) => json!({ "text": text }),
                };
                json!({
                    "functionCall": { "id": call.id, "name": call.name, "args": args },
                    "thoughtSignature": "ZmFrZQ==",
                })
            }));
        }
    }
    parts
}

/// A response object with these parts; the last one says how it ended and what it cost.
fn chunk(model: &str, request: &Value, parts: &[Value], last: bool) -> Value {
    let mut candidate = json!({ "content": { "parts": parts, "role": "model" }, "index": 0 });
    if last && let Some(fields) = candidate.as_object_mut() {
        fields.insert("finishReason".to_owned(), json!("STOP"));
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 37,
            "cachedContentTokenCount": 12,
            "candidatesTokenCount": if last { 41 } else { 3 },
            "thoughtsTokenCount": 7,
            "totalTokenCount": if last { 85 } else { 47 },
        },
        "modelVersion": model,
        "responseId": format!("fake{:03}", list_at(request, "/contents").len()),
    })
}

fn stream(visit: Visit<'_>, model: &str, request: &Value) -> Response<Body> {
    let parts = parts(&asked(request));
    let last = parts.len().saturating_sub(1);
    let mut chunks: Vec<Value> = parts
        .iter()
        .enumerate()
        .map(|(n, part)| chunk(model, request, std::slice::from_ref(part), n == last))
        .collect();
    if breaks(model) {
        chunks.truncate(2);
        chunks.push(failure(StatusCode::SERVICE_UNAVAILABLE, "The model is overloaded."));
    }
    if visit.query("alt") == Some("sse") {
        return visit.events(chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n")).collect());
    }
    array(chunks)
}

/// A JSON array whose elements come one at a time.
fn array(chunks: Vec<Value>) -> Response<Body> {
    let (sender, body) = streamed();
    tokio::spawn(async move {
        let last = chunks.len().saturating_sub(1);
        for (n, chunk) in chunks.iter().enumerate() {
            let opening = if n == 0 { "[" } else { ",\r\n" };
            let closing = if n == last { "\n]\n" } else { "\n" };
            let text = Bytes::from(format!("{opening}{chunk}{closing}"));
            if sender.send(Ok(Frame::data(text))).await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    respond(StatusCode::OK, "application/json", body)
}
