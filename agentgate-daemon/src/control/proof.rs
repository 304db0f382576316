//! Requests about the chain of hashes over the audit log.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    answer::{Asker, ControlContext, blocking, control_record, internal},
    server::Line,
    wire::{BODY_CHUNK, ErrorCode, ErrorReply, Item, Payload, Reply},
};
use crate::{
    chain::{Report, Trust},
    model::RecordId,
    store::StoreError,
};

/// Between two words of progress: the command line waits 30 s for each.
const TOLD: Duration = Duration::from_millis(500);
/// Words of progress that wait for a slow reader; more are left out.
const WAITING: usize = 4;

/// One verification at a time: it reads the whole log.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Ends the turn when it is dropped.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!BUSY.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

enum Told {
    Progress(u64, u64),
    Done(Result<Box<Report>, StoreError>),
}

/// Verifies the log on a thread of its own, because it takes as long as the log is large.
pub(super) async fn verify(context: &ControlContext, trust: Trust, line: &mut Line) -> io::Result<()> {
    let Some(turn) = Turn::take() else {
        let error = ErrorReply::new(ErrorCode::Busy, "the audit log is being verified already");
        return line.send(&Reply::Error(error)).await;
    };
    let (tell, mut told) = mpsc::channel(WAITING);
    let store = Arc::clone(&context.store);
    let work = move || {
        let _turn = turn;
        let mut last = Instant::now();
        let report = store.verify(trust, &mut |done, of| {
            if last.elapsed() >= TOLD {
                last = Instant::now();
                // What does not fit is followed by more.
                drop(tell.try_send(Told::Progress(done, of)));
            }
        });
        // Whoever asked may be gone.
        drop(tell.blocking_send(Told::Done(report.map(Box::new))));
    };
    if let Err(error) = thread::Builder::new().name("verify".into()).spawn(work) {
        return line.send(&Reply::Error(internal(error))).await;
    }
    while let Some(now) = told.recv().await {
        match now {
            Told::Progress(done, of) => line.send(&Reply::item(Item::Verifying { done, of })).await?,
            Told::Done(Ok(report)) => {
                line.send(&Reply::item(Item::Verified(report))).await?;
                return line.send(&Reply::End).await;
            }
            Told::Done(Err(error)) => return line.send(&Reply::Error(internal(error))).await,
        }
    }
    line.send(&Reply::Error(internal("the verification ended without a result"))).await
}

/// Sends the lines of the proof of a record. Recorded, because entries are not masked.
pub(super) async fn prove(
    context: &ControlContext,
    asker: &Asker,
    id: RecordId,
    line: &mut Line,
) -> io::Result<()> {
    let record = control_record(context, asker, &format!("proof of record {id} shown"));
    if let Err(error) = context.audit.note(record).await {
        let message = format!("not shown, since it cannot be recorded: {error}");
        return line.send(&Reply::Error(ErrorReply::new(ErrorCode::AuditUnavailable, message))).await;
    }
    let store = Arc::clone(&context.store);
    let proof = blocking(move || -> Result<Option<String>, StoreError> {
        let Some(lines) = store.prove(id)? else { return Ok(None) };
        let mut text = String::new();
        for line in lines {
            let line = serde_json::to_string(&line);
            text.push_str(&line.map_err(|source| StoreError::Unreadable { id, source })?);
            text.push('\n');
        }
        Ok(Some(text))
    });
    let proof = proof.await.and_then(|proof| proof.map_err(internal));
    let missing = || ErrorReply::new(ErrorCode::NotFound, format!("no record {id}"));
    match proof.and_then(|proof| proof.ok_or_else(missing)) {
        Ok(proof) => {
            let mut left = proof.as_str();
            while !left.is_empty() {
                let (now, rest) = left.split_at(left.floor_char_boundary(BODY_CHUNK));
                line.send(&Reply::item(Item::Text { text: now.to_owned() })).await?;
                left = rest;
            }
            line.send(&Reply::End).await
        }
        Err(error) => line.send(&Reply::Error(error)).await,
    }
}

/// Makes another key.
pub(super) async fn rotate(context: &ControlContext) -> Result<Payload, ErrorReply> {
    let store = Arc::clone(&context.store);
    let statement = blocking(move || store.rotate_key()).await?.map_err(internal)?;
    Ok(Payload::AuditKey(Box::new(statement)))
}
