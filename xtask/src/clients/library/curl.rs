//! curl and wget.

use super::super::{
    case::{Case, Client, Noise, Version},
    kit::SYSTEM,
};

static CURL: Client = Client { name: "curl", kit: &SYSTEM, version: Version::Says(&["curl", "--version"]) };
static WGET: Client = Client { name: "wget", kit: &SYSTEM, version: Version::Says(&["wget", "--version"]) };

/// The answer's head and body on standard output, errors in words, and no progress.
fn curl(name: &'static str, arguments: &[&str]) -> Case {
    let words: Vec<&str> = ["curl", "-sS", "-i"].iter().chain(arguments).copied().collect();
    Case::new(&CURL, name, &words).noise(Noise::Output(without_dates))
}

fn wget(name: &'static str, arguments: &[&str]) -> Case {
    // It reads the system's bundle only, unless it is told of another.
    let script = "exec wget --ca-certificate=\"$SSL_CERT_FILE\" -q -O - --save-headers \"$@\"";
    let words: Vec<&str> = ["sh", "-c", script, "wget"].iter().chain(arguments).copied().collect();
    Case::new(&WGET, name, &words).noise(Noise::Output(without_dates))
}

/// Without the lines that an origin's clock writes.
fn without_dates(text: &str) -> String {
    let lines = text.split_inclusive('\n').filter(|line| !line.to_ascii_lowercase().starts_with("date: "));
    lines.collect()
}

/// Answers as no server's library sends them: case, path, and what has to come through.
const BY_HAND: [(&str, &str, &str); 9] = [
    ("103 Early Hints", "/hints", "HTTP/1.1 103 Early Hints"),
    ("names' case and order in answers", "/case", "X-lOwEr: 1"),
    ("chunk extensions and trailers", "/chunks", "3;name=value"),
    ("an end by closing", "/close", "until the end"),
    ("an answer in HTTP/1.0", "/old", "HTTP/1.0 200 OK"),
    ("204", "/empty", "X-Kept: yes"),
    ("304 with a length", "/unchanged", "Content-Length: 700"),
    ("a status without words", "/wordless", "HTTP/1.1 200"),
    ("a value that is not ASCII", "/latin", "X-Name: caf"),
];

pub(super) fn cases() -> Vec<Case> {
    let upload = "0123456789abcdef".repeat(20_000);
    vec![
        curl("http/1.1", &["--http1.1", "https://open.example/"]).says("This is open.example."),
        curl("http/2", &["--http2", "https://open.example/"]).says("HTTP/2 200"),
        curl("http/1.1 origin", &["https://old.example/"]).says("HTTP/1.1 200"),
        curl("in the clear", &["http://open.example/"]).says("This is open.example."),
        curl(
            "names' case, order, duplicates",
            &[
                "--http1.1",
                "-H",
                "x-Zeta: 1",
                "-H",
                "X-ALPHA: 2",
                "-H",
                "x-zeta: 3",
                "-H",
                "Accept;",
                "-H",
                "X-Spaces:  two  ",
                "https://open.example/echo",
            ],
        )
        .says("\"x-alpha\",\"2\""),
        curl("HEAD, http/1.1", &["--http1.1", "-I", "https://open.example/"]).says("content-length: 1024"),
        curl("HEAD, http/2", &["-I", "https://open.example/"]).says("content-length: 1024"),
        curl(
            "Expect: 100-continue",
            &["--http1.1", "-H", "Expect: 100-continue", "-T", "up", "https://open.example/echo"],
        )
        .file("up", &upload)
        .says("HTTP/1.1 100 Continue"),
        curl("upload of 320 kB, http/2", &["-T", "up", "https://open.example/echo"])
            .file("up", &upload)
            .says("\"body_len\":320000"),
        curl(
            "chunked upload",
            &[
                "--http1.1",
                "-H",
                "Transfer-Encoding: chunked",
                "-H",
                "Expect:",
                "-T",
                "up",
                "https://open.example/echo",
            ],
        )
        .file("up", &upload)
        .says("\"body_len\":320000"),
        curl(
            "a form of two parts",
            &["-F", "a=1;type=text/plain", "-F", "b=@up", "https://open.example/echo"],
        )
        .file("up", "file\n")
        .noise(Noise::Field("content-type"))
        .noise(Noise::Body(without_boundaries))
        .noise(Noise::Output(without_boundaries_printed))
        .says("\"method\":\"POST\""),
        curl(
            "keep-alive",
            &[
                "--http1.1",
                "https://open.example/status/200",
                "https://open.example/bytes/100",
                "-o",
                "bytes",
                "https://open.example/",
            ],
        )
        .says("This is open.example.")
        .requests(3),
        curl("twelve at once, http/2", &["-Z", "-o", "got-#1", "https://open.example/bytes/[1000-1011]"])
            .requests(12)
            .noise(Noise::Order),
        curl(
            "redirects",
            &["-L", "https://open.example/redirect/302", "https://open.example/redirect/308/away"],
        )
        .says("\"target\":\"https://unlisted.example/echo\"")
        .requests(4),
        curl("a part", &["-r", "500-599", "https://open.example/file"])
            .says("content-range: bytes 500-599/100000"),
        curl("not modified", &["-H", "If-None-Match: \"fake-1\"", "https://open.example/file"])
            .says("HTTP/2 304"),
        curl("trailers, http/1.1", &["--http1.1", "-H", "TE: trailers", "https://open.example/trailers"])
            .says("x-checksum: abc123"),
        curl("trailers, http/2", &["https://open.example/trailers"]).says("x-checksum: abc123"),
        curl("cookies", &["--http1.1", "https://open.example/cookies"]).says("set-cookie: one=1"),
        curl("an event at a time", &["-N", "https://open.example/sse?n=5&ms=20"]).says("data: {\"n\":4}"),
        curl("an answer broken off", &["--http1.1", "https://open.example/truncate"]).code(18),
        curl("an answer reset", &["--http1.1", "https://open.example/reset"]).code(56),
    ]
    .into_iter()
    .chain(["gzip", "deflate", "br", "zstd", "gzip,br"].map(|coding| {
        let url = format!("https://open.example/encoded/{coding}");
        let name = match coding {
            "gzip" => "--compressed, gzip",
            "deflate" => "--compressed, deflate",
            "br" => "--compressed, br",
            "zstd" => "--compressed, zstd",
            _ => "--compressed, two codings",
        };
        curl(name, &["--compressed", &url]).says("said twice")
    }))
    .chain(
        BY_HAND.map(|(name, path, says)| {
            curl(name, &["--raw", &format!("https://raw.example{path}")]).says(says)
        }),
    )
    .chain([
        wget("get", &["https://open.example/"]).says("This is open.example."),
        wget("post", &["--post-data=a=1", "https://old.example/echo"]).says("a=1"),
    ])
    .collect()
}

/// curl marks the parts of a form with dashes and random digits.
fn boundaries(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("------------------------") {
        words.push(before.to_owned());
        let after = after.trim_start_matches('-');
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        rest = after.get(end..).unwrap_or_default();
    }
    words.push(rest.to_owned());
    words.join("BOUNDARY")
}

fn without_boundaries(request: &fake_internet::journal::Request) -> String {
    boundaries(&String::from_utf8_lossy(&request.body))
}

fn without_boundaries_printed(text: &str) -> String {
    let text = boundaries(text);
    // The hash of what was random is random too.
    match text.split_once("\"body_sha256\":\"") {
        Some((before, after)) => format!("{before}{}", after.get(64..).unwrap_or_default()),
        None => text,
    }
}
