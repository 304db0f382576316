//! A filter's text as pieces.

use std::ops::Range;

use super::{FilterError, LENGTH_CAP};

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Bytes of the text.
    pub(super) at: Range<usize>,
    pub(super) what: What,
}

/// What a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Open,
    Close,
    /// A `-` before a condition.
    Minus,
    Word(Vec<Character>),
}

/// One character of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Character {
    pub(super) at: usize,
    pub(super) is: char,
    /// In quotes, or after a backslash: it means itself.
    pub(super) literal: bool,
}

/// The pieces of `text`.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    if text.len() > LENGTH_CAP {
        let hint = format!("a filter has at most {LENGTH_CAP} bytes");
        return Err(FilterError::at(text, 0..0, "this filter is too long", hint));
    }
    let mut found = Vec::new();
    let mut characters = text.char_indices().peekable();
    // A `-` negates at the beginning of a condition, and is a character elsewhere.
    while let Some(&(start, first)) = characters.peek() {
        let single = |what| Token { at: start..start + first.len_utf8(), what };
        match first {
            _ if first.is_whitespace() => {
                characters.next();
            }
            '(' | ')' | '-' => {
                characters.next();
                found.push(single(match first {
                    '(' => What::Open,
                    ')' => What::Close,
                    _ => What::Minus,
                }));
            }
            _ => found.push(word(text, &mut characters, start)?),
        }
    }
    Ok(found)
}

type Characters<'t> = std::iter::Peekable<std::str::CharIndices<'t>>;

fn word(text: &str, characters: &mut Characters<'_>, start: usize) -> Result<Token, FilterError> {
    let mut word = Vec::new();
    let mut quote = None;
    while let Some(&(at, is)) = characters.peek() {
        if quote.is_none() && (is.is_whitespace() || matches!(is, '(' | ')')) {
            break;
        }
        characters.next();
        match is {
            '"' if quote.is_some() => quote = None,
            '"' => quote = Some(at),
            '\\' => match characters.next() {
                Some((at, is)) => word.push(Character { at, is, literal: true }),
                None => {
                    let message = "nothing follows the backslash";
                    return Err(FilterError::at(text, at..at + 1, message, "write `\\\\` for a backslash"));
                }
            },
            _ => word.push(Character { at, is, literal: quote.is_some() }),
        }
    }
    if let Some(at) = quote {
        return Err(FilterError::at(
            text,
            at..text.len(),
            "this quotation does not end",
            "close it with `\"`",
        ));
    }
    let end = characters.peek().map_or(text.len(), |(at, _)| *at);
    Ok(Token { at: start..end, what: What::Word(word) })
}

/// The characters as text, whatever they mean.
pub(super) fn plain(word: &[Character]) -> String {
    word.iter().map(|character| character.is).collect()
}

/// Where a character stands that is neither quoted nor escaped.
pub(super) fn position(word: &[Character], wanted: impl Fn(char) -> bool) -> Option<usize> {
    word.iter().position(|character| !character.literal && wanted(character.is))
}
