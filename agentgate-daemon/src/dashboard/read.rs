//! Reading the audit log for pages. redb reads block, so each runs on the blocking pool.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    audit::redact,
    filter::{Bounds, Expression, Filter, Sort, Test},
    inspect::{self, Codings, Limits, Opened},
    model::{Captured, HeaderFields, Kind, Record, RecordId, Timestamp},
    store::{Count, Cursor, Page, Query, Side, Store, StoreError},
};

/// Pages of the store that one request looks through where its index alone does not find what is wanted.
const MAX_PAGES: usize = 20;
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
    pub(super) next: Option<Cursor>,
    /// The search ended at its limit before the page was full.
    pub(super) partial: bool,
    /// Of a list by duration or bytes: records below this id were not looked at.
    pub(super) unsearched: Option<RecordId>,
    /// How many match in all, where that was counted at once.
    pub(super) count: Option<u64>,
    /// Entries up to the last checkpoint, and its time; of a page only.
    pub(super) signed: Option<(u64, Timestamp)>,
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

/// The first records that match; of a `page` also how many there are, where that is cheap, and how far the log
/// is signed.
pub(super) async fn listing(store: &Arc<Store>, query: &Query, page: bool) -> Result<Listing, ReadError> {
    let (store, query) = (store.clone(), query.clone());
    let read = move || {
        let mut found = scan(&store, &query)?;
        if page {
            let signed = store.newest_checkpoint()?;
            found.signed = signed.map(|(_, checkpoint)| (checkpoint.entries, checkpoint.time));
            if !found.partial {
                let counted = store.count(&Query { before: None, ..query })?;
                found.count = counted.next.is_none().then_some(counted.count);
            }
        }
        Ok::<_, StoreError>(found)
    };
    Ok(tokio::task::spawn_blocking(read).await??)
}

/// How many records match, as far as one step goes.
pub(super) async fn count(store: &Arc<Store>, query: &Query) -> Result<Count, ReadError> {
    let (store, query) = (store.clone(), query.clone());
    Ok(tokio::task::spawn_blocking(move || store.count(&query)).await??)
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

fn scan(store: &Store, query: &Query) -> Result<Listing, StoreError> {
    let mut query = query.clone();
    let mut found = Listing::default();
    for _ in 0..MAX_PAGES {
        let Page { records, next, unsearched, .. } = store.query(&query)?;
        query.limit = query.limit.saturating_sub(records.len());
        found.records.extend(records.into_iter().map(shown));
        found.next = next;
        found.unsearched = unsearched;
        if next.is_none() || query.limit == 0 {
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

/// The exchanges that ran on `flow`.
fn children(store: &Store, flow: &Record) -> Result<(Vec<Record>, bool), StoreError> {
    let parent = Expression::from(Test::Parent(Bounds::exactly(flow.id.0)));
    let kind = if flow.protocol == "dns" { Kind::Dns } else { Kind::Exchange };
    let query = Query {
        kind: Some(kind),
        sort: Some(Sort::Oldest),
        ..Query::of(Filter::from(parent), MAX_CHILDREN + 1)
    };
    let mut children: Vec<Record> = store.query(&query)?.records.into_iter().map(shown).collect();
    let more = children.len() > MAX_CHILDREN;
    children.truncate(MAX_CHILDREN);
    Ok((children, more))
}

/// A record as people may see it: command lines are kept for judging and masked for showing.
pub(super) fn shown(mut record: Record) -> Record {
    if let Some(subject) = &mut record.subject {
        let subject = Arc::make_mut(subject);
        subject.cmdline = redact::mask_cmdline(&subject.cmdline);
    }
    record
}
