//! What a journal gives back after any end.

use std::sync::{Arc, Mutex};

use super::*;

/// A file in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Disk for Memory {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        into.copy_from_slice(&self.0.lock().unwrap()[at as usize..][..into.len()]);
        Ok(())
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        let end = at as usize + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[at as usize..end].copy_from_slice(bytes);
        Ok(())
    }
    fn resize(&self, to: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(to as usize, 0);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn open(file: &Memory) -> Journal {
    Journal::open(Box::new(file.clone())).unwrap().unwrap()
}

fn append(journal: &mut Journal, payload: &str) -> u64 {
    journal.append(3, |out| out.extend_from_slice(payload.as_bytes())).unwrap()
}

/// Payloads beyond `taken`, and how many are lost.
fn read(bytes: Vec<u8>, taken: u64) -> (Vec<String>, u64) {
    let file = Memory(Arc::new(Mutex::new(bytes)));
    let kept = open(&file).read(taken).unwrap();
    assert!(kept.frames.iter().all(|frame| frame.epoch == 3));
    let payloads = kept.frames.into_iter().map(|frame| String::from_utf8(frame.payload).unwrap());
    (payloads.collect(), kept.lost)
}

/// A journal of three frames, cut to little more than them, and where each ends.
fn three() -> (Vec<u8>, Vec<usize>) {
    let file = Memory::default();
    let mut journal = open(&file);
    let ends = ["first", "", "the third, of some length"].map(|payload| {
        append(&mut journal, payload);
        journal.at as usize
    });
    let mut bytes = file.0.lock().unwrap().clone();
    bytes.truncate(ends[2] + 64);
    (bytes, ends.to_vec())
}

#[test]
fn a_torn_end_is_an_end_wherever_it_is() {
    let (whole, ends) = three();
    assert_eq!(
        read(whole.clone(), 0),
        (vec!["first".into(), String::new(), "the third, of some length".into()], 0)
    );
    for cut in PAGE as usize..whole.len() {
        // What was not written is zero, or what was there before.
        for rest in [0, 0xa5] {
            let mut torn = whole.clone();
            torn[cut..].fill(rest);
            let (found, lost) = read(torn, 0);
            // A frame ends with its payload: zeros after it are not missed.
            let least = ends.iter().filter(|end| **end <= cut).count();
            let most = ends.iter().filter(|end| **end <= cut + 7).count();
            assert!((least..=most).contains(&found.len()) && lost == 0, "{cut} {rest}: {found:?} {lost}");
        }
    }
}

#[test]
fn a_damaged_middle_is_told_and_the_rest_kept() {
    let (whole, ends) = three();
    for at in PAGE as usize..ends[2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let (found, lost) = read(damaged, 0);
        let frame = ends.iter().filter(|end| **end <= at).count();
        match (found.len(), lost) {
            // Padding behind a payload.
            (3, 0) => assert!(ends[frame] - at < 8, "{at}"),
            (2, 1) => assert!(frame < 2, "{at}"),
            // The last may as well not have been written.
            (2, 0) => assert_eq!(frame, 2, "{at}"),
            other => panic!("{at}: {other:?}"),
        }
    }
}

#[test]
fn earlier_rounds_are_over() {
    let file = Memory::default();
    let mut journal = open(&file);
    for payload in ["one, longer than what comes in its place", "two", "three"] {
        append(&mut journal, payload);
    }
    journal.rewind();
    assert_eq!(append(&mut journal, "four"), 4);
    let bytes = file.0.lock().unwrap().clone();
    assert_eq!(read(bytes.clone(), 3), (vec!["four".into()], 0));
    assert_eq!(read(bytes, 4), (vec![], 0));
    // It goes on after what it holds.
    let mut journal = open(&file);
    assert_eq!(journal.read(3).unwrap().frames.len(), 1);
    assert_eq!(append(&mut journal, "five"), 5);
    assert_eq!(open(&file).read(3).unwrap().frames.len(), 2);
}

#[test]
fn it_grows_and_shrinks() {
    let file = Memory::default();
    let mut journal = open(&file);
    let large = "x".repeat(KEEP as usize + 5);
    append(&mut journal, &large);
    append(&mut journal, "after");
    assert_eq!(read(file.0.lock().unwrap().clone(), 0).0.len(), 2);
    journal.rewind();
    assert_eq!(file.size().unwrap(), KEEP);
    append(&mut journal, &large);
    assert_eq!(read(file.0.lock().unwrap().clone(), 2).0, [large]);
}

#[test]
fn a_frame_needs_the_key() {
    let (whole, _) = three();
    let file = Memory(Arc::new(Mutex::new(whole)));
    let other = Memory::default();
    let stranger = open(&other);
    let journal = open(&file);
    assert_ne!((journal.identity(), journal.key), (stranger.identity(), stranger.key));
    // The frames of one under the head of the other.
    let head = other.0.lock().unwrap()[..PAGE as usize].to_vec();
    file.0.lock().unwrap()[..PAGE as usize].copy_from_slice(&head);
    let bytes = file.0.lock().unwrap().clone();
    assert_eq!(read(bytes, 0), (vec![], 0));
    file.0.lock().unwrap()[60] ^= 1;
    assert!(Journal::open(Box::new(file)).unwrap().is_none(), "a head that is damaged");
}

/// Numbers that follow from each other, for an order that is the same each time.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn rounds_beside_each_other_are_all_there_until_they_are_taken() {
    for seed in 0..40 {
        let mut state = seed;
        let file = Memory::default();
        let mut journal = open(&file);
        // Of this round, of that which is away, and the last that the tables have.
        let (mut round, mut away, mut taken) = (Vec::new(), None::<Vec<(u64, String)>>, 0);
        let mut most = 0;
        for _ in 0..120 {
            match next(&mut state) % 8 {
                0 if away.is_none() && !round.is_empty() => {
                    journal.hand_over();
                    away = Some(std::mem::take(&mut round));
                }
                1 | 2 => {
                    if let Some(done) = away.take() {
                        taken = done.last().unwrap().0;
                        journal.taken();
                    }
                }
                _ => {
                    let length = [10, 3000, 40_000][(next(&mut state) % 3) as usize];
                    let payload = char::from(b'a' + (next(&mut state) % 26) as u8).to_string().repeat(length);
                    round.push((append(&mut journal, &payload), payload));
                }
            }
            let expect: Vec<String> =
                away.iter().flatten().chain(&round).map(|(_, payload)| payload.clone()).collect();
            most = most.max(expect.len());
            let bytes = file.0.lock().unwrap().clone();
            assert!(read(bytes, taken) == (expect, 0), "seed {seed}");
        }
        assert!(most > 5, "{most}");
    }
}

