//! What the fuzz target `record` asks of the store's bytes: whatever they are, they are read or refused, and
//! what is read means the same when it is written again. In no other build.

use super::{
    Entry,
    canonical::{Glance, decode, encode, ended},
};
use crate::model::{State, Timestamp};

/// Bytes of a table, as a record.
pub fn record(bytes: &[u8]) {
    let glance = Glance::at(bytes);
    let changed = ended(bytes, State::Failed, Timestamp(7), None);
    let Ok((record, _digests)) = decode(bytes) else { return };
    if let Ok(glance) = glance {
        assert_eq!(
            (glance.id, glance.kind, glance.state),
            (record.id.0, Some(record.kind), Some(record.state))
        );
        assert_eq!((glance.started, glance.times), (record.started, record.times));
    }
    let mut again = Vec::new();
    encode(&record, [None, None], &mut again);
    assert_eq!(decode(&again).ok(), Some((record.clone(), [None, None])));
    let changed = changed.ok().and_then(|bytes| decode(&bytes).ok()).map(|(record, _)| record);
    assert_eq!(
        changed.map(|record| (record.state, record.finished)),
        Some((State::Failed, Some(Timestamp(7))))
    );
}

/// Bytes of a journal's frame, as entries.
pub fn payload(bytes: &[u8]) {
    let Ok(entries) = Entry::all(bytes) else { return };
    let written = |entries: &[Entry]| {
        let mut out = Vec::new();
        entries.iter().for_each(|entry| entry.put(&mut out));
        out
    };
    let once = written(&entries);
    let again = Entry::all(&once).map(|entries| written(&entries));
    assert_eq!(again.ok(), Some(once));
    for entry in entries {
        record(&entry.encoded);
    }
}
