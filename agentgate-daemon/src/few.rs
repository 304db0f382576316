//! Some of a second one by one, the rest counted: what anybody can cause at any rate must not fill
//! the log, and must not pass unseen either.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets a number of occurrences a second through and counts the others.
#[derive(Debug)]
pub struct Few {
    most: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    admitted: u32,
    unseen: u64,
}

/// The window within which occurrences are counted.
const WINDOW: Duration = Duration::from_secs(1);

impl Few {
    /// Lets `most` a second through.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, window: Mutex::new(Window { since: Instant::now(), admitted: 0, unseen: 0 }) }
    }

    /// Whether this one is let through, and then how many before it were not since the last that was.
    #[must_use]
    pub fn admit(&self) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.since.elapsed() >= WINDOW {
            window.since = Instant::now();
            window.admitted = 0;
        }
        if window.admitted >= self.most {
            window.unseen += 1;
            return None;
        }
        window.admitted += 1;
        Some(std::mem::take(&mut window.unseen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_holds_back() {
        let few = Few::new(2);
        assert_eq!([few.admit(), few.admit(), few.admit(), few.admit()], [Some(0), Some(0), None, None]);
        few.window.lock().unwrap().since -= WINDOW;
        assert_eq!([few.admit(), few.admit(), few.admit()], [Some(2), Some(0), None]);
    }
}
