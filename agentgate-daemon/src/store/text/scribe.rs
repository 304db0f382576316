//! An entry's texts become words of the segment under way.
//!
//! What is dear, taking texts apart, is done with no lock held. What comes of it is kept as *steps*, and the
//! segment takes some thousands of words at a time. A text that the segment has met gives its words without
//! being looked at: what an agent is and asks for, header fields, pieces of conversations, whole bodies,
//! which are then not even read.

use std::{ops::Range, sync::PoisonError};

use super::{
    Text,
    find::CUT,
    indexer::Stop,
    memo::{Key, Kind, Known, Memo},
    segment::{Added, Builder},
};
use crate::{
    model::TextIndex,
    store::{
        StoreError,
        canonical::{Head, Malformed, Texts, decode_field, pair},
        order::{Placed, Walk},
    },
    words::{Form, Part, Token, each, heads, in_body, pieces, request},
};

/// Words that the segment takes at a time: a search waits for no more.
const BURST: usize = 2048;

/// What is to be done to the segment.
#[derive(Debug)]
enum Step {
    /// An entry of this record begins.
    Begin(u64),
    End,
    /// It cannot be read wholly.
    Partial,
    /// It has a text of so many bytes.
    Text(usize),
    /// It has a text that the segment has met.
    Known(Known),
    /// It has words, which lie here in [`Scribe::words`]; what they are of is to be remembered.
    Fresh(Option<Key>, Range<usize>),
}

/// Takes entries apart for one segment after the other.
#[derive(Debug)]
pub(super) struct Scribe {
    memo: Memo,
    steps: Vec<Step>,
    /// Words, each with its length before it.
    words: Vec<u8>,
    /// How many words the steps have.
    pending: usize,
    /// Places of the words of the body under way; `None` where they are not all known.
    body: Option<Vec<Range<u32>>>,
    scratch: Vec<u8>,
    found: Vec<u32>,
}

