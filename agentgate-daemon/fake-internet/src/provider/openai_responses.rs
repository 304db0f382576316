//! Responses: whole, as server-sent events, and over a WebSocket, where several answers may be under way at
//! once, each in a lane of its own.

use std::collections::VecDeque;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    PAUSE, Visit, breaks, demanded, flag_at, list_at, openai,
    script::{self, Asked, Given, Tool, Turn},
    str_at,
};
use crate::{
    body::Body,
    websocket::{Message, Socket},
};

pub(super) fn answer(visit: Visit<'_>, request: &Value) -> Response<Body> {
    let turn = list_at(request, "/input").len();
    if flag_at(request, "/stream") {
        let events = events(request, turn);
        let frame = |event: &Value| format!("event: {}\ndata: {event}\n\n", str_at(event, "/type"));
        visit.events(events.iter().map(frame).collect())
    } else {
        visit.json(StatusCode::OK, &response(request, turn))
    }
}

/// What the script sees of a request.
fn asked(request: &Value, turn: usize) -> Asked {
    let input = request.get("input").unwrap_or(&Value::Null);
    let items = list_at(request, "/input");
    let is_result = |item: &&Value| str_at(item, "/type").ends_with("_output");
    let mut tools = Vec::new();
    collect_tools(list_at(request, "/tools"), &mut tools);
    // Codex brings its tools as an item of the input.
    for item in items.iter().filter(|item| str_at(item, "/type") == "additional_tools") {
        collect_tools(list_at(item, "/tools"), &mut tools);
    }
    Asked {
        said: format!("{}\n{}", str_at(request, "/instructions"), script::text(input)),
        tools,
        results: items.iter().rev().take_while(is_result).map(script::text).collect(),
        schema: openai::schema(request.pointer("/text/format")),
        turn,
        thinks: request.get("reasoning").is_some_and(Value::is_object),
    }
}

fn collect_tools(offered: &[Value], tools: &mut Vec<Tool>) {
    for tool in offered {
        match str_at(tool, "/type") {
            "function" => tools.push(Tool::json(str_at(tool, "/name"), tool.get("parameters"))),
            "custom" => tools.push(Tool::text(str_at(tool, "/name"))),
            "namespace" => collect_tools(list_at(tool, "/tools"), tools),
            // What the provider runs itself.
            _ => {}
        }
    }
}

/// The items of the answer.
fn output(asked: &Asked) -> Vec<Value> {
    let mut items = Vec::new();
    if asked.thinks {
        items.push(json!({
            "id": format!("rs_fake_{:03}", asked.turn),
            "type": "reasoning",
            "summary": [{ "type": "summary_text", "text": script::THOUGHT }],
            "encrypted_content": "ZmFrZQ==",
        }));
    }
    let message = |text: &str| {
        json!({
            "id": format!("msg_fake_{:03}", asked.turn),
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }],
        })
    };
    match asked.turn() {
        Turn::Say(text) => items.push(message(&text)),
        Turn::Call(calls) => {
            items.push(message(script::PREFACE));
            items.extend(calls.iter().map(|call| {
                let (id, call_id) = (&call.id, format!("call_{}", call.id));
                match &call.given {
                    Given::Json(arguments) => json!({
                        "id": format!("fc_{id}"), "type": "function_call", "status": "completed",
                        "call_id": call_id, "name": call.name, "arguments": arguments.to_string(),
                    }),
                    Given::Text(input) => json!({
                        "id": format!("ctc_{id}"), "type": "custom_tool_call", "status": "completed",
                        "call_id": call_id, "name": call.name, "input": input,
                    }),
                }
            }));
        }
    }
    items
}

fn response(request: &Value, turn: usize) -> Value {
    let asked = asked(request, turn);
    let given = |name: &str| request.get(name).cloned().unwrap_or(Value::Null);
    json!({
        "id": format!("resp_fake_{turn:03}"),
        "object": "response",
        "created_at": 1_790_000_000,
        "status": "completed",
        "error": null,
        "incomplete_details": null,
        "instructions": given("instructions"),
        "max_output_tokens": null,
        "metadata": {},
        "model": given("model"),
        "output": if request.get("generate") == Some(&Value::Bool(false)) { Vec::new() } else { output(&asked) },
        "parallel_tool_calls": true,
        "previous_response_id": given("previous_response_id"),
        "reasoning": given("reasoning"),
        "store": request.get("store").cloned().unwrap_or(Value::Bool(true)),
        "temperature": 1.0,
        "text": { "format": { "type": "text" } },
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 37,
            "input_tokens_details": { "cached_tokens": 12, "cache_write_tokens": 0 },
            "output_tokens": 41,
            "output_tokens_details": { "reasoning_tokens": if asked.thinks { 7 } else { 0 } },
            "total_tokens": 78,
        },
    })
}

/// The answer as events, numbered.
fn events(request: &Value, turn: usize) -> Vec<Value> {
    let response = response(request, turn);
    let mut begun = response.clone();
    if let Some(fields) = begun.as_object_mut() {
        fields.insert("status".to_owned(), json!("in_progress"));
        fields.insert("output".to_owned(), json!([]));
        fields.insert("usage".to_owned(), Value::Null);
    }
    let mut all = vec![
        json!({ "type": "response.created", "response": begun }),
        json!({ "type": "response.in_progress", "response": begun }),
    ];
    for (index, item) in list_at(&response, "/output").iter().enumerate() {
        describe(index, item, &mut all);
    }
    if breaks(str_at(request, "/model")) {
        all.truncate(4);
        all.push(json!({ "type": "error", "code": "server_error", "message": "The server had an error.", "param": null }));
    } else {
        all.push(json!({ "type": "response.completed", "response": response }));
    }
    for (number, event) in all.iter_mut().enumerate() {
        if let Some(fields) = event.as_object_mut() {
            fields.insert("sequence_number".to_owned(), json!(number));
        }
    }
    all
}

