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

use super::{
    Shared,
    change::Change,
    filter::Params,
    guard::Client,
    read::{self, ReadError, Whole},
    reply,
};
use crate::{
    inspect::Opened,
    model::{RecordId, Timestamp},
    store::Count,
};

/// What is answered instead, as `{"error": text}`.
#[derive(Debug)]
pub(super) struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        reply::api_problem(self.0, &self.1)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "dashboard API");
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

type Answer = Result<Json<Value>, Problem>;

/// `GET /api/records`.
pub(super) async fn records(
    State(shared): State<Arc<Shared>>,
    _client: Client,
    params: Result<Query<Params>, QueryRejection>,
) -> Answer {
    let listing = read::listing(&shared.store, &asked(params)?, false).await?;
    let mut answer = json!({ "records": listing.records, "next": listing.next });
    if let Some(below) = listing.unsearched {
        answer["unsearched"] = json!(below);
    }
    Ok(Json(answer))
}

/// `GET /api/count`.
pub(super) async fn count(
    State(shared): State<Arc<Shared>>,
    _client: Client,
    params: Result<Query<Params>, QueryRejection>,
) -> Answer {
    let Count { count, next, unreadable } = read::count(&shared.store, &asked(params)?).await?;
    Ok(Json(json!({ "count": count, "next": next, "unreadable": unreadable })))
}

fn asked(params: Result<Query<Params>, QueryRejection>) -> Result<crate::store::Query, Problem> {
    let Query(params) =
        params.map_err(|rejection| Problem(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    params.query(Timestamp::now()).map_err(|error| Problem(StatusCode::BAD_REQUEST, error.to_string()))
}

/// `GET /api/records/{id}`.
pub(super) async fn record(
    State(shared): State<Arc<Shared>>,
    _client: Client,
    id: Result<Path<u64>, PathRejection>,
) -> Answer {
    let whole = find(&shared, id).await?;
    Ok(Json(json!({ "record": whole.record })))
}

/// `POST /api/records/{id}/body`.
pub(super) async fn body(
    State(shared): State<Arc<Shared>>,
    client: Client,
    id: Result<Path<u64>, PathRejection>,
) -> Answer {
    let whole = find(&shared, id).await?;
    shared.seeing_bodies(whole.record.id, &client.who).await.map_err(|error| {
        let text = format!("not shown, since it cannot be recorded: {error}");
        Problem(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let bodies = read::bodies(&shared.store, &whole.record).await?;
    Ok(Json(json!({
        "request_body": encoded(&bodies.request.raw),
        "request_decoded": decoded(bodies.request.opened.as_ref()),
        "response_body": encoded(&bodies.response.raw),
        "response_decoded": decoded(bodies.response.opened.as_ref()),
    })))
}

async fn find(shared: &Shared, id: Result<Path<u64>, PathRejection>) -> Result<Whole, Problem> {
    let whole = match id {
        Ok(Path(id)) => read::whole(&shared.store, RecordId(id)).await?,
        Err(_) => None,
    };
    whole.ok_or_else(|| Problem(StatusCode::NOT_FOUND, "no record with this number".to_owned()))
}

/// `GET /api/status`.
pub(super) async fn status(State(shared): State<Arc<Shared>>, _client: Client) -> Json<Value> {
    Json(json!({
        "policy": shared.policy.status(),
        "audit": shared.audit.health(),
        "gate": (shared.status)(),
    }))
}

/// `POST /api/host`.
pub(super) async fn host(
    State(shared): State<Arc<Shared>>,
    client: Client,
    change: Result<Json<Change>, JsonRejection>,
) -> Answer {
    let Json(change) = change.map_err(|rejection| Problem(rejection.status(), rejection.body_text()))?;
    let changed = shared.change(change, &client.who).await;
    let changed = changed.map_err(|error| Problem(error.status(), error.to_string()))?;
    Ok(Json(json!({ "changed": changed })))
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
