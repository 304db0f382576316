//! Checkpoints of the audit log, sent elsewhere: whoever cuts the end off the log on this host cannot cut it off
//! there. A checkpoint is signed and says nothing but how many entries there are, and their hash.
//!
//! Each place is sent the newest checkpoint when there is one that it has not had, at intervals and when the
//! daemon stops; one that fails is tried again at the next. A failure stops nothing: it is told in the status and,
//! when it begins, ends, or has lasted for another hour, in the daemon's log.
//!
//! What this does not do: sign, or verify. It takes a statement as a line of JSON and hands it on. Nothing goes by
//! way of the gate: these are the daemon's own connections.

mod file;
mod syslog;
mod webhook;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    config::{Checkpoints, Syslog},
    model::Timestamp,
    tls::OriginTls,
};
use webhook::Poster;

/// For one place to take one checkpoint: a name to be resolved, a handshake, an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same when the daemon stops, which is waited for.
const AT_THE_END: Duration = Duration::from_secs(3);
/// A failure that lasts is told again after so long.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

/// A checkpoint to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Entries that it is of.
    pub entries: u64,
    /// All of it: one JSON object, without a newline.
    pub line: String,
}

/// Gives the newest checkpoint; `None` where the log has none. May read files.
pub type Source = Arc<dyn Fn() -> Result<Option<Anchor>, String> + Send + Sync>;

/// Why a place did not take a checkpoint.
#[derive(Debug, thiserror::Error)]
enum AnchorError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer in {} s", .0.as_secs())]
    Late(Duration),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("answered with {0}")]
    Refused(http::StatusCode),
    #[error("the host is neither a name nor an address")]
    Host,
}

/// How a place does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceReport {
    /// The setting that names it.
    pub place: String,
    /// Entries of the last checkpoint that it took since the daemon's start; 0 for none.
    pub entries: u64,
    /// When it took that.
    pub taken: Option<Timestamp>,
    /// Why it did not take the last that it was sent.
    pub error: Option<String>,
}

#[derive(Debug)]
enum Way {
    File(PathBuf),
    Syslog(Syslog),
    Webhook(Box<Poster>),
}

#[derive(Debug)]
struct Place {
    way: Way,
    /// What it took last.
    had: Option<String>,
    /// When its failure was told last.
    told: Option<Instant>,
}

impl Place {
    fn name(&self) -> &'static str {
        match self.way {
            Way::File(_) => "file",
            Way::Syslog(_) => "syslog",
            Way::Webhook(_) => "webhook",
        }
    }

    async fn send(&self, line: &str) -> Result<(), AnchorError> {
        match &self.way {
            Way::File(path) => {
                let (path, line) = (path.clone(), line.to_owned());
                let written = tokio::task::spawn_blocking(move || file::append(&path, &line)).await;
                Ok(written.map_err(std::io::Error::other)??)
            }
            Way::Syslog(to) => Ok(syslog::send(to, line).await?),
            Way::Webhook(poster) => poster.post(line).await,
        }
    }
}

/// The places that are set, and how they do.
pub struct Anchors {
    places: Vec<Place>,
    every: Duration,
    source: Source,
    reports: Arc<Mutex<Vec<PlaceReport>>>,
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchors").field("reports", &self.reports()()).finish_non_exhaustive()
    }
}

impl Anchors {
    /// The places of `settings`; `tls` verifies the webhook's.
    #[must_use]
    pub fn new(settings: &Checkpoints, tls: &OriginTls, source: Source) -> Self {
        let Checkpoints { file, syslog, webhook, every: _ } = settings;
        let ways = [
            file.clone().map(Way::File),
            syslog.clone().map(Way::Syslog),
            webhook.clone().map(|webhook| Way::Webhook(Box::new(Poster::new(webhook, tls)))),
        ];
        let places: Vec<Place> =
            ways.into_iter().flatten().map(|way| Place { way, had: None, told: None }).collect();
        let report = |place: &Place| PlaceReport { place: place.name().to_owned(), ..PlaceReport::default() };
        let reports = places.iter().map(report).collect();
        Self { places, every: settings.every(), source, reports: Arc::new(Mutex::new(reports)) }
    }

    /// Says how the places do, from anywhere.
    #[must_use]
    pub fn reports(&self) -> Arc<dyn Fn() -> Vec<PlaceReport> + Send + Sync> {
        let reports = self.reports.clone();
        Arc::new(move || reports.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Sends what is new at intervals, the first at once, until the drain; gives itself back, for what is
    /// signed at the very end.
    pub async fn keep(mut self, mut drain: watch::Receiver<bool>) -> Self {
        let mut tick = interval(self.every.max(Duration::from_secs(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.places.is_empty() {
            tokio::select! {
                // Who sends the drain outlives this, or it is over anyway.
                _ = drain.wait_for(|draining| *draining) => break,
                _ = tick.tick() => {}
            }
            tokio::select! {
                () = self.send(PATIENCE) => {}
                _ = drain.wait_for(|draining| *draining) => break,
            }
        }
        self
    }

    /// Sends the last checkpoint, for which there is little time.
    pub async fn close(mut self) {
        self.send(AT_THE_END).await;
    }

    async fn send(&mut self, within: Duration) {
        if self.places.is_empty() {
            return;
        }
        let source = self.source.clone();
        let found = tokio::task::spawn_blocking(move || source()).await;
        let anchor = match found.map_err(|error| error.to_string()).flatten() {
            Ok(Some(anchor)) => anchor,
            Ok(None) => return,
            Err(error) => {
                return tracing::error!(error, "the log's checkpoint cannot be read, and is not sent");
            }
        };
        let reports = &self.reports;
        let sendings = self.places.iter_mut().enumerate().map(|(at, place)| {
            let anchor = &anchor;
            async move {
                if place.had.as_ref() == Some(&anchor.line) {
                    return;
                }
                let sent = timeout(within, place.send(&anchor.line)).await;
                let sent = sent.unwrap_or(Err(AnchorError::Late(within)));
                if sent.is_ok() {
                    place.had = Some(anchor.line.clone());
                }
                place.tell(&sent);
                let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(report) = reports.get_mut(at) {
                    report.error = sent.as_ref().err().map(ToString::to_string);
                    if sent.is_ok() {
                        (report.entries, report.taken) = (anchor.entries, Some(Timestamp::now()));
                    }
                }
            }
        });
        futures_util::future::join_all(sendings).await;
    }
}

impl Place {
    fn tell(&mut self, sent: &Result<(), AnchorError>) {
        match sent {
            Ok(()) => {
                if self.told.take().is_some() {
                    tracing::info!(place = self.name(), "takes the log's checkpoints again");
                }
            }
            Err(error) => {
                if self.told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                    self.told = Some(Instant::now());
                    tracing::error!(place = self.name(), %error, "did not take the log's checkpoint; it is tried again");
                }
            }
        }
    }
}
