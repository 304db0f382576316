//! At which priority the index is built.
//!
//! The thread is of the class SCHED_IDLE (sched(7)): it runs where nothing else wants to, and to whoever
//! looks for a CPU to wake something on, one that runs it is as good as idle, which nice 19 is not. Such a
//! thread may stand still for seconds wherever it is, so nothing that others need may be in its hands:
//!
//! - Of the tables it reads, and of what commits look at, it takes locks only while it is raised
//!   ([`Pacer::hurry`]), so for as long as anything of the gate takes them.
//! - Of the segment under way, which only searches look at, it holds the lock without that, for some
//!   microseconds. Who meets it held raises the thread first ([`Pacer::wait_for`]).
//!
//! SCHED_BATCH is what it is raised to: a share like everyone's, and nobody is interrupted for it. A thread
//! may leave SCHED_IDLE with RLIMIT_NICE of 20 or CAP_SYS_NICE. Where that is refused the thread would be
//! starved in earnest, so it is only made nice, and the log says so.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    thread,
};

use rustix::process::Pid;

/// Lower than anything that serves; as nice(2).
const NICE: i32 = 19;

/// How much the thread counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::store) enum Pace {
    /// It runs where nothing else wants to.
    Idle = 0,
    /// It has a small share, never none.
    Low = 1,
    /// It has a share like everyone's.
    Normal = 2,
}

/// The thread's pace: kept by the thread itself, and raised by those who wait for it.
#[derive(Debug, Default)]
pub(in crate::store) struct Pacer {
    /// The thread, where there is one that can be raised. It takes this at its beginning and its end only,
    /// when it is not idle.
    thread: Mutex<Option<Pid>>,
    /// Whether there is one.
    able: AtomicBool,
    /// What it comes back to: a [`Pace`].
    rests: AtomicU8,
    /// Those who wait for a lock that it may hold.
    waiting: AtomicUsize,
    /// Somebody raised it, since it last said what it rests at.
    raised: AtomicBool,
}

/// While it lives the thread is not idle.
#[derive(Debug)]
pub(in crate::store) struct Hurried<'p>(&'p Pacer);

impl Drop for Hurried<'_> {
    fn drop(&mut self) {
        if self.0.rests() != Pace::Normal as u8 {
            self.0.settle();
        }
    }
}

impl Pacer {
    /// The calling thread is the one. Where it cannot be raised again it is made nice for good.
    pub(super) fn enter(&self) {
        self.rests.store(Pace::Normal as u8, Ordering::SeqCst);
        // On another thread, because there is no way back for one that may not have it.
        let probe = || set(None, Pace::Idle).and_then(|()| set(None, Pace::Normal));
        let able = thread::scope(|scope| {
            let probed = thread::Builder::new().name("text".into()).spawn_scoped(scope, probe)?;
            probed.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
        });
        match able {
            Ok(()) => {
                *self.thread() = Some(rustix::thread::gettid());
                self.able.store(true, Ordering::SeqCst);
            }
            Err(error) => {
                tracing::warn!(%error, "the text index is built at nice {NICE}, and takes a share of a busy CPU: RLIMIT_NICE is below 20");
                if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                    tracing::warn!(%error, "the text index is built at the priority of everything else");
                }
            }
        }
    }

    /// The thread ends.
    pub(super) fn leave(&self) {
        self.rest(Pace::Normal);
        self.able.store(false, Ordering::SeqCst);
        *self.thread() = None;
    }

    fn thread(&self) -> MutexGuard<'_, Option<Pid>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread comes back to from here on. For the thread itself.
    pub(super) fn rest(&self, pace: Pace) {
        let before = self.rests.swap(pace as u8, Ordering::SeqCst);
        if before != pace as u8 || self.raised.swap(false, Ordering::SeqCst) {
            self.settle();
        }
    }

    /// Raises the thread until what is returned is dropped. For the thread itself.
    pub(in crate::store) fn hurry(&self) -> Hurried<'_> {
        if self.rests() != Pace::Normal as u8 {
            self.set(Pace::Normal);
        }
        Hurried(self)
    }

    fn rests(&self) -> u8 {
        self.rests.load(Ordering::SeqCst)
    }

    /// Comes back to what it rests at, but where somebody raised it, or waits.
    fn settle(&self) {
        match self.rests() {
            _ if self.raised.load(Ordering::SeqCst) => return self.set(Pace::Normal),
            0 => self.set(Pace::Idle),
            1 => self.set(Pace::Low),
            _ => return self.set(Pace::Normal),
        }
        // Who came before the last line may have raised it in vain; who comes after this one does not.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.set(Pace::Normal);
            self.raised.store(true, Ordering::SeqCst);
        }
    }

    fn set(&self, pace: Pace) {
        if self.able.load(Ordering::SeqCst)
            && let Err(error) = set(None, pace)
        {
            tracing::debug!(%error, ?pace, "the pace of the text index stays as it is");
        }
    }

    /// Raises the thread until it next says what it rests at.
    pub(super) fn raise(&self) {
        // Held meanwhile, so that the number is not another thread's by then.
        let thread = self.thread();
        if let Some(thread) = *thread {
            if let Err(error) = set(Some(thread), Pace::Normal) {
                tracing::debug!(%error, "the text index was not raised");
            }
            self.raised.store(true, Ordering::SeqCst);
        }
    }

    /// Takes a lock that the thread may hold while it is idle. For others than the thread.
    pub(super) fn wait_for<'m, T>(&self, mutex: &'m Mutex<T>) -> MutexGuard<'m, T> {
        match mutex.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.raise();
                let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                guard
            }
        }
    }
}

