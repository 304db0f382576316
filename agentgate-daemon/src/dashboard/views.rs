//! The handlers of the pages: read, then render.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Form,
    extract::{
        Path, Query, State,
        rejection::{FormRejection, PathRejection, QueryRejection},
    },
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::Markup;
use serde::Deserialize;

use super::{
    Shared,
    auth::{Entrance, Refused},
    change,
    filter::Params,
    guard::{self, Called, Viewer},
    layout::{self, Standing},
    pages::{detail::Detail, list::List, message},
    read::{self, Bodies, Whole},
    reply,
};
use crate::{
    filter::Sort,
    model::{Kind, RecordId, Timestamp},
};

impl Shared {
    /// What every page says of the gate's state.
    fn standing(&self) -> Standing {
        let status = self.policy.status();
        let health = self.audit.health();
        Standing {
            mode: status.summary.mode,
            digest: status.summary.digest.chars().take(12).collect(),
            policy_errors: status.errors,
            audit_error: health.error,
        }
    }

    fn page(&self, status: StatusCode, title: &str, viewer: &Viewer, main: &Markup) -> Response {
        reply::page(status, layout::page(title, &self.standing(), &viewer.session.csrf, main))
    }

    /// The page for a store that cannot be read.
    fn unreadable(&self, viewer: &Viewer, error: &read::ReadError) -> Response {
        tracing::error!(%error, "dashboard");
        let main = message::message("The audit log cannot be read", &error.to_string());
        self.page(StatusCode::SERVICE_UNAVAILABLE, "Error", viewer, &main)
    }

    /// The record of an address, or the page that says why there is none.
    async fn find(&self, viewer: &Viewer, id: Result<Path<u64>, PathRejection>) -> Result<Whole, Response> {
        let found = match id {
            Ok(Path(id)) => read::whole(&self.store, RecordId(id)).await,
            Err(_) => Ok(None),
        };
        match found {
            Ok(Some(whole)) => Ok(whole),
            Ok(None) => {
                let text = "The audit log holds no record with this number.";
                let main = message::message("No such record", text);
                Err(self.page(StatusCode::NOT_FOUND, "Not found", viewer, &main))
            }
            Err(error) => Err(self.unreadable(viewer, &error)),
        }
    }

    /// The page of a record; without `bodies` they stay hidden.
    fn detail(
        &self,
        viewer: &Viewer,
        whole: &Whole,
        bodies: Option<&Bodies>,
        notice: Option<&str>,
    ) -> Response {
        let lists = match (&whole.record.authority, whole.record.kind) {
            // The kernel refuses before any list is looked at.
            (None, _) | (Some(_), Kind::Kernel) => Vec::new(),
            (Some(authority), Kind::Flow | Kind::Exchange | Kind::Dns | Kind::Guard | Kind::Control) => {
                change::standings(&self.policy.current(), authority)
            }
        };
        let detail = Detail {
            record: &whole.record,
            bodies,
            lists: &lists,
            children: &whole.children,
            more_children: whole.more_children,
            csrf: &viewer.session.csrf,
            notice,
            now: Timestamp::now(),
        };
        self.page(StatusCode::OK, &detail.title(), viewer, &detail.render())
    }
}

/// `GET /`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    viewer: Viewer,
    params: Result<Query<Params>, QueryRejection>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(rejection) => {
            let main = message::message("The filter cannot be read", &rejection.body_text());
            return shared.page(StatusCode::BAD_REQUEST, "Error", &viewer, &main);
        }
    };
    let now = Timestamp::now();
    let mut sort = Sort::default();
    let (listing, error) = match params.query(now) {
        Ok(query) => match read::listing(&shared.store, &query, true).await {
            Ok(listing) => {
                sort = query.sort();
                (listing, None)
            }
            Err(error) => return shared.unreadable(&viewer, &error),
        },
        Err(error) => (read::Listing::default(), Some(error)),
    };
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let list = List {
        params: &params,
        error,
        records: &listing.records,
        next: listing.next,
        partial: listing.partial,
        unsearched: listing.unsearched,
        count: listing.count,
        signed: listing.signed,
        sort,
        listen: shared.listen,
        now,
    };
    shared.page(status, "Traffic", &viewer, &list.render())
}

/// What the address of a detail may carry.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DetailParams {
    /// What the last change did: see [`change::notice`].
    changed: String,
}

/// `GET /records/{id}`.
pub(super) async fn detail(
    State(shared): State<Arc<Shared>>,
    viewer: Viewer,
    id: Result<Path<u64>, PathRejection>,
    params: Result<Query<DetailParams>, QueryRejection>,
) -> Response {
    let params = params.map(|Query(params)| params).unwrap_or_default();
    match shared.find(&viewer, id).await {
        Ok(whole) => shared.detail(&viewer, &whole, None, change::notice(&params.changed)),
        Err(page) => page,
    }
}

/// `GET /records/{id}/body`: where a browser asks again for what it was shown once.
pub(super) async fn to_detail(id: Result<Path<u64>, PathRejection>) -> Redirect {
    Redirect::to(&id.map_or_else(|_| "/".to_owned(), |Path(id)| format!("/records/{id}")))
}

/// A form that carries nothing but the proof that it is the session's own.
#[derive(Debug, Deserialize)]
pub(super) struct BareForm {
    csrf: String,
}

