//! Several things polled by one task, each only when it was woken itself.
//!
//! The two connections and the streams between them wake each other all the time: a request read
//! wakes a stream, which wakes the origin's connection. Were the task's own waker passed to all of them,
//! each such step would send the whole task through the scheduler and poll everything again. A
//! [`Part`]'s waker sets a flag, which the task looks at before it goes to sleep.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

/// What the parts of one task share: its waker, and whether it is awake anyway.
#[derive(Debug, Default)]
struct Whole {
    awake: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Whole {
    fn wake(&self) {
        if !self.awake.load(SeqCst)
            && let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner)
        {
            waker.wake_by_ref();
        }
    }
}

/// The task that polls the parts.
#[derive(Debug, Default)]
pub struct Task(Arc<Whole>);

impl Task {
    /// A part, woken from the start.
    #[must_use]
    pub fn part(&self) -> Part {
        let flag = Arc::new(Flag { woken: AtomicBool::new(true), whole: self.0.clone() });
        Part { waker: Waker::from(flag.clone()), flag }
    }

    /// The task is polled, by `waker`. Parts that are woken before [`Task::sleep`] only set their flag.
    pub fn wake_up(&self, waker: &Waker) {
        self.0.awake.store(true, SeqCst);
        let mut own = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !own.as_ref().is_some_and(|own| own.will_wake(waker)) {
            *own = Some(waker.clone());
        }
    }

    /// The task returns. From here on a part that is woken wakes it; flags are to be looked at once more
    /// after this.
    pub fn sleep(&self) {
        self.0.awake.store(false, SeqCst);
    }
}

#[derive(Debug)]
struct Flag {
    woken: AtomicBool,
    whole: Arc<Whole>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, SeqCst) {
            self.whole.wake();
        }
    }
}

/// One thing that the task polls.
#[derive(Debug)]
pub struct Part {
    flag: Arc<Flag>,
    waker: Waker,
}

impl Part {
    /// To poll it with.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether it is to be polled; it is not any more.
    pub fn take(&self) -> bool {
        self.flag.woken.swap(false, SeqCst)
    }

    /// Whether it is to be polled.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.flag.woken.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn wakes_the_task_only_while_it_sleeps() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let task = Task::default();
        let (one, two) = (task.part(), task.part());
        task.wake_up(&waker);
        assert!(one.take() && two.take() && !one.take());
        one.waker().wake_by_ref();
        assert_eq!(count.0.load(SeqCst), 0);
        assert!(one.is_woken() && !two.is_woken());
        assert!(one.take());
        task.sleep();
        two.waker().wake_by_ref();
        two.waker().wake_by_ref();
        assert_eq!(count.0.load(SeqCst), 1);
        assert!(two.take());
    }
}
