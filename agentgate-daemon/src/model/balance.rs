//! The balance of the audit log with the kernel's own counters.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Numbers of one session and class. `kernel` is `recorded` and `abandoned` and `declared` and `pending`
/// together, or there is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceRow {
    /// Id of the session's cgroup; 0 for the guarded cgroup itself.
    pub session: u64,
    /// As records name it, where one does.
    pub name: Option<String>,
    /// `flows`, or the code of a kernel's denial.
    pub what: String,
    /// Counted by the kernel.
    pub kernel: u64,
    /// On record, each or by their number.
    pub recorded: u64,
    /// On record as connections that never came to the listener.
    pub abandoned: u64,
    /// On record as lost.
    pub declared: u64,
    /// On their way.
    pub pending: u64,
    /// What the kernel counted and nothing accounts for; below zero, records of what it did not count.
    pub difference: i64,
}

impl BalanceRow {
    /// Adds the numbers of another.
    pub fn add(&mut self, other: &Self) {
        self.kernel += other.kernel;
        self.recorded += other.recorded;
        self.abandoned += other.abandoned;
        self.declared += other.declared;
        self.pending += other.pending;
        // Not summed with their signs: one session's surplus is no excuse for another's lack.
        self.difference += other.difference.abs();
    }
}

/// What one life of the kernel's counters came to that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierBalance {
    pub epoch: String,
    /// By class, over all sessions. What the kernel counted after its numbers were kept last is not in
    /// them, so a difference here is no finding.
    pub total: Vec<BalanceRow>,
}

/// Numbers of records that do not agree with the sums kept of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miscount {
    pub session: u64,
    pub what: String,
    /// `recorded`, `abandoned` or `declared`.
    pub column: String,
    /// As summed up when they were written.
    pub summed: u64,
    /// As counted in the log.
    pub counted: u64,
}

/// The answer to whether the log holds what the kernel saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub at: Timestamp,
    /// Which life of the kernel's counters: the boot, and the id of their map.
    pub epoch: String,
    /// Those with a difference first, then those with something pending, then the largest.
    pub rows: Vec<BalanceRow>,
    /// Rows that are not shown, because they are too many. They are in the total.
    pub left_out: u64,
    /// By class, over all sessions.
    pub total: Vec<BalanceRow>,
    /// Events that the ring buffer had no room for.
    pub lost_events: u64,
    /// What the kernel had no room to count: then the numbers are no proof.
    #[serde(default)]
    pub unbooked: u64,
    /// Where the log itself was counted: what does not agree.
    pub miscounts: Option<Vec<Miscount>>,
    pub earlier: Vec<EarlierBalance>,
    /// No difference and no miscount, and everything was counted. What is pending is on its way and no difference.
    pub balanced: bool,
}
