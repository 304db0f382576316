//! The pages as pure functions of what they show.

pub(super) mod body;
pub(super) mod conversation;
pub(super) mod detail;
pub(super) mod guide;
pub(super) mod list;
pub(super) mod lists;
pub(super) mod message;
pub(super) mod row;
