//! The providers against a client of their own: what each says, how it comes, and what it refuses.

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming};
use serde_json::{Value, json};

use super::script::ANSWER;
use crate::{
    FakeInternet,
    encoding::Coding,
    tests::{ask, get},
    world,
};

struct Said {
    status: u16,
    kind: String,
    coding: Option<String>,
    /// Frames of the body as they came.
    frames: Vec<Vec<u8>>,
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8(self.frames.concat()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.frames.concat()).unwrap()
    }

    /// The data of its events.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.kind, "text/event-stream");
        assert_eq!(self.coding, None);
        let data = self.text();
        let lines =
            data.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        lines.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

async fn read(response: Response<Incoming>) -> Said {
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, kind) = (response.status().as_u16(), header("content-type").unwrap_or_default());
    let coding = header("content-encoding");
    let (mut body, mut frames) = (response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        frames.push(frame.unwrap().into_data().unwrap().to_vec());
    }
    Said { status, kind, coding, frames }
}

async fn post(internet: &FakeInternet, site: &str, path: &str, key: &str, body: Value) -> Said {
    let request = Request::post(format!("https://{site}{path}"))
        .header("host", site)
        .header("authorization", format!("Bearer {key}"))
        .header("x-goog-api-key", key)
        .body(Full::from(body.to_string()))
        .unwrap();
    read(ask(internet, site, "h2", request).await).await
}

fn parts<'a>(events: &'a [Value], pointer: &str) -> Vec<&'a str> {
    events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
}

fn bash() -> Value {
    json!({ "type": "object", "required": ["command"], "properties": { "command": { "type": "string" } } })
}

#[tokio::test]
async fn messages_think_call_and_say() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let messages = |body| post(&internet, world::ANTHROPIC, "/v1/messages?beta=true", "sk", body);
    let mut request = json!({
        "model": "claude-sonnet-5-5", "stream": true, "thinking": { "type": "enabled" },
        "tools": [{ "name": "Bash", "input_schema": bash() }, { "type": "web_search_1", "name": "web_search" }],
        "messages": [{ "role": "user", "content": "Run it" }],
    });
    let events = messages(request.clone()).await.events();
    let kinds: Vec<&str> = parts(&events, "/content_block/type");
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert_eq!(parts(&events, "/delta/signature"), ["ZmFrZQ=="]);
    let input = parts(&events, "/delta/partial_json");
    assert!(input.len() > 2 && input[0].is_empty());
    assert!(input.concat().starts_with("{\"command\":\"printf "), "{input:?}");
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    assert_eq!(parts(&events, "/delta/stop_reason"), ["tool_use"]);
    // The same request has the same answer, whole or in pieces.
    let again = messages(request.clone()).await.events();
    assert_eq!(events, again);
    request["stream"] = json!(false);
    let whole = messages(request.clone()).await.json();
    assert_eq!(whole["content"][2]["input"].to_string(), input.concat());
    request["messages"].as_array_mut().unwrap().push(json!({ "role": "user", "content": [
        { "type": "tool_result", "tool_use_id": whole["content"][2]["id"], "content": [{ "type": "text", "text": ANSWER }] },
    ] }));
    let last = messages(request).await.json();
    assert_eq!(last["stop_reason"], "end_turn");
    assert!(last["content"][1]["text"].as_str().unwrap().contains(ANSWER));
}

