//! Parts that many records share, as bytes: all exchanges of a connection have one subject and one flow, and each
//! of them is encoded once by each thread that encodes, as long as not too many are in use at once.

use std::{cell::RefCell, sync::Arc};

use crate::model::{Flow, Subject};

/// Parts that are remembered of each kind, by each thread.
const PLACES: usize = 64;
/// Longer ones are not remembered.
const LONGEST: usize = 2048;

thread_local! {
    pub(super) static SUBJECTS: RefCell<Known<Subject>> = const { RefCell::new(Known::new()) };
    pub(super) static FLOWS: RefCell<Known<Flow>> = const { RefCell::new(Known::new()) };
}

/// A part and its bytes.
type Place<T> = Option<(Arc<T>, Box<[u8]>)>;

/// Parts that were met. What is shared does not change; and while it is here, nothing else has its address.
pub(super) struct Known<T> {
    places: Vec<Place<T>>,
}

impl<T> Known<T> {
    const fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Appends what `put` writes of `part`.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, part: &Arc<T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let address = Arc::as_ptr(part).addr();
        // The lower bits are those of the alignment, and the same for all.
        let place = self.places.get_mut((address >> 4 ^ address >> 10) % PLACES);
        match place {
            Some(Some((known, bytes))) if Arc::ptr_eq(known, part) => out.extend_from_slice(bytes),
            place => {
                let start = out.len();
                put(out, part);
                let written = out.get(start..).unwrap_or_default();
                // One that no other record has is not met again.
                if let Some(place) = place
                    && Arc::strong_count(part) > 1
                    && written.len() <= LONGEST
                {
                    *place = Some((part.clone(), written.into()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_part_gives_the_same_bytes_and_another_its_own() {
        let mut known = Known::new();
        let mut calls = 0;
        let mut bytes = |known: &mut Known<u32>, part: &Arc<u32>| {
            let mut out = vec![9];
            known.put(&mut out, part, |out, part| {
                calls += 1;
                out.extend_from_slice(&part.to_le_bytes());
            });
            (out, calls)
        };
        let shared = Arc::new(1);
        let _other = shared.clone();
        assert_eq!(bytes(&mut known, &shared), (vec![9, 1, 0, 0, 0], 1));
        assert_eq!(bytes(&mut known, &shared), (vec![9, 1, 0, 0, 0], 1), "once");
        // As many as there are places several times over, at whatever addresses.
        for number in 2..500_u32 {
            let part = Arc::new(number);
            let _other = part.clone();
            let expect = [&[9], &number.to_le_bytes()[..]].concat();
            assert_eq!(bytes(&mut known, &part), (expect.clone(), number));
            assert_eq!(bytes(&mut known, &part), (expect, number));
        }
        let alone = Arc::new(7);
        assert_eq!(bytes(&mut known, &alone).1, 500);
        assert_eq!(bytes(&mut known, &alone).1, 501, "it is not kept");
    }
}
