//! The log in its own order, over the socket.

use super::*;
use crate::{control::wire::ExportAsk, export::Row};

type Following = tokio::task::JoinHandle<Result<(), ClientError>>;

fn record(body: &[u8]) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp::now());
    let mut head = RequestHead { method: "POST".into(), target: "/ü".into(), ..RequestHead::default() };
    head.body.bytes = body.to_vec().into();
    head.body.total = body.len() as u64;
    record.request = Some(head);
    record.subject = Some(
        Subject {
            cmdline: vec!["curl".into(), "--user".into(), "me:hunter2hunter2".into()],
            ..Subject::unknown(SessionId("s@1".into()), 1, 0)
        }
        .into(),
    );
    record
}

/// The rows of a stream, and where it came to.
fn rows(items: &[Item]) -> (Vec<Row>, u64) {
    let (mut text, mut next) = (String::new(), 0);
    for item in items {
        if let Item::Walked(turned) = item {
            next = turned.next;
            continue;
        }
        let Item::Rows { text: piece } = item else { panic!("{item:?}") };
        assert!(piece.len() <= wire::ROWS_CHUNK);
        text.push_str(piece);
    }
    (text.lines().map(|line| Row::received(line.as_bytes()).unwrap()).collect(), next)
}

fn ask(ask: ExportAsk) -> Request {
    Request::AuditExport { ask }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_log_comes_in_its_order_and_with_bodies_only_on_record() {
    let gate = Gate::start(elsewhere(), STEERING);
    let mut ids = Vec::new();
    for at in 0..12_u8 {
        let body: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1] ^ at).collect();
        ids.push((gate.context.audit.note(record(&body)).await.unwrap(), body));
    }
    let (found, next) = rows(&gate.items(ask(ExportAsk::default())).await.unwrap());
    assert_eq!((found.len(), next), (12, 12));
    assert!(found.iter().all(|row| row.record.request.as_ref().unwrap().body.bytes.is_empty()));
    assert!(!format!("{found:?}").contains("hunter2hunter2"));
    // The bodies are more than one page.
    let bodies = ExportAsk { bodies: true, filter: "kind:exchange".into(), ..ExportAsk::default() };
    let (found, _) = rows(&gate.items(ask(bodies.clone())).await.unwrap());
    for (row, (id, body)) in found.iter().zip(&ids) {
        assert_eq!((row.record.id, &row.record.request.as_ref().unwrap().body.bytes[..]), (*id, &body[..]));
    }
    assert_eq!(found.len(), 12);
    // It goes on where it was left.
    let (rest, _) = rows(&gate.items(ask(ExportAsk { from: found[8].n + 1, ..bodies })).await.unwrap());
    assert_eq!(rest, found[9..]);
    let wrong = ExportAsk { filter: "colour:red".into(), ..ExportAsk::default() };
    let refused = gate.items(ask(wrong)).await;
    assert!(matches!(refused, Err(ClientError::Refused(error)) if error.code == ErrorCode::Invalid));
    let notes = gate.stop().await;
    let exported: Vec<_> =
        notes.iter().filter(|(_, note)| note.contains("log exported with bodies")).collect();
    assert_eq!(exported.len(), 2, "{notes:?}");
    assert!(exported[0].1.contains(" of kind:exchange, from entry 0"), "{exported:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_gets_what_ends_and_what_begins_where_that_is_asked_for() {
    let gate = Gate::start(elsewhere(), STEERING);
    for begun in [false, true] {
        let from = gate.context.store.walk().unwrap().end();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let socket = gate.socket.clone();
        let follower: Following = tokio::task::spawn_blocking(move || {
            let request = ask(ExportAsk { follow: true, begun, from, ..ExportAsk::default() });
            Client::connect(&socket)?.stream(request, true, |item| {
                // Nobody listens any more when the test is over.
                let _unheard = tell.send(item);
                Ok(())
            })
        });
        assert!(matches!(told.recv().await, Some(Item::Walked(turned)) if turned.is_over()));
        let entry = gate.context.audit.open(record(b"x")).await.unwrap();
        let id = entry.id();
        // In the tables, so that beginning and end are entries of their own.
        assert!(gate.context.store.get(id).unwrap().is_some());
        entry.finish(State::Done);
        let mut states = Vec::new();
        while states.last() != Some(&State::Done) {
            let found = rows(&[told.recv().await.unwrap()]).0;
            states.extend(
                found.iter().inspect(|row| assert_eq!(row.record.id, id)).map(|row| row.record.state),
            );
        }
        assert_eq!(states, if begun { vec![State::Open, State::Done] } else { vec![State::Done] });
        drop(told);
        drop(follower);
    }
    gate.stop().await;
}
