//! One case: a client, what it is told to do, and what of the outcome is random by nature.

use std::time::Duration;

use fake_internet::journal::Request;

use super::kit::Kit;

/// An unmodified program or library.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) kit: &'static Kit,
    pub(crate) version: Version,
}

/// How a client's version is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Version {
    /// The first word that this prints and that begins with a digit.
    Says(&'static [&'static str]),
    /// The one that the kit pins of this package.
    Pinned(&'static str),
}

/// What may differ between two runs of the same case, because the client makes it up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Noise {
    /// The value of this field of requests; that it is there is still compared, and where.
    Field(&'static str),
    /// The values of all fields of requests, after this change.
    Fields(fn(&str) -> String),
    /// What it prints, after this change.
    Output(fn(&str) -> String),
    /// The bodies of requests, after this change.
    Body(fn(&Request) -> String),
    /// Messages that it sends over WebSockets, after this change.
    Message(fn(&str) -> String),
    /// Requests that it sends when it likes, such as telemetry: not compared where this holds. They must be
    /// on record all the same.
    Request(fn(&Request) -> bool),
    /// The order of requests, where it sends several at once.
    Order,
}

/// What a client does and what is expected of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) client: &'static Client,
    pub(crate) name: &'static str,
    /// `{kit}` in a word stands for the directory of its kit, `{work}` for the working directory.
    pub(crate) command: Vec<String>,
    /// Variables on top of the few that every case has; values as words of the command.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Files of the working directory that are there before it starts: path and text.
    pub(crate) files: Vec<(&'static str, String)>,
    /// What it has to print, so that two equal failures are no success.
    pub(crate) says: Vec<&'static str>,
    pub(crate) code: i32,
    /// Fewest requests that have to reach an origin.
    pub(crate) requests: usize,
    pub(crate) noise: Vec<Noise>,
    pub(crate) deadline: Duration,
}

impl Case {
    pub(crate) fn new(client: &'static Client, name: &'static str, command: &[&str]) -> Self {
        Self {
            client,
            name,
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            files: Vec::new(),
            says: Vec::new(),
            code: 0,
            requests: 1,
            noise: Vec::new(),
            deadline: Duration::from_secs(30),
        }
    }

    /// A script of the kit with arguments.
    pub(crate) fn script(client: &'static Client, name: &'static str, command: &[&str]) -> Self {
        let mut case = Self::new(client, name, command);
        if let Some(script) = case.command.get_mut(1) {
            *script = format!("{{kit}}/{script}");
        }
        case
    }

    /// Client and case, as filters and tables know it.
    pub(crate) fn title(&self) -> String {
        format!("{}: {}", self.client.name, self.name)
    }

    /// It has to print this.
    pub(crate) fn says(mut self, text: &'static str) -> Self {
        self.says.push(text);
        self
    }

    /// It has to end with this code instead of 0.
    pub(crate) fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// At least so many requests have to reach an origin instead of one.
    pub(crate) fn requests(mut self, least: usize) -> Self {
        self.requests = least;
        self
    }

    pub(crate) fn noise(mut self, noise: Noise) -> Self {
        self.noise.push(noise);
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    pub(crate) fn file(mut self, path: &'static str, text: &str) -> Self {
        self.files.push((path, text.to_owned()));
        self
    }

    /// It has to end within this instead of 30 s.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}
