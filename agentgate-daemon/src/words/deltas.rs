//! What a model says in a stream of events, put together.
//!
//! Providers send an answer in pieces that end anywhere, also within a word: an event a piece, each JSON.
//! The words of the pieces alone would not have `unbelievable` where `unbel` and `ievable` came. So the
//! strings under the names that providers use for them are joined while events go on with the same name.

use memchr::memmem;

/// Names of what carries on: Anthropic, OpenAI (both interfaces), Gemini, and who speaks like them.
const NAMES: [&[u8]; 7] = [
    b"\"partial_json\":",
    b"\"thinking\":",
    b"\"text\":",
    b"\"arguments\":",
    b"\"reasoning_content\":",
    b"\"content\":",
    b"\"delta\":",
];

/// Gives each text that was put together from the events in `stream`, with the escapes of JSON.
pub(super) fn joined(stream: &[u8], see: &mut impl FnMut(&[u8])) {
    let mut said = Vec::new();
    let mut last = None;
    let mut over = |said: &mut Vec<u8>| {
        if !said.is_empty() {
            see(said);
            said.clear();
        }
    };
    for line in stream.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let event = line.strip_prefix(b"data:").unwrap_or(line).trim_ascii_start();
        if !event.starts_with(b"{") {
            continue;
        }
        match piece(event) {
            Some((name, piece)) => {
                if last != Some(name) {
                    over(&mut said);
                }
                last = Some(name);
                said.extend_from_slice(piece);
            }
            // Signs of life come between pieces.
            None if memmem::find(event, b"\"ping\"").is_some() => {}
            None => over(&mut said),
        }
    }
    over(&mut said);
}

/// Which of the names an event has with a string, and what that is, with its escapes.
fn piece(event: &[u8]) -> Option<(usize, &[u8])> {
    NAMES.iter().enumerate().find_map(|(index, name)| {
        let after = event.get(memmem::find(event, name)? + name.len()..)?.trim_ascii_start();
        let text = after.strip_prefix(b"\"")?;
        let mut escaped = false;
        let end = text.iter().position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        })?;
        Some((index, text.get(..end)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Form, Token, each};

    fn check(stream: &str, expect: &str) {
        let mut found = Vec::new();
        joined(stream.as_bytes(), &mut |said| {
            found.push("|".into());
            each(said, Form::Json, &mut |token| match token {
                Token::Word(word) => found.push(String::from_utf8(word.to_vec()).unwrap()),
                Token::Also(_) | Token::Gap | Token::Cut => {}
            });
        });
        assert_eq!(found.join(" "), expect, "{stream}");
    }

    #[test]
    fn pieces_are_put_together() {
        check(
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
             data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"It is unbel\"}}\n\n\
             data: {\"type\": \"ping\"}\n\n\
             data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"ievable.\\nSaid \\\"o\"}}\r\n\r\n\
             data: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
             data: {\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"path\\\": \\\"src/ma\"}}\n\n\
             data: {\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"in.rs\\\"}\"}}\n\n",
            "| it is unbelievable said o | path src main rs",
        );
        check(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n\
             data: [DONE]\n\n",
            "| hello",
        );
        check(
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"to\"}\n\
             data: {\"type\":\"response.output_text.delta\",\"delta\":\"gether\"}\n",
            "| together",
        );
        check("{\"message\":{\"content\":\"Ol\"}}\n{\"message\":{\"content\":\"lama\"}}\n", "| ollama");
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        check("data: {\"text\":\"a\"}\ndata: {\"text\":\"bc", "| a");
        check("", "");
        check("data: {\"text\":5}\ndata: {\"text\":\"\\\\\"}", "|");
    }
}
