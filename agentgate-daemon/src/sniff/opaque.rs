//! Names for protocols that are tunnelled unread, from the first bytes of each direction: SSH,
//! PostgreSQL, MySQL, Redis, SMTP, git.
//!
//! For the record only, and said by the two parties themselves: nothing is judged by it. Passwords and
//! what they are proved with are never taken out.

/// Bytes of each direction that are looked at.
pub const LOOKED_AT: usize = 1024;
/// Longest piece of the parties' words in a note, in characters.
const LONGEST: usize = 120;

/// What a tunnel carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `ssh`, `postgres`, `mysql`, `redis`, `smtp` or `git`.
    pub protocol: &'static str,
    /// Versions, user, database, repository: one line, without control characters. May be empty.
    pub note: String,
}

/// Collects the first bytes of each direction.
#[derive(Debug, Default)]
pub struct Naming {
    up: Vec<u8>,
    down: Vec<u8>,
}

impl Naming {
    /// More bytes from the agent.
    pub fn agent(&mut self, bytes: &[u8]) {
        keep(&mut self.up, bytes);
    }

    /// More bytes from the origin.
    pub fn origin(&mut self, bytes: &[u8]) {
        keep(&mut self.down, bytes);
    }

    /// What it is, as far as that can be said by now.
    #[must_use]
    pub fn named(&self) -> Option<Named> {
        name(&self.up, &self.down)
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = LOOKED_AT - kept.len();
    kept.extend(bytes.iter().take(room));
}

/// Names a protocol by the first bytes of the agent (`up`) and of the origin (`down`).
#[must_use]
pub fn name(up: &[u8], down: &[u8]) -> Option<Named> {
    ssh(up, down)
        .or_else(|| postgres(up))
        .or_else(|| mysql(up, down))
        .or_else(|| git(up))
        .or_else(|| redis(up))
        .or_else(|| smtp(up, down))
}

/// RFC 4253 4.2: both send an identification; the server may send other lines before its own.
fn ssh(up: &[u8], down: &[u8]) -> Option<Named> {
    let banner = |bytes: &[u8]| bytes.starts_with(b"SSH-").then(|| first_line(bytes));
    let server = down.split_inclusive(|byte| *byte == b'\n').find_map(banner);
    let agent = banner(up);
    let note = match (agent, server) {
        (Some(agent), Some(server)) => format!("{agent} to {server}"),
        (Some(agent), None) => agent,
        // A server that names itself after other lines is one only if the agent agrees.
        (None, Some(server)) if down.starts_with(b"SSH-") => format!("to {server}"),
        (None, _) => return None,
    };
    Some(Named { protocol: "ssh", note })
}

/// PostgreSQL, frontend/backend protocol 3: a StartupMessage, after requests for encryption or not.
fn postgres(up: &[u8]) -> Option<Named> {
    const SSL_REQUEST: u32 = 80_877_103;
    const GSS_REQUEST: u32 = 80_877_104;
    const CANCEL_REQUEST: u32 = 80_877_102;
    let mut rest = up;
    let mut asked = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *head;
        let (length, code) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        match (length, code) {
            (8, SSL_REQUEST) => asked.push("TLS asked for"),
            (8, GSS_REQUEST) => asked.push("GSS asked for"),
            (16, CANCEL_REQUEST) => {
                return Some(Named { protocol: "postgres", note: "cancels a query".into() });
            }
            (9..=10_000, 0x0003_0000..=0x0003_ffff) => {
                let body = tail.get(..length as usize - 8).unwrap_or(tail);
                return Some(Named { protocol: "postgres", note: startup(body) });
            }
            _ => break,
        }
        rest = tail;
        // A client asks for each at most once.
        if asked.len() > 2 {
            return None;
        }
    }
    (!asked.is_empty()).then(|| Named { protocol: "postgres", note: asked.join(", ") })
}

/// User and database out of `name NUL value NUL … NUL`.
fn startup(body: &[u8]) -> String {
    let mut fields = body.split(|byte| *byte == 0);
    let (mut user, mut database) = (None, None);
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        match key {
            b"user" => user = Some(clean(value)),
            b"database" => database = Some(clean(value)),
            _ => {}
        }
    }
    who(user, database)
}