/// A file whose syncs fail after all is written, when told.
#[derive(Clone, Debug, Default)]
struct Unsure(Memory, Arc<std::sync::atomic::AtomicBool>);

impl Disk for Unsure {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_at(into, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_at(bytes, at)
    }
    fn resize(&self, to: u64) -> io::Result<()> {
        self.0.resize(to)
    }
    fn sync(&self) -> io::Result<()> {
        if self.1.load(std::sync::atomic::Ordering::SeqCst) { Err(io::Error::other("?")) } else { Ok(()) }
    }
}

#[test]
fn of_two_attempts_the_later_counts_wherever_it_is() {
    let file = Unsure::default();
    let mut journal = Journal::open(Box::new(file.clone())).unwrap().unwrap();
    append(&mut journal, "first");
    let fails = |on: bool| file.1.store(on, std::sync::atomic::Ordering::SeqCst);
    fails(true);
    journal.append(3, |out| out.extend_from_slice(b"refused")).unwrap_err();
    fails(false);
    assert_eq!(read(file.0.0.lock().unwrap().clone(), 1), (vec!["refused".into()], 0), "it may be there");
    journal.rewind();
    assert_eq!(append(&mut journal, "a"), 2);
    assert_eq!(read(file.0.0.lock().unwrap().clone(), 1), (vec!["a".into()], 0));
    // Where the earlier attempt comes first in the file.
    fails(true);
    journal.append(3, |out| out.extend_from_slice(b"refused")).unwrap_err();
    fails(false);
    journal.at += 4096;
    assert_eq!(append(&mut journal, "b"), 3);
    assert_eq!(read(file.0.0.lock().unwrap().clone(), 2), (vec!["b".into()], 0));
}
