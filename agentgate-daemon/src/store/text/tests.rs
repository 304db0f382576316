//! Segments beside a search that looks into everything.

mod stored;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, mpsc},
};

use super::{
    Sought,
    format::Head,
    segment::{Builder, Segment},
    set::Set,
};

use crate::{
    filter::Pattern,
    words::{Address, Form, Needle, Token, each},
};

/// Where the thread stands still when a test wants it to: in an entry, which the segment has in part.
#[derive(Debug, Default)]
pub(super) struct Pause(Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>);

impl Pause {
    /// Says that it is here, and waits.
    pub(super) fn here(&self) {
        let pause = self.0.lock().unwrap().take();
        if let Some((is_here, goes_on)) = pause
            && is_here.send(()).is_ok()
        {
            // It goes on as well where the test is over.
            let _over = goes_on.recv();
        }
    }

    /// Has the thread stand still the next time.
    fn next(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (is_here, was_here) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        *self.0.lock().unwrap() = Some((is_here, goes_on));
        (was_here, go_on)
    }
}

/// A generator that gives the same again for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn places(set: &Set) -> Vec<usize> {
    set.iter().collect()
}

fn add(builder: &mut Builder, id: u64, text: &str) {
    put(builder, id, text);
    builder.end();
}

fn put(builder: &mut Builder, id: u64, text: &str) {
    builder.begin(id);
    builder.begin_text(text.len());
    each(text.as_bytes(), Form::Plain, &mut |token| match token {
        Token::Word(word) | Token::Also(word) => drop(builder.add(word)),
        Token::Gap | Token::Cut => {}
    });
}

/// What is found while it grows, once it is closed, and after it was written and read.
fn search(builder: &Builder, needles: &[&str]) -> Vec<usize> {
    search_both(builder, &builder.finish().unwrap(), needles)
}

fn search_both(builder: &Builder, segment: &Segment, needles: &[&str]) -> Vec<usize> {
    search_for(builder, segment, &parsed(needles))
}

fn parsed(needles: &[&str]) -> Vec<Sought> {
    needles.iter().map(|needle| Needle::parse(needle).unwrap().into()).collect()
}

fn search_for(builder: &Builder, segment: &Segment, needles: &[Sought]) -> Vec<usize> {
    let live = builder.candidates(needles);
    let closed = segment.head.candidates(segment.content.as_slice(), needles).unwrap();
    let read = Head::decode(builder.bounds().from, &segment.encoded).unwrap().unwrap();
    let again = read.candidates(segment.content.as_slice(), needles).unwrap();
    assert_eq!((&live, &live), (&closed, &again), "{needles:?}");
    for at in 0..8192 {
        assert_eq!(builder.id(at), read.id(at));
    }
    assert_eq!((builder.highest(), builder.highest()), (segment.head.highest(), read.highest()));
    places(&live)
}

#[test]
fn a_segment_finds_what_a_naive_search_finds() {
    for seed in 1..=6_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut builder = Builder::new(1000, 500, true);
        let mut has: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        // Some words come alone, some with others, some in growing conversations.
        let mut conversation = String::new();
        for at in 0..150 + random.below(300) as usize {
            if random.below(20) == 0 {
                conversation.clear();
            }
            for _ in 0..random.below(12) {
                conversation.push_str(&format!(" w{}", random.below(3000)));
            }
            let rare = random.below(1 << 40);
            let text =
                format!("{conversation} both{} also{0} Ä{} x{rare:x}", random.below(9), random.below(40));
            for word in text.split_whitespace() {
                has.entry(word.to_lowercase()).or_default().insert(at);
            }
            add(&mut builder, 600 + at as u64 + random.below(2), &text);
        }
        let segment = builder.finish().unwrap();
        let all: Vec<_> = has.keys().cloned().collect();
        for _ in 0..150 {
            let one = &all[random.below(all.len() as u64) as usize];
            let other = &all[random.below(all.len() as u64) as usize];
            assert_eq!(
                search_both(&builder, &segment, &[one]),
                has[one].iter().copied().collect::<Vec<_>>(),
                "{one}"
            );
            let both: Vec<_> = has[one].intersection(&has[other]).copied().collect();
            assert_eq!(search_both(&builder, &segment, &[one, other]), both, "{one} {other}");
            let start: String = one.chars().take(2).collect();
            let any: BTreeSet<_> = has
                .iter()
                .filter(|(word, _)| word.starts_with(&start))
                .flat_map(|(_, at)| at)
                .copied()
                .collect();
            assert_eq!(
                search_both(&builder, &segment, &[&format!("{start}*")]),
                any.into_iter().collect::<Vec<_>>(),
                "{start}*"
            );
        }
        assert!(search_both(&builder, &segment, &["nowhere"]).is_empty());
    }
}

