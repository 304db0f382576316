//! What the dashboard itself puts into the audit log: who logged in, who tried to, who saw bodies. Changes
//! of the lists are recorded where they are made, in `change`.

use std::{net::SocketAddr, time::Duration};

use axum::http::{HeaderValue, StatusCode};

use super::{
    Shared,
    auth::{MAX_FAILURES, Refused},
};
use crate::{
    audit::AuditError,
    model::{Kind, Record, RecordId, State, Timestamp},
};

/// How long a login waits for its record. The log may be full or broken, and then the dashboard is
/// where a person reads why.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether failure number `failures` of a minute is recorded. The first may be a slip. Past the limit
/// each doubling counts, so that a flood does not fill the log.
fn is_notable(failures: u32) -> bool {
    failures > 1 && (failures <= MAX_FAILURES || failures.is_power_of_two())
}

/// An address as records name it.
pub(super) fn from(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string())
}

impl Shared {
    async fn note(&self, what: String, state: State) -> Result<RecordId, AuditError> {
        let mut record = Record::new(Kind::Control, Timestamp::now());
        record.protocol = "dashboard".to_owned();
        record.state = state;
        record.note = Some(what);
        self.audit.note(record).await
    }

    /// As [`Shared::note`], for what happens whether it can be recorded or not.
    async fn try_note(&self, what: String, state: State) {
        tracing::info!(what, "dashboard");
        match tokio::time::timeout(PATIENCE, self.note(what, state)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "dashboard: not recorded"),
            Err(_) => tracing::error!("dashboard: the audit log takes long to record a login"),
        }
    }

    /// Records that session `number` was opened. A login is not held up by a log that cannot be written:
    /// bodies and changes are, one by one.
    pub(super) async fn logged_in(&self, number: u64, peer: Option<SocketAddr>) {
        let what = format!("logged in: dashboard session {number} from {}", from(peer));
        self.try_note(what, State::Done).await;
    }

    /// Records a failed login where it is notable, and gives what the client is told: the status and,
    /// past the limit, the `Retry-After` in seconds.
    pub(super) async fn refused(
        &self,
        refused: &Refused,
        peer: Option<SocketAddr>,
    ) -> (StatusCode, Option<HeaderValue>) {
        let (status, retry, failures) = match refused {
            Refused::Wrong { failures } => (StatusCode::UNAUTHORIZED, None, *failures),
            Refused::TooMany { failures, wait } => {
                let seconds = HeaderValue::from(wait.as_secs().saturating_add(1));
                (StatusCode::TOO_MANY_REQUESTS, Some(seconds), *failures)
            }
            Refused::NoRandomness => {
                tracing::error!("dashboard: no randomness for a session");
                return (StatusCode::SERVICE_UNAVAILABLE, None);
            }
        };
        if is_notable(failures) {
            let from = from(peer);
            let what =
                format!("refused: wrong dashboard token or code from {from}, number {failures} in a minute");
            self.try_note(what, State::Refused).await;
        }
        (status, retry)
    }

    /// Records that `who` is about to see the bodies of record `id`.
    ///
    /// # Errors
    /// When it cannot be recorded; then they must not be shown.
    pub(super) async fn seeing_bodies(&self, id: RecordId, who: &str) -> Result<(), AuditError> {
        self.note(format!("bodies of record {id} shown, by {who}"), State::Done).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_leave_few_records() {
        let notable: Vec<u32> = (1..=1000).filter(|n| is_notable(*n)).collect();
        assert_eq!(notable, [2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 32, 64, 128, 256, 512]);
    }
}
