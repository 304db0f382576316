//! MCP servers over Streamable HTTP, of both eras: `/mcp/legacy` with sessions and a stream of the server's
//! own (2025-11-25), `/mcp/modern` without either (2026-07-28). Two tools: one that answers in JSON, one
//! that tells of its progress first.

use std::time::Duration;

use http::{HeaderValue, header};
use hyper::{Response, StatusCode, body::Bytes, body::Frame};
use serde_json::{Value, json};

use crate::{
    body::{Body, streamed, whole},
    origin::Arrival,
    routes::{Received, event_stream, respond},
};

const SESSION: &str = "fake-session-0001";
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";
/// Between two events.
const PAUSE: Duration = Duration::from_millis(20);

/// The answer, where the path is a server's.
pub(crate) fn answer(arrival: &Arrival, id: u64, received: &Received) -> Option<Response<Body>> {
    let modern = match received.path.as_str() {
        "/mcp/modern" => true,
        "/mcp/legacy" => false,
        _ => return None,
    };
    let in_session = received.headers.get("mcp-session-id").is_some_and(|value| value == SESSION);
    Some(match received.method.as_str() {
        "POST" => {
            let Ok(message) = serde_json::from_slice::<Value>(&received.body) else {
                return Some(failed(StatusCode::BAD_REQUEST, &Value::Null, -32700, "the body is not JSON"));
            };
            let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
            let known = if modern { method != "initialize" } else { in_session || method == "initialize" };
            if known { judge(arrival, id, &message, modern) } else { refused(&message, modern) }
        }
        "GET" if !modern && in_session => own_stream(),
        "DELETE" if !modern && in_session => empty(StatusCode::OK),
        _ => empty(StatusCode::METHOD_NOT_ALLOWED),
    })
}

fn refused(message: &Value, modern: bool) -> Response<Body> {
    let id = message.get("id").unwrap_or(&Value::Null);
    let (code, words) = if modern { (-32601, "no such method") } else { (-32000, "no session of that id") };
    failed(StatusCode::BAD_REQUEST, id, code, words)
}

fn failed(status: StatusCode, id: &Value, code: i32, words: &str) -> Response<Body> {
    let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": words } });
    respond(status, "application/json", whole(error.to_string()))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Vec::new()));
    *response.status_mut() = status;
    response
}

fn judge(arrival: &Arrival, number: u64, message: &Value, modern: bool) -> Response<Body> {
    let Some(id) = message.get("id") else { return empty(StatusCode::ACCEPTED) };
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let whole_result = |result: Value| {
        let mut result = result;
        if modern && let Some(fields) = result.as_object_mut() {
            fields.insert("resultType".to_owned(), json!("complete"));
        }
        json!({ "jsonrpc": "2.0", "id": id, "result": result })
    };
    let info = json!({ "name": "fake-tools", "version": "1.0.0" });
    let result = match (text("/method"), text("/params/name")) {
        ("initialize", _) => json!({
            "protocolVersion": LEGACY, "capabilities": { "tools": {} }, "serverInfo": info,
        }),
        ("server/discover", _) => json!({
            "supportedVersions": [MODERN], "capabilities": { "tools": {} }, "ttlMs": 0,
            "cacheScope": "private", "_meta": { "io.modelcontextprotocol/serverInfo": info },
        }),
        ("ping", _) => json!({}),
        ("tools/list", _) => tools(modern),
        ("tools/call", "add") => {
            let number = |pointer: &str| message.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
            let sum = number("/params/arguments/a") + number("/params/arguments/b");
            json!({ "content": [{ "type": "text", "text": sum.to_string() }], "isError": false })
        }
        ("tools/call", "count") => {
            let result = json!({ "content": [{ "type": "text", "text": "counted" }], "isError": false });
            let token = message.pointer("/params/_meta/progressToken");
            let mut events: Vec<Value> = Vec::new();
            if let Some(token) = token {
                events.extend((1..=3).map(|done| {
                    json!({
                        "jsonrpc": "2.0", "method": "notifications/progress",
                        "params": { "progressToken": token, "progress": done, "total": 3 },
                    })
                }));
            }
            events.push(whole_result(result));
            let events = events.iter().map(|event| format!("event: message\ndata: {event}\n\n")).collect();
            return event_stream(arrival.clone(), number, events, PAUSE);
        }
        ("tools/call", _) => {
            return failed(StatusCode::OK, id, -32602, "no tool of that name");
        }
        _ => return failed(StatusCode::OK, id, -32601, "no such method"),
    };
    let begins = text("/method") == "initialize";
    let mut response = respond(StatusCode::OK, "application/json", whole(whole_result(result).to_string()));
    if begins {
        response.headers_mut().insert("mcp-session-id", HeaderValue::from_static(SESSION));
    }
    response
}

fn tools(modern: bool) -> Value {
    let number = json!({ "type": "integer" });
    let mut tools = json!({ "tools": [
        {
            "name": "add", "description": "Adds two numbers",
            "inputSchema": {
                "type": "object", "properties": { "a": number, "b": number }, "required": ["a", "b"],
            },
        },
        { "name": "count", "description": "Counts aloud", "inputSchema": { "type": "object" } },
    ] });
    if modern && let Some(fields) = tools.as_object_mut() {
        fields.insert("ttlMs".to_owned(), json!(0));
        fields.insert("cacheScope".to_owned(), json!("private"));
    }
    tools
}

/// What the server has to say of its own: one message, and comments until the client leaves.
fn own_stream() -> Response<Body> {
    let (sender, body) = streamed();
    tokio::spawn(async move {
        let said = json!({
            "jsonrpc": "2.0", "method": "notifications/message",
            "params": { "level": "info", "data": "the server has something to say" },
        });
        let event = Bytes::from(format!("event: message\ndata: {said}\n\n"));
        let mut going = sender.send(Ok(Frame::data(event))).await.is_ok();
        while going {
            // Only who speaks learns that nobody listens any more.
            tokio::time::sleep(PAUSE).await;
            going = sender.send(Ok(Frame::data(Bytes::from_static(b": still here\n\n")))).await.is_ok();
        }
    });
    let mut response = respond(StatusCode::OK, "text/event-stream", body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
