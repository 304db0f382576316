//! Python's HTTP clients.

use super::super::{
    case::{Case, Client, Version},
    kit::PYTHON,
};

static REQUESTS: Client = Client { name: "requests", kit: &PYTHON, version: Version::Pinned("requests") };

fn script(client: &'static Client, name: &'static str, file: &str, what: &str) -> Case {
    Case::script(client, name, &["python", file, what])
}

pub(super) fn cases() -> Vec<Case> {
    vec![script(&REQUESTS, "get", "http_requests.py", "get").says("200")]
}