#[test]
fn an_empty_segment_is_one() {
    let builder = Builder::new(0, 0, false);
    assert!(search(&builder, &["a"]).is_empty());
}

#[test]
fn entries_that_are_not_wholly_indexed_are_always_found() {
    let mut builder = Builder::new(0, 0, true);
    add(&mut builder, 1, "a b");
    put(&mut builder, 2, "");
    builder.is_partial();
    builder.end();
    add(&mut builder, 3, "b");
    assert_eq!(search(&builder, &["a"]), [0, 1]);
    assert_eq!(search(&builder, &["a", "c"]), [1]);
}

#[test]
fn very_many_words_of_one_entry_do_not_fill_a_segment() {
    let mut builder = Builder::new(0, 0, true);
    let many: String = (0..70_000).map(|word| format!("w{word} ")).collect();
    add(&mut builder, 1, &many);
    add(&mut builder, 2, "w1 w69999");
    let needles = |needle| parsed(&[needle]);
    assert_eq!(places(&builder.candidates(&needles("w69999"))), [0, 1]);
    assert_eq!(places(&builder.candidates(&needles("w1"))), [0, 1]);
    assert_eq!(places(&builder.candidates(&needles("nothing"))), [0]);
}

#[test]
fn random_digits_do_not_fill_a_segment() {
    let mut random = Random(1);
    let mut builder = Builder::new(0, 0, true);
    let keys: Vec<_> = (0..2000)
        .map(|_| format!("{:016x}{:016x}", random.below(u64::MAX), random.below(u64::MAX)))
        .collect();
    let text = keys.join(" ");
    add(&mut builder, 1, &text);
    add(&mut builder, 2, "one id: 0123456789abcdef0123456789abcdef");
    let segment = builder.finish().unwrap();
    assert!(segment.content.len() * 8 < text.len(), "{} of {}", segment.content.len(), text.len());
    // What was left out is found all the same, and nothing else is looked into for it.
    assert_eq!(search(&builder, &[keys.last().unwrap()]), [0]);
    assert_eq!(search(&builder, &[keys.first().unwrap()]), [0]);
    assert_eq!(search(&builder, &["0123456789abcdef0123456789abcdef"]), [0, 1]);
    assert_eq!(search(&builder, &["id"]), [1]);
}

#[test]
fn bytes_that_are_no_segment_are_refused() {
    let mut builder = Builder::new(7, 0, true);
    for id in 0..50 {
        add(&mut builder, id * 3 % 31, "some words of an entry");
    }
    let segment = builder.finish().unwrap();
    for cut in 0..segment.encoded.len() {
        assert!(Head::decode(7, segment.encoded.get(..cut).unwrap()).is_err(), "{cut}");
    }
    assert!(Head::decode(8, &segment.encoded).is_err());
    let mut later = segment.encoded.clone();
    later[0] += 1;
    assert!(Head::decode(7, &later).unwrap().is_none());
    let needles = [
        Needle::parse("some*").unwrap().into(),
        Sought::Address(Address::of_target(&Pattern::whole("*ome*").runs()).unwrap()),
    ];
    for at in 0..segment.encoded.len() {
        for bit in 0..8 {
            let mut changed = segment.encoded.clone();
            changed[at] ^= 1 << bit;
            // Whatever it is, it is no panic.
            if let Ok(Some(head)) = Head::decode(7, &changed) {
                let _found = head.candidates(segment.content.as_slice(), &needles);
            }
        }
    }
    for at in 0..segment.content.len() {
        let mut changed = segment.content.clone();
        changed[at] ^= 0x55;
        let _found = segment.head.candidates(changed.as_slice(), &needles);
    }
}
