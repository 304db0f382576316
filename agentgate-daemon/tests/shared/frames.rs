//! WebSocket frames as a client sends them, and the messages that a record has.

use agentgate::model::websocket::TranscriptLine;

/// A masked frame; `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 200, 1, 99];
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// `text` as permessage-deflate has it: a stored block, and an empty one whose end is left off.
pub(crate) fn deflated(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), text.as_bytes(), &[0]].concat()
}

/// The texts of a transcript.
pub(crate) fn texts(body: &[u8]) -> Vec<String> {
    TranscriptLine::of(body).into_iter().map(|line| line.text).collect()
}
