//! What running agents were told before the daemon was restarted, read back from the record: they go on
//! to connect to addresses that they have, and are no strangers.

use std::net::IpAddr;

use super::Answers;
use crate::{
    model::{Host, Kind, SessionId, Timestamp},
    store::{Query, Store, StoreError},
};

/// How far back, in microseconds: a client that keeps an address for longer asks again, or is refused once.
const SPAN: i64 = 12 * 3600 * 1_000_000;
/// Pages of a thousand that are read: what a start may cost.
const PAGES: usize = 16;
const PAGE: usize = 1000;

/// Fills `answers` from the questions that `store` has since `boot`, at most the last hours and some
/// thousands of them. Sessions are named by numbers that the kernel gives anew after a boot.
///
/// # Errors
/// Where the store cannot be read.
pub fn refill(answers: &Answers, store: &Store, boot: Timestamp) -> Result<usize, StoreError> {
    let mut told: Vec<(SessionId, Host, Vec<IpAddr>)> = Vec::new();
    let since = boot.max(Timestamp(Timestamp::now().0.saturating_sub(SPAN)));
    let mut query = Query { kind: Some(Kind::Dns), since: Some(since), limit: PAGE, ..Query::default() };
    for _ in 0..PAGES {
        let page = store.query(&query)?;
        for record in page.records {
            if let (Some(subject), Some(question)) = (record.subject, record.question)
                && !question.addresses.is_empty()
                && let Ok(host) = Host::parse(&question.name)
            {
                told.push((subject.session, host, question.addresses));
            }
        }
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
    }
    // Newest first as read; what is remembered last stays longest.
    for (session, host, addresses) in told.iter().rev() {
        answers.remember(session, host, addresses);
    }
    Ok(told.len())
}