impl Scribe {
    pub(super) fn new() -> Self {
        Self {
            memo: Memo::new(),
            steps: Vec::new(),
            words: Vec::new(),
            pending: 0,
            body: None,
            scratch: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Another segment begins.
    pub(super) fn forget(&mut self) {
        self.memo.clear();
        self.steps.clear();
        self.words.clear();
        (self.pending, self.body) = (0, None);
    }

    /// Adds an entry to the segment under way.
    pub(super) fn add(
        &mut self,
        text: &Text,
        walk: &mut Walk,
        entry: &Placed,
        mode: TextIndex,
    ) -> Result<(), Stop> {
        self.memo.bound();
        self.steps.push(Step::Begin(entry.id().0));
        let outcome = match Texts::at(&entry.encoded) {
            Ok(texts) => match self.heads(text, &texts)? {
                Ok(()) if mode == TextIndex::Bodies => self.bodies(text, walk, entry, &texts)?,
                outcome => outcome,
            },
            Err(malformed) => Err(malformed),
        };
        // Who looks into it meets the same.
        if let Err(Malformed(_)) = outcome {
            self.steps.push(Step::Partial);
        }
        self.steps.push(Step::End);
        self.flush(text)
    }

    fn heads(&mut self, text: &Text, texts: &Texts<'_>) -> Result<Result<(), Malformed>, Stop> {
        for (tag, payload) in &texts.fields {
            let key = self.memo.key(Kind::Field(*tag), payload);
            if !self.knows(key.as_ref()) {
                let record = match decode_field(*tag, payload) {
                    Ok(record) => record,
                    Err(malformed) => return Ok(Err(malformed)),
                };
                self.fresh(key, |see| {
                    heads(&record, &mut |part, text| see(part, text.as_bytes(), Form::Plain))
                });
            }
        }
        for header in [&texts.request, &texts.response].into_iter().flatten().flat_map(|head| &head.headers) {
            let key = self.memo.key(Kind::Header, header);
            if !self.knows(key.as_ref()) {
                let (name, value) = match pair(header) {
                    Ok(pair) => pair,
                    Err(malformed) => return Ok(Err(malformed)),
                };
                self.fresh(key, |see| {
                    see(Part::Other, name.as_bytes(), Form::Plain);
                    see(Part::Other, value.as_bytes(), Form::Plain);
                });
                self.flush_much(text)?;
            }
        }
        if let Some(head) = &texts.request {
            self.line(head, texts.host);
        }
        Ok(Ok(()))
    }

    fn line(&mut self, head: &Head<'_>, host: &str) {
        self.scratch.clear();
        for part in [head.method, head.scheme, host, head.target] {
            self.scratch.extend_from_slice(part.as_bytes());
            self.scratch.push(0);
        }
        let key = self.memo.key(Kind::Line, &self.scratch);
        if !self.knows(key.as_ref()) {
            let joined = !head.target.starts_with('/');
            self.fresh(key, |see| {
                request(head.method, head.scheme, host, head.target, &mut |part, text| {
                    see(part, text.as_bytes(), Form::Plain);
                });
                // The end of the host and the beginning of the target are one word then.
                if joined {
                    see(Part::Address, CUT, Form::Plain);
                }
            });
        }
    }

    fn bodies(
        &mut self,
        text: &Text,
        walk: &mut Walk,
        entry: &Placed,
        texts: &Texts<'_>,
    ) -> Result<Result<(), Malformed>, Stop> {
        let mut outcome = Ok(());
        for (side, head) in [&texts.request, &texts.response].into_iter().enumerate() {
            let Some((head, digest)) = head.as_ref().and_then(|head| Some((head, head.digest?))) else {
                continue;
            };
            self.scratch.clear();
            self.scratch.extend_from_slice(&digest);
            // What it is taken for depends on these. Their names are short, so one byte is before them.
            let content =
                |header: &&&[u8]| header.get(1..9).is_some_and(|name| name.eq_ignore_ascii_case(b"content-"));
            for header in head.headers.iter().filter(content) {
                // With its length, so that no value passes for the header after it.
                self.scratch.extend_from_slice(&(header.len() as u64).to_le_bytes());
                self.scratch.extend_from_slice(header);
            }
            let kind = if texts.transcript { Kind::Transcript } else { Kind::Body };
            let key = self.memo.key(kind, &self.scratch);
            if self.knows(key.as_ref()) {
                continue;
            }
            match walk.body(entry, side, Some(digest)) {
                Ok(Some(bytes)) => match decode_field(head.tag, head.payload) {
                    Ok(record) => {
                        let request = record.request.as_ref().map(|head| &head.headers);
                        let headers = request.or(record.response.as_ref().map(|head| &head.headers));
                        if let Some(headers) = headers {
                            self.body(text, key, |see| {
                                in_body(headers, texts.transcript, &bytes, &mut |text, form| see(text, form));
                            })?;
                        }
                    }
                    Err(malformed) => outcome = Err(malformed),
                },
                Ok(None) => {}
                Err(StoreError::Malformed { source, .. }) => outcome = Err(source),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(outcome)
    }

    /// Adds a body, by the function that gives its texts.
    fn body(
        &mut self,
        text: &Text,
        key: Option<Key>,
        texts: impl FnOnce(&mut dyn FnMut(&[u8], Form)),
    ) -> Result<(), Stop> {
        self.flush(text)?;
        self.body = Some(Vec::new());
        let (mut outcome, mut length) = (Ok(()), 0);
        texts(&mut |bytes, form| {
            // What was said in it is part of it, so only the first counts.
            if length == 0 {
                length = bytes.len();
                self.steps.push(Step::Text(length));
            }
            let kind = if form == Form::Json { Kind::Json } else { Kind::Plain };
            for piece in pieces(bytes) {
                let key = self.memo.key(kind, piece);
                if !self.knows(key.as_ref()) {
                    self.fresh(key, |see| see(Part::Other, piece, form));
                }
                if outcome.is_ok() {
                    outcome = self.flush_much(text);
                }
            }
        });
        outcome?;
        self.flush(text)?;
        if let Some(key) = key
            && let Some(words) = self.body.take().and_then(|words| self.memo.join(&words))
            && let Ok(bytes) = u32::try_from(length)
        {
            self.memo.put(key, Known { words, bytes });
        }
        Ok(())
    }

    /// Whether the segment has met this; its words are the entry's then.
    fn knows(&mut self, key: Option<&Key>) -> bool {
        let Some(known) = key.and_then(|key| self.memo.get(key)) else { return false };
        self.pending += known.words.len();
        self.steps.push(Step::Known(known.clone()));
        true
    }

    /// Takes apart what the segment has not met.
    fn fresh(&mut self, key: Option<Key>, texts: impl FnOnce(&mut dyn FnMut(Part, &[u8], Form))) {
        let start = self.words.len();
        let (words, pending) = (&mut self.words, &mut self.pending);
        let mut push = |word: &[u8]| {
            *pending += 1;
            words.push(word.len() as u8);
            words.extend_from_slice(word);
        };
        texts(&mut |part, text, form| {
            if text == CUT {
                return push(CUT);
            }
            each(text, form, &mut |token| match token {
                Token::Word(word) | Token::Also(word) => push(word),
                Token::Cut if part == Part::Address => push(CUT),
                Token::Cut | Token::Gap => {}
            });
        });
        self.steps.push(Step::Fresh(key, start..self.words.len()));
    }

    fn flush_much(&mut self, text: &Text) -> Result<(), Stop> {
        if self.pending >= BURST { self.flush(text) } else { Ok(()) }
    }

    /// Has the segment take the steps.
    fn flush(&mut self, text: &Text) -> Result<(), Stop> {
        let mut growing = text.growing.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been taken away meanwhile.
        let Some(builder) = growing.builder.as_mut() else { return Err(Stop::Again) };
        for step in self.steps.drain(..) {
            match step {
                Step::Begin(id) => builder.begin(id),
                Step::End => builder.end(),
                Step::Partial => builder.is_partial(),
                Step::Text(bytes) => builder.begin_text(bytes),
                Step::Known(known) => {
                    if known.bytes > 0 {
                        builder.begin_text(known.bytes as usize);
                    }
                    builder.again(self.memo.words(&known.words));
                    if let Some(body) = &mut self.body {
                        body.push(known.words);
                    }
                }
                Step::Fresh(key, words) => {
                    self.found.clear();
                    let words = self.words.get(words).unwrap_or_default();
                    let whole = put(builder, words, &mut self.found);
                    let kept = if whole && (key.is_some() || self.body.is_some()) {
                        self.memo.keep(&self.found)
                    } else {
                        None
                    };
                    match (&mut self.body, &kept) {
                        (Some(body), Some(words)) => body.push(words.clone()),
                        (body @ Some(_), None) => *body = None,
                        (None, _) => {}
                    }
                    if let (Some(key), Some(words)) = (key, kept) {
                        self.memo.put(key, Known { words, bytes: 0 });
                    }
                }
            }
        }
        drop(growing);
        self.words.clear();
        self.pending = 0;
        #[cfg(test)]
        text.pause.here();
        Ok(())
    }
}

/// Puts words, each with its length before it. Whether none was left out.
fn put(builder: &mut Builder, mut words: &[u8], found: &mut Vec<u32>) -> bool {
    let mut whole = true;
    while let Some((length, rest)) = words.split_first() {
        let (word, rest) = rest.split_at_checked(usize::from(*length)).unwrap_or_default();
        words = rest;
        match builder.add(word) {
            Added::At(index) => found.push(index),
            Added::LeftOut => whole = false,
        }
    }
    whole
}
