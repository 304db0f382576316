//! What agent command lines ask of others than their provider: registries, lists of models, telemetry. Each
//! gets the least that it takes as an answer.

use hyper::{Response, StatusCode};
use serde_json::json;

use super::Visit;
use crate::{body::Body, world};

/// The answer, at the names that have one.
pub(super) fn answer(visit: Visit<'_>) -> Option<Response<Body>> {
    let site = visit.arrival.origin.site;
    match site {
        world::NPM => Some(package(visit)),
        _ if world::TELEMETRY.contains(&site) => Some(visit.nothing()),
        _ => None,
    }
}

/// What the npm registry says of any package: there is one version.
fn package(visit: Visit<'_>) -> Response<Body> {
    let name = visit.path().trim_start_matches('/').replace("%2f", "/").replace("%2F", "/");
    let name = name.trim_end_matches("/latest");
    let version = json!({ "name": name, "version": "0.0.1", "dist": {} });
    if visit.path().ends_with("/latest") {
        return visit.json(StatusCode::OK, &version);
    }
    let document =
        json!({ "name": name, "dist-tags": { "latest": "0.0.1" }, "versions": { "0.0.1": version } });
    visit.json(StatusCode::OK, &document)
}
