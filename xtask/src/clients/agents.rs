//! Agent command lines in their non-interactive modes, each in an empty home and with a task for which it
//! has to use a tool: run a command, or write a file.

use std::time::Duration;

use super::{
    case::{Case, Client, Noise, Version},
    kit::{Kit, Source},
};

mod random;

/// From npm: programs of hundreds of megabytes, so a kit of their own.
static AGENTS: Kit = Kit { name: "agents", source: Source::Node };
/// From PyPI, pinned with all it needs by its own metadata.
static AIDER: Kit = Kit { name: "aider", source: Source::Python };

static CLAUDE_CODE: Client =
    Client { name: "claude-code", kit: &AGENTS, version: Version::Pinned("@anthropic-ai/claude-code") };
static CODEX: Client = Client { name: "codex", kit: &AGENTS, version: Version::Pinned("@openai/codex") };
static OPENCODE: Client =
    Client { name: "opencode", kit: &AGENTS, version: Version::Pinned("opencode-linux-x64") };
static GEMINI: Client =
    Client { name: "gemini-cli", kit: &AGENTS, version: Version::Pinned("@google/gemini-cli") };
static AIDER_CHAT: Client = Client { name: "aider", kit: &AIDER, version: Version::Pinned("aider-chat") };

/// What a model says when the command that it asked for has run, which no other text of a run holds.
const RAN: &str = "Done: the tool printed `the answer is 42`.";
/// What each is told to do; what it does is up to the model.
const TASK: &str = "Run the command";
/// They start in seconds; on a busy machine they take their time.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![claude_code()];
    cases.extend(codex());
    cases.extend([
        opencode("messages", "ANTHROPIC_API_KEY", "anthropic/claude-sonnet-4-5"),
        opencode("responses", "OPENAI_API_KEY", "openai/gpt-5"),
        gemini(),
        aider("messages", "ANTHROPIC_API_KEY", "anthropic/claude-sonnet-4-5"),
        aider("chat completions", "OPENAI_API_KEY", "openai/gpt-4o"),
    ]);
    cases
}

/// A case of which only forms are compared where the client makes values up, and nothing of telemetry.
fn case(client: &'static Client, name: &'static str, command: &[&str]) -> Case {
    Case::new(client, name, command)
        .within(PATIENCE)
        .noise(Noise::Order)
        .noise(Noise::Request(random::telemetry))
        .noise(Noise::Fields(random::text))
}

fn claude_code() -> Case {
    let told = ["claude", "-p", TASK, "--model", "claude-sonnet-5-5", "--allowedTools", "Bash"];
    case(&CLAUDE_CODE, "a command", &[&told[..], &["--session-id", SESSION]].concat())
        .env("ANTHROPIC_API_KEY", "sk-ant-api03-fake")
        .says(RAN)
        .requests(3)
        .noise(Noise::Body(random::body))
}

/// Given where a client lets its session be named.
const SESSION: &str = "00000000-0000-4000-8000-000000000001";

fn codex() -> Vec<Case> {
    let words = ["codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"];
    let case = |name, more: &[&str]| {
        case(&CODEX, name, &[&words[..], more, &[TASK]].concat())
            .says(RAN)
            .requests(2)
            .noise(Noise::Field("sec-websocket-key"))
            .noise(Noise::Request(random::codex_at_start))
            .noise(Noise::Body(random::sorted_body))
            .noise(Noise::Message(random::sorted))
    };
    // Providers of one's own, since the built-in one prefers WebSockets.
    let plain = "model_providers.plain={name=\"plain\", base_url=\"https://api.openai.com/v1\", \
                 env_key=\"OPENAI_API_KEY\", wire_api=\"responses\", supports_websockets=false}";
    let login = "model_providers.login={name=\"OpenAI\", requires_openai_auth=true, \
                 base_url=\"https://chatgpt.com/backend-api/codex\", wire_api=\"responses\", \
                 supports_websockets=false}";
    vec![
        case("over a WebSocket", &[]).env("CODEX_API_KEY", "sk-fake"),
        case("over HTTPS", &["-c", "model_provider=\"plain\"", "-c", plain]).env("OPENAI_API_KEY", "sk-fake"),
        case("logged in", &[]).file("home/.codex/auth.json", LOGIN),
        case("logged in, over HTTPS", &["-c", "model_provider=\"login\"", "-c", login])
            .file("home/.codex/auth.json", LOGIN),
    ]
}

/// What Codex keeps of a login. The tokens are JWTs that nobody signed, of `somebody@open.example`, valid
/// until 2100 and refreshed in 2099.
const LOGIN: &str = include_str!("kits/agents/codex-login.json");

/// Its own package, without the one that only picks it: that names packages for machines which not every
/// mirror has, and then npm refuses the lock.
const OPENCODE_PROGRAM: &str = "{kit}/node_modules/opencode-linux-x64/bin/opencode";

fn opencode(name: &'static str, key: &'static str, model: &str) -> Case {
    case(&OPENCODE, name, &[OPENCODE_PROGRAM, "run", "-m", model, TASK])
        .env(key, "sk-fake")
        .says(RAN)
        .requests(2)
        .noise(Noise::Body(random::body))
}

fn gemini() -> Case {
    case(&GEMINI, "a command", &["gemini", "--skip-trust", "--yolo", "-p", TASK])
        .env("GEMINI_API_KEY", "AIzaFake")
        .says(RAN)
        .requests(3)
        .noise(Noise::Body(random::body))
}

/// Nothing of it is random.
fn aider(name: &'static str, key: &'static str, model: &str) -> Case {
    let quiet = ["--yes", "--no-git", "--no-check-update", "--no-show-release-notes", "--no-analytics"];
    let told = ["--model", model, "--message", "Write the greeting", "greeting.txt"];
    Case::new(&AIDER_CHAT, name, &[&["aider"], &quiet[..], &told].concat())
        .env(key, "sk-fake")
        .says("Applied edit to greeting.txt")
        .within(PATIENCE)
}
