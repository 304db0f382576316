//! The log over the control socket: what is there, and then what comes.

use std::{collections::HashMap, io, sync::Arc};

use tokio::sync::{broadcast::error::RecvError, watch};

use super::{
    answer::{ControlContext, blocking, internal, shown},
    server::{Line, draining},
    wire::{ErrorCode, ErrorReply, Item, LIMIT_CAP, LogFilter, Reply},
};
use crate::{
    filter::{Filter, Sort},
    model::{SessionId, Timestamp},
    store::{Count, HostPattern, Page, Query},
};

/// Sends the records that match, in the order asked for and each as soon as it is found, and with `follow`
/// each later write of one, until the drain or until the peer leaves. A search ends with them too: it may
/// read the whole log.
///
/// # Errors
/// When the peer cannot be told.
pub(super) async fn logs(
    context: &ControlContext,
    filter: LogFilter,
    follow: bool,
    line: &mut Line,
    mut drain: watch::Receiver<bool>,
) -> io::Result<()> {
    let query = match query(&filter) {
        Ok(query) if follow && query.sort() != Sort::Newest => {
            let message = "what comes is in the order in which it comes";
            let error = ErrorReply::new(ErrorCode::Invalid, message).hint("leave `sort:` or `--follow` out");
            return line.send(&Reply::Error(error)).await;
        }
        Ok(query) => query,
        Err(error) => return line.send(&Reply::Error(error)).await,
    };
    // Before the query, so that nothing falls between.
    let live = follow.then(|| context.audit.live());
    let mut sent = HashMap::new();
    let mut search = Search::of(query.clone());
    while let Some(query) = search.next() {
        let store = Arc::clone(&context.store);
        // A page is a bounded piece of work, so what a peer that left costs is bounded.
        let page = tokio::select! {
            biased;
            () = draining(&mut drain) => return line.send(&Reply::End).await,
            () = line.closed() => return Ok(()),
            page = blocking(move || store.query(&query).map_err(internal)) => page.and_then(|page| page),
        };
        let page = match page {
            Ok(page) => page,
            Err(error) => return line.send(&Reply::Error(error)).await,
        };
        search.went_on(&page);
        for record in page.records {
            sent.insert(record.id, record.state);
            line.send(&Reply::item(Item::Record(shown(record)))).await?;
        }
        if let Some(below) = page.unsearched {
            line.send(&Reply::item(Item::Unsearched { below })).await?;
        }
        if let Some(query) = search.next()
            && let Some(cursor) = query.before
        {
            line.send(&Reply::item(Item::Searched { down_to: cursor.id })).await?;
        }
    }
    line.send(&Reply::item(Item::Listed)).await?;
    let Some(mut live) = live else {
        return line.send(&Reply::End).await;
    };
    loop {
        let received = tokio::select! {
            biased;
            () = draining(&mut drain) => return line.send(&Reply::End).await,
            () = line.closed() => return Ok(()),
            received = live.recv() => received,
        };
        let item = match received {
            Ok(record) => {
                // What the query had already seen in this state.
                let repeated = sent.remove(&record.id) == Some(record.state);
                if repeated || !query.matches(&record) {
                    continue;
                }
                Item::Record(shown((*record).clone()))
            }
            Err(RecvError::Lagged(updates)) => Item::Missed { updates },
            Err(RecvError::Closed) => return line.send(&Reply::End).await,
        };
        line.send(&Reply::item(item)).await?;
    }
}

/// Counts the records that match.
///
/// # Errors
/// When the peer cannot be told.
pub(super) async fn count(
    context: &ControlContext,
    filter: LogFilter,
    line: &mut Line,
    mut drain: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut query = match query(&filter) {
        Ok(query) => query,
        Err(error) => return line.send(&Reply::Error(error)).await,
    };
    let mut all = Count::default();
    loop {
        let (store, asked) = (Arc::clone(&context.store), query.clone());
        let counted = tokio::select! {
            biased;
            () = draining(&mut drain) => return line.send(&Reply::End).await,
            () = line.closed() => return Ok(()),
            counted = blocking(move || store.count(&asked).map_err(internal)) => counted.and_then(|counted| counted),
        };
        let counted = match counted {
            Ok(counted) => counted,
            Err(error) => return line.send(&Reply::Error(error)).await,
        };
        all.count += counted.count;
        all.unreadable += counted.unreadable;
        let Some(next) = counted.next else { break };
        query.before = Some(next);
        line.send(&Reply::item(Item::Searched { down_to: next.id })).await?;
    }
    line.send(&Reply::item(Item::Counted { count: all.count, unreadable: all.unreadable })).await?;
    line.send(&Reply::End).await
}

