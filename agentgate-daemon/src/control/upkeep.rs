//! Keeping the log: how large it is, backups of it, and compaction.
//!
//! A backup is a stream of rows: the daemon writes no file on behalf of whoever asks.

use std::{io, sync::Arc};

use data_encoding::BASE64;
use tokio::sync::mpsc;

use super::{
    answer::{Asker, ControlContext, blocking, control_record, internal},
    server::Line,
    wire::{ErrorCode, ErrorReply, Item, Payload, Reply, Upkeep, UpkeepItem},
};
use crate::store::StoreError;

/// Pieces of a backup that may wait for the peer.
const WAITING: usize = 4;

/// Does what is asked, and says how it goes.
///
/// # Errors
/// When the peer cannot be told.
pub(super) async fn upkeep(
    context: &ControlContext,
    asker: &Asker,
    ask: Upkeep,
    line: &mut Line,
) -> io::Result<()> {
    let what = match ask {
        Upkeep::Stats => return stats(context, line).await,
        Upkeep::Backup => "the audit log backed up, bodies and all",
        Upkeep::Compact => "the audit log compacted",
    };
    if let Err(error) = context.audit.note(control_record(context, asker, what)).await {
        let message = format!("not done, since it cannot be recorded: {error}");
        return line.send(&Reply::Error(ErrorReply::new(ErrorCode::AuditUnavailable, message))).await;
    }
    let (sender, mut items) = mpsc::channel(WAITING);
    let store = Arc::clone(&context.store);
    let work = blocking(move || {
        let send = |item| sender.blocking_send(item).is_ok();
        match ask {
            Upkeep::Backup => {
                let piece = |bytes: Vec<u8>| send(UpkeepItem::Piece { base64: BASE64.encode(&bytes) });
                if let Some(dumped) = store.dump(piece)? {
                    send(UpkeepItem::Dumped(dumped));
                }
            }
            Upkeep::Compact => {
                let compacted = store.compact(|bytes| send(UpkeepItem::Copied { bytes }))?;
                send(UpkeepItem::Compacted(compacted));
            }
            Upkeep::Stats => {}
        }
        Ok::<(), StoreError>(())
    });
    let tell = async {
        let mut told = Ok(());
        // Where the peer is gone the channel closes, and that ends the work.
        while let (true, Some(item)) = (told.is_ok(), items.recv().await) {
            told = line.send(&Reply::item(Item::Upkeep(Box::new(item)))).await;
        }
        drop(items);
        told.map(|()| line)
    };
    let (done, told) = tokio::join!(work, tell);
    let line = told?;
    match done.and_then(|done| done.map_err(refused)) {
        Ok(()) => line.send(&Reply::End).await,
        Err(error) => line.send(&Reply::Error(error)).await,
    }
}

async fn stats(context: &ControlContext, line: &mut Line) -> io::Result<()> {
    let store = Arc::clone(&context.store);
    let stats = blocking(move || store.stats()).await.and_then(|stats| stats.map_err(internal));
    let reply = stats.map(|stats| Reply::ok(Payload::Stats(Box::new(stats))));
    line.send(&reply.unwrap_or_else(Reply::Error)).await
}

fn refused(error: StoreError) -> ErrorReply {
    if matches!(error, StoreError::Upkeep) {
        ErrorReply::new(ErrorCode::Busy, error.to_string())
    } else {
        internal(error)
    }
}