/// Sets the class and the niceness of a thread; `None`: of the one that calls.
fn set(thread: Option<Pid>, pace: Pace) -> io::Result<()> {
    let class = if pace == Pace::Idle { libc::SCHED_IDLE } else { libc::SCHED_BATCH };
    set_class(thread, class)?;
    // Niceness does not matter to an idle thread, and is what decides whether it may leave that class.
    let nice = if pace == Pace::Low { NICE } else { 0 };
    rustix::process::setpriority_process(thread, nice)?;
    Ok(())
}

#[expect(unsafe_code, reason = "sched_setscheduler(2) has no wrapper in the crates in use")]
fn set_class(thread: Option<Pid>, class: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    let thread = Pid::as_raw(thread);
    // SAFETY: the call reads `parameters`, which lives until it returns, and writes nothing.
    let done = unsafe { libc::syscall(libc::SYS_sched_setscheduler, thread, class, &raw const parameters) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc};

    use super::*;

    /// Class and niceness of a thread: the 41st and the 19th field of its line (proc_pid_stat(5)).
    fn of(thread: Pid) -> (i32, i32) {
        let line = fs::read_to_string(format!("/proc/self/task/{}/stat", thread.as_raw_nonzero())).unwrap();
        let fields: Vec<_> = line.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[41 - 3].parse().unwrap(), fields[19 - 3].parse().unwrap())
    }

    #[test]
    fn the_thread_is_idle_but_where_it_hurries() {
        thread::spawn(|| {
            let pacer = Pacer::default();
            pacer.enter();
            let own = rustix::thread::gettid();
            assert!(pacer.thread().is_some(), "the tests need RLIMIT_NICE of 20 or CAP_SYS_NICE");
            for (pace, expect) in [
                (Pace::Idle, (libc::SCHED_IDLE, 0)),
                (Pace::Low, (libc::SCHED_BATCH, 19)),
                (Pace::Normal, (libc::SCHED_BATCH, 0)),
                (Pace::Idle, (libc::SCHED_IDLE, 0)),
            ] {
                pacer.rest(pace);
                assert_eq!(of(own), expect, "{pace:?}");
                let hurried = pacer.hurry();
                assert_eq!(of(own), (libc::SCHED_BATCH, 0), "{pace:?}");
                drop(hurried);
                assert_eq!(of(own), expect, "{pace:?}");
            }
            // Raised by another, until it looks.
            pacer.raise();
            assert_eq!(of(own), (libc::SCHED_BATCH, 0));
            drop(pacer.hurry());
            assert_eq!(of(own), (libc::SCHED_BATCH, 0));
            pacer.rest(Pace::Idle);
            assert_eq!(of(own), (libc::SCHED_IDLE, 0));
            pacer.leave();
            assert_eq!(of(own), (libc::SCHED_BATCH, 0));
            pacer.rest(Pace::Idle);
            assert_eq!(of(own), (libc::SCHED_BATCH, 0), "nobody sets a thread that left");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn who_waits_for_a_lock_raises_the_thread_that_holds_it() {
        let (pacer, mutex) = (Pacer::default(), Mutex::new(0));
        let (held, is_held) = mpsc::channel();
        let (seen, was_seen) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (pacer, mutex) = (&pacer, &mutex);
            scope.spawn(move || {
                pacer.enter();
                pacer.rest(Pace::Idle);
                let mut guard = mutex.lock().unwrap();
                held.send(rustix::thread::gettid()).unwrap();
                // Until the other waits.
                while pacer.waiting.load(Ordering::SeqCst) == 0 || !pacer.raised.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                assert_eq!(of(rustix::thread::gettid()), (libc::SCHED_BATCH, 0));
                // It does not go back to idle while somebody waits.
                pacer.rest(Pace::Idle);
                assert_eq!(of(rustix::thread::gettid()), (libc::SCHED_BATCH, 0));
                *guard += 1;
                drop(guard);
                was_seen.recv().unwrap();
                pacer.rest(Pace::Idle);
                assert_eq!(of(rustix::thread::gettid()), (libc::SCHED_IDLE, 0));
                pacer.leave();
            });
            let thread = is_held.recv().unwrap();
            assert_eq!(of(thread), (libc::SCHED_IDLE, 0));
            assert_eq!(*pacer.wait_for(mutex), 1);
            seen.send(()).unwrap();
        });
    }
}
