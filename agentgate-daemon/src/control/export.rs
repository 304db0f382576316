//! The log in its own order over the control socket, a page at a time.
//!
//! A page is made off the runtime's threads, sent in pieces, and let go of before the next: what an export
//! takes is the same for a thousand records and a thousand million. Whoever is cut off goes on from the last
//! row it got.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time,
};

use super::{
    answer::{Asker, ControlContext, blocking, control_record, internal},
    server::{Line, draining},
    wire::{ErrorCode, ErrorReply, ExportAsk, Item, ROWS_CHUNK, Reply},
};
use crate::{
    chain::Line as Proof,
    export::{
        chained::Chained,
        pages::{From, Pages, Turned, Wanted},
    },
    filter::Filter,
    model::Timestamp,
    store::StoreError,
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
    if ask.chained {
        return chained(context, wanted, ask, line, drain).await;
    }
    let mut pages = Pages::new(From::Store(Arc::clone(&context.store)), wanted.clone(), ask.from);
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
            pages = Pages::new(From::Settled(Arc::clone(&context.store)), wanted.clone(), turned.next);
        }
        tokio::select! {
            biased;
            () = draining(&mut drain) => return line.send(&Reply::End).await,
            () = line.closed() => return Ok(()),
            () = time::sleep(TICK) => {}
        }
    }
}

/// Pieces that wait for the peer.
const WAITING: usize = 2;

/// What a chain's producer has to say.
enum Made {
    Text(String),
    Walked(Turned),
    Failed(String),
}

/// Why a chain's producer stops.
enum Stopped {
    /// Nobody takes what it makes.
    Alone,
    Failed(String),
}

impl std::convert::From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Appends a line, and gives on what is long enough.
fn put(text: &mut String, line: &Proof, give: &mpsc::Sender<Made>) -> Result<(), Stopped> {
    text.push_str(&serde_json::to_string(line).map_err(|error| Stopped::Failed(error.to_string()))?);
    text.push('\n');
    if text.len() >= ROWS_CHUNK { hand_over(text, give) } else { Ok(()) }
}

fn hand_over(text: &mut String, give: &mpsc::Sender<Made>) -> Result<(), Stopped> {
    let whole = std::mem::take(text);
    let mut left = whole.as_str();
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.floor_char_boundary(ROWS_CHUNK));
        give.blocking_send(Made::Text(piece.to_owned())).map_err(|_| Stopped::Alone)?;
        left = rest;
    }
    Ok(())
}

/// Makes lines up to the end that there is; returns what goes on from there.
fn produce(mut chain: Chained, give: &mpsc::Sender<Made>) -> Option<Chained> {
    let mut text = String::new();
    let mut work = || {
        loop {
            let turned = chain.step(|line| put(&mut text, line, give))?;
            hand_over(&mut text, give)?;
            give.blocking_send(Made::Walked(turned)).map_err(|_| Stopped::Alone)?;
            if turned.is_over() {
                return Ok(());
            }
        }
    };
    match work() {
        Ok(()) => Some(chain),
        Err(Stopped::Alone) => None,
        Err(Stopped::Failed(why)) => {
            // Nobody hears it where nobody listens.
            let _unheard = give.blocking_send(Made::Failed(why));
            None
        }
    }
}

/// The same in lines that verify. One entry may be larger than a page of rows, so lines are made beside, and
/// wait for the peer a few pieces ahead. The drain may come between any two: whoever writes them ends with the
/// last checkpoint.
async fn chained(
    context: &ControlContext,
    wanted: Wanted,
    ask: ExportAsk,
    line: &mut Line,
    mut drain: watch::Receiver<bool>,
) -> io::Result<()> {
    let from = From::Store(Arc::clone(&context.store));
    let mut chain = match ask.had {
        Some(had) => Chained::resumed(from, wanted, ask.filter, had),
        None => Chained::new(from, wanted, ask.filter, ask.from),
    };
    loop {
        let (give, mut take) = mpsc::channel(WAITING);
        let made = spawn_blocking(move || produce(chain, &give));
        loop {
            let next = tokio::select! {
                biased;
                () = draining(&mut drain) => return line.send(&Reply::End).await,
                () = line.closed() => return Ok(()),
                next = take.recv() => next,
            };
            match next {
                Some(Made::Text(text)) => line.send(&Reply::item(Item::Rows { text })).await?,
                Some(Made::Walked(turned)) => line.send(&Reply::item(Item::Walked(turned))).await?,
                Some(Made::Failed(why)) => return line.send(&Reply::Error(internal(why))).await,
                None => break,
            }
        }
        let Ok(Some(kept)) = made.await else {
            return line.send(&Reply::Error(internal("the export ended before its end"))).await;
        };
        if !ask.follow {
            return line.send(&Reply::End).await;
        }
        tokio::select! {
            biased;
            () = draining(&mut drain) => return line.send(&Reply::End).await,
            () = line.closed() => return Ok(()),
            () = time::sleep(TICK) => {}
        }
        chain = kept.of(From::Settled(Arc::clone(&context.store)));
    }
}
