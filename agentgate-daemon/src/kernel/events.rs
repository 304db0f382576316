//! From the ring buffers to the daemon: events as data, aya-log lines as tracing.

use std::{
    io,
    os::fd::AsRawFd,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agentgate_common::event::KernelEvent;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::interval,
};
use tracing_log::log;

use super::{KernelError, since_boot_ns, step};

/// How many events wait for the daemon before the ring buffer has to hold them.
pub(super) const QUEUE: usize = 1024;

/// How often the ring buffer is looked at although nothing was said: a buffer that stays empty says by
/// that alone until when everything was heard.
const LOOK: Duration = Duration::from_millis(500);

/// Hands the programs' own log lines to tracing, whatever else is set up for the `log` crate.
#[derive(Debug)]
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if let Err(error) = tracing_log::format_trace(record) {
            tracing::warn!(%error, "a line of the eBPF programs could not be shown");
        }
    }
    fn flush(&self) {}
}

/// The two ring buffers and where events go.
pub(super) struct Source {
    events: RingBuf<MapData>,
    log: EbpfLogger<ToTracing>,
    sender: mpsc::Sender<KernelEvent>,
    /// Nanoseconds since boot before which everything was handed over.
    heard: Arc<AtomicU64>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(
        ebpf: &mut Ebpf,
        events: RingBuf<MapData>,
        sender: mpsc::Sender<KernelEvent>,
        heard: Arc<AtomicU64>,
    ) -> Result<Self, KernelError> {
        let log =
            EbpfLogger::init_with_logger(ebpf, ToTracing).map_err(step("opening the log of the programs"))?;
        Ok(Self { events, log, sender, heard })
    }

    /// Forwards until `stop`, then what is left without waiting for a reader.
    pub(super) async fn forward(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self { events, log, sender, heard } = self;
        let mut events = watched(events)?;
        let mut log = watched(log)?;
        let mut stop = std::pin::pin!(stop);
        let mut look = interval(LOOK);
        // What an earlier daemon left unread is there already, and readiness tells of changes only.
        let mut waiting = true;
        loop {
            if !waiting {
                tokio::select! {
                    () = &mut stop => break,
                    ready = events.readable() => ready?.clear_ready(),
                    _ = look.tick() => {}
                    ready = log.readable() => ready?.clear_ready(),
                }
            }
            waiting = false;
            log.get_mut().flush();
            let looked = since_boot_ns();
            while let Some(event) = next(events.get_mut()) {
                // A full queue waits here: the ring buffer fills, and what it loses is counted.
                tokio::select! {
                    () = &mut stop => {
                        let _full_or_closed = sender.try_send(event);
                        drain(events.get_mut(), &sender);
                        return Ok(());
                    }
                    sent = sender.send(event) => {
                        if sent.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
            heard.store(looked, Ordering::Release);
        }
        log.get_mut().flush();
        drain(events.get_mut(), &sender);
        Ok(())
    }
}

#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn watched<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both sources own the descriptor of their map, never change it, and close it when
    // they are dropped, after they have been deregistered.
    let watched = unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

fn drain(events: &mut RingBuf<MapData>, sender: &mpsc::Sender<KernelEvent>) {
    while let Ok(slot) = sender.try_reserve() {
        match next(events) {
            Some(event) => slot.send(event),
            None => break,
        }
    }
}

#[expect(
    unsafe_code,
    reason = "an entry of the ring buffer is bytes that are read as the type they were written as"
)]
fn next(events: &mut RingBuf<MapData>) -> Option<KernelEvent> {
    loop {
        let item = events.next()?;
        if item.len() < size_of::<KernelEvent>() {
            tracing::warn!(
                bytes = item.len(),
                "an event of the kernel has another layout and is passed over"
            );
            continue;
        }
        // SAFETY: long enough, and any bytes are a valid KernelEvent; entries are aligned to eight
        // bytes, which is not relied upon.
        return Some(unsafe { ptr::read_unaligned(item.as_ptr().cast()) });
    }
}
