//! Masking: what must not be seen, and what must stay as it is.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

/// At least twelve characters, in no shape that an issuer uses.
const SECRET: &str = "Zq7wertyUIOP1234";

fn header(name: &str, value: &str) -> String {
    let mut headers = HeaderMap::new();
    headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    let masked = mask_fields(headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())));
    assert_eq!(masked.len(), 1);
    assert_eq!(masked.iter().next().unwrap().0, name);
    masked.iter().next().unwrap().1.to_owned()
}

fn cmdline(line: &[&str]) -> Vec<String> {
    mask_cmdline(&line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
}

#[test]
fn headers() {
    let rows = [
        ("authorization", "Bearer abcdefghijklmnop", "Bearer ****mnop"),
        ("authorization", "bearer short", "bearer ****"),
        ("authorization", "Basic dXNlcjpwYXNzd29yZA==", "Basic ****"),
        ("authorization", "abcdefghijklmnop", "****mnop"),
        ("authorization", "abcdefghijklmnop qrst", "****qrst"),
        ("authorization", "", ""),
        ("proxy-authorization", "Token abcdefghijklmnop", "Token ****mnop"),
        ("x-api-key", "sk-ant-api03-abcdefgh", "****efgh"),
        ("x-goog-api-key", "AIzaSyabcdefghijkl", "****ijkl"),
        ("api-key", "0123456789ab", "****89ab"),
        ("api-key", "0123456789a", "****"),
        ("x-amz-security-token", "abcdefghijklmnop", "****mnop"),
        ("ocp-apim-subscription-key", "abcdefghijklmnop", "****mnop"),
        ("x-hub-signature-256", "sha256=abcdefghijklmnop", "****mnop"),
        ("cookie", "sid=abcdefghijklmnop; theme=dark", "sid=****mnop; theme=****"),
        ("cookie", "abcdefghijklmnop", "****mnop"),
        ("set-cookie", "sid=abcdefghijklmnop; Path=/; HttpOnly", "sid=****mnop; Path=/; HttpOnly"),
        ("set-cookie", "path=abcdefghijklmnop", "path=****mnop"),
        (
            "location",
            "https://a.example/cb?code=abcdefghijklmnop&state=1",
            "https://a.example/cb?code=****mnop&state=1",
        ),
        ("referer", "https://u:hunter2hunter2@a.example/", "https://u:****ter2@a.example/"),
        (
            "sec-websocket-protocol",
            "realtime, openai-insecure-api-key.sk-proj-abcdefgh",
            "realtime, openai-insecure-api-key.sk-****efgh",
        ),
        // Not secrets.
        (
            "chatgpt-account-id",
            "0b5e9bc0-1111-2222-3333-444455556666",
            "0b5e9bc0-1111-2222-3333-444455556666",
        ),
        ("anthropic-ratelimit-tokens-remaining", "79000", "79000"),
        ("x-ratelimit-limit-tokens", "79000", "79000"),
        ("idempotency-key", "stainless-node-retry-1", "stainless-node-retry-1"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("www-authenticate", "Bearer realm=\"a\"", "Bearer realm=\"a\""),
        ("content-type", "text/event-stream; charset=utf-8", "text/event-stream; charset=utf-8"),
        ("user-agent", "claude-cli/2.0 (task-runner-management)", "claude-cli/2.0 (task-runner-management)"),
    ];
    for (name, value, expect) in rows {
        assert_eq!(header(name, value), expect, "{name}: {value}");
    }
}

#[test]
fn headers_keep_order_and_repeats_and_survive_other_encodings() {
    let mut headers = HeaderMap::new();
    headers.append("set-cookie", HeaderValue::from_static("a=abcdefghijklmnop"));
    headers.append("set-cookie", HeaderValue::from_static("b=1"));
    headers.append("x-odd", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    headers.append("authorization", HeaderValue::from_bytes(b"Bearer \xff\xfeabcdefghijklmnop").unwrap());
    let expect = [
        ("set-cookie", "a=****mnop"),
        ("set-cookie", "b=****"),
        ("x-odd", "caf\u{fffd}"),
        ("authorization", "Bearer ****mnop"),
    ];
    let masked = mask_fields(headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())));
    let masked: Vec<_> = masked.iter().collect();
    assert_eq!(masked, expect);
}

#[test]
fn targets() {
    let rows = [
        ("/", "/"),
        ("/v1/messages?beta=true", "/v1/messages?beta=true"),
        (
            "/v1beta/models/g:generate?key=abcdefghijklmnop&alt=sse",
            "/v1beta/models/g:generate?key=****mnop&alt=sse",
        ),
        ("/?KEY=short", "/?KEY=****"),
        ("/?key=", "/?key="),
        ("/?a=1;access_token=abcdefghijklmnop;b=2", "/?a=1;access_token=****;b=2"),
        ("/?accessToken=abcdefghijklmnop", "/?accessToken=****mnop"),
        ("/?api%5Fkey=abcdefghijklmnop", "/?api%5Fkey=****mnop"),
        ("/?X-Amz-Signature=abcdefghijklmnop", "/?X-Amz-Signature=****mnop"),
        ("/?q=sk-proj-abcdefgh", "/?q=sk-****efgh"),
        ("/?q=sk%2Dproj%2Dabcdefgh", "/?q=****efgh"),
        ("/bot/sk-abcdefghijkl/send", "/bot/sk-****ijkl/send"),
        ("/?max_tokens=5&token_type=x&page=2", "/?max_tokens=5&token_type=x&page=2"),
        ("/?ghp_abcdefghijkl", "/?ghp_****ijkl"),
        ("http://user:abcdefghijklmnop@a.example/?x", "http://user:****mnop@a.example/?x"),
        ("/cb#id_token=abcdefghijklmnop", "/cb#id_token=****mnop"),
        ("/?password=a=b?c#abcdefghijklmnop", "/?password=****#abcdefghijklmnop"),
        ("/%zz?%=%&%4=", "/%zz?%=%&%4="),
    ];
    for (target, expect) in rows {
        assert_eq!(mask_target(target), expect, "{target}");
    }
}

#[test]
fn command_lines() {
    let rows: &[(&[&str], &[&str])] = &[
        (&["curl", "-sS", "https://a.example/x"], &["curl", "-sS", "https://a.example/x"]),
        (&["a", "--token", "abcdefghijklmnop", "x"], &["a", "--token", "****mnop", "x"]),
        (&["a", "--token", "--password", "x"], &["a", "--token", "****", "x"]),
        (&["a", "--api-key=abcdefghijklmnop"], &["a", "--api-key=****mnop"]),
        (&["a", "--password=two words of it"], &["a", "--password=****f it"]),
        (&["a", "--token-file", "/run/token"], &["a", "--token-file", "/run/token"]),
        (&["a", "--password-stdin", "x"], &["a", "--password-stdin", "x"]),
        (&["env", "GITHUB_TOKEN=abcdefghijklmnop", "gh"], &["env", "GITHUB_TOKEN=****mnop", "gh"]),
        (&["env", "AWS_SECRET_ACCESS_KEY=abcdefghijklmnop"], &["env", "AWS_SECRET_ACCESS_KEY=****mnop"]),
        (&["env", "AWS_ACCESS_KEY_ID=AKIAABCDEFGHIJKLMNOP"], &["env", "AWS_ACCESS_KEY_ID=AKIA****MNOP"]),
        (&["env", "HOME=/root", "PORT=8080"], &["env", "HOME=/root", "PORT=8080"]),
        (
            &["curl", "-H", "Authorization: Bearer abcdefghijklmnop"],
            &["curl", "-H", "Authorization: Bearer ****mnop"],
        ),
        (&["curl", "-HX-Api-Key:abcdefghijklmnop"], &["curl", "-HX-Api-Key:****mnop"]),
        (&["curl", "-H", "Accept: text/plain"], &["curl", "-H", "Accept: text/plain"]),
        (&["curl", "-u", "me:abcdefghijklmnop"], &["curl", "-u", "me:****mnop"]),
        (&["systemd-run", "--user", "claude"], &["systemd-run", "--user", "claude"]),
        (&["git", "clone", "https://x:abcdefghijklmnop@h/r"], &["git", "clone", "https://x:****mnop@h/r"]),
        (&["git", "clone", "git@h:r"], &["git", "clone", "git@h:r"]),
        (&["curl", "https://h/?a=1&key=abcdefghijklmnop"], &["curl", "https://h/?a=1&key=****mnop"]),
        (&["curl", "-d", "a=1&password=abcdefghijklmnop&b=2"], &["curl", "-d", "a=1&password=****mnop&b=2"]),
        (&["mysql", "-pabcdefghijklmnop"], &["mysql", "-p****mnop"]),
        (
            &["/usr/bin/sshpass", "-p", "abcdefghijklmnop", "ssh"],
            &["/usr/bin/sshpass", "-p", "****mnop", "ssh"],
        ),
        (&["mkdir", "-p", "a/long/directory"], &["mkdir", "-p", "a/long/directory"]),
        (&["echo", "sk-abcdefghijklmn", "xoxb-1234567890ab"], &["echo", "sk-****klmn", "xoxb-****90ab"]),
        (
            &[
                "bash",
                "-c",
                "API_KEY=abcdefghijklmnop python run.py; curl -H 'X-Api-Key: abcdefghijklmnop' h",
            ],
            &["bash", "-c", "API_KEY=****mnop python run.py; curl -H 'X-Api-Key: ****mnop' h"],
        ),
        (
            &[
                "bash",
                "-c",
                "curl -H \"Authorization: Bearer abcdefghijklmnop\" https://h/?token=abcdefghijklmnop | jq",
            ],
            &["bash", "-c", "curl -H \"Authorization: Bearer ****mnop\" https://h/?token=****mnop | jq"],
        ),
        (
            &["bash", "-c", "deploy --password 'correct horse battery' --to prod"],
            &["bash", "-c", "deploy --password '****tery' --to prod"],
        ),
        (
            &["a", "{\"api_key\": \"abcdefghijklmnop\", \"n\": 1}"],
            &["a", "{\"api_key\": \"****mnop\", \"n\": 1}"],
        ),
        (&["a", "-----BEGIN EC PRIVATE KEY-----\nMHcC"], &["a", "-----BEGIN EC PRIVATE KEY-----****"]),
        (&["a", "--auth", "Basic abcdefghijklmnop"], &["a", "--auth", "****mnop"]),
        (&["a", "café=ü", ""], &["a", "café=ü", ""]),
        (&["curl", "-b", "sid=abcdefghijklmnop"], &["curl", "-b", "****mnop"]),
        (
            &["curl", "--header=Authorization: Bearer abcdefghijklmnop"],
            &["curl", "--header=Authorization: Bearer ****mnop"],
        ),
        (
            &["git", "commit", "-m", "basic tests of the key"],
            &["git", "commit", "-m", "basic tests of the key"],
        ),
        (&["grep", "-rn", "token", "src/auth"], &["grep", "-rn", "token", "src/auth"]),
        (&[], &[]),
    ];
    for (line, expect) in rows {
        assert_eq!(cmdline(line), *expect, "{line:?}");
    }
}

/// No place that is known to hold a secret lets it through whole, whatever stands around it.
#[test]
fn no_secret_survives_whole() {
    let names = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-goog-api-key",
        "api-key",
        "x-auth-token",
        "x-client-secret",
        "x-session-token",
        "x-access-token",
        "private-token",
        "x-vault-token",
        "x-amz-security-token",
        "apikey",
        "x-password",
        "x-auth",
        "x-auth-key",
    ];
    // Also secrets with signs in them, and in company.
    let secrets =
        [SECRET, "Zq7 wertyUIOP1234", "Zq7=wer;tyU&IOP,12:34", "Zq7wertyUIOP1234\u{e9}", "????????????????"];
    let wraps = ["{}", "Bearer {}", "Basic {}", "Unknown {}", "a={}", "a=b; c={}; Path=/", "{}; a=b", " {} "];
    for secret in secrets {
        for wrap in wraps {
            let value = wrap.replace("{}", secret);
            for name in names {
                let masked = mask_header(name, &value);
                assert!(!masked.contains(secret), "{name}: {value} shows as {masked}");
            }
        }
        for flag in [
            "--token",
            "--password",
            "--api-key",
            "--secret",
            "--client-secret",
            "--access-token",
            "-password",
        ] {
            for line in [vec!["a", flag, secret], vec!["a", "b", &format!("{flag}={secret}")]] {
                let masked = cmdline(&line).join(" ");
                assert!(!masked.contains(secret), "{line:?} shows as {masked}");
            }
        }
        for name in ["OPENAI_API_KEY", "TOKEN", "DB_PASSWORD", "client_secret", "PGPASSWORD", "apiKey"] {
            let masked = cmdline(&["env", &format!("{name}={secret}")]).join(" ");
            assert!(!masked.contains(secret), "{name} shows as {masked}");
        }
    }
    for name in [
        "key",
        "api_key",
        "apikey",
        "access_token",
        "token",
        "sig",
        "signature",
        "password",
        "secret",
        "auth",
        "client_secret",
        "refresh_token",
        "id_token",
        "code",
        "pwd",
        "jwt",
        "X-Amz-Security-Token",
    ] {
        for target in [
            format!("/a?{name}={SECRET}"),
            format!("/a?b=c&{name}={SECRET}&d=e"),
            format!("?;{name}={SECRET}#x"),
        ] {
            let masked = mask_target(&target);
            assert!(!masked.contains(SECRET), "{target} shows as {masked}");
        }
    }
    for (prefix, _) in SHAPES {
        let secret = format!("{prefix}{SECRET}{SECRET}");
        for text in [
            secret.clone(),
            format!("x {secret} y"),
            format!("\"{secret}\""),
            format!("/p/{secret}/q?r={secret}"),
        ] {
            for masked in [mask_target(&text), mask_header("x-note", &text), cmdline(&["a", &text]).join(" ")]
            {
                assert!(!masked.contains(&secret), "{text} shows as {masked}");
            }
        }
    }
}

