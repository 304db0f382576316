//! What a word is.
//!
//! A run of letters and digits of any script, in lower case; everything else parts words. Of scripts that
//! put no spaces between words each character is one. What is special:
//!
//! - More than 64 bytes of a word are cut off.
//! - In JSON an escape is what it stands for: `\n` parts words and `\u00fc` is a letter. JSON lies in strings
//!   of JSON (arguments of tools), so this holds after more than one backslash too; where `\\n` may be
//!   either a new line or a name that begins with n, the word is given both ways.
//! - Of a decimal number no more than four digits after the point are kept: lists of floats would
//!   otherwise be most of the words there are.
//! - Of a long run in the alphabet of Base64 with hardly a separator, the first long word is kept.
//!
//! Bodies and what is looked for are taken apart by this one function, so what is cut is cut in both.

/// Bytes of a word.
pub(crate) const WORD: usize = 64;
/// A shorter word is not looked at for what it is part of.
const SUSPECT: usize = 16;
/// Bytes from which a run may be Base64 of something.
const BLOB: usize = 256;
/// There one in 32 bytes is no letter or digit; in paths it is more than this.
const BLOB_SEPARATORS: usize = 12;
/// Digits kept after a decimal point.
const FRACTION: usize = 4;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    /// With escapes.
    Json,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'w> {
    /// In lower case.
    Word(&'w [u8]),
    /// Another reading of the word before it.
    Also(&'w [u8]),
    /// What follows is another text: nothing goes on across it.
    Gap,
    /// Letters or digits of the text are in no word.
    Cut,
}

/// What a byte means, by its value: itself in lower case for ASCII letters and digits, else one of these.
const APART: u8 = 0;
const BACKSLASH: u8 = 1;
const WIDE: u8 = 2;

const CLASSES: [u8; 256] = {
    let mut classes = [APART; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        classes[byte] = if value.is_ascii_alphanumeric() {
            value.to_ascii_lowercase()
        } else if value == b'\\' {
            BACKSLASH
        } else if value >= 0x80 {
            WIDE
        } else {
            APART
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

/// Gives every word of `text` to `sink`, in order.
pub(crate) fn each(text: &[u8], form: Form, sink: &mut impl FnMut(Token<'_>)) {
    Scanner { text, at: 0, word: [0; WORD], length: 0, begun: 0, also: false, cut: false, blob: 0 }
        .run(form, sink);
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    word: [u8; WORD],
    length: usize,
    /// Where the word began.
    begun: usize,
    /// Whether the word may begin with its second character.
    also: bool,
    /// Whether something before or in the word was left out.
    cut: bool,
    /// Up to here it is known whether a run is Base64.
    blob: usize,
}

impl Scanner<'_> {
    fn run(mut self, form: Form, sink: &mut impl FnMut(Token<'_>)) {
        while let Some(&byte) = self.text.get(self.at) {
            match class(byte) {
                APART => {
                    self.end(sink);
                    self.at += 1;
                }
                BACKSLASH if form == Form::Json => self.escape(sink),
                BACKSLASH => {
                    self.end(sink);
                    self.at += 1;
                }
                WIDE => self.wide(sink),
                lower => {
                    if self.length == 0 {
                        self.begun = self.at;
                    }
                    match self.word.get_mut(self.length) {
                        Some(place) => {
                            *place = lower;
                            self.length += 1;
                        }
                        None => self.cut = true,
                    }
                    self.at += 1;
                }
            }
        }
        self.end(sink);
    }

    /// Ends the word under way, where there is one.
    fn end(&mut self, sink: &mut impl FnMut(Token<'_>)) {
        if self.length == 0 {
            return;
        }
        if self.length >= SUSPECT && self.at > self.blob {
            self.look_around();
        }
        if std::mem::take(&mut self.cut) {
            sink(Token::Cut);
        }
        let word = self.word.get(..self.length).unwrap_or_default();
        self.length = 0;
        let word = match fraction(self.text, self.begun, word) {
            true => {
                sink(Token::Cut);
                word.get(..FRACTION).unwrap_or(word)
            }
            false => word,
        };
        if std::mem::take(&mut self.also) {
            // A single letter is far more often the end of an escape.
            if let Some(rest) = word.get(1..).filter(|rest| !rest.is_empty()) {
                sink(Token::Word(rest));
                sink(Token::Also(word));
            }
        } else {
            sink(Token::Word(word));
        }
    }

    /// Where the word that ends at `at` is part of Base64, goes to the end of that.
    fn look_around(&mut self) {
        let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
        let before = self.text.get(..self.begun).unwrap_or_default();
        // What was looked at before is not looked at again.
        let before = before.get(self.blob.min(self.begun)..).unwrap_or_default();
        let start = self.begun - before.iter().rev().take_while(|byte| alphabet(byte)).count();
        let rest = self.text.get(start..).unwrap_or_default();
        let run = rest.iter().position(|byte| !alphabet(byte)).unwrap_or(rest.len());
        let separators = || rest.iter().take(run).filter(|byte| !byte.is_ascii_alphanumeric()).count();
        self.blob = start + run;
        if run >= BLOB && separators() * BLOB_SEPARATORS <= run {
            self.cut |= self.at < start + run;
            self.at = self.at.max(start + run);
        }
    }

    /// A run of backslashes, and what it makes of what follows.
    fn escape(&mut self, sink: &mut impl FnMut(Token<'_>)) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let run = rest.iter().position(|byte| *byte != b'\\').unwrap_or(rest.len());
        let after = rest.get(run..).unwrap_or_default();
        if let Some((character, length)) = unicode(after) {
            self.at += run + length;
            self.push(character, self.at - length, sink);
            return;
        }
        self.end(sink);
        self.at += run;
        match after.first() {
            Some(b'b' | b'f' | b'n' | b'r' | b't') if run % 2 == 1 => self.at += 1,
            Some(b'b' | b'f' | b'n' | b'r' | b't') => self.also = true,
            Some(_) | None => {}
        }
    }

    /// A character of more than one byte, or what is none.
    fn wide(&mut self, sink: &mut impl FnMut(Token<'_>)) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let width = match rest.first() {
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            Some(_) | None => 0,
        };
        let character = rest.get(..width).and_then(|bytes| str::from_utf8(bytes).ok()?.chars().next());
        let begun = self.at;
        self.at += width.max(1);
        match character {
            Some(character) => self.push(character, begun, sink),
            None => {
                self.at = begun;
                self.end(sink);
                self.at = begun + 1;
            }
        }
    }

    /// Takes a character that stands at `begun`, with `at` behind it.
    fn push(&mut self, character: char, begun: usize, sink: &mut impl FnMut(Token<'_>)) {
        if is_mark(character) {
            return;
        }
        let mut bytes = [0; 4];
        if is_alone(character) {
            self.end(sink);
            sink(Token::Word(character.encode_utf8(&mut bytes).as_bytes()));
        } else if character.is_alphanumeric() {
            if self.length == 0 {
                self.begun = begun;
            }
            for lower in character.to_lowercase() {
                let lower = lower.encode_utf8(&mut bytes).as_bytes();
                match self.word.get_mut(self.length..self.length + lower.len()) {
                    Some(place) => {
                        place.copy_from_slice(lower);
                        self.length += lower.len();
                    }
                    None => self.cut = true,
                }
            }
        } else {
            self.end(sink);
        }
    }
}

/// Whether a word that began at `begun` is the digits after a decimal point, and there are too many.
fn fraction(text: &[u8], begun: usize, word: &[u8]) -> bool {
    word.len() > FRACTION
        && begun.checked_sub(1).and_then(|at| text.get(at)) == Some(&b'.')
        && begun.checked_sub(2).and_then(|at| text.get(at)).is_some_and(u8::is_ascii_digit)
        && word.strip_suffix(b"e").unwrap_or(word).iter().all(u8::is_ascii_digit)
}

/// `u` and four digits, twice where it takes two (RFC 8259 7): the character, and how long that is.
fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 5)?.strip_prefix(b"u")?;
        digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
    };
    let first = unit(0)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 5));
    }
    let gap = text.get(5..)?.iter().take_while(|byte| **byte == b'\\').count();
    let second = unit(5 + gap).filter(|second| gap > 0 && (0xdc00..0xe000).contains(second))?;
    let value = 0x1_0000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
    char::from_u32(value).map(|character| (character, 10 + gap))
}

/// Marks that go with the letter before them.
fn is_mark(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}' | '\u{200c}' | '\u{200d}' | '\u{ad}')
}

/// Characters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, ideographs.
fn is_alone(character: char) -> bool {
    matches!(
        character,
        '\u{e00}'..='\u{eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    )
}

/// Whether a word looks like the digits of something random: an id, a digest, a key. A text may have very
/// many of them.
pub(crate) fn is_dense(word: &[u8]) -> bool {
    word.len() >= 24 || (word.len() >= SUSPECT && word.iter().any(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, form: Form, expect: &str) {
        let mut found = Vec::new();
        each(text.as_bytes(), form, &mut |token| match token {
            Token::Word(word) => found.push(String::from_utf8(word.to_vec()).unwrap()),
            Token::Also(word) => {
                let before = found.last_mut().unwrap();
                *before = format!("{before}|{}", str::from_utf8(word).unwrap());
            }
            Token::Gap => panic!("a text has no gap"),
            Token::Cut => {}
        });
        assert_eq!(found.join(" "), expect, "{text}");
    }

    #[test]
    fn words_of_plain_text() {
        for (text, expect) in [
            ("", ""),
            (" -- ", ""),
            ("Hello, World", "hello world"),
            ("src/main.rs:12", "src main rs 12"),
            ("snake_case kebab-case", "snake case kebab case"),
            ("req_011CXabCD/99", "req 011cxabcd 99"),
            ("6f1c2b9e-0d4f-4a53-9d0e-7c1e5b1a2f30", "6f1c2b9e 0d4f 4a53 9d0e 7c1e5b1a2f30"),
            ("Straße ÜBER naïve", "straße über naïve"),
            ("e\u{301}te\u{301}", "ete"),
            ("ΑΘΗΝΑ Москва", "αθηνα москва"),
            ("读取 file 东京", "读 取 file 东 京"),
            (r"C:\new\table", "c new table"),
            ("192.168.0.17 v1.2.3", "192 168 0 17 v1 2 3"),
            ("0.0123456789,-1.5 2.25e-05 3.12345678e-05", "0 0123 1 5 2 25e 05 3 1234 05"),
        ] {
            check(text, Form::Plain, expect);
        }
    }

    #[test]
    fn words_of_json() {
        for (text, expect) in [
            (r#"{"a\nfoo":"x\ty\"z\/w"}"#, "a foo x y z w"),
            (r#""f\u00fcr \u00DCber""#, "für über"),
            (r#""\ud83d\ude00ok \ud83dno""#, "ok ud83dno"),
            (r#""a\u2014b""#, "a b"),
            (
                r#""{\"path\":\"a.rs\",\"text\":\"one\\ntwo\\\\nthree\"}""#,
                "path a rs text one two|ntwo three|nthree",
            ),
            (r#""f\\u00fcr""#, "für"),
            (r#""C:\\new\\dir\\t""#, "c ew|new dir"),
            (r#""\u8bfb\u53d6""#, "读 取"),
        ] {
            check(text, Form::Json, expect);
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        let cut = |text: &str| {
            let mut cut = false;
            each(text.as_bytes(), Form::Plain, &mut |token| cut |= token == Token::Cut);
            cut
        };
        let blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZn/+9".repeat(8);
        for text in [&"ab".repeat(33), "0.01234", &format!("{}\u{fc}", "a".repeat(63)), &blob] {
            assert!(cut(text), "{text}");
        }
        let path = "/usr/lib/node_modules/some-package/dist/internationalization/file".repeat(6);
        for text in ["", "some words, 0.0123 1234567", &"ab".repeat(32), &path] {
            assert!(!cut(text), "{text}");
        }
    }

    #[test]
    fn long_words_are_cut() {
        check(&"ab".repeat(100), Form::Plain, &"ab".repeat(32));
        // A character is cut off whole.
        check(&format!("{}ü", "a".repeat(63)), Form::Plain, &"a".repeat(63));
    }

    #[test]
    fn base64_is_one_word() {
        let blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZn/+9".repeat(8);
        let word = blob.split('/').next().unwrap().to_lowercase();
        check(
            &format!("data:image/png;base64,{blob}== end"),
            Form::Plain,
            &format!("data image png base64 {word} end"),
        );
        let path = "/usr/lib/node_modules/some-package/dist/internationalization/file".repeat(6);
        let mut count = 0;
        each(path.as_bytes(), Form::Plain, &mut |_| count += 1);
        assert_eq!(count, 9 * 6);
    }

    #[test]
    fn bytes_that_are_no_text_part_words() {
        let mut found = Vec::new();
        each(b"ab\xffcd\xc3", Form::Plain, &mut |token| found.push(format!("{token:?}")));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn dense_words_are_told() {
        for (word, expect) in [
            ("internationalization", false),
            ("011cxabcdefghijk", true),
            ("0d4f4a53", false),
            ("abcdefghijklmnopqrstuvwxyz", true),
        ] {
            assert_eq!(is_dense(word.as_bytes()), expect, "{word}");
        }
    }
}
