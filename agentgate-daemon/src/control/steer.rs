//! What changes the policy: reload, mode, lists. All of it is file work, so it runs off the runtime.

use super::{
    answer::{blocking, internal},
    wire::{ErrorCode, ErrorReply, Payload},
};
use crate::{
    model::Mode,
    reload::{Edit, EditError, List, PolicyHandle},
};

/// Reads and compiles the files again.
pub(super) async fn reload(policy: &PolicyHandle) -> Result<Payload, ErrorReply> {
    let policy = policy.clone();
    match blocking(move || policy.reload().map_err(|status| status.errors)).await? {
        Ok(status) => Ok(Payload::Policy(status)),
        Err(errors) => Err(ErrorReply::new(
            ErrorCode::PolicyInvalid,
            format!("the policy does not compile, the last good one stays:\n{}", errors.join("\n")),
        )),
    }
}

/// Overrides the mode, or stops doing so; answers with the mode that is then in force.
pub(super) async fn set_mode(policy: &PolicyHandle, mode: Option<Mode>) -> Result<Payload, ErrorReply> {
    let policy = policy.clone();
    let status = blocking(move || policy.set_mode(mode)).await?.map_err(refused)?;
    Ok(Payload::Mode { mode: status.summary.mode })
}

/// Adds a host to a list or takes it out.
pub(super) async fn edit(
    policy: &PolicyHandle,
    list: List,
    edit: Edit,
    host: String,
) -> Result<Payload, ErrorReply> {
    let (policy, pattern) = (policy.clone(), host.clone());
    let changed = blocking(move || policy.edit_list(list, edit, &pattern)).await?.map_err(refused)?;
    Ok(Payload::List { list, host, changed })
}

/// An edit in words, for the record. The pattern is not checked yet, so it is quoted and cut.
pub(super) fn describe(list: List, edit: Edit, host: &str) -> String {
    let host: String = host.chars().take(256).collect();
    match edit {
        Edit::Add => format!("{host:?} added to the {list} list"),
        Edit::Remove => format!("{host:?} removed from the {list} list"),
    }
}

fn refused(error: EditError) -> ErrorReply {
    let code = match &error {
        EditError::Pattern(_) | EditError::TooLarge { .. } => ErrorCode::Invalid,
        EditError::NotInForce { .. } => ErrorCode::PolicyInvalid,
        EditError::Symlink { .. } | EditError::Io { .. } => return internal(error),
    };
    ErrorReply::new(code, error.to_string())
}
