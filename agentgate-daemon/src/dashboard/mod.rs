//! The dashboard: what passed the gate, why, and the buttons that change the lists. Served on loopback
//! only; the kernel refuses its port to guarded cgroups.
//!
//! Every page is rendered here and works without scripts; of the two, one keeps the list current and the other
//! helps to type a filter.
//! Whatever an agent or an origin chose is escaped by maud, and control characters are made visible
//! (`show::visible`).
//!
//! # Access
//! `GET /login?code=CODE` (printed by `agentctl dashboard`, good once and for two minutes) or the token in
//! the form at `/login` opens a session: an HttpOnly, SameSite=Strict cookie, kept in memory for twelve
//! hours, under a host name of its own below `localhost` (`auth` says why). Requests must name
//! 127.0.0.1, localhost, \[::1\] or such a host in `Host` (any port, for tunnels), else they get 421.
//! Every change asks for the session's CSRF token, and for our own origin where a browser names one. A
//! change is recorded before it is made, with who asked for it; where it cannot be recorded it is not
//! made. Captured bodies may hold secrets, so they are shown only when asked for, under the same rule.
//! Logins are recorded, and failed ones from the second of a minute on.
//!
//! # JSON API
//! `Authorization: Bearer TOKEN`; reading works with a browser's session too. Errors are
//! `{"error": text}` with status 400, 401, 404, 429 or 503.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /api/records` | `{"records": […], "next": cursor or null}`, newest first or as `sort:` in `q` says. Parameters as on the page, all optional: `q` (a filter: `docs/queries.md`), `limit` (100; at most 1000), `before` (the `next` of the page before); and for parts of a filter `host` (part of the name, or a glob), `verdict`, `session`, `kind`, `since` (`15m`, `24h`, `7d` or RFC 3339), `text`. `unsearched` where a list by duration or bytes lacks the records below that id |
//! | `GET /api/count` | `{"count": n, "next": cursor or null, "unreadable": n}` of the same parameters; where `next` is not null, the rest is counted by asking again with it as `before` |
//! | `GET /api/records/ID` | `{"record": …}`, without bodies |
//! | `POST /api/records/ID/body` | `{"request_body": B, "request_decoded": D, "response_body": B, "response_decoded": D}`, recorded; B is null, `{"text": …}` or, where it is not UTF-8, `{"hex": …}`; D is null, or where the body was in a content coding `{"body": B, "inspected": …}`. Of a WebSocket each body is its side's messages, one JSON object a line. Bearer only |
//! | `GET /api/status` | `{"policy": …, "audit": …, "gate": …}` |
//! | `POST /api/host` | body `{"list": "allow"\|"deny"\|"passthrough", "host": PATTERN, "remove": false}`, answer `{"changed": bool}`. Bearer only |

mod api;
mod auth;
mod change;
mod codes;
mod filter;
mod guard;
mod journal;
mod layout;
mod live;
mod pages;
mod read;
mod reply;
mod seats;
mod serve;
mod show;
mod token;
mod views;

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware,
    response::Response,
    routing::{get, post},
};
use tokio::sync::{Semaphore, watch};

use crate::{audit::Audit, reload::PolicyHandle, store::Store};

pub use codes::LoginCodes;
pub use serve::serve;
pub use token::{Token, TokenError};

/// Live feeds at once.
const MAX_LIVE: usize = 32;

/// Tells how the gate does, for `/api/status`; called for each request, so it must not block.
pub type StatusFn = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the dashboard shows and steers.
#[derive(Clone)]
pub struct DashboardContext {
    pub policy: PolicyHandle,
    pub audit: Audit,
    pub store: Arc<Store>,
    pub token: Token,
    /// Shared with whoever prints the address.
    pub codes: LoginCodes,
    /// The address that is listened on, for the log.
    pub listen: SocketAddr,
    pub status: StatusFn,
}

impl fmt::Debug for DashboardContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashboardContext").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// What the handlers share.
struct Shared {
    policy: PolicyHandle,
    audit: Audit,
    store: Arc<Store>,
    listen: SocketAddr,
    status: StatusFn,
    door: auth::Door,
    live: Arc<Semaphore>,
    /// Becomes true when the server stops: live feeds end then.
    stop: watch::Sender<bool>,
}

/// The dashboard as a router, for one listener. Serve it with [`serve`], which sets deadlines and
/// tells each request its client's address.
pub fn router(context: DashboardContext) -> Router {
    routes(shared(context))
}

fn shared(context: DashboardContext) -> Arc<Shared> {
    let DashboardContext { policy, audit, store, token, codes, listen, status } = context;
    Arc::new(Shared {
        policy,
        audit,
        store,
        listen,
        status,
        door: auth::Door::new(token, codes),
        live: Arc::new(Semaphore::new(MAX_LIVE)),
        stop: watch::Sender::new(false),
    })
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(views::list))
        .route("/records/{id}", get(views::detail))
        .route("/records/{id}/body", get(views::to_detail).post(views::bodies))
        .route("/host", post(change::form))
        .route("/login", get(views::login_page).post(views::login))
        .route("/enter", get(views::enter))
        .route("/logout", post(views::logout))
        .route("/live", get(live::live))
        .route("/api/records", get(api::records))
        .route("/api/count", get(api::count))
        .route("/api/records/{id}", get(api::record))
        .route("/api/records/{id}/body", post(api::body))
        .route("/api/status", get(api::status))
        .route("/api/host", post(api::host))
        .route("/static/app.css", get(app_css))
        .route("/static/live.js", get(live_js))
        .route("/static/page.js", get(page_js))
        .route("/static/mark.svg", get(mark_svg))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), guard::loopback_only))
        .layer(middleware::from_fn(guard::harden))
        .with_state(shared)
}

async fn app_css() -> Response {
    reply::asset("text/css; charset=utf-8", include_str!("assets/app.css"))
}

async fn live_js() -> Response {
    reply::asset("text/javascript; charset=utf-8", include_str!("assets/live.js"))
}

async fn page_js() -> Response {
    reply::asset("text/javascript; charset=utf-8", include_str!("assets/page.js"))
}

async fn mark_svg() -> Response {
    reply::asset("image/svg+xml", include_str!("assets/mark.svg"))
}

async fn not_found(request: Request) -> Response {
    either(&request, StatusCode::NOT_FOUND, "There is no such page.")
}

async fn method_not_allowed(request: Request) -> Response {
    either(&request, StatusCode::METHOD_NOT_ALLOWED, "That cannot be done here.")
}

fn either(request: &Request, status: StatusCode, text: &str) -> Response {
    if request.uri().path().starts_with("/api/") {
        reply::api_problem(status, text)
    } else {
        reply::problem(status, text)
    }
}
