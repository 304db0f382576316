//! `api.openai.com`: who may ask, which models there are, which API a path belongs to, and errors.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Visit, demanded, openai_chat, openai_responses, str_at};
use crate::body::Body;

/// The answer, where the path is one of the API's.
pub(super) fn answer(visit: Visit<'_>) -> Option<Response<Body>> {
    if !visit.path().starts_with("/v1/") {
        return None;
    }
    let mut response = api(visit).unwrap_or_else(|(status, words)| refuse(visit, status, words));
    let headers = response.headers_mut();
    headers.insert("x-request-id", http::HeaderValue::from_static("req_fake_0001"));
    headers.insert("openai-version", http::HeaderValue::from_static("2020-10-01"));
    Some(response)
}

fn api(visit: Visit<'_>) -> Result<Response<Body>, (StatusCode, &'static str)> {
    match visit.header("authorization") {
        None => return Err((StatusCode::UNAUTHORIZED, "You didn't provide an API key.")),
        Some(key) if key.contains("invalid") => {
            return Err((StatusCode::UNAUTHORIZED, "Incorrect API key provided."));
        }
        Some(_) => {}
    }
    match (visit.method(), visit.path()) {
        ("GET", "/v1/models") => {
            let models = ["gpt-6.1-sol", "gpt-5.6", "gpt-4o"].map(model_info);
            return Ok(visit.json(StatusCode::OK, &json!({ "object": "list", "data": models })));
        }
        ("GET", path) if path.starts_with("/v1/models/") => {
            return Ok(visit.json(StatusCode::OK, &model_info(path.trim_start_matches("/v1/models/"))));
        }
        ("POST", "/v1/chat/completions" | "/v1/responses") => {}
        _ => return Err((StatusCode::NOT_FOUND, "Invalid URL")),
    }
    let Some(request) = visit.json_body() else {
        return Err((StatusCode::BAD_REQUEST, "We could not parse the JSON body of your request."));
    };
    let Some(model) = request.get("model").and_then(Value::as_str) else {
        return Err((StatusCode::BAD_REQUEST, "you must provide a model parameter"));
    };
    if let Some(status) = demanded(model) {
        return Err((status, "the model's name asked for this error"));
    }
    Ok(match visit.path() {
        "/v1/responses" => openai_responses::answer(visit, &request),
        _ => openai_chat::answer(visit, &request),
    })
}

fn model_info(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 1_700_000_000, "owned_by": "fake-internet" })
}

/// An error as every one of these APIs has it.
pub(super) fn refuse(visit: Visit<'_>, status: StatusCode, words: &str) -> Response<Body> {
    let mut response = visit.json(status, &failure(status, words));
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
    }
    response
}

/// What it says.
pub(super) fn failure(status: StatusCode, words: &str) -> Value {
    let (kind, code) = match status.as_u16() {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        404 => ("invalid_request_error", json!("model_not_found")),
        429 => ("requests", json!("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", Value::Null),
        _ => ("server_error", Value::Null),
    };
    json!({ "error": { "message": words, "type": kind, "param": null, "code": code } })
}

/// The schema that an answer must keep to, at the two places where it may stand.
pub(super) fn schema(format: Option<&Value>) -> Option<Value> {
    let format = format?;
    if str_at(format, "/type") != "json_schema" {
        return None;
    }
    format.pointer("/json_schema/schema").or_else(|| format.get("schema")).cloned()
}