/// Masked text, masked again, shows no more, and no input makes it panic.
#[test]
fn is_total() {
    let pieces = [
        "--token",
        "=",
        ":",
        " ",
        "\"",
        "'",
        "Bearer",
        "sk-",
        "é",
        "%",
        "://",
        "@",
        "?",
        "&",
        "\u{0}",
        "PRIVATE KEY-----",
        "\\",
    ];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                let text = format!("{a}{b}{c}{SECRET}{c}{b}{a}");
                let _ = mask_target(&text);
                let _ = cmdline(&["bash", "-c", &text, &text]);
                for name in ["authorization", "cookie", "set-cookie", "location", "x"] {
                    let _ = mask_header(name, &text);
                }
            }
        }
    }
}

#[test]
fn what_is_passed_over_would_have_stayed_as_it_is() {
    for (prefix, least) in SHAPES {
        for before in ["", " ", "ü", "a", "x=", "9"] {
            let text = format!("{before}{prefix}{}", "a1".repeat(*least));
            let stays = mask_shapes(&mask_userinfo(&text)) == text;
            assert!(stays || may_hold_secret(&text), "{text}");
            assert_eq!(stays, ["a", "9"].contains(&before), "{text}");
        }
    }
    for text in ["https://user:password@host/", "a://b", "x ://u:p@h"] {
        assert!(may_hold_secret(text), "{text}");
    }
    for text in ["", "application/json", "gzip, deflate, br", "a:b:/c", "Fri, 20 Nov 2026 13:41:01 GMT"] {
        assert!(!may_hold_secret(text), "{text}");
    }
}
