//! Python's HTTP clients, WebSockets, gRPC, the providers' SDKs and MCP.

use super::super::{
    case::{Case, Client, Noise, Version},
    kit::PYTHON,
};

const fn client(name: &'static str, package: &'static str) -> Client {
    Client { name, kit: &PYTHON, version: Version::Pinned(package) }
}

static REQUESTS: Client = client("requests", "requests");
static URLLIB: Client =
    Client { name: "urllib", kit: &PYTHON, version: Version::Says(&["python", "--version"]) };
static HTTPX: Client = client("httpx", "httpx");
static AIOHTTP: Client = client("aiohttp", "aiohttp");
static WEBSOCKETS: Client = client("websockets", "websockets");
static GRPC: Client = client("grpcio", "grpcio");
static BOTO3: Client = client("boto3", "boto3");
static ANTHROPIC: Client = client("anthropic (Python)", "anthropic");
static OPENAI: Client = client("openai (Python)", "openai");
static MCP: Client = client("mcp (Python)", "mcp");

/// Client, case, script with arguments, what it has to print, and how many requests at least.
type Line = (&'static Client, &'static str, &'static [&'static str], &'static str, usize);

const LINES: &[Line] = &[
    (&REQUESTS, "get", &["use_requests.py", "get"], "11 200 OK", 1),
    (&REQUESTS, "post JSON", &["use_requests.py", "post_json"], "\"body_len\":", 1),
    (&REQUESTS, "upload in pieces", &["use_requests.py", "upload_stream"], "11 200 OK", 1),
    (&REQUESTS, "session", &["use_requests.py", "session"], "[('one', '1'), ('two'", 8),
    (&REQUESTS, "content codings", &["use_requests.py", "encoded"], "said twice", 4),
    (&REQUESTS, "stream", &["use_requests.py", "stream"], "{\"n\":4}", 2),
    (&REQUESTS, "an answer broken off", &["use_requests.py", "broken"], "ChunkedEncodingError", 1),
    (&URLLIB, "get", &["use_urllib.py", "get"], "11 200 OK", 1),
    (&URLLIB, "post", &["use_urllib.py", "post"], "a=1&b=2", 1),
    (&URLLIB, "an error", &["use_urllib.py", "error"], "418 I'm a teapot", 1),
    (&URLLIB, "keep-alive, chunked upload", &["use_urllib.py", "keep_alive"], "onetwo", 5),
    (&URLLIB, "answers by hand", &["use_urllib.py", "answers_by_hand"], "299 Fine By Me!", 8),
    (&HTTPX, "http/1.1", &["use_httpx.py", "plain", "1"], "HTTP/1.1 200 OK", 13),
    (&HTTPX, "http/2", &["use_httpx.py", "plain", "2"], "HTTP/2 200", 13),
    (&HTTPX, "events, http/1.1", &["use_httpx.py", "events", "1"], "data: {\"n\":4}", 1),
    (&HTTPX, "events, http/2", &["use_httpx.py", "events", "2"], "data: {\"n\":4}", 1),
    (&HTTPX, "twelve at once, http/2", &["use_httpx.py", "at_once", "2"], "12000 ", 12),
    (&HTTPX, "leaves in the middle, http/1.1", &["use_httpx.py", "left", "1"], "data: {\"n\":1}", 1),
    (&HTTPX, "leaves in the middle, http/2", &["use_httpx.py", "left", "2"], "data: {\"n\":1}", 1),
    (&AIOHTTP, "plain", &["use_aiohttp.py", "plain"], "Fine By Me!", 8),
    (&AIOHTTP, "events", &["use_aiohttp.py", "events"], "{\"n\":4}", 1),
    (&AIOHTTP, "WebSocket", &["use_aiohttp.py", "socket"], "compressed 15", 1),
    (&WEBSOCKETS, "permessage-deflate", &["use_websockets.py", "deflate"], "PerMessageDeflate", 1),
    (&WEBSOCKETS, "uncompressed", &["use_websockets.py", "plain"], "closed 1000", 1),
    (&WEBSOCKETS, "refused by the origin", &["use_websockets.py", "refused"], "HTTP 403", 1),
    (&GRPC, "unary with metadata", &["use_grpc.py", "unary"], "StatusCode.OK", 1),
    (&GRPC, "2 MB", &["use_grpc.py", "large"], "2048000 ", 1),
    (&GRPC, "compressed messages", &["use_grpc.py", "compressed"], "10000 ", 1),
    (&GRPC, "stream from the server", &["use_grpc.py", "down"], "b'message 19'", 1),
    (&GRPC, "both ways in turn", &["use_grpc.py", "both"], "message 9", 1),
    (
        &GRPC,
        "status and details",
        &["use_grpc.py", "fails"],
        "StatusCode.NOT_FOUND nothing of that name: ä",
        1,
    ),
    (&GRPC, "deadline", &["use_grpc.py", "deadline"], "DEADLINE_EXCEEDED True True", 1),
    (&GRPC, "cancellation", &["use_grpc.py", "cancel"], "StatusCode.CANCELLED", 1),
    (&GRPC, "sixteen at once", &["use_grpc.py", "many"], "call 15", 16),
    (&BOTO3, "signed upload", &["use_boto3.py"], "200", 1),
    (&ANTHROPIC, "messages and tools", &["use_anthropic.py", "messages"], "\"stop_reason\": \"tool_use\"", 3),
    (&ANTHROPIC, "stream with tools", &["use_anthropic.py", "stream"], "\"stop_reason\": \"tool_use\"", 1),
    (&ANTHROPIC, "errors and retries", &["use_anthropic.py", "errors"], "429 RateLimitError 429", 11),
    (&OPENAI, "chat", &["use_openai.py", "chat_completions"], "\"finish_reason\": \"tool_calls\"", 3),
    (&OPENAI, "responses", &["use_openai.py", "responses"], "response.completed", 2),
    (&OPENAI, "errors", &["use_openai.py", "errors"], "429 RateLimitError 429", 8),
    (&MCP, "without a session", &["use_mcp.py", "modern"], "progress 3", 4),
    (&MCP, "with a session", &["use_mcp.py", "legacy"], "progress 3", 5),
];

pub(super) fn cases() -> Vec<Case> {
    LINES.iter().map(|line| noisy(case(line))).collect()
}

fn case(&(client, name, script, says, requests): &Line) -> Case {
    let words: Vec<&str> = std::iter::once("python").chain(script.iter().copied()).collect();
    Case::script(client, name, &words).says(says).requests(requests)
}

/// What each client makes up for itself.
fn noisy(case: Case) -> Case {
    match (case.client.name, case.name) {
        ("websockets", _) | (_, "WebSocket") => case.noise(Noise::Field("sec-websocket-key")),
        // What is left of the deadline, which the library sends.
        ("grpcio", "sixteen at once") => case.noise(Noise::Field("grpc-timeout")).noise(Noise::Order),
        ("grpcio", _) => case.noise(Noise::Field("grpc-timeout")),
        ("httpx", "twelve at once, http/2") => case.noise(Noise::Order),
        ("boto3", _) => case
            .noise(Noise::Field("authorization"))
            .noise(Noise::Field("x-amz-date"))
            .noise(Noise::Field("amz-sdk-invocation-id")),
        ("openai (Python)", _) => case.noise(Noise::Field("idempotency-key")),
        ("mcp (Python)", "with a session") => case.noise(Noise::Order),
        _ => case,
    }
}