fn who(user: Option<String>, database: Option<String>) -> String {
    let said = |what: &str, value: Option<String>| {
        value.filter(|value| !value.is_empty()).map(|value| format!("{what} {value}"))
    };
    [said("user", user), said("database", database)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// MySQL and MariaDB: the server greets with its version (protocol 10), the client answers with a user.
fn mysql(up: &[u8], down: &[u8]) -> Option<Named> {
    let (head, tail) = down.split_first_chunk::<5>()?;
    let [low, middle, high, sequence, protocol] = *head;
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    if sequence != 0 || protocol != 10 || !(32..=LOOKED_AT).contains(&length) {
        return None;
    }
    let end = tail.iter().position(|byte| *byte == 0).filter(|end| (1..64).contains(end))?;
    let version = tail.get(..end).filter(|version| version.iter().all(u8::is_ascii_graphic))?;
    let note = match login(up) {
        Some(login) if !login.is_empty() => format!("to {}, {login}", clean(version)),
        Some(_) | None => format!("to {}", clean(version)),
    };
    Some(Named { protocol: "mysql", note })
}

/// User and database out of a HandshakeResponse41, or that TLS is asked for instead.
fn login(up: &[u8]) -> Option<String> {
    const CONNECT_WITH_DB: u32 = 0x8;
    const SSL: u32 = 0x800;
    const SECURE_CONNECTION: u32 = 0x8000;
    const LENGTH_ENCODED: u32 = 0x20_0000;
    let (head, tail) = up.split_first_chunk::<8>()?;
    let [_, _, _, _, a, b, c, d] = *head;
    let able = u32::from_le_bytes([a, b, c, d]);
    // Largest packet, character set, filler.
    let rest = tail.get(4 + 1 + 23..)?;
    if rest.is_empty() || able & SSL != 0 {
        return Some("TLS asked for".to_owned());
    }
    let (user, rest) = until_nul(rest)?;
    let database = if able & CONNECT_WITH_DB == 0 {
        None
    } else if able & (SECURE_CONNECTION | LENGTH_ENCODED) != 0 {
        // A length in one byte; proofs of more than 250 bytes are none of the usual methods'.
        rest.split_first().and_then(|(length, rest)| until_nul(rest.get(usize::from(*length)..)?))
    } else {
        until_nul(rest).and_then(|(_proof, rest)| until_nul(rest))
    };
    Some(who(Some(clean(user)), database.map(|(database, _)| clean(database))))
}

fn until_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// gitprotocol-pack(5), the git transport: `LENGTH git-upload-pack PATH NUL host=…`.
fn git(up: &[u8]) -> Option<Named> {
    let (length, line) = up.split_first_chunk::<4>()?;
    if !length.iter().all(u8::is_ascii_hexdigit) || !line.starts_with(b"git-") {
        return None;
    }
    let request = line.split(|byte| matches!(byte, 0 | b'\n')).next()?;
    let command = request.split(|byte| *byte == b' ').next()?;
    [b"git-upload-pack".as_slice(), b"git-receive-pack", b"git-upload-archive"]
        .contains(&command)
        .then(|| Named { protocol: "git", note: clean(request) })
}

/// RESP: an array of bulk strings, of which only the first, the command, is named.
fn redis(up: &[u8]) -> Option<Named> {
    let (count, rest) = number(up.strip_prefix(b"*")?)?;
    let (length, rest) = number(rest.strip_prefix(b"$")?)?;
    let command = rest.get(..length)?;
    let known = (1..=1024).contains(&count)
        && (2..=20).contains(&length)
        && command.iter().all(u8::is_ascii_alphabetic);
    known.then(|| Named {
        protocol: "redis",
        note: format!("begins with {}", clean(command).to_ascii_uppercase()),
    })
}

/// Digits and CRLF.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = bytes.get(digits..)?.strip_prefix(b"\r\n")?;
    Some((std::str::from_utf8(bytes.get(..digits)?).ok()?.parse().ok()?, rest))
}

/// RFC 5321: a greeting with 220 that says SMTP, or one that is answered by EHLO. FTP greets alike.
fn smtp(up: &[u8], down: &[u8]) -> Option<Named> {
    let greeting = down.strip_prefix(b"220").filter(|rest| matches!(rest.first(), Some(b' ' | b'-')))?;
    let words = first_line(greeting.get(1..)?);
    let helo = |verb: &[u8]| up.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb));
    let says_so = words.to_ascii_uppercase().split_whitespace().any(|word| matches!(word, "SMTP" | "ESMTP"));
    (says_so || helo(b"EHLO ") || helo(b"HELO "))
        .then(|| Named { protocol: "smtp", note: format!("to {words}") })
}

fn first_line(bytes: &[u8]) -> String {
    clean(bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default())
}

/// Text for a record: cut, and nothing in it that a terminal obeys.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.trim().chars().take(LONGEST).map(shown).collect()
}

#[cfg(test)]
mod tests;