#[tokio::test]
async fn errors_have_each_provider_s_own_form() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let limited = "some-status-429";
    let rows = [
        (world::ANTHROPIC, "/v1/messages", json!({ "model": limited }), "/error/type", "rate_limit_error"),
        (
            world::OPENAI,
            "/v1/chat/completions",
            json!({ "model": limited }),
            "/error/code",
            "rate_limit_exceeded",
        ),
        (world::OPENAI, "/v1/responses", json!({ "model": limited }), "/error/code", "rate_limit_exceeded"),
        (
            world::GEMINI,
            "/v1beta/models/some-status-429:generateContent",
            json!({}),
            "/error/status",
            "RESOURCE_EXHAUSTED",
        ),
    ];
    for (site, path, body, pointer, expect) in rows {
        let said = post(&internet, site, path, "sk", body.clone()).await;
        assert_eq!((said.status, said.json().pointer(pointer).unwrap()), (429, &json!(expect)), "{path}");
        let said = post(&internet, site, path, "sk-invalid", body).await;
        assert_eq!(said.status, if site == world::GEMINI { 400 } else { 401 }, "{path}");
    }
    for (site, path) in [(world::ANTHROPIC, "/v1/messages"), (world::OPENAI, "/v1/responses")] {
        let said = post(&internet, site, path, "sk", json!({ "model": "m-breaks", "stream": true })).await;
        assert_eq!(
            (said.status, said.events().last().unwrap()["type"].as_str()),
            (200, Some("error")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn chat_completions_interleave_calls() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let tool = |name: &str| {
        let schema = json!({ "required": ["city"], "properties": { "city": { "type": "string" } } });
        json!({ "type": "function", "function": { "name": name, "parameters": schema } })
    };
    let mut request = json!({
        "model": "gpt-4o", "stream": true, "stream_options": { "include_usage": true },
        "tools": [tool("weather"), tool("time")], "messages": [{ "role": "user", "content": "Bern?" }],
    });
    let chat = |body| post(&internet, world::OPENAI, "/v1/chat/completions", "sk", body);
    let said = chat(request.clone()).await;
    assert!(said.text().ends_with("data: [DONE]\n\n"));
    let events = said.events();
    let calls: Vec<(u64, &str)> = events
        .iter()
        .filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0"))
        .map(|call| (call["index"].as_u64().unwrap(), call["function"]["arguments"].as_str().unwrap()))
        .collect();
    let order: Vec<u64> = calls.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1]);
    for call in [0, 1] {
        let its = calls.iter().filter(|(index, _)| *index == call).map(|(_, arguments)| *arguments);
        assert_eq!(its.collect::<String>(), "{\"city\":\"example\"}");
    }
    assert_eq!(parts(&events, "/choices/0/finish_reason"), ["tool_calls"]);
    let last = events.last().unwrap();
    assert_eq!((last["choices"].clone(), last["usage"]["total_tokens"].clone()), (json!([]), json!(78)));
    let messages = request["messages"].as_array_mut().unwrap();
    messages.push(json!({ "role": "tool", "tool_call_id": "call_fake_001_0", "content": "sunny" }));
    messages.push(json!({ "role": "tool", "tool_call_id": "call_fake_001_1", "content": "noon" }));
    request["stream"] = json!(false);
    let whole = chat(request).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "Done, after 2 results of tools.");
}

#[tokio::test]
async fn responses_number_their_events_and_know_codex_s_tools() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let request = json!({
        "model": "gpt-6.1-sol", "stream": true, "reasoning": { "effort": "low" },
        "input": [
            { "type": "additional_tools", "tools": [
                { "type": "namespace", "name": "functions", "tools": [{ "type": "custom", "name": "exec" }] },
            ] },
            { "type": "message", "role": "user", "content": "Run it" },
        ],
    });
    for (site, path) in [(world::OPENAI, "/v1/responses"), (world::CHATGPT, "/backend-api/codex/responses")] {
        let said = post(&internet, site, path, "sk", request.clone()).await;
        assert!(said.frames.len() > 10, "events come one by one");
        let events = said.events();
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], json!(number));
        }
        let done: Vec<&str> = events
            .iter()
            .filter(|event| event["type"] == "response.output_item.done")
            .map(|event| event["item"]["type"].as_str().unwrap())
            .collect();
        assert_eq!(done, ["reasoning", "message", "custom_tool_call"]);
        let end = events.last().unwrap();
        assert_eq!(end["type"], "response.completed");
        let input = end.pointer("/response/output/2/input").unwrap().as_str().unwrap();
        assert!(input.contains("tools.exec_command({cmd: \"printf "), "{input}");
        let pieces = events.iter().filter(|event| event["type"] == "response.custom_tool_call_input.delta");
        assert_eq!(pieces.map(|event| event["delta"].as_str().unwrap()).collect::<String>(), input);
    }
}

