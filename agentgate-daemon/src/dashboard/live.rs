//! The live feed: `text/event-stream` with rows of the list as the server renders them.
//!
//! Events: `page` holds all rows of the newest page, sent first and again whenever records were
//! missed; `row` holds rows that came or changed since; `end` says that the session is over.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::{
    Shared,
    filter::{Params, is_live},
    guard::Viewer,
    pages::row::{Within, row},
    read, reply,
};
use crate::{
    model::{Record, RecordId, Timestamp},
    store::Query,
};

/// Shortest time between two events: a busy gate must not keep a browser busy.
const PACE: Duration = Duration::from_millis(150);
/// Silence after which a comment is sent, so that a dead client is noticed, and the session checked.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /live`.
pub(super) async fn live(
    State(shared): State<Arc<Shared>>,
    viewer: Viewer,
    params: Result<axum::extract::Query<Params>, QueryRejection>,
) -> Response {
    let params = match params {
        Ok(axum::extract::Query(params)) => params,
        Err(rejection) => return reply::problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let query = match params.query(Timestamp::now()) {
        Ok(query) if is_live(&query) => Query { before: None, ..query },
        Ok(_) => {
            let text = "What comes is in the order in which it comes: leave sort: out.";
            return reply::problem(StatusCode::BAD_REQUEST, text);
        }
        Err(error) => return reply::problem(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let Ok(slot) = shared.live.clone().try_acquire_owned() else {
        return reply::problem(StatusCode::SERVICE_UNAVAILABLE, "Too many live feeds are open.");
    };
    let feed = Feed {
        session: viewer.session.number,
        receiver: shared.audit.live(),
        stop: shared.stop.subscribe(),
        behind: true,
        sent: None,
        query,
        params,
        shared,
        _slot: slot,
    };
    let body = Body::new(Events { next: Some(Box::pin(feed.step())) });
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

struct Feed {
    shared: Arc<Shared>,
    session: u64,
    query: Query,
    /// What `query` was made of.
    params: Params,
    receiver: broadcast::Receiver<Arc<Record>>,
    stop: watch::Receiver<bool>,
    /// Records were missed, or none were sent: the next event is a whole page.
    behind: bool,
    sent: Option<tokio::time::Instant>,
    _slot: OwnedSemaphorePermit,
}

/// What woke the feed.
enum Woken {
    Record(Arc<Record>),
    Missed,
    Quiet,
    Over,
}

impl Feed {
    /// The next event and the feed to go on with; `None` for the feed after the last event.
    async fn step(mut self) -> Option<(Bytes, Option<Self>)> {
        if let Some(sent) = self.sent {
            tokio::select! {
                () = tokio::time::sleep_until(sent + PACE) => {}
                _ = self.stop.wait_for(|stop| *stop) => return None,
            }
        }
        loop {
            if self.behind {
                return self.page().await;
            }
            let woken = tokio::select! {
                record = self.receiver.recv() => match record {
                    Ok(record) => Woken::Record(record),
                    Err(broadcast::error::RecvError::Lagged(_)) => Woken::Missed,
                    Err(broadcast::error::RecvError::Closed) => Woken::Over,
                },
                () = tokio::time::sleep(KEEP_ALIVE) => Woken::Quiet,
                _ = self.stop.wait_for(|stop| *stop) => Woken::Over,
            };
            if !self.shared.door.is_open(self.session, Instant::now()) {
                return Some((event("end", "logged out"), None));
            }
            match woken {
                Woken::Over => return None,
                Woken::Missed => self.behind = true,
                Woken::Quiet => return Some((Bytes::from_static(b": quiet\n\n"), Some(self))),
                Woken::Record(record) => {
                    if let Some(rows) = self.gather(record) {
                        self.sent = Some(tokio::time::Instant::now());
                        return Some((event("row", &rows), Some(self)));
                    }
                }
            }
        }
    }

    async fn page(mut self) -> Option<(Bytes, Option<Self>)> {
        // Subscribed before reading, so that nothing falls between the two.
        self.receiver = self.shared.audit.live();
        self.behind = false;
        let listing = match read::listing(&self.shared.store, &self.query, false).await {
            Ok(listing) => listing,
            Err(error) => {
                tracing::warn!(%error, "dashboard: live feed");
                return None;
            }
        };
        let today = Timestamp::now();
        let within = Within::list(&self.params);
        let rows = listing.records.iter().map(|record| row(record, today, within).into_string());
        let rows: String = rows.collect();
        self.sent = Some(tokio::time::Instant::now());
        Some((event("page", &rows), Some(self)))
    }

    /// Rows of `first` and of everything that waits behind it, each record once as it is last.
    /// `None` where none of them matches, or where some were missed.
    fn gather(&mut self, first: Arc<Record>) -> Option<String> {
        let mut records: BTreeMap<RecordId, Arc<Record>> = BTreeMap::new();
        let mut next = Ok(first);
        loop {
            match next {
                Ok(record) if self.query.matches(&record) => {
                    records.insert(record.id, record);
                    if records.len() > self.query.limit {
                        records.pop_first();
                    }
                }
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.behind = true;
                    return None;
                }
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => break,
            }
            next = self.receiver.try_recv();
        }
        let today = Timestamp::now();
        let within = Within::list(&self.params);
        let rows: String = records
            .values()
            .map(|record| row(&read::shown(Record::clone(record)), today, within).into_string())
            .collect();
        (!rows.is_empty()).then_some(rows)
    }
}

/// One event. Rows hold no line ends (they are made visible); were there one, it would still be data.
fn event(name: &str, data: &str) -> Bytes {
    let mut text = format!("event: {name}\n");
    for line in data.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    Bytes::from(text)
}

type Step = Pin<Box<dyn Future<Output = Option<(Bytes, Option<Feed>)>> + Send>>;

/// A body that runs the feed step by step.
struct Events {
    next: Option<Step>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(step) = &mut self.next else {
            return Poll::Ready(None);
        };
        match step.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.next = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some((bytes, feed))) => {
                self.next = feed.map(|feed| Box::pin(feed.step()) as Step);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_cannot_be_broken_out_of() {
        assert_eq!(event("row", "<tr>"), "event: row\ndata: <tr>\n\n");
        assert_eq!(
            event("row", "a\nevent: b\r\n\n"),
            "event: row\ndata: a\ndata: event: b\ndata: \ndata: \ndata: \n\n"
        );
        assert_eq!(event("page", ""), "event: page\ndata: \n\n");
    }
}
