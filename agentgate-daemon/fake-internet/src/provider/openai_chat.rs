//! Chat Completions: whole and as chunks, with calls in parallel whose pieces interleave.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Visit, breaks, flag_at, list_at, openai,
    script::{self, Asked, Call, Given, Tool, Turn},
    str_at,
};
use crate::body::Body;

pub(super) fn answer(visit: Visit<'_>, request: &Value) -> Response<Body> {
    let (model, asked) = (str_at(request, "/model"), asked(request));
    if flag_at(request, "/stream") {
        let usage = flag_at(request, "/stream_options/include_usage");
        let chunks = chunks(model, &asked, usage);
        let ended = if breaks(model) { None } else { Some("data: [DONE]\n\n".to_owned()) };
        visit.events(chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).chain(ended).collect())
    } else {
        visit.json(StatusCode::OK, &completion(model, &asked))
    }
}

fn asked(request: &Value) -> Asked {
    let messages = list_at(request, "/messages");
    let since = messages.iter().rev().take_while(|message| str_at(message, "/role") == "tool");
    let tools = list_at(request, "/tools").iter().map(|tool| match str_at(tool, "/type") {
        "custom" => Tool::text(str_at(tool, "/custom/name")),
        _ => Tool::json(str_at(tool, "/function/name"), tool.pointer("/function/parameters")),
    });
    Asked {
        said: messages.iter().map(script::text).collect::<Vec<_>>().join("\n"),
        tools: tools.collect(),
        results: since.map(script::text).collect(),
        schema: openai::schema(request.get("response_format")),
        turn: messages.len(),
        thinks: false,
    }
}

fn usage() -> Value {
    json!({
        "prompt_tokens": 37,
        "completion_tokens": 41,
        "total_tokens": 78,
        "prompt_tokens_details": { "cached_tokens": 12, "audio_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": 0, "audio_tokens": 0 },
    })
}

/// A call as messages carry it, with these arguments.
fn as_sent(call: &Call, arguments: &str) -> Value {
    let id = format!("call_{}", call.id);
    match call.given {
        Given::Json(_) => {
            json!({ "id": id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
        }
        Given::Text(_) => {
            json!({ "id": id, "type": "custom", "custom": { "name": call.name, "input": arguments } })
        }
    }
}

fn completion(model: &str, asked: &Asked) -> Value {
    let (message, reason) = match asked.turn() {
        Turn::Say(text) => (json!({ "role": "assistant", "content": text, "refusal": null }), "stop"),
        Turn::Call(calls) => {
            let calls: Vec<Value> = calls.iter().map(|call| as_sent(call, &call.given.to_text())).collect();
            let message = json!({
                "role": "assistant", "content": script::PREFACE, "refusal": null, "tool_calls": calls,
            });
            (message, "tool_calls")
        }
    };
    json!({
        "id": format!("chatcmpl-fake{:03}", asked.turn),
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": model,
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": reason }],
        "usage": usage(),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    })
}

fn chunks(model: &str, asked: &Asked, with_usage: bool) -> Vec<Value> {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": format!("chatcmpl-fake{:03}", asked.turn),
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": model,
            "system_fingerprint": "fp_fake",
            "choices": choices,
        });
        if with_usage && let Some(fields) = chunk.as_object_mut() {
            fields.insert("usage".to_owned(), usage.unwrap_or(Value::Null));
        }
        chunk
    };
    let choice = |delta: Value, reason: Option<&str>| {
        chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason }]), None)
    };
    let mut all = vec![choice(json!({ "role": "assistant", "content": "", "refusal": null }), None)];
    let turn = asked.turn();
    let text = match &turn {
        Turn::Say(text) => text.as_str(),
        Turn::Call(_) => script::PREFACE,
    };
    all.extend(script::pieces(text).map(|piece| choice(json!({ "content": piece }), None)));
    let mut reason = "stop";
    if let Turn::Call(calls) = &turn {
        reason = "tool_calls";
        for (index, call) in calls.iter().enumerate() {
            let mut begun = as_sent(call, "");
            if let Some(fields) = begun.as_object_mut() {
                fields.insert("index".to_owned(), json!(index));
            }
            all.push(choice(json!({ "tool_calls": [begun] }), None));
        }
        all.extend(
            interleaved(calls).into_iter().map(|piece| choice(json!({ "tool_calls": [piece] }), None)),
        );
    }
    if breaks(model) {
        all.truncate(3);
        all.push(openai::failure(StatusCode::INTERNAL_SERVER_ERROR, "The server had an error."));
        return all;
    }
    all.push(choice(json!({}), Some(reason)));
    if with_usage {
        all.push(chunk(json!([]), Some(usage())));
    }
    all
}

/// Pieces of the calls' arguments in turn: one of the first, one of the second, and so on.
fn interleaved(calls: &[Call]) -> Vec<Value> {
    let texts: Vec<String> = calls.iter().map(|call| call.given.to_text()).collect();
    let shards: Vec<Vec<&str>> = texts.iter().map(|text| script::shards(text)).collect();
    let longest = shards.iter().map(Vec::len).max().unwrap_or_default();
    let mut all = Vec::new();
    // The first shard is empty, as the call's own first piece is.
    for n in 1..longest {
        for (index, (call, shards)) in calls.iter().zip(&shards).enumerate() {
            let Some(shard) = shards.get(n) else { continue };
            all.push(match call.given {
                Given::Json(_) => json!({ "index": index, "function": { "arguments": shard } }),
                Given::Text(_) => json!({ "index": index, "custom": { "input": shard } }),
            });
        }
    }
    all
}
