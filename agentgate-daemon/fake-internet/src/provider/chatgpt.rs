//! `chatgpt.com` as Codex uses it when a person has logged in: the Responses API at another path, and what
//! it asks for beside it.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Visit, openai, openai_responses};
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
        ("POST", "codex/analytics-events/events") => {
            visit.json(StatusCode::ACCEPTED, &json!({ "status": "ok" }))
        }
        _ => openai::refuse(visit, StatusCode::NOT_FOUND, "no such endpoint"),
    })
}

/// The asking account, free to use any origin.
fn accounts(visit: Visit<'_>) -> Value {
    let id = visit.header("chatgpt-account-id").unwrap_or("account_fake");
    json!({ "accounts": [{ "id": id, "workspace_backend_origin": "NO_CONSTRAINT" }] })
}
