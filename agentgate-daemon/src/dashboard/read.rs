//! Reading the audit log for pages. redb reads block, so each runs on the blocking pool.

use std::sync::Arc;

use bytes::Bytes;

use super::filter::Filter;
use crate::{
    audit::redact,
    inspect::{self, Codings, Limits, Opened},
    model::{Captured, HeaderFields, Kind, Record, RecordId, SessionId, Timestamp},
    store::{HostPattern, Page, Query, Side, Store, StoreError},
};

/// Pages of the store that one request looks through where the store itself cannot filter.
const MAX_PAGES: usize = 20;
/// Records of such a page.
const STEP: usize = 500;
/// Exchanges listed under a flow.
const MAX_CHILDREN: usize = 100;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The store cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The reading thread ended without an answer.
    #[error("the audit log cannot be read: the reader failed")]
    Reader(#[from] tokio::task::JoinError),
}

/// A page of records that match a filter.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) records: Vec<Record>,
    pub(super) next: Option<RecordId>,
    /// The search ended at its limit before the page was full.
    pub(super) partial: bool,
}

/// A captured body.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// As it was on the wire, or the transcript of a WebSocket; empty where there is none.
    pub(super) raw: Bytes,
    /// Decoded, where it was in a content coding.
    pub(super) opened: Option<Opened>,
}

/// The captured bodies of a record.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    pub(super) request: Body,
    pub(super) response: Body,
}

/// Most bytes that a body is decoded to.
const MAX_DECODED: u64 = 1 << 20;

/// A record with what belongs to it, but for the bodies.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) record: Record,
    /// Exchanges of a flow, oldest first.
    pub(super) children: Vec<Record>,
    pub(super) more_children: bool,
}

/// The newest records that match.
pub(super) async fn listing(store: &Arc<Store>, filter: &Filter) -> Result<Listing, ReadError> {
    let (store, filter) = (store.clone(), filter.clone());
    Ok(tokio::task::spawn_blocking(move || scan(&store, &filter)).await??)
}

/// One record with children; `None` where there is none.
pub(super) async fn whole(store: &Arc<Store>, id: RecordId) -> Result<Option<Whole>, ReadError> {
    let store = store.clone();
    Ok(tokio::task::spawn_blocking(move || gather(&store, id)).await??)
}

/// The bodies of a record, decoded. That they are shown has to be recorded first.
pub(super) async fn bodies(store: &Arc<Store>, record: &Record) -> Result<Bodies, ReadError> {
    let (store, id) = (store.clone(), record.id);
    let coded = |headers: &HeaderFields, body: &Captured| {
        let codings = inspect::recorded(headers);
        let identity = codings.as_ref().is_ok_and(Codings::is_identity);
        (!identity && record.websocket.is_none()).then(|| (codings, body.clone()))
    };
    let request = record.request.as_ref().and_then(|head| coded(&head.headers, &head.body));
    let response = record.response.as_ref().and_then(|head| coded(&head.headers, &head.body));
    // Decoding takes a while, as reading does.
    let read = move || {
        let of = |side, coded: Option<(_, Captured)>| {
            let raw = store.body(id, side)?.unwrap_or_default();
            let opened = coded.filter(|_| !raw.is_empty()).map(|(codings, body)| {
                inspect::open(&Captured { bytes: raw.clone(), ..body }, &codings, Limits::of(MAX_DECODED))
            });
            Ok::<_, StoreError>(Body { raw, opened })
        };
        let (request, response) = (of(Side::Request, request)?, of(Side::Response, response)?);
        Ok::<_, StoreError>(Bodies { request, response })
    };
    Ok(tokio::task::spawn_blocking(read).await??)
}

fn scan(store: &Store, filter: &Filter) -> Result<Listing, StoreError> {
    let narrowed = filter.text.is_some() || filter.session.is_some();
    let mut query = Query {
        host: filter.host.as_deref().map(HostPattern::new),
        verdict: filter.verdict,
        kind: filter.kind,
        since: filter.since,
        before: filter.before,
        limit: if narrowed { STEP } else { filter.limit },
        ..Query::default()
    };
    let mut found = Listing::default();
    for _ in 0..MAX_PAGES {
        let Page { records, next, .. } = store.query(&query)?;
        for record in records {
            if filter.rest(&record) {
                let id = record.id;
                found.records.push(shown(record));
                if found.records.len() == filter.limit {
                    // Below 1 there is nothing.
                    found.next = Some(id).filter(|id| id.0 > 1);
                    return Ok(found);
                }
            }
        }
        found.next = next;
        if next.is_none() {
            return Ok(found);
        }
        query.before = next;
    }
    found.partial = true;
    Ok(found)
}

fn gather(store: &Store, id: RecordId) -> Result<Option<Whole>, StoreError> {
    let Some(record) = store.get(id)? else {
        return Ok(None);
    };
    let (children, more_children) = match record.kind {
        Kind::Flow => children(store, &record)?,
        Kind::Exchange | Kind::Kernel | Kind::Dns | Kind::Guard | Kind::Control => (Vec::new(), false),
    };
    Ok(Some(Whole { record: shown(record), children, more_children }))
}

/// The exchanges that ran on `flow`: they started between its start and its end, in its session.
fn children(store: &Store, flow: &Record) -> Result<(Vec<Record>, bool), StoreError> {
    let mut query = Query {
        kind: Some(if flow.protocol == "dns" { Kind::Dns } else { Kind::Exchange }),
        session: flow.subject.as_ref().map(|s| SessionId(s.session.0.clone())),
        since: Some(flow.started),
        // `until` is exclusive.
        until: flow.finished.map(|at| Timestamp(at.0.saturating_add(1))),
        limit: STEP,
        ..Query::default()
    };
    let mut children = Vec::new();
    for _ in 0..MAX_PAGES {
        let Page { records, next, .. } = store.query(&query)?;
        children.extend(records.into_iter().filter(|r| r.parent == Some(flow.id)).map(shown));
        // An exchange is recorded after its flow, so below the flow's id there is none.
        let Some(next) = next.filter(|next| *next > flow.id) else {
            children.reverse();
            let more = children.len() > MAX_CHILDREN;
            children.truncate(MAX_CHILDREN);
            return Ok((children, more));
        };
        query.before = Some(next);
    }
    children.reverse();
    children.truncate(MAX_CHILDREN);
    Ok((children, true))
}

/// A record as people may see it: command lines are kept for judging and masked for showing.
pub(super) fn shown(mut record: Record) -> Record {
    if let Some(subject) = &mut record.subject {
        let subject = Arc::make_mut(subject);
        subject.cmdline = redact::mask_cmdline(&subject.cmdline);
    }
    record
}
