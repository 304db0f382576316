//! What a record adds to the balance, once.

use super::*;
use crate::{
    model::{Action, Failure, Flow, Loss, OriginalDestination, Record, RecordId, State, Timestamp, Verdict},
    store::{Entry, Query, Write},
};

const SECOND: u64 = 1_000_000_000;

fn flow(session: u64, connected_ns: u64) -> Flow {
    Flow {
        cookie: 1,
        original: OriginalDestination("192.0.2.1:443".parse().unwrap()),
        pid: 7,
        uid: 0,
        gid: 0,
        comm: String::new(),
        cgroup: session,
        session,
        netns: 0,
        connected_ns,
    }
}

fn record(id: u64, kind: Kind, session: u64, connected_ns: u64) -> Record {
    let mut record = Record::new(kind, Timestamp(1));
    record.id = RecordId(id);
    record.state = State::Done;
    record.flow = Some(flow(session, connected_ns).into());
    record
}

fn refusal(id: u64, code: &str, times: u64) -> Record {
    let mut record = record(id, Kind::Kernel, 9, SECOND);
    record.verdict =
        Some(Verdict { action: Action::Deny, rule: format!("kernel:{code}"), reason: String::new() });
    record.times = times;
    record
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.redb")).unwrap();
    store.enter_epoch("boot/1").unwrap();
    (dir, store)
}

fn count(store: &Store, window: u32, session: u64, class: Class, column: Column) -> u64 {
    let found = |row: &&TallyRow| {
        (row.window, row.session, row.class, row.column) == (window, session, class, column)
    };
    store.tallies().unwrap().iter().find(found).map_or(0, |row| row.count)
}

#[test]
fn a_record_counts_once_however_often_it_is_written() {
    let (_dir, store) = store();
    let open = record(1, Kind::Flow, 9, 5 * SECOND);
    store.apply(&[Write::Open(&open)]).unwrap();
    store.apply(&[Write::Final(&open)]).unwrap();
    store.apply(&[Write::Final(&open), Write::Final(&record(2, Kind::Flow, 9, 5 * SECOND))]).unwrap();
    assert_eq!(count(&store, 1, 9, Class::Flows, Column::Recorded), 2);
}

#[test]
fn one_that_was_over_before_its_beginning_was_written_counts_too() {
    let (_dir, store) = store();
    for id in [2, 3, 1] {
        let mut over = record(id, Kind::Flow, 9, 5 * SECOND);
        over.state = State::Done;
        store.apply(&[Write::Final(&over)]).unwrap();
    }
    assert_eq!(count(&store, 1, 9, Class::Flows, Column::Recorded), 3);
    let found = store.query(&Query { limit: 10, ..Query::default() }).unwrap();
    assert_eq!(found.records.iter().map(|record| record.id.0).collect::<Vec<_>>(), [3, 2, 1]);
}

#[test]
fn each_kind_counts_as_what_it_is() {
    let (_dir, store) = store();
    let mut never = record(1, Kind::Flow, 9, SECOND);
    never.failure =
        Some(Failure { blame: "agent".into(), code: NEVER_ARRIVED.into(), detail: String::new() });
    never.times = 4;
    let mut lost = Record::new(Kind::Kernel, Timestamp(1));
    lost.id = RecordId(2);
    lost.times = 7;
    lost.loss = Some(Loss { session: 9, window: 0, what: "udp".into(), cause: RING_FULL.into() });
    let stranger = Record { flow: None, ..record(3, Kind::Flow, 0, 0) };
    let exchange = record(4, Kind::Exchange, 9, SECOND);
    let udp = refusal(5, "udp", 20);
    let unknown = refusal(6, "no such denial", 1);
    let mut question = record(7, Kind::Flow, 9, SECOND);
    std::sync::Arc::make_mut(question.flow.as_mut().unwrap()).original =
        OriginalDestination("192.0.2.1:53".parse().unwrap());
    for record in [&never, &lost, &stranger, &exchange, &udp, &unknown, &question] {
        store.apply(&[Write::Final(record)]).unwrap();
    }
    let denied = Class::from_code("udp").unwrap();
    assert_eq!(count(&store, 0, 9, Class::Flows, Column::Abandoned), 4);
    assert_eq!(count(&store, 0, 9, denied, Column::Declared), 7);
    assert_eq!(count(&store, CLOSED, 0, Class::Ring, Column::Declared), 7);
    assert_eq!(count(&store, 0, 9, denied, Column::Recorded), 20);
    assert_eq!(store.tallies().unwrap().len(), 4, "nothing else counts");
}

#[test]
fn closed_windows_are_summed_up_and_late_ones_join_them() {
    let (_dir, store) = store();
    store.apply(&[Write::Final(&record(1, Kind::Flow, 9, SECOND))]).unwrap();
    store.apply(&[Write::Final(&record(2, Kind::Flow, 9, 5 * SECOND))]).unwrap();
    store.apply(&[Write::Final(&record(3, Kind::Flow, 9, 9 * SECOND))]).unwrap();
    store.keep_kernel(&[(0, 9, Class::Flows, 3), (1, 9, Class::Flows, 1)]).unwrap();
    store.keep_kernel(&[(0, 9, Class::Flows, 1)]).unwrap();
    store.close_windows(&[0, 1]).unwrap();
    assert_eq!(count(&store, CLOSED, 9, Class::Flows, Column::Recorded), 2);
    assert_eq!(count(&store, CLOSED, 9, Class::Flows, Column::Kernel), 2);
    assert_eq!(count(&store, 2, 9, Class::Flows, Column::Recorded), 1);
    store.apply(&[Write::Final(&record(4, Kind::Flow, 9, SECOND))]).unwrap();
    store.close_windows(&[0, CLOSED]).unwrap();
    assert_eq!(count(&store, CLOSED, 9, Class::Flows, Column::Recorded), 3);
}

#[test]
fn epochs_are_apart_go_on_and_end() {
    let (_dir, store) = store();
    store.apply(&[Write::Final(&record(1, Kind::Flow, 9, SECOND))]).unwrap();
    store.enter_epoch("boot/2").unwrap();
    assert!(store.tallies().unwrap().is_empty());
    store.apply(&[Write::Final(&record(2, Kind::Flow, 9, SECOND))]).unwrap();
    assert_eq!(store.earlier_tallies().unwrap().len(), 1);
    store.enter_epoch("boot/1").unwrap();
    assert_eq!(count(&store, 0, 9, Class::Flows, Column::Recorded), 1);
    for n in 3..30 {
        store.enter_epoch(&format!("boot/{n}")).unwrap();
    }
    assert_eq!(store.earlier_tallies().unwrap().len(), EPOCHS_KEPT as usize - 1);
}

#[test]
fn what_is_taken_from_the_journal_twice_counts_once() {
    let (_dir, store) = store();
    let open = Record { state: State::Open, ..record(1, Kind::Flow, 9, SECOND) };
    let entries = [Entry::open(&open), Entry::last(&refusal(2, "udp", 5))];
    let udp = Class::from_code("udp").unwrap();
    for _ in 0..2 {
        store.take(&entries, 7).unwrap();
        assert_eq!(count(&store, 0, 9, Class::Flows, Column::Recorded), 1);
        assert_eq!(count(&store, 0, 9, udp, Column::Recorded), 5);
    }
    // And the end of a record is no other record.
    store.take(&[Entry::last(&record(1, Kind::Flow, 9, SECOND))], 8).unwrap();
    assert_eq!(count(&store, 0, 9, Class::Flows, Column::Recorded), 1);
    assert!(store.recount().unwrap().is_empty());
}
