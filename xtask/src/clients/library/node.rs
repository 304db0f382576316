//! Node's fetch and undici, WebSockets, the providers' SDKs and MCP.

use super::super::{
    case::{Case, Client, Noise, Version},
    kit::NODE,
};

const fn client(name: &'static str, package: &'static str) -> Client {
    Client { name, kit: &NODE, version: Version::Pinned(package) }
}

static FETCH: Client = Client {
    name: "Node fetch",
    kit: &NODE,
    version: Version::Says(&["node", "-p", "process.versions.node"]),
};
static UNDICI: Client = client("undici", "undici");
static WS: Client = client("ws", "ws");
static ANTHROPIC: Client = client("anthropic (TypeScript)", "@anthropic-ai/sdk");
static OPENAI: Client = client("openai (TypeScript)", "openai");
static MCP: Client = client("mcp (TypeScript)", "@modelcontextprotocol/sdk");

/// Client, case, script with arguments, what it has to print, and how many requests at least.
type Line = (&'static Client, &'static str, &'static [&'static str], &'static str, usize);

const LINES: &[Line] = &[
    (&FETCH, "plain", &["use_fetch.mjs", "plain"], "[ 'one=1; Path=/', 'two=", 9),
    (&FETCH, "upload in pieces", &["use_fetch.mjs", "upload"], "200 OK", 1),
    (&FETCH, "events", &["use_fetch.mjs", "events"], "data: {\"n\":4}", 1),
    (&FETCH, "leaves in the middle", &["use_fetch.mjs", "left"], "AbortError", 1),
    (&FETCH, "gRPC-web", &["use_fetch.mjs", "grpc_web"], "grpc-status:0", 1),
    (&UNDICI, "http/1.1, trailers, hints", &["use_undici.mjs", "plain"], "statusCode: 103", 3),
    (&UNDICI, "http/2", &["use_undici.mjs", "http2"], "100000 ", 3),
    (&UNDICI, "twelve at once, http/2", &["use_undici.mjs", "at_once"], "11000 ", 13),
    (&WS, "permessage-deflate", &["use_ws.mjs", "deflate"], "permessage-deflate", 1),
    (&WS, "uncompressed", &["use_ws.mjs", "plain"], "[ 1000, 'done' ]", 1),
    (&WS, "refused by the origin", &["use_ws.mjs", "refused"], "403 ", 1),
    (&ANTHROPIC, "plain", &["use_anthropic.mjs", "plain"], "\"type\": \"message\"", 1),
    (&ANTHROPIC, "tools", &["use_anthropic.mjs", "with_tools"], "\"stop_reason\": \"tool_use\"", 1),
    (&ANTHROPIC, "stream with tools", &["use_anthropic.mjs", "stream"], "\"stop_reason\": \"tool_use\"", 1),
    (&ANTHROPIC, "errors", &["use_anthropic.mjs", "errors"], "429 RateLimitError 429", 8),
    (&OPENAI, "chat", &["use_openai.mjs", "chat_plain"], "\"finish_reason\": \"stop\"", 1),
    (&OPENAI, "chat, stream", &["use_openai.mjs", "chat_stream"], "tool_calls", 1),
    (&OPENAI, "responses", &["use_openai.mjs", "responses_plain"], "\"status\": \"completed\"", 1),
    (&OPENAI, "responses, stream", &["use_openai.mjs", "responses_stream"], "response.completed", 1),
    (&OPENAI, "errors", &["use_openai.mjs", "errors"], "429 RateLimitError 429", 7),
    (&MCP, "with a session and the server's stream", &["use_mcp.mjs"], "heard {\"level\":\"info\"", 7),
];

pub(super) fn cases() -> Vec<Case> {
    LINES.iter().map(|line| noisy(case(line))).collect()
}

fn case(&(client, name, script, says, requests): &Line) -> Case {
    let words: Vec<&str> = std::iter::once("node").chain(script.iter().copied()).collect();
    Case::script(client, name, &words).says(says).requests(requests)
}

/// What each client makes up for itself.
fn noisy(case: Case) -> Case {
    match (case.client.name, case.name) {
        ("ws", _) => case.noise(Noise::Field("sec-websocket-key")),
        ("undici", "twelve at once, http/2") | ("mcp (TypeScript)", _) => case.noise(Noise::Order),
        _ => case,
    }
}
