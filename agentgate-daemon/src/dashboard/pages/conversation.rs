//! A WebSocket as a person reads it: the messages of both sides in their order.

use maud::{Markup, html};

use crate::{
    dashboard::{
        read::Bodies,
        show::{duration, size, visible, visible_lines},
    },
    model::{
        Timestamp, WebSocket,
        websocket::{Sender, TranscriptLine},
    },
};

/// Messages shown of one conversation, and text of one message: more makes browsers slow and helps nobody.
const MAX_MESSAGES: usize = 500;
const MAX_TEXT: usize = 64 * 1024;

/// The card of a WebSocket that began at `since`; without `bodies` the messages stay hidden.
#[must_use]
pub(super) fn conversation(websocket: &WebSocket, since: Timestamp, bodies: Option<&Bodies>) -> Markup {
    let lines = bodies.map(|bodies| {
        let mut lines = TranscriptLine::of(&bodies.request.raw);
        lines.extend(TranscriptLine::of(&bodies.response.raw));
        lines.sort_by_key(|line| line.number);
        lines
    });
    html! {
        section.card.message {
            h2 { "WebSocket" }
            dl {
                @for (who, passed) in [("From the agent", &websocket.client), ("From the origin", &websocket.server)] {
                    dt { (who) }
                    dd {
                        (passed.messages) " messages, " (size(passed.bytes))
                        @if passed.decoded != passed.bytes { ", inflated " (size(passed.decoded)) }
                        ", " (passed.controls) " control frames"
                        @if passed.unseen > 0 { ", " (passed.unseen) " not read whole" }
                    }
                }
                dt { "Closed" }
                dd {
                    @if let Some(closed) = &websocket.closed {
                        "by the " (who(closed.by))
                        @if let Some(code) = closed.code { ", code " (code) }
                        @if !closed.reason.is_empty() { ": " (visible(&closed.reason)) }
                    } @else { "without a close frame" }
                }
                @if !websocket.faults.is_empty() {
                    dt { "Faults" }
                    dd { @for fault in &websocket.faults { p { (visible(fault)) } } }
                }
            }
            @if let Some(lines) = &lines {
                @if websocket.left_out > 0 { p.note { (websocket.left_out) " messages were not kept." } }
                @if lines.len() > MAX_MESSAGES { p.note { "Showing the first " (MAX_MESSAGES) " messages." } }
                @for line in lines.iter().take(MAX_MESSAGES) { (message(line, since)) }
            }
        }
    }
}

fn message(line: &TranscriptLine, since: Timestamp) -> Markup {
    let shown = line.text.get(..line.text.floor_char_boundary(MAX_TEXT)).unwrap_or(&line.text);
    let cut = line.truncated || shown.len() < line.text.len();
    html! {
        p.dim {
            (who(line.from)) " · " (visible(&line.kind)) " · " (size(line.length)) " · after " (duration(line.at.since(since)))
            @if cut { " · the beginning" }
        }
        pre.body tabindex="0" { (visible_lines(shown)) }
    }
}

fn who(sender: Sender) -> &'static str {
    match sender {
        Sender::Client => "agent",
        Sender::Server => "origin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dashboard::read::Body, model::websocket::Closed};

    #[test]
    fn messages_of_both_sides_are_in_one_order() {
        let line = |number, from, text: &str| {
            let (kind, text) = ("text".to_owned(), text.to_owned());
            let line =
                TranscriptLine { number, at: Timestamp(5), from, kind, length: 3, text, truncated: false };
            serde_json::to_string(&line).unwrap() + "\n"
        };
        let body = |text: String| Body { raw: text.into(), opened: None };
        let request = line(0, Sender::Client, "<one>") + &line(2, Sender::Client, "three");
        let bodies = Bodies { request: body(request), response: body(line(1, Sender::Server, "two")) };
        let closed = Closed { by: Sender::Server, code: Some(1001), reason: "<away>".into() };
        let faults = vec!["client: a client's frame without a mask".to_owned()];
        let websocket = WebSocket { closed: Some(closed), left_out: 7, faults, ..WebSocket::default() };
        let hidden = conversation(&websocket, Timestamp(0), None).into_string();
        assert!(hidden.contains("code 1001: &lt;away&gt;") && hidden.contains("without a mask"), "{hidden}");
        assert!(!hidden.contains("one"), "{hidden}");
        let shown = conversation(&websocket, Timestamp(0), Some(&bodies)).into_string();
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text}: {shown}"));
        assert!(
            at("&lt;one&gt;") < at("two") && at("two") < at("three") && at("7 messages were not kept") > 0
        );
    }
}
