//! Changes of the host lists: the form, the record of the change, and what came of it.

use std::{fmt, sync::Arc};

use axum::{
    Form,
    extract::{State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use super::{Shared, guard::Viewer, pages::lists::Standing, reply};
use crate::{
    audit::AuditError,
    model::{Authority, Failure, Kind, Record, State as RecordState, Timestamp},
    policy::Policy,
    reload::{Edit, EditError, List},
};

/// Longest pattern in a record's note, in characters.
const MAX_SHOWN: usize = 300;

/// A change of a list, as the form and the API ask for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) list: List,
    /// A host pattern.
    pub(super) host: String,
    #[serde(default)]
    pub(super) remove: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host: String = self.host.chars().take(MAX_SHOWN).collect();
        let (verb, word) = if self.remove { ("removed", "from") } else { ("added", "to") };
        write!(f, "{verb} {host} {word} the {} list", self.list.as_str())
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    /// What is not recorded is not done.
    #[error("nothing was changed, because the change cannot be recorded: {0}")]
    Unrecorded(#[from] AuditError),
    /// The list refused it.
    #[error("{0}")]
    Edit(#[from] EditError),
    /// The editing thread ended without an answer.
    #[error("the change failed")]
    Editor(#[from] tokio::task::JoinError),
}

impl ChangeError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unrecorded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Edit(EditError::Pattern(_)) => StatusCode::BAD_REQUEST,
            Self::Edit(
                EditError::NotInForce { .. } | EditError::Symlink { .. } | EditError::TooLarge { .. },
            ) => StatusCode::CONFLICT,
            Self::Edit(EditError::Io { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Editor(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Shared {
    /// Makes `change` for `who`: recorded first, then done. Gives whether the list is another now.
    pub(super) async fn change(&self, change: Change, who: &str) -> Result<bool, ChangeError> {
        let mut record = Record::new(Kind::Control, Timestamp::now());
        record.protocol = "dashboard".to_owned();
        record.note = Some(format!("{change}, by {who}"));
        let mut entry = self.audit.open(record).await?;
        let policy = self.policy.clone();
        tracing::info!(%change, who, "dashboard");
        // The entry goes along: a client that leaves stops neither the edit nor its record.
        let done = tokio::task::spawn_blocking(move || {
            let edit = if change.remove { Edit::Remove } else { Edit::Add };
            let done = policy.edit_list(change.list, edit, &change.host);
            let state = match &done {
                Ok(true) => RecordState::Done,
                Ok(false) => {
                    if let Some(note) = &mut entry.record().note {
                        note.push_str("; it was so already");
                    }
                    RecordState::Done
                }
                Err(error) => {
                    entry.record().failure = Some(Failure {
                        blame: "policy".to_owned(),
                        code: error.code().to_owned(),
                        detail: error.to_string(),
                    });
                    RecordState::Failed
                }
            };
            entry.finish(state);
            done
        });
        Ok(done.await??)
    }
}

/// The form of a button. Fields that come from a form are all text.
#[derive(Debug, Deserialize)]
pub(super) struct HostForm {
    csrf: String,
    list: List,
    host: String,
    #[serde(default)]
    remove: bool,
    /// The record to return to.
    record: Option<u64>,
}

/// `POST /host`.
pub(super) async fn form(
    State(shared): State<Arc<Shared>>,
    viewer: Viewer,
    headers: HeaderMap,
    form: Result<Form<HostForm>, FormRejection>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => return reply::problem(rejection.status(), &rejection.body_text()),
    };
    if !viewer.sent(&headers, &form.csrf) {
        return reply::foreign_form();
    }
    let HostForm { list, host, remove, record, .. } = form;
    match shared.change(Change { list, host, remove }, &viewer.who()).await {
        Ok(changed) => {
            let what = match (changed, remove) {
                (false, _) => "nothing".to_owned(),
                (true, false) => format!("{}-added", list.as_str()),
                (true, true) => format!("{}-removed", list.as_str()),
            };
            let to = record.map_or_else(|| "/".to_owned(), |id| format!("/records/{id}?changed={what}"));
            Redirect::to(&to).into_response()
        }
        Err(error) => reply::problem(error.status(), &error.to_string()),
    }
}

/// What a page says once after a change; `code` comes back in the address, so only known ones count.
pub(super) fn notice(code: &str) -> Option<&'static str> {
    Some(match code {
        "allow-added" => "Added to the allow list.",
        "allow-removed" => "Removed from the allow list.",
        "deny-added" => "Added to the deny list.",
        "deny-removed" => "Removed from the deny list.",
        "passthrough-added" => "Added to the passthrough list.",
        "passthrough-removed" => "Removed from the passthrough list.",
        "nothing" => "Nothing to change: it was so already.",
        _ => return None,
    })
}

/// Where `authority` stands in the three lists.
pub(super) fn standings(policy: &Policy, authority: &Authority) -> Vec<Standing> {
    let listed = policy.listed(&authority.host, authority.port);
    [(List::Allow, listed.allow), (List::Deny, listed.deny), (List::Passthrough, listed.passthrough)]
        .into_iter()
        .map(|(name, hit)| Standing {
            list: name.as_str(),
            in_file: hit.as_ref().is_some_and(|entry| entry.in_list_file),
            pattern: hit.map(|entry| entry.pattern.to_string()),
        })
        .collect()
}