/// `POST /records/{id}/body`: the page of the record with its bodies, once that is recorded.
pub(super) async fn bodies(
    State(shared): State<Arc<Shared>>,
    viewer: Viewer,
    id: Result<Path<u64>, PathRejection>,
    headers: HeaderMap,
    form: Result<Form<BareForm>, FormRejection>,
) -> Response {
    match form {
        Ok(Form(form)) if viewer.sent(&headers, &form.csrf) => {}
        Ok(_) => return reply::foreign_form(),
        Err(rejection) => return reply::problem(rejection.status(), &rejection.body_text()),
    }
    let whole = match shared.find(&viewer, id).await {
        Ok(whole) => whole,
        Err(page) => return page,
    };
    let id = whole.record.id;
    if let Err(error) = shared.seeing_bodies(id, &viewer.who()).await {
        let text = format!("The bodies are not shown, because that cannot be recorded: {error}.");
        return reply::problem(StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    match read::bodies(&shared.store, &whole.record).await {
        Ok(bodies) => shared.detail(&viewer, &whole, Some(&bodies), None),
        Err(error) => shared.unreadable(&viewer, &error),
    }
}

/// What logs in: the token in the form, or a one-time code in the address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoginParams {
    token: String,
}

/// What the address of the login page may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CodeParams {
    code: String,
}

/// `GET /login`: the form, or with `?code=` the login itself.
pub(super) async fn login_page(
    State(shared): State<Arc<Shared>>,
    params: Result<Query<CodeParams>, QueryRejection>,
    Extension(called): Extension<Called>,
    extensions: Extensions,
) -> Response {
    match params {
        Ok(Query(CodeParams { code })) if !code.is_empty() => {
            let entrance = shared.door.login_once(&code, Instant::now());
            admit(
                &shared,
                entrance,
                "That link was used already or is older than two minutes.",
                &called,
                &extensions,
            )
            .await
        }
        Ok(_) => reply::page(StatusCode::OK, layout::bare("Log in", &message::login(None))),
        Err(rejection) => reply::problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

/// `POST /login`.
pub(super) async fn login(
    State(shared): State<Arc<Shared>>,
    Extension(called): Extension<Called>,
    headers: HeaderMap,
    extensions: Extensions,
    form: Result<Form<LoginParams>, FormRejection>,
) -> Response {
    if !guard::same_origin(&headers) {
        return reply::problem(StatusCode::FORBIDDEN, "This form was sent from another site.");
    }
    match form {
        Ok(Form(LoginParams { token })) => {
            let entrance = shared.door.login(token.trim(), Instant::now());
            admit(&shared, entrance, "That is not the token.", &called, &extensions).await
        }
        Err(rejection) => reply::problem(rejection.status(), &rejection.body_text()),
    }
}

/// Sends a browser that has logged in on to its session's host, and any other back to the form.
async fn admit(
    shared: &Shared,
    entrance: Result<Entrance, Refused>,
    wrong: &str,
    called: &Called,
    extensions: &Extensions,
) -> Response {
    let peer = guard::peer(extensions);
    match entrance {
        Ok(Entrance { name, ticket, number }) => {
            guard::keep_seat(extensions);
            shared.logged_in(number, peer).await;
            let port = called.port.map(|port| format!(":{port}")).unwrap_or_default();
            let host = format!("{name}.localhost{port}");
            let to = format!("http://{host}/enter?ticket={ticket}");
            onward(&to, &message::onward(&host, &to))
        }
        Err(refused) => {
            let (status, retry) = shared.refused(&refused, peer).await;
            let text = match refused {
                Refused::Wrong { .. } => wrong,
                Refused::TooMany { .. } => "Too many failed logins. Wait a minute and try again.",
                Refused::NoRandomness => "No session can be made: the system gives no randomness.",
            };
            let mut response = reply::page(status, layout::bare("Log in", &message::login(Some(text))));
            if let Some(seconds) = retry {
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            response
        }
    }
}

/// What the address under the session's name holds at first.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TicketParams {
    ticket: String,
}

/// `GET /enter?ticket=`, on the session's own host: sets the cookie there.
pub(super) async fn enter(
    State(shared): State<Arc<Shared>>,
    params: Result<Query<TicketParams>, QueryRejection>,
    Extension(called): Extension<Called>,
) -> Response {
    let Query(TicketParams { ticket }) = params.unwrap_or_default();
    let entered = called.session.and_then(|name| shared.door.enter(&name, &ticket, Instant::now()));
    match entered {
        Some(id) => with_cookie(onward("/", &message::entered()), Some(&id)),
        None => {
            let text = "That link was used already or is older than a minute.";
            reply::page(StatusCode::UNAUTHORIZED, layout::bare("Log in", &message::login(Some(text))))
        }
    }
}

/// A page that goes on to `to` by itself. Not a redirect: the next request then comes from this page,
/// not from where the browser came from, so that a `SameSite=Strict` cookie goes along; and
/// `form-action 'self'` stops a redirect of the form to another host.
fn onward(to: &str, main: &Markup) -> Response {
    let mut response = reply::page(StatusCode::OK, layout::bare("Logged in", main));
    // Hexadecimal and our own punctuation, so it is always a valid header value.
    if let Ok(value) = HeaderValue::from_str(&format!("0; url={to}")) {
        response.headers_mut().insert(header::REFRESH, value);
    }
    response
}

fn with_cookie(mut response: Response, id: Option<&str>) -> Response {
    // A session id is hexadecimal, so it is always a valid header value.
    if let Ok(value) = HeaderValue::from_str(&guard::set_cookie(id)) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// `POST /logout`.
pub(super) async fn logout(
    State(shared): State<Arc<Shared>>,
    viewer: Viewer,
    headers: HeaderMap,
    form: Result<Form<BareForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return reply::problem(StatusCode::BAD_REQUEST, "The form is incomplete.");
    };
    if !viewer.sent(&headers, &form.csrf) {
        return reply::foreign_form();
    }
    shared.door.logout(viewer.session.number);
    with_cookie(Redirect::to("/login").into_response(), None)
}
