//! Programs and libraries that agents are made of, or call.

use super::case::Case;

mod curl;
mod git;
mod node;
mod python;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = curl::cases();
    cases.extend(git::cases());
    cases.extend(python::cases());
    cases.extend(node::cases());
    cases
}
