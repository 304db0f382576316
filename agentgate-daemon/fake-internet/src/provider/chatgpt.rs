//! `chatgpt.com` as Codex uses it when a person has logged in: the Responses API at another path, and what
//! it asks for beside it.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Visit, openai, openai_responses, str_at};
use crate::body::Body;

/// The answer, where the path is one of the API's.
pub(super) fn answer(visit: Visit<'_>) -> Option<Response<Body>> {
    let path = visit.path().strip_prefix("/backend-api/")?;
    Some(match (visit.method(), path) {
        ("POST", "codex/responses") => match (visit.header("authorization"), visit.json_body()) {
            (None, _) => openai::refuse(visit, StatusCode::UNAUTHORIZED, "no token"),
            (Some(_), None) => openai::refuse(visit, StatusCode::BAD_REQUEST, "the body is not JSON"),
            (Some(_), Some(request)) => openai_responses::answer(visit, &request),
        },
        ("GET", "wham/accounts/check") => visit.json(StatusCode::OK, &accounts(visit)),
        ("GET", "codex/models") => visit.json(StatusCode::OK, &json!({ "models": [] })),
        ("POST", "ps/mcp") => mcp(visit),
        ("GET", "wham/settings/user") => visit.nothing(),
        ("POST", "codex/analytics-events/events") => {
            visit.json(StatusCode::ACCEPTED, &json!({ "status": "ok" }))
        }
        _ => openai::refuse(visit, StatusCode::NOT_FOUND, "no such endpoint"),
    })
}

/// The asking account, free to use any origin.
fn accounts(visit: Visit<'_>) -> Value {
    let id = visit.header("chatgpt-account-id").unwrap_or("account_fake");
    json!({ "accounts": [{ "id": id, "workspace_backend_origin": "NO_CONSTRAINT",
        "account_routing_override": "NO_CONSTRAINT",
    }] })
}

/// A server of tools that has none.
fn mcp(visit: Visit<'_>) -> Response<Body> {
    let request = visit.json_body().unwrap_or_default();
    let result = match str_at(&request, "/method") {
        "initialize" => json!({
            "protocolVersion": request.pointer("/params/protocolVersion"),
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "fake-internet", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [] }),
        _ if request.get("id").is_none() => return visit.empty(StatusCode::ACCEPTED),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            let answer = json!({ "jsonrpc": "2.0", "id": request.get("id"), "error": error });
            return visit.json(StatusCode::OK, &answer);
        }
    };
    visit.json(StatusCode::OK, &json!({ "jsonrpc": "2.0", "id": request.get("id"), "result": result }))
}
