//! What types cannot say: ranges, and settings that must fit each other.

use std::path::Path;

use super::{Config, ConfigError, hide};

/// Everything that is wrong with `config`, which was read from `text`.
pub(super) fn check(config: &Config, file: &str, text: &str) -> Vec<ConfigError> {
    let mut faults = Faults { file, text, found: Vec::new() };
    gate(config, &mut faults);
    sizes(config, &mut faults);
    mirror(config, &mut faults);
    dns(config, &mut faults);
    dashboard(config, &mut faults);
    // Each is a signature, and a write or a connection somewhere.
    let checkpoints = &config.audit.checkpoints;
    if !(1..=86_400).contains(&checkpoints.every) {
        let message = format!("has `every` of {} seconds", checkpoints.every);
        faults.add("audit", "checkpoints", &message, "write 1 to 86400");
    }
    if checkpoints.file.as_ref().is_some_and(|file| !file.is_absolute()) {
        faults.add("audit", "checkpoints", "has a `file` that is no absolute path", "write an absolute one");
    }
    if config.control.group.is_empty() || config.control.group.contains(['\0', '/', ':']) {
        faults.add("control", "group", "is not a group's name", "write a name such as agentgate");
    }
    for (message, hint) in config.run.hide.iter().filter_map(|entry| hide::fault(entry)) {
        faults.add("run", "hide", &message, &hint);
    }
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&config.log.filter) {
        faults.add("log", "filter", &format!("is not a filter: {error}"), "write a level such as info");
    }
    faults.found
}

struct Faults<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<ConfigError>,
}

impl Faults<'_> {
    fn add(&mut self, section: &str, key: &str, message: &str, hint: &str) {
        let message = format!("`{section}.{key}` {message}");
        self.found.push(match offset(self.text, section, key) {
            Some(at) => ConfigError::at(self.file, self.text, at, message, hint),
            None => ConfigError::whole(self.file, message, hint),
        });
    }

    fn within(&mut self, section: &str, key: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.add(section, key, &format!("is {value}"), &format!("write {least} to {most}"));
        }
    }
}

/// Where the value of `section.key` stands. The text has been read once already, so it is sound.
fn offset(text: &str, section: &str, key: &str) -> Option<usize> {
    type Sections =
        std::collections::BTreeMap<String, std::collections::BTreeMap<String, toml::Spanned<toml::Value>>>;
    if let Some((outer, inner)) = section.split_once('.') {
        type Nested = std::collections::BTreeMap<String, std::collections::BTreeMap<String, toml::Value>>;
        let nested: Nested = toml::from_str(text).ok()?;
        nested.get(outer)?.get(inner)?.get(key)?;
        // Where in a table of a table it stands, toml does not tell: the line is looked for.
        let header = text.find(&format!("[{section}]"))?;
        return text.get(header..)?.find(&format!("\n{key}")).map(|at| header + at + 1);
    }
    let sections: Sections = toml::from_str(text).ok()?;
    Some(sections.get(section)?.get(key)?.span().start)
}

fn gate(config: &Config, faults: &mut Faults<'_>) {
    let cgroup = Path::new(&config.gate.cgroup);
    let climbs = cgroup.components().any(|part| part == std::path::Component::ParentDir);
    let root = cgroup.components().all(|part| part == std::path::Component::RootDir);
    if root || climbs || config.gate.cgroup.contains('\0') {
        // The root would guard the whole host, the daemon itself included.
        faults.add(
            "gate",
            "cgroup",
            "is not a cgroup that can be guarded",
            "write a name such as agent.slice",
        );
    }
    if !config.gate.pin_dir.is_absolute() {
        faults.add("gate", "pin_dir", "is not an absolute path", "write a directory on a bpffs");
    }
}

fn mirror(config: &Config, faults: &mut Faults<'_>) {
    let mirror = &config.audit.mirror;
    let fit = |path: &std::path::PathBuf| path.is_absolute() && path.file_name().is_some();
    if mirror.path.as_ref().is_some_and(|path| !fit(path)) {
        faults.add(
            "audit.mirror",
            "path",
            "is not the absolute path of a file",
            "write /var/log/agentgate/audit.jsonl",
        );
    }
    // A file a record is no use to anybody.
    if (1..4096).contains(&mirror.rotate_bytes) {
        faults.add(
            "audit.mirror",
            "rotate_bytes",
            &format!("is {}", mirror.rotate_bytes),
            "write 4096 or more, or 0 for never",
        );
    }
}

fn sizes(config: &Config, faults: &mut Faults<'_>) {
    let mebibyte = 1024 * 1024;
    let day = 24 * 60 * 60 * 1000;
    let limits = &config.limits;
    // The least values are what a slow but honest peer needs; zero would refuse everything.
    for (key, value, least, most) in [
        ("sniff_timeout_ms", limits.sniff_timeout_ms, 100, 60_000),
        ("silence_ms", limits.silence_ms, 50, 60_000),
        ("header_timeout_ms", limits.header_timeout_ms, 100, 120_000),
        ("handshake_timeout_ms", limits.handshake_timeout_ms, 100, 120_000),
        ("header_bytes", limits.header_bytes as u64, 8 * 1024, mebibyte),
        ("connect_timeout_ms", limits.connect_timeout_ms, 100, 120_000),
        ("idle_timeout_ms", limits.idle_timeout_ms, 1_000, day),
        ("drain_timeout_ms", limits.drain_timeout_ms, 100, 600_000),
        ("connections", limits.connections as u64, 1, 65_536),
    ] {
        faults.within("limits", key, value, least, most);
    }
    for (key, value) in
        [("request_bytes", config.capture.request_bytes), ("response_bytes", config.capture.response_bytes)]
    {
        // The prefix is held in memory for each exchange under way.
        faults.within("capture", key, value as u64, 0, 64 * mebibyte);
    }
    if limits.silence_ms > limits.sniff_timeout_ms {
        faults.add(
            "limits",
            "silence_ms",
            "is longer than `limits.sniff_timeout_ms`",
            "write a shorter time",
        );
    }
}

fn dns(config: &Config, faults: &mut Faults<'_>) {
    let port = config.dns.listen_port;
    if port == 0 {
        return;
    }
    if port == config.gate.listen_port {
        faults.add("dns", "listen_port", "is the port of `gate.listen_port`", "write another port");
    }
    if config.dashboard.enabled && port == config.dashboard.listen.port() {
        faults.add("dns", "listen_port", "is the port of `dashboard.listen`", "write another port");
    }
}

fn dashboard(config: &Config, faults: &mut Faults<'_>) {
    let listen = config.dashboard.listen;
    if !listen.ip().to_canonical().is_loopback() {
        faults.add("dashboard", "listen", "is not a loopback address", "write 127.0.0.1 and use ssh -L");
    }
    if config.dashboard.enabled && listen.port() != 0 && listen.port() == config.gate.listen_port {
        faults.add("dashboard", "listen", "has the port of `gate.listen_port`", "write another port");
    }
}