#[tokio::test]
async fn gemini_streams_events_and_arrays() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let request = json!({
        "contents": [{ "role": "user", "parts": [{ "text": "Run it" }] }],
        "tools": [{ "functionDeclarations": [
            { "name": "run_shell_command", "parametersJsonSchema": bash() },
        ] }],
    });
    let path = "/v1beta/models/gemini-3.8-flash:streamGenerateContent";
    let events = post(&internet, world::GEMINI, &format!("{path}?alt=sse"), "AIza", request.clone()).await;
    let said = post(&internet, world::GEMINI, path, "AIza", request.clone()).await;
    assert!(said.frames.len() > 2, "an array comes in pieces");
    assert_eq!(said.json().as_array().unwrap(), &events.events());
    let last = events.events().pop().unwrap();
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(last["candidates"][0]["content"]["parts"][0]["functionCall"]["name"], "run_shell_command");
    let path = "/v1beta/models/gemini-3.8-flash:generateContent";
    let whole = post(&internet, world::GEMINI, path, "AIza", request).await.json();
    assert_eq!(whole["modelVersion"], "gemini-3.8-flash");
    let schema = json!({ "generationConfig": { "responseSchema": {
        "type": "OBJECT", "required": ["n"], "properties": { "n": { "type": "INTEGER" } },
    } } });
    let structured = post(&internet, world::GEMINI, path, "AIza", schema).await.json();
    assert_eq!(structured["candidates"][0]["content"]["parts"][0]["text"], "{\"n\":1}");
}

#[tokio::test]
async fn codings_are_understood_and_chosen() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let plain = json!({ "model": "gpt-5", "input": "hello ".repeat(100) }).to_string();
    for (accept, coding) in
        [("gzip, deflate, br, zstd", Coding::Zstd), ("br, gzip", Coding::Brotli), ("gzip", Coding::Gzip)]
    {
        let request = Request::post("https://chatgpt.com/backend-api/codex/responses")
            .header("host", world::CHATGPT)
            .header("authorization", "Bearer x")
            .header("accept-encoding", accept)
            .header("content-encoding", coding.name())
            .body(Full::from(coding.encode(plain.as_bytes()).unwrap()))
            .unwrap();
        let said = read(ask(&internet, world::CHATGPT, "http/1.1", request).await).await;
        assert_eq!((said.status, said.coding.as_deref()), (200, Some(coding.name())));
        let decoded = coding.decode(&said.frames.concat()).unwrap();
        let answer: Value = serde_json::from_slice(&decoded).unwrap();
        assert_eq!(answer["status"], "completed");
        let kept = internet.journal().read(|log| log.requests_to(world::CHATGPT).next_back().unwrap().text());
        assert_eq!(kept, plain);
    }
}

#[tokio::test]
async fn what_is_asked_beside_the_model_is_answered() {
    let internet = FakeInternet::start_on_loopback().await.unwrap();
    let rows = [
        (world::ANTHROPIC, "/api/hello", 200),
        (world::ANTHROPIC, "/api/claude_code/policy_limits", 200),
        (world::NPM, "/@opencode-ai%2fplugin", 200),
        (world::CHATGPT, "/backend-api/wham/accounts/check", 200),
        (world::CHATGPT, "/backend-api/nothing", 404),
        (world::MODELS, "/api.json", 404),
        (world::CODE[1], "/repos/openai/plugins", 404),
    ];
    for (site, path, status) in rows {
        let said = read(ask(&internet, site, "h2", get(site, path)).await).await;
        assert_eq!(said.status, status, "{site}{path}");
    }
    for site in world::TELEMETRY {
        assert_eq!(post(&internet, site, "/any", "", json!({})).await.status, 200, "{site}");
    }
    let discover = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let said = post(&internet, world::CHATGPT, "/backend-api/ps/mcp", "x", discover).await;
    assert_eq!(said.json()["result"]["tools"], json!([]));
}
