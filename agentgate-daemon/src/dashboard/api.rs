//! The JSON API; the module above documents it.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Shared, change::Change, filter::Params, guard::Client, read, reply};
use crate::{
    inspect::Opened,
    model::{RecordId, Timestamp},
};

/// `GET /api/records`.
pub(super) async fn records(
    State(shared): State<Arc<Shared>>,
    _client: Client,
    params: Result<Query<Params>, QueryRejection>,
) -> Response {
    let query = match asked(params) {
        Ok(query) => query,
        Err(problem) => return *problem,
    };
    match read::listing(&shared.store, &query, false).await {
        Ok(listing) => {
            let mut answer = json!({ "records": listing.records, "next": listing.next });
            if let Some(below) = listing.unsearched {
                answer["unsearched"] = json!(below);
            }
            Json(answer).into_response()
        }
        Err(error) => unreadable(&error),
    }
}

/// `GET /api/count`.
pub(super) async fn count(
    State(shared): State<Arc<Shared>>,
    _client: Client,
    params: Result<Query<Params>, QueryRejection>,
) -> Response {
    let query = match asked(params) {
        Ok(query) => query,
        Err(problem) => return *problem,
    };
    match read::count(&shared.store, &query).await {
        Ok(count) => {
            Json(json!({ "count": count.count, "next": count.next, "unreadable": count.unreadable }))
                .into_response()
        }
        Err(error) => unreadable(&error),
    }
}

fn asked(params: Result<Query<Params>, QueryRejection>) -> Result<crate::store::Query, Box<Response>> {
    let problem = |text: &str| Box::new(reply::api_problem(StatusCode::BAD_REQUEST, text));
    match params {
        Ok(Query(params)) => params.query(Timestamp::now()).map_err(|error| problem(&error.to_string())),
        Err(rejection) => Err(problem(&rejection.body_text())),
    }
}

/// `GET /api/records/{id}`.
pub(super) async fn record(
    State(shared): State<Arc<Shared>>,
    _client: Client,
    id: Result<Path<u64>, PathRejection>,
) -> Response {
    let whole = match id {
        Ok(Path(id)) => read::whole(&shared.store, RecordId(id)).await,
        Err(_) => Ok(None),
    };
    match whole {
        Ok(Some(whole)) => Json(json!({ "record": whole.record })).into_response(),
        Ok(None) => no_record(),
        Err(error) => unreadable(&error),
    }
}

/// `POST /api/records/{id}/body`.
pub(super) async fn body(
    State(shared): State<Arc<Shared>>,
    client: Client,
    id: Result<Path<u64>, PathRejection>,
) -> Response {
    let Ok(Path(id)) = id else { return no_record() };
    let id = RecordId(id);
    let whole = match read::whole(&shared.store, id).await {
        Ok(Some(whole)) => whole,
        Ok(None) => return no_record(),
        Err(error) => return unreadable(&error),
    };
    if let Err(error) = shared.seeing_bodies(id, &client.who).await {
        let text = format!("not shown, since it cannot be recorded: {error}");
        return reply::api_problem(StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    match read::bodies(&shared.store, &whole.record).await {
        Ok(bodies) => Json(json!({
            "request_body": encoded(&bodies.request.raw),
            "request_decoded": decoded(bodies.request.opened.as_ref()),
            "response_body": encoded(&bodies.response.raw),
            "response_decoded": decoded(bodies.response.opened.as_ref()),
        }))
        .into_response(),
        Err(error) => unreadable(&error),
    }
}

fn no_record() -> Response {
    reply::api_problem(StatusCode::NOT_FOUND, "no record with this number")
}

/// `GET /api/status`.
pub(super) async fn status(State(shared): State<Arc<Shared>>, _client: Client) -> Response {
    Json(json!({
        "policy": shared.policy.status(),
        "audit": shared.audit.health(),
        "gate": (shared.status)(),
    }))
    .into_response()
}

/// `POST /api/host`.
pub(super) async fn host(
    State(shared): State<Arc<Shared>>,
    client: Client,
    change: Result<Json<Change>, JsonRejection>,
) -> Response {
    let change = match change {
        Ok(Json(change)) => change,
        Err(rejection) => return reply::api_problem(rejection.status(), &rejection.body_text()),
    };
    match shared.change(change, &client.who).await {
        Ok(changed) => Json(json!({ "changed": changed })).into_response(),
        Err(error) => reply::api_problem(error.status(), &error.to_string()),
    }
}

fn unreadable(error: &read::ReadError) -> Response {
    tracing::error!(%error, "dashboard API");
    reply::api_problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

/// A body of which a content coding was undone, and how far that went.
fn decoded(opened: Option<&Opened>) -> Value {
    opened.map_or(
        Value::Null,
        |opened| json!({ "body": encoded(&opened.bytes), "inspected": opened.inspected }),
    )
}

/// A captured body: text where it is UTF-8, else hexadecimal.
fn encoded(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => {
            let hex = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            json!({ "hex": hex })
        }
    }
}
