//! Refusals and gate errors in the agent's language: the provider's own error shape where the host
//! is a known provider, else a short JSON body.
//!
//! Status: the class that an SDK raises follows the HTTP status, so policy's 403 stands, except
//! towards command lines that retry 403 for up to a minute (Codex, and aider through litellm): they
//! get 400, on which they stop at once. `x-should-retry: false` keeps the SDKs from trying again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Value, json};

use crate::model::{Host, RecordId};

/// An answer of the gate's own.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Something to tell the agent instead of an origin's answer.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub status: u16,
    /// One sentence.
    pub reason: &'a str,
    /// What decided; goes into the text and the `x-agentgate-rule` field.
    pub rule: &'a str,
    /// How to ask for access; may be empty.
    pub remedy: &'a str,
    /// False where trying again can only give the same.
    pub retry: bool,
    /// The record of this exchange, where there is one.
    pub record: Option<RecordId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    Anthropic,
    OpenAi,
    Gemini,
    Bedrock,
    Unknown,
}

fn provider(host: Option<&Host>) -> Provider {
    let Some(host) = host.map(Host::as_str) else {
        return Provider::Unknown;
    };
    let below = |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|h| h.ends_with('.'));
    if below("anthropic.com") {
        Provider::Anthropic
    } else if below("openai.com") || below("chatgpt.com") || below("openrouter.ai") {
        Provider::OpenAi
    } else if host == "generativelanguage.googleapis.com" || host.ends_with("aiplatform.googleapis.com") {
        Provider::Gemini
    } else if host.starts_with("bedrock-runtime.") && below("amazonaws.com") {
        Provider::Bedrock
    } else {
        Provider::Unknown
    }
}

/// True for clients that retry 403 for a long time and stop at 400; told by a request's headers.
#[must_use]
pub fn retries_403(headers: &HeaderMap) -> bool {
    let mentions = |name: HeaderName, words: &[&str]| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| words.iter().any(|word| mentions(value.as_bytes(), word.as_bytes())))
    };
    mentions(header::USER_AGENT, &["codex", "litellm", "aider"])
        || mentions(HeaderName::from_static("originator"), &["codex"])
}

/// Whether `word`, in lower case, is in `text` in any case.
fn mentions(text: &[u8], word: &[u8]) -> bool {
    let Some(&first) = word.first() else { return true };
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), text)
        .any(|at| text.get(at..at + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word)))
}

/// The answer for a request to `host`; `prefer_400` is what [`retries_403`] said of it.
#[must_use]
pub fn answer(host: Option<&Host>, prefer_400: bool, message: &Message<'_>) -> Answer {
    let provider = provider(host);
    let status = match message.status {
        403 if provider != Provider::Unknown && prefer_400 => 400,
        status => status,
    };
    let mut text = format!("agentgate: {} (rule {})", message.reason.trim_end_matches('.'), message.rule);
    if !message.remedy.is_empty() {
        text.push_str(". To allow it: ");
        text.push_str(message.remedy);
    }
    let body = shape(provider, status, &text, message);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    if !message.retry {
        put("x-should-retry", "false".to_owned());
    }
    put("x-agentgate-rule", message.rule.to_owned());
    if let Some(id) = message.record {
        put("x-agentgate-record", id.to_string());
    }
    if provider == Provider::Bedrock {
        put("x-amzn-errortype", bedrock_type(status).to_owned());
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    Answer { status, headers, body: Bytes::from(body.to_string()) }
}

fn shape(provider: Provider, status: u16, text: &str, message: &Message<'_>) -> Value {
    match provider {
        Provider::Anthropic => json!({
            "type": "error",
            "error": { "type": anthropic_type(status), "message": text },
            "request_id": format!("req_agentgate_{}", message.record.unwrap_or_default()),
        }),
        Provider::OpenAi => json!({
            "error": {
                "message": text,
                "type": if status >= 500 { "server_error" } else { "invalid_request_error" },
                "param": null,
                "code": "agentgate_refused",
            }
        }),
        Provider::Gemini => json!({
            "error": { "code": status, "message": text, "status": gemini_status(status), "details": [] }
        }),
        Provider::Bedrock => json!({ "message": text }),
        Provider::Unknown => json!({
            "error": {
                "gate": "agentgate",
                "message": text,
                "reason": message.reason,
                "rule": message.rule,
                "remedy": message.remedy,
                "record": message.record,
            }
        }),
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

fn gemini_status(status: u16) -> &'static str {
    match status {
        403 => "PERMISSION_DENIED",
        429 => "RESOURCE_EXHAUSTED",
        504 => "DEADLINE_EXCEEDED",
        500.. => "UNAVAILABLE",
        _ => "INVALID_ARGUMENT",
    }
}

fn bedrock_type(status: u16) -> &'static str {
    match status {
        403 => "AccessDeniedException",
        429 => "ThrottlingException",
        500.. => "ServiceUnavailableException",
        _ => "ValidationException",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, agent: &str, status: u16, pointer: &str, expect: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", agent.parse().unwrap());
        let message = Message {
            status: 403,
            reason: "the host is on the deny list.",
            rule: "deny:x",
            remedy: "agentctl deny --remove x",
            retry: false,
            record: Some(RecordId(7)),
        };
        let response = answer(Some(&Host::parse(host).unwrap()), retries_403(&headers), &message);
        assert_eq!(response.status, status, "{host} {agent}");
        assert_eq!(response.headers["x-should-retry"], "false");
        assert_eq!(response.headers["x-agentgate-rule"], "deny:x");
        let json: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(json.pointer(pointer).and_then(Value::as_str), Some(expect), "{host}: {json}");
        assert!(json.to_string().contains("deny:x"), "{json}");
        assert!(json.to_string().contains("agentctl deny --remove x"), "{json}");
    }

    #[test]
    fn speaks_each_provider() {
        check("api.anthropic.com", "claude-cli/2.1", 403, "/error/type", "permission_error");
        check("api.anthropic.com", "litellm/1.109", 400, "/error/type", "invalid_request_error");
        check("chatgpt.com", "codex_exec/0.169", 400, "/error/type", "invalid_request_error");
        check("api.openai.com", "OpenAI/Python 3.51", 403, "/error/code", "agentgate_refused");
        check("generativelanguage.googleapis.com", "x", 403, "/error/status", "PERMISSION_DENIED");
        check(
            "bedrock-runtime.eu-west-1.amazonaws.com",
            "Boto3",
            403,
            "/message",
            "agentgate: the host is on the deny list (rule deny:x). To allow it: agentctl deny --remove x",
        );
        check("evil.example", "codex_exec/0.169", 403, "/error/rule", "deny:x");
        check("notanthropic.com", "curl/8", 403, "/error/gate", "agentgate");
    }
}
