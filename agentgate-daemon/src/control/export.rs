//! The log in its own order over the control socket, a page at a time.
//!
//! A page is made off the runtime's threads, sent in pieces, and let go of before the next: what an export
//! takes is the same for a thousand records and a thousand million. Whoever is cut off goes on from the last
//! row it got.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, time};

use super::{
    answer::{Asker, ControlContext, blocking, control_record, internal},
    server::{Line, draining},
    wire::{ErrorCode, ErrorReply, ExportAsk, Item, ROWS_CHUNK, Reply},
};
use crate::{
    export::pages::{From, Pages, Wanted},
    filter::Filter,
    model::Timestamp,
};

/// How often a follower's place is compared with the end of the log.
const TICK: Duration = Duration::from_millis(500);

/// Sends the rows from `ask.from` on, with `follow` until the drain or until the peer leaves.
///
/// # Errors
/// When the peer cannot be told.
pub(super) async fn export(
    context: &ControlContext,
    asker: &Asker,
    ask: ExportAsk,
    line: &mut Line,
    mut drain: watch::Receiver<bool>,
) -> io::Result<()> {
    let wanted = match Filter::parse(&ask.filter, Timestamp::now()) {
        Ok(filter) => Wanted { filter, bodies: ask.bodies, open: ask.begun },
        Err(error) => {
            return line.send(&Reply::Error(ErrorReply::new(ErrorCode::Invalid, error.to_string()))).await;
        }
    };
    if ask.bodies {
        let filter = if ask.filter.is_empty() { String::new() } else { format!(" of {}", ask.filter) };
        let what = format!("log exported with bodies{filter}, from entry {}", ask.from);
        if let Err(error) = context.audit.note(control_record(context, asker, &what)).await {
            let message = format!("not exported, since it cannot be recorded: {error}");
            return line.send(&Reply::Error(ErrorReply::new(ErrorCode::AuditUnavailable, message))).await;
        }
    }
    let mut pages = Pages::new(From::Store(Arc::clone(&context.store)), wanted.clone(), ask.from, ask.since);
    let mut caught_up = false;
    loop {
        let turn = blocking(move || {
            let mut text = Vec::new();
            let turned = pages.send(&mut text);
            (pages, text, turned)
        });
        let page = tokio::select! {
            biased;
            () = draining(&mut drain) => return line.send(&Reply::End).await,
            () = line.closed() => return Ok(()),
            page = turn => page,
        };
        let (turned, text) = match page {
            Ok((kept, text, Ok(turned))) => {
                pages = kept;
                (turned, text)
            }
            Ok((.., Err(error))) => return line.send(&Reply::Error(internal(error))).await,
            Err(error) => return line.send(&Reply::Error(error)).await,
        };
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        let mut left = text.as_str();
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.floor_char_boundary(ROWS_CHUNK));
            line.send(&Reply::item(Item::Rows { text: piece.to_owned() })).await?;
            left = rest;
        }
        // A follower that has everything is told so once, and then only what is new.
        if !caught_up || turned.rows > 0 || turned.pruned + turned.unreadable > 0 {
            line.send(&Reply::item(Item::Walked(turned))).await?;
        }
        if !turned.is_over() {
            continue;
        }
        if !ask.follow {
            return line.send(&Reply::End).await;
        }
        if !caught_up {
            caught_up = true;
            pages = Pages::new(From::Settled(Arc::clone(&context.store)), wanted.clone(), turned.next, None);
        }
        tokio::select! {
            biased;
            () = draining(&mut drain) => return line.send(&Reply::End).await,
            () = line.closed() => return Ok(()),
            () = time::sleep(TICK) => {}
        }
    }
}
