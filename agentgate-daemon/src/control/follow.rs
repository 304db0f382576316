//! The log over the control socket: what is there, and then what comes.

use std::{collections::HashMap, io, sync::Arc};

use tokio::sync::{broadcast::error::RecvError, watch};

use super::{
    answer::{ControlContext, blocking, internal, shown},
    server::{Line, draining},
    wire::{ErrorReply, Item, LIMIT_CAP, LogFilter, Reply},
};
use crate::{
    model::{Record, SessionId},
    store::{HostPattern, Query, Store},
};

/// Sends the records that match, oldest first, and with `follow` each later write of one, until the
/// drain or until the peer leaves.
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
    let (store, wanted) = (Arc::clone(&context.store), filter.clone());
    let newest = match blocking(move || newest(&store, &wanted)).await.and_then(|found| found) {
        Ok(records) => records,
        Err(error) => return line.send(&Reply::Error(error)).await,
    };
    let mut sent = HashMap::new();
    for record in newest.into_iter().rev() {
        sent.insert(record.id, record.state);
        line.send(&Reply::item(Item::Record(shown(record)))).await?;
    }
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

/// The newest records that match, newest first. A page of the store may end before its limit, with a
/// cursor to go on from.
fn newest(store: &Store, filter: &LogFilter) -> Result<Vec<Record>, ErrorReply> {
    let limit = filter.limit.min(LIMIT_CAP);
    let mut found = Vec::new();
    let mut before = None;
    while found.len() < limit {
        let query = Query {
            host: filter.host.as_deref().map(HostPattern::new),
            verdict: filter.verdict,
            kind: filter.kind,
            session: filter.session.clone().map(SessionId),
            since: filter.since,
            before,
            limit: limit - found.len(),
            ..Query::default()
        };
        let page = store.query(&query).map_err(internal)?;
        found.extend(page.records);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    Ok(found)
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
