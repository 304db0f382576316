//! Ends an export when it is told to, so that what was written is a whole.

use std::{
    future::poll_fn,
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

/// As a shell has it of what SIGINT ended.
const INTERRUPTED: i32 = 130;

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicBool,
    connection: Mutex<Option<UnixStream>>,
}

impl Shared {
    /// A read from the daemon does not end by a flag: it ends with the connection.
    fn cut(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if self.asked.load(Ordering::Acquire)
            && let Some(connection) = &*connection
        {
            // One that is over is what is wanted.
            let _over = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Whether SIGINT, SIGTERM or SIGHUP asked for the end. The second of them ends the process at once. What the
/// process was started to ignore, as nohup(1) has it, asks for nothing.
#[derive(Clone, Debug)]
pub(super) struct Stopping(Arc<Shared>);

impl Stopping {
    /// Takes the signals over, for the rest of the process.
    pub(super) fn watch() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ignored =
            procfs::process::Process::myself().and_then(|own| own.status()).map_err(io::Error::other)?;
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let heeded = |kind: &SignalKind| ignored.sigign >> (kind.as_raw_value() - 1) & 1 == 0;
        let mut signals = {
            let _entered = runtime.enter();
            kinds.into_iter().filter(heeded).map(signal).collect::<io::Result<Vec<_>>>()?
        };
        let told = shared.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut wait = || {
                runtime.block_on(poll_fn(|cx| {
                    let came = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
                    if came { Poll::Ready(()) } else { Poll::Pending }
                }));
            };
            wait();
            told.asked.store(true, Ordering::Release);
            told.cut();
            wait();
            #[expect(clippy::disallowed_methods, reason = "whoever asks twice does not want to wait")]
            std::process::exit(INTERRUPTED);
        })?;
        Ok(Self(shared))
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }

    /// The connection that an answer is waited for on.
    pub(super) fn cuts(&self, connection: UnixStream) {
        *self.0.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        self.0.cut();
    }
}
