//! What running agents were told before the daemon was restarted, read back from the record: they go on
//! to connect to addresses that they have, and are no strangers.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Answers;
use crate::{
    model::{Host, Kind, SessionId, Timestamp},
    store::{Query, Store, StoreError},
};

/// How far back, in microseconds: a client that keeps an address for longer asks again, or is refused once.
const SPAN: i64 = 12 * 3600 * 1_000_000;
/// Records that are read at once.
const PAGE: usize = 250;
/// How many times, and for how long: what a start may cost. The newest are read first.
const PAGES: usize = 64;
const TIME: Duration = Duration::from_millis(250);

/// Fills `answers` from the questions that `store` has since `boot`, at most the last hours, some thousands
/// of them, and as many as can be read in a moment. Sessions are named by numbers that the kernel gives anew after a boot.
///
/// # Errors
/// Where the store cannot be read.
pub fn refill(answers: &Answers, store: &Store, boot: Timestamp) -> Result<usize, StoreError> {
    refill_until(answers, store, boot, Instant::now() + TIME)
}

fn refill_until(
    answers: &Answers,
    store: &Store,
    boot: Timestamp,
    deadline: Instant,
) -> Result<usize, StoreError> {
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
                told.push((subject.session.clone(), host, question.addresses));
            }
        }
        query.before = page.next;
        if query.before.is_none() || Instant::now() >= deadline {
            break;
        }
    }
    // Newest first as read; what is remembered last stays longest.
    for (session, host, addresses) in told.iter().rev() {
        answers.remember(session, host, addresses);
    }
    Ok(told.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Question, Record, RecordId, State, Subject},
        store::Write,
    };

    fn subject() -> Subject {
        Subject::unknown(SessionId("a@1".to_owned()), 1, 0)
    }

    #[test]
    fn the_newest_come_first_and_a_start_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("audit.redb")).unwrap();
        let most = u32::try_from(2 * PAGE).unwrap();
        let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from(n));
        let records: Vec<Record> = (1..=most)
            .map(|n| {
                let mut record = Record::new(Kind::Dns, Timestamp::now());
                record.id = RecordId(n.into());
                record.state = State::Done;
                record.subject = Some(subject().into());
                record.question = Some(Question {
                    name: format!("n{n}.test"),
                    addresses: vec![address(n)],
                    ..Question::default()
                });
                record
            })
            .collect();
        let writes: Vec<Write<'_>> = records.iter().map(Write::Final).collect();
        store.apply(&writes).unwrap();
        let known = |answers: &Answers, n| answers.given(&subject().session, address(n)).is_some();
        let all = Answers::default();
        let far = Instant::now() + Duration::from_secs(600);
        assert_eq!(refill_until(&all, &store, Timestamp(0), far).unwrap(), 2 * PAGE);
        assert!(known(&all, 1) && known(&all, most));
        let some = Answers::default();
        assert_eq!(refill_until(&some, &store, Timestamp(0), Instant::now()).unwrap(), PAGE);
        assert!(!known(&some, 1) && known(&some, most));
    }
}
