//! Words that are looked for, as the language writes them.

use super::lex::Character;
use crate::{
    model::Record,
    words::{Needle, NoNeedle, contains},
};

/// The words of a piece of a filter, in a row; an unquoted `*` at the end leaves the last one open.
pub(super) fn needle(word: &[Character]) -> Result<Needle, (String, String)> {
    let (word, open) = match word.split_last() {
        Some((last, rest)) if !last.literal && last.is == '*' => (rest, true),
        Some(_) | None => (word, false),
    };
    if word.iter().any(|character| !character.literal && character.is == '*') {
        return Err(("`*` stands at the end of a word only".into(), "or in quotes, to mean nothing".into()));
    }
    let text: String = word.iter().map(|character| character.is).collect();
    let ends_in_word = text.chars().next_back().is_some_and(char::is_alphanumeric);
    Needle::of([text.as_str()], open && ends_in_word).map_err(|error| match error {
        NoNeedle::NoWord => {
            ("there is no word in it to look for".to_owned(), "words are letters and digits".to_owned())
        }
        NoNeedle::TooLong => {
            ("there are too many words in a row".to_owned(), format!("at most {}", NoNeedle::MOST))
        }
    })
}

/// Whether the words are in a record or in what it carries of its bodies.
pub(super) fn carried(record: &Record, needle: &Needle) -> bool {
    let bodies = [
        record.request.as_ref().map(|head| &*head.body.bytes),
        record.response.as_ref().map(|head| &*head.body.bytes),
    ];
    contains(record, bodies, std::slice::from_ref(needle))
}
