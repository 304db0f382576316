//! Responses: pages, short error pages, JSON errors, assets.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use maud::Markup;

use super::{layout, pages::message};

/// A page.
pub(super) fn page(status: StatusCode, markup: Markup) -> Response {
    (status, Html(markup.into_string())).into_response()
}

/// A short page for what cannot be shown; it tells nothing of the gate, so it needs no login.
pub(super) fn problem(status: StatusCode, text: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    page(status, layout::bare(title, &message::message(title, text)))
}

/// The page for a form that is not one of the session's own.
pub(super) fn foreign_form() -> Response {
    let text = "This form does not belong to your session. Go back, reload, and try again.";
    problem(StatusCode::FORBIDDEN, text)
}

/// An error of the API: `{"error": text}`.
pub(super) fn api_problem(status: StatusCode, text: &str) -> Response {
    let mut response = (status, axum::Json(serde_json::json!({ "error": text }))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A file that is part of the program.
pub(super) fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