/// What is asked for; a text that is no filter is told.
fn query(filter: &LogFilter) -> Result<Query, ErrorReply> {
    let parsed = Filter::parse(&filter.text, Timestamp::now()).map_err(|error| {
        let message = format!("the filter, column {}: {}", error.column, error.message);
        ErrorReply::new(ErrorCode::Invalid, message).hint(error.hint)
    })?;
    Ok(Query {
        host: filter.host.as_deref().map(HostPattern::new),
        verdict: filter.verdict,
        kind: filter.kind,
        session: filter.session.clone().map(SessionId),
        since: filter.since,
        ..Query::of(parsed, filter.limit.min(LIMIT_CAP))
    })
}

/// The way through the log, page by page: a page of the store may end before its limit, with a cursor to
/// go on from.
struct Search {
    query: Query,
    over: bool,
}

impl Search {
    fn of(query: Query) -> Self {
        Self { over: query.limit == 0, query }
    }

    /// The next page to ask for; `None` when enough was found or nothing is left.
    fn next(&self) -> Option<Query> {
        (!self.over).then(|| self.query.clone())
    }

    fn went_on(&mut self, page: &Page) {
        self.query.limit = self.query.limit.saturating_sub(page.records.len());
        self.query.before = page.next;
        self.over = self.query.limit == 0 || page.next.is_none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Authority, Host, Kind, Record, Verdict};

    #[test]
    fn the_live_feed_is_filtered_like_the_store() {
        let mut record = Record::new(Kind::Exchange, Timestamp(100));
        record.authority = Some(Authority { host: Host::parse("api.example.com").unwrap(), port: 443 });
        record.verdict = Some(Verdict { action: Action::Deny, rule: "r".into(), reason: "x".into() });
        let filter = LogFilter::default;
        let rows = [
            (filter(), true),
            (LogFilter { host: Some("example".into()), ..filter() }, true),
            (LogFilter { host: Some("*.example.com".into()), ..filter() }, true),
            (LogFilter { host: Some("example.org".into()), ..filter() }, false),
            (LogFilter { verdict: Some(Action::Deny), ..filter() }, true),
            (LogFilter { verdict: Some(Action::Allow), ..filter() }, false),
            (LogFilter { kind: Some(Kind::Flow), ..filter() }, false),
            (LogFilter { session: Some("s@1".into()), ..filter() }, false),
            (LogFilter { since: Some(Timestamp(100)), ..filter() }, true),
            (LogFilter { since: Some(Timestamp(101)), ..filter() }, false),
            (LogFilter { text: "host:*.example.com verdict:deny".into(), ..filter() }, true),
            (LogFilter { text: "-host:*.example.com".into(), ..filter() }, false),
            (LogFilter { text: "verdict:deny".into(), kind: Some(Kind::Flow), ..filter() }, false),
        ];
        for (filter, expect) in rows {
            assert_eq!(query(&filter).unwrap().matches(&record), expect, "{filter:?}");
        }
        let bare = Record::new(Kind::Kernel, Timestamp(1));
        assert!(!query(&LogFilter { host: Some("a".into()), ..filter() }).unwrap().matches(&bare));
        let error = query(&LogFilter { text: "hots:a".into(), ..filter() }).unwrap_err();
        assert_eq!(error.message, "the filter, column 1: `hots` is no field");
        assert_eq!((error.code, error.hint.as_str()), (ErrorCode::Invalid, "did you mean `host:`?"));
    }
}
