//! A filter's text as conditions.

use std::ops::Range;

use super::{
    DEPTH_CAP, Expression, Filter, FilterError, Sort, TERMS_CAP, Test,
    field::{self, Field},
    help,
    lex::{Character, Token, What, plain, position, tokens},
    text,
};
use crate::model::Timestamp;

/// Name, field and values.
type Fielded<'w> = (String, Field, &'w [Character]);

pub(super) fn parse(text: &str, now: Timestamp) -> Result<Filter, FilterError> {
    let mut parser = Parser { text, now, tokens: tokens(text)?, at: 0, terms: 0, negated: false, sort: None };
    if parser.tokens.is_empty() {
        return Ok(Filter::default());
    }
    let expression = parser.any(0)?;
    match parser.peek() {
        None => Ok(Filter { expression: expression.unwrap_or_default(), sort: parser.sort }),
        Some(token) => {
            let at = token.at.clone();
            Err(FilterError::at(text, at, "there is no bracket to close here", "take it out, or quote it"))
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    now: Timestamp,
    tokens: Vec<Token>,
    at: usize,
    terms: usize,
    /// Below a negation.
    negated: bool,
    sort: Option<Sort>,
}

/// Words between conditions.
#[derive(PartialEq, Eq)]
enum Between {
    And,
    Or,
    Not,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn wrong<T>(
        &self,
        at: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Result<T, FilterError> {
        Err(FilterError::at(self.text, at, message, hint))
    }

    fn between(&self) -> Option<Between> {
        let What::Word(word) = &self.peek()?.what else { return None };
        let quoted = self.text.get(self.peek()?.at.clone()).is_some_and(|text| text.contains(['"', '\\']));
        match plain(word).to_ascii_lowercase().as_str() {
            _ if quoted => None,
            "and" => Some(Between::And),
            "or" => Some(Between::Or),
            "not" => Some(Between::Not),
            _ => None,
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, FilterError> {
        if depth < DEPTH_CAP {
            return Ok(depth + 1);
        }
        self.wrong(
            self.here(),
            "brackets and negations are nested too deep",
            format!("at most {DEPTH_CAP} levels"),
        )
    }

    /// `None` of nothing but a `sort:`, in this and the next.
    fn any(&mut self, depth: usize) -> Result<Option<Expression>, FilterError> {
        let mut parts = Vec::from_iter(self.all(depth)?);
        while self.between() == Some(Between::Or) {
            self.at += 1;
            parts.extend(self.all(depth)?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Option<Expression>, FilterError> {
        let (mut parts, mut wanted) = (Vec::new(), true);
        loop {
            match (self.peek().map(|token| &token.what), self.between()) {
                (None | Some(What::Close), _) | (_, Some(Between::Or)) => break,
                (_, Some(Between::And)) if !wanted => {
                    self.at += 1;
                    wanted = true;
                }
                _ => {
                    parts.extend(self.one(depth)?);
                    wanted = false;
                }
            }
        }
        if wanted { self.missing(self.here()) } else { Ok(one_or(parts, Expression::All)) }
    }

    /// One condition; `None` of a `sort:`.
    fn one(&mut self, depth: usize) -> Result<Option<Expression>, FilterError> {
        let not = self.between() == Some(Between::Not);
        let Some(Token { at, what }) = self.next() else { return self.missing(self.here()) };
        match what {
            What::Minus => {
                if self.peek().is_none_or(|next| next.at.start != at.end || next.what == What::Close) {
                    return self.wrong(
                        at,
                        "nothing follows the `-`",
                        "write `-host:example.com`, or quote it",
                    );
                }
                self.not(depth)
            }
            What::Word(_) if not => self.not(depth),
            What::Open => {
                let depth = self.deeper(depth)?;
                let inner = self.any(depth)?;
                match self.next().map(|token| token.what) {
                    Some(What::Close) => Ok(inner),
                    Some(What::Open | What::Minus | What::Word(_)) | None => {
                        self.wrong(at, "this bracket is not closed", "add `)`")
                    }
                }
            }
            What::Close => self.missing(at),
            What::Word(word) => self.word(&at, &word),
        }
    }

    fn not(&mut self, depth: usize) -> Result<Option<Expression>, FilterError> {
        let depth = self.deeper(depth)?;
        let before = std::mem::replace(&mut self.negated, true);
        let part = self.one(depth)?;
        self.negated = before;
        Ok(part.map(|part| Expression::Not(Box::new(part))))
    }

    /// Where the next piece begins.
    fn here(&self) -> Range<usize> {
        self.peek().map_or(self.text.len()..self.text.len(), |token| token.at.clone())
    }

    fn missing<T>(&self, at: Range<usize>) -> Result<T, FilterError> {
        self.wrong(at, "a condition is missing here", "such as `host:example.com`, or a word")
    }

    fn word(&mut self, at: &Range<usize>, word: &[Character]) -> Result<Option<Expression>, FilterError> {
        let Some((name, field, values)) = self.field(word)? else {
            self.count(at)?;
            return self.phrase(at.clone(), word).map(Some);
        };
        let mut parts = Vec::new();
        for value in values.split(|character| !character.literal && character.is == ',') {
            let place = self.place(at, value);
            if value.is_empty() && (values.is_empty() || !matches!(field, Field::Texts(_) | Field::Fact(_))) {
                return self.wrong(
                    at.clone(),
                    format!("`{name}:` needs a value"),
                    format!("such as `{}`", help::example(&name)),
                );
            }
            self.count(at)?;
            match field.test(value, self.now) {
                Ok(Some(test)) => parts.push(Expression::Is(test)),
                Ok(None) if matches!(field, Field::Words) => parts.push(self.phrase(place, value)?),
                Ok(None) => {
                    if self.negated || self.sort.is_some() {
                        let hint = "write it once, and without `-`";
                        return self.wrong(at.clone(), "`sort:` is no condition", hint);
                    }
                    match field::sort(&plain(value)) {
                        Ok(sort) => self.sort = Some(sort),
                        Err((message, hint)) => return self.wrong(place, message, hint),
                    }
                }
                Err((message, hint)) => return self.wrong(place, message, hint),
            }
        }
        Ok(one_or(parts, Expression::Any))
    }

    /// A word that is more than text.
    fn field<'w>(&self, word: &'w [Character]) -> Result<Option<Fielded<'w>>, FilterError> {
        let Some(end) = position(word, |c| matches!(c, ':' | '<' | '>')) else { return Ok(None) };
        let (before, after) = word.split_at(end);
        let colon = after.first().is_some_and(|character| character.is == ':');
        let name = plain(before);
        let named = before.iter().all(|c| !c.literal) && is_name(&name);
        // `https://…` is text.
        let start = after.iter().take(3).map(|character| (character.is, character.literal));
        let address = start.eq("://".chars().map(|c| (c, false)));
        if !named || address {
            return Ok(None);
        }
        match Field::named(&name) {
            Some(field) => {
                Ok(Some((name, field, if colon { after.get(1..).unwrap_or_default() } else { after })))
            }
            None if colon => {
                let start = before.first().map_or(0, |character| character.at);
                let message = format!("`{name}` is no field");
                self.wrong(start..start + name.len(), message, Field::hint(&name))
            }
            None => Ok(None),
        }
    }

    fn phrase(&self, at: Range<usize>, word: &[Character]) -> Result<Expression, FilterError> {
        match text::needle(word) {
            Ok(needle) => Ok(Test::Text(needle).into()),
            Err((message, hint)) => self.wrong(at, message, hint),
        }
    }

    fn count(&mut self, at: &Range<usize>) -> Result<(), FilterError> {
        self.terms += 1;
        if self.terms > TERMS_CAP {
            let hint = format!("at most {TERMS_CAP}");
            return self.wrong(at.clone(), "this filter has too many conditions", hint);
        }
        Ok(())
    }

    /// Where the characters stand in the text.
    fn place(&self, word: &Range<usize>, characters: &[Character]) -> Range<usize> {
        match (characters.first(), characters.last()) {
            (Some(first), Some(last)) => first.at..last.at + last.is.len_utf8(),
            (None, _) | (_, None) => word.clone(),
        }
    }
}

/// What can be meant as a field: not `example.com:443`.
fn is_name(text: &str) -> bool {
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match text.split_once('.') {
        Some((first, rest)) => first.eq_ignore_ascii_case("fact") && rest.split('.').all(word),
        None => word(text),
    }
}

/// The only part, or all of them together; `None` of none.
fn one_or(mut parts: Vec<Expression>, of: fn(Vec<Expression>) -> Expression) -> Option<Expression> {
    let last = parts.pop()?;
    if parts.is_empty() {
        return Some(last);
    }
    parts.push(last);
    Some(of(parts))
}
