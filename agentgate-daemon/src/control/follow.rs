//! The log over the control socket: what is there, and then what comes.

use std::{collections::HashMap, io, sync::Arc};

use tokio::sync::{broadcast::error::RecvError, watch};

use super::{
    answer::{ControlContext, blocking, internal, shown},
    server::{Line, draining},
    wire::{Item, LIMIT_CAP, LogFilter, Reply},
};
use crate::{
    model::{Record, SessionId},
    store::{HostPattern, Page, Query},
};

/// Sends the records that match, newest first and each as soon as it is found, and with `follow` each
/// later write of one, until the drain or until the peer leaves. A search ends with them too: it may read
/// the whole log.
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
    // Before the query, so that nothing falls between.
    let live = follow.then(|| context.audit.live());
    let mut sent = HashMap::new();
    let mut search = Search::new(&filter);
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
        if let Some(query) = search.next()
            && let Some(down_to) = query.before
        {
            line.send(&Reply::item(Item::Searched { down_to })).await?;
        }
    }
    line.send(&Reply::item(Item::Listed)).await?;
    let Some(mut live) = live else {
        return line.send(&Reply::End).await;
    };
    let pattern = filter.host.as_deref().map(HostPattern::new);
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
                if repeated || !matches(&record, &filter, pattern.as_ref()) {
                    continue;
                }
                Item::Record(shown(Record::clone(&record)))
            }
            Err(RecvError::Lagged(updates)) => Item::Missed { updates },
            Err(RecvError::Closed) => return line.send(&Reply::End).await,
        };
        line.send(&Reply::item(item)).await?;
    }
}

/// The way through the log, page by page: a page of the store may end before its limit, with a cursor to
/// go on from.
struct Search {
    query: Query,
    over: bool,
}

impl Search {
    fn new(filter: &LogFilter) -> Self {
        let query = Query {
            host: filter.host.as_deref().map(HostPattern::new),
            verdict: filter.verdict,
            kind: filter.kind,
            session: filter.session.clone().map(SessionId),
            since: filter.since,
            limit: filter.limit.min(LIMIT_CAP),
            ..Query::default()
        };
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

/// Whether a record of the live feed is asked for; the same as the store's own filter.
fn matches(record: &Record, filter: &LogFilter, pattern: Option<&HostPattern>) -> bool {
    let host = || match (&record.authority, &record.flow) {
        (Some(authority), _) => Some(authority.host.to_string()),
        (None, Some(flow)) => Some(flow.original.0.ip().to_string()),
        (None, None) => None,
    };
    filter.verdict.is_none_or(|action| record.verdict.as_ref().is_some_and(|v| v.action == action))
        && filter.kind.is_none_or(|kind| record.kind == kind)
        && filter.since.is_none_or(|since| record.started >= since)
        && filter
            .session
            .as_ref()
            .is_none_or(|session| record.subject.as_ref().is_some_and(|s| s.session.0 == *session))
        && pattern.is_none_or(|pattern| host().is_some_and(|host| pattern.matches(&host)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Authority, Host, Kind, Timestamp, Verdict};

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
        ];
        for (filter, expect) in rows {
            let pattern = filter.host.as_deref().map(HostPattern::new);
            assert_eq!(matches(&record, &filter, pattern.as_ref()), expect, "{filter:?}");
        }
        let bare = Record::new(Kind::Kernel, Timestamp(1));
        assert!(!matches(&bare, &filter(), Some(&HostPattern::new("a"))));
    }
}
