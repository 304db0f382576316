//! The journal for other processes: each connection to the unix socket gets one JSON [`Snapshot`].
//!
//! A unix socket, because it is reached from any network namespace that shares the file system.
//!
//! [`Snapshot`]: crate::Snapshot

use std::sync::Arc;

use tokio::{io::AsyncWriteExt as _, net::UnixListener};

use crate::Journal;

pub(crate) async fn serve(listener: UnixListener, journal: Arc<Journal>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        if let Ok(json) = serde_json::to_vec(&journal.snapshot()) {
            // A reader that goes away early loses only its own copy.
            let _gone = stream.write_all(&json).await;
        }
    }
}