/// The events of one item.
fn describe(index: usize, item: &Value, all: &mut Vec<Value>) {
    let id = str_at(item, "/id");
    // Every event of the item says whose it is.
    let mut tell = |kind: &str, more: Value| {
        let mut event = json!({ "type": kind, "output_index": index, "item_id": id });
        if let (Some(fields), Value::Object(more)) = (event.as_object_mut(), more) {
            fields.extend(more);
        }
        all.push(event);
    };
    let begin = |field: &str, empty: Value| {
        let mut begun = item.clone();
        if let Some(fields) = begun.as_object_mut() {
            fields.insert(field.to_owned(), empty);
            if fields.contains_key("status") {
                fields.insert("status".to_owned(), json!("in_progress"));
            }
        }
        json!({ "item": begun })
    };
    match str_at(item, "/type") {
        "reasoning" => {
            tell("response.output_item.added", begin("summary", json!([])));
            let part =
                |text: &str| json!({ "summary_index": 0, "part": { "type": "summary_text", "text": text } });
            tell("response.reasoning_summary_part.added", part(""));
            for piece in script::pieces(script::THOUGHT) {
                tell("response.reasoning_summary_text.delta", json!({ "summary_index": 0, "delta": piece }));
            }
            tell(
                "response.reasoning_summary_text.done",
                json!({ "summary_index": 0, "text": script::THOUGHT }),
            );
            tell("response.reasoning_summary_part.done", part(script::THOUGHT));
        }
        "message" => {
            tell("response.output_item.added", begin("content", json!([])));
            let text = str_at(item, "/content/0/text");
            let part = |text: &str| {
                json!({
                    "content_index": 0,
                    "part": { "type": "output_text", "text": text, "annotations": [], "logprobs": [] },
                })
            };
            tell("response.content_part.added", part(""));
            for piece in script::pieces(text) {
                tell(
                    "response.output_text.delta",
                    json!({ "content_index": 0, "delta": piece, "logprobs": [] }),
                );
            }
            tell("response.output_text.done", json!({ "content_index": 0, "text": text, "logprobs": [] }));
            tell("response.content_part.done", part(text));
        }
        kind => {
            let (field, events) = match kind {
                "custom_tool_call" => ("input", "response.custom_tool_call_input"),
                _ => ("arguments", "response.function_call_arguments"),
            };
            tell("response.output_item.added", begin(field, json!("")));
            let given = item.get(field).and_then(Value::as_str).unwrap_or_default();
            // No empty first piece here.
            for shard in script::shards(given).into_iter().skip(1) {
                tell(&format!("{events}.delta"), json!({ "delta": shard }));
            }
            tell(&format!("{events}.done"), json!({ field: given }));
        }
    }
    tell("response.output_item.done", json!({ "item": item }));
}

/// Answers under way on one socket.
#[derive(Default)]
struct Lanes {
    under_way: VecDeque<VecDeque<Value>>,
    /// Answers begun: names those that follow, since input on a socket is not repeated.
    begun: usize,
}

impl Lanes {
    /// Takes up what a client says; what is no request for an answer is answered by an error.
    fn hear(&mut self, text: &str) {
        let request: Value = serde_json::from_str(text).unwrap_or_default();
        let wrong = |status: StatusCode, words: &str| {
            let mut event = openai::failure(status, words);
            if let Some(fields) = event.as_object_mut() {
                fields.insert("type".to_owned(), json!("error"));
                fields.insert("status".to_owned(), json!(status.as_u16()));
            }
            event
        };
        let mut events = if str_at(&request, "/type") != "response.create" {
            vec![wrong(StatusCode::BAD_REQUEST, "not a response.create")]
        } else if let Some(status) = demanded(str_at(&request, "/model")) {
            vec![wrong(status, "the model's name asked for this error")]
        } else {
            self.begun += 1;
            events(&request, self.begun)
        };
        if let Some(lane) = request.get("stream_id") {
            for event in events.iter_mut().filter_map(Value::as_object_mut) {
                event.insert("stream_id".to_owned(), lane.clone());
            }
        }
        self.under_way.push_back(events.into());
    }

    /// The next event: of each lane in turn.
    fn next(&mut self) -> Option<Value> {
        let mut lane = self.under_way.pop_front()?;
        let event = lane.pop_front();
        if !lane.is_empty() {
            self.under_way.push_back(lane);
        }
        event
    }
}

/// Serves the socket to its end.
pub(crate) async fn converse(mut socket: Socket) -> std::io::Result<()> {
    let mut lanes = Lanes::default();
    loop {
        tokio::select! {
            message = socket.receive() => match message? {
                Some(Message::Text(text)) => lanes.hear(&text),
                Some(Message::Binary(_)) => lanes.hear(""),
                None => return Ok(()),
            },
            () = tokio::time::sleep(PAUSE), if !lanes.under_way.is_empty() => {
                if let Some(event) = lanes.next() {
                    socket.send_text(&event.to_string()).await?;
                }
            }
        }
    }
}
