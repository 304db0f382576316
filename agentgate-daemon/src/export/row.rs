//! One entry of the log, as formats get it.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    FormatError,
    opened::{self, Content},
};
use crate::{
    audit::redact,
    model::{Captured, FactValue, HeaderFields, Record, Severity},
};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its position in the log.
    pub n: u64,
    /// The record, with the captured bytes of its bodies where these are wanted. Its command line is masked.
    pub record: Record,
}

/// A record and the bytes of its bodies, as a line of JSON.
#[derive(Serialize)]
struct Plain<'r> {
    #[serde(flatten)]
    record: &'r Record,
    #[serde(skip_serializing_if = "Option::is_none")]
    bodies: Option<Bodies>,
}

/// Captured bytes as they were on the wire, base64 (RFC 4648 section 4).
#[derive(Debug, Serialize, Deserialize)]
struct Bodies {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<String>,
}

/// A row as it goes from the daemon to the command line, one a line.
#[derive(Debug, Serialize, Deserialize)]
struct Sent<R> {
    n: u64,
    record: R,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bodies: Option<Bodies>,
}

/// Why a line is no row.
#[derive(Debug, thiserror::Error)]
pub enum NoRow {
    #[error("not a row: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a body that is not base64: {0}")]
    Base64(#[from] data_encoding::DecodeError),
}

impl Row {
    /// A row of a record as it was read, with the captured bytes of its bodies.
    #[must_use]
    pub fn new(n: u64, mut record: Record, bodies: [Option<Bytes>; 2]) -> Self {
        if let Some(subject) = &mut record.subject {
            let subject = Arc::make_mut(subject);
            subject.cmdline = redact::mask_cmdline(&subject.cmdline);
        }
        let mut row = Self { n, record };
        row.put_bodies(bodies);
        row
    }

    fn put_bodies(&mut self, [request, response]: [Option<Bytes>; 2]) {
        if let (Some(head), Some(bytes)) = (&mut self.record.request, request) {
            head.body.bytes = bytes;
        }
        if let (Some(head), Some(bytes)) = (&mut self.record.response, response) {
            head.body.bytes = bytes;
        }
    }

    /// Appends the row as one line, which [`Row::received`] reads.
    ///
    /// # Errors
    /// [`FormatError::Json`].
    pub fn send(&self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        json_line(self, &Sent { n: self.n, record: &self.record, bodies: self.bodies() }, out)
    }

    /// The row of a line.
    ///
    /// # Errors
    /// [`NoRow`].
    pub fn received(line: &[u8]) -> Result<Self, NoRow> {
        let sent: Sent<Record> = serde_json::from_slice(line)?;
        let mut row = Self { n: sent.n, record: sent.record };
        if let Some(bodies) = sent.bodies {
            let decode = |text: Option<String>| {
                text.map(|text| BASE64.decode(text.as_bytes()).map(Bytes::from)).transpose()
            };
            row.put_bodies([decode(bodies.request)?, decode(bodies.response)?]);
        }
        Ok(row)
    }

    /// About how many bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let bodies = [self.request_body(), self.response_body()];
        let parts = bodies.iter().flatten().map(|(headers, body)| headers.len() * 64 + body.bytes.len());
        512 + parts.sum::<usize>()
    }

    /// What was captured, where anything was.
    fn bodies(&self) -> Option<Bodies> {
        let base64 = |side: Option<(&HeaderFields, &Captured)>| {
            side.filter(|(_, body)| !body.bytes.is_empty()).map(|(_, body)| BASE64.encode(&body.bytes))
        };
        let bodies = Bodies { request: base64(self.request_body()), response: base64(self.response_body()) };
        (bodies.request.is_some() || bodies.response.is_some()).then_some(bodies)
    }

    /// Headers and captured body of the request.
    #[must_use]
    pub fn request_body(&self) -> Option<(&HeaderFields, &Captured)> {
        self.record.request.as_ref().map(|head| (&head.headers, &head.body))
    }

    /// The same of the response.
    #[must_use]
    pub fn response_body(&self) -> Option<(&HeaderFields, &Captured)> {
        self.record.response.as_ref().map(|head| (&head.headers, &head.body))
    }

    /// What is readable of the request's body, and of the response's; `None` where nothing was captured.
    pub(super) fn contents(&self) -> [Option<Content>; 2] {
        [self.request_body(), self.response_body()].map(|side| {
            side.filter(|(_, body)| !body.bytes.is_empty())
                .map(|(headers, body)| opened::content(headers, body))
        })
    }

    /// What parsers found, by its names: an object of lists, since each may come more than once. Amounts in
    /// millionths are numbers with a fraction.
    #[must_use]
    pub fn facts(&self) -> Value {
        let mut found = Map::new();
        for fact in &self.record.facts {
            let value = match &fact.value {
                FactValue::Text(text) => text.as_str().into(),
                FactValue::Integer(number) => (*number).into(),
                FactValue::Micros(micros) => (*micros as f64 / 1e6).into(),
            };
            if let Value::Array(values) =
                found.entry(fact.name.as_str()).or_insert_with(|| Value::Array(Vec::new()))
            {
                values.push(value);
            }
        }
        Value::Object(found)
    }

    /// `scheme://authority/target` of a request.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let head = self.record.request.as_ref()?;
        // As a proxy gets it, the target is the whole address.
        if head.target.contains("://") {
            return Some(head.target.clone());
        }
        let authority = self.record.authority.as_ref()?;
        let default = match head.scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        let whole = authority.to_string();
        let shown = match default {
            Some(port) if port == authority.port => {
                whole.strip_suffix(&format!(":{port}")).unwrap_or(&whole).to_owned()
            }
            Some(_) | None => whole,
        };
        let slash = if head.target.starts_with('/') { "" } else { "/" };
        Some(format!("{}://{shown}{slash}{}", head.scheme, head.target))
    }

    /// Whom it was for: the name that was asked for, the host, else the address that was meant.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        let record = &self.record;
        if let Some(question) = record.question.as_ref().filter(|question| !question.name.is_empty()) {
            return Some(question.name.clone());
        }
        match (&record.authority, &record.flow) {
            (Some(authority), _) => Some(authority.host.to_string()),
            (None, Some(flow)) => Some(flow.original.0.ip().to_canonical().to_string()),
            (None, None) => None,
        }
    }

    /// The name of the agent's program.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        let subject = self.record.subject.as_ref()?;
        let name = subject.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
        Some(name.filter(|name| !name.is_empty()).unwrap_or(&subject.comm))
    }

    /// The gravest of its flags.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.record.flags.iter().map(|flag| flag.severity).max()
    }

    /// Appends the record as one line of JSON.
    pub(super) fn plain(&self, bodies: bool, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let bodies = self.bodies().filter(|_| bodies);
        json_line(self, &Plain { record: &self.record, bodies }, out)
    }
}

/// Appends `value` as one line.
pub(super) fn json_line(row: &Row, value: &impl Serialize, out: &mut Vec<u8>) -> Result<(), FormatError> {
    serde_json::to_writer(&mut *out, value)
        .map_err(|source| FormatError::Json { id: row.record.id, source })?;
    out.push(b'\n');
    Ok(())
}
