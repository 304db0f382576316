//! Every table there is, with its types: the one list that copying, dumping and measuring walk.

use redb::{Key, TableDefinition, Value};

use super::{StoreError, chain, postings, tables, tally, text, typed, uses};

/// What a table is to whoever copies the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Entries and what they point to, or what follows from them: grows with the log, and what was added
    /// later is added to a copy by putting the later entries into it.
    Log,
    /// Small, and changed anywhere: taken whole.
    State,
}

/// Something done to each table.
pub(super) trait Visitor {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
        role: Role,
    ) -> Result<(), StoreError>;
}

/// Shows every table to `visitor`. A table that is not here is in no backup: a test compares the list
/// with a file.
pub(super) fn table(visitor: &mut impl Visitor) -> Result<(), StoreError> {
    visitor.visit(tables::META, Role::State)?;
    visitor.visit(tables::GROUPS, Role::Log)?;
    visitor.visit(tables::PACKS, Role::Log)?;
    visitor.visit(tables::CONTENTS, Role::Log)?;
    visitor.visit(uses::USES, Role::Log)?;
    visitor.visit(chain::LINKS, Role::Log)?;
    visitor.visit(chain::CHECKPOINTS, Role::State)?;
    visitor.visit(chain::KEYS, Role::State)?;
    visitor.visit(chain::PRUNES, Role::State)?;
    visitor.visit(chain::MARKS, Role::State)?;
    visitor.visit(tables::SPANS, Role::Log)?;
    visitor.visit(tables::ENDS, Role::Log)?;
    visitor.visit(tables::UNDERWAY, Role::Log)?;
    visitor.visit(tables::NAMES, Role::Log)?;
    visitor.visit(postings::TERMS, Role::Log)?;
    visitor.visit(postings::POSTINGS, Role::Log)?;
    visitor.visit(postings::COLUMNS, Role::Log)?;
    visitor.visit(postings::BEGUN, Role::Log)?;
    visitor.visit(text::SEGMENTS, Role::Log)?;
    visitor.visit(text::WORDS, Role::Log)?;
    visitor.visit(tally::TALLIES, Role::State)?;
    visitor.visit(tally::EPOCHS, Role::State)?;
    visitor.visit(tally::SESSIONS, Role::State)?;
    visitor.visit(typed::COUNTERS, Role::State)?;
    visitor.visit(typed::LIMITS, Role::State)?;
    visitor.visit(typed::APPROVALS, Role::State)
}
