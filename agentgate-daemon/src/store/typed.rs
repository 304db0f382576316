//! What is kept beside the records and changes in place: running counters, limits that somebody set, and
//! what somebody approved.
//!
//! Whoever needs one of these names its own rows by a *scope* (`session:run-u1@9`, `host:api.example.com`,
//! `all`) and a *name* within it, so that a scope's rows lie together and later uses need no table of
//! their own. Values of a limit and an approval begin with a byte of version.

use redb::{ReadableTable as _, TableDefinition};

use super::{
    Store, StoreError,
    canonical::{Malformed, put_number, take, take_number},
    error::unharmed,
    tables::there,
};
use crate::model::{RecordId, Timestamp};

pub(super) const COUNTERS: TableDefinition<'_, (&str, &str), (i64, i64)> = TableDefinition::new("counters");
pub(super) const LIMITS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("limits");
pub(super) const APPROVALS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("approvals");

/// Bytes of a scope or a name; longer ones are refused.
pub const NAME_CAP: usize = 512;
const VERSION: u8 = 1;

/// A number that is added to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub value: i64,
    /// When it began, by whoever counts: the start of a day, of a session.
    pub since: Timestamp,
}

/// A bound on a counter, in its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub most: i64,
    /// After so many milliseconds the counter begins again; `None`: never.
    pub period_ms: Option<u64>,
    /// The record of its setting.
    pub record: RecordId,
}

/// That something was allowed or refused by a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub granted: bool,
    /// Who, in words.
    pub by: String,
    pub until: Option<Timestamp>,
    /// How often it may be used yet; `None`: without end.
    pub uses: Option<u64>,
    /// The record of it.
    pub record: RecordId,
}

impl Limit {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.most.to_le_bytes());
        option(&mut out, self.period_ms);
        put_number(&mut out, self.record.0);
        out
    }

    fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut left = versioned(value)?;
        let most = take_i64(&mut left)?;
        let period_ms = take_option(&mut left)?;
        let record = RecordId(take_number(&mut left)?);
        ended(left)?;
        Ok(Self { most, period_ms, record })
    }
}

impl Approval {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.granted)];
        put_number(&mut out, self.by.len() as u64);
        out.extend_from_slice(self.by.as_bytes());
        match self.until {
            Some(until) => {
                out.push(1);
                out.extend_from_slice(&until.0.to_le_bytes());
            }
            None => out.push(0),
        }
        option(&mut out, self.uses);
        put_number(&mut out, self.record.0);
        out
    }

    fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut left = versioned(value)?;
        let granted = flag(&mut left)?;
        let length = take_number(&mut left)?;
        let by = str::from_utf8(take(&mut left, length)?).map_err(|_| Malformed("a name that is no text"))?;
        let by = by.to_owned();
        let until = if flag(&mut left)? { Some(Timestamp(take_i64(&mut left)?)) } else { None };
        let uses = take_option(&mut left)?;
        let record = RecordId(take_number(&mut left)?);
        ended(left)?;
        Ok(Self { granted, by, until, uses, record })
    }
}

fn versioned(value: &[u8]) -> Result<&[u8], Malformed> {
    match value.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some(_) => Err(Malformed("a row of a later version")),
        None => Err(Malformed("an empty row")),
    }
}

fn take_i64(left: &mut &[u8]) -> Result<i64, Malformed> {
    let bytes = take(left, 8)?.try_into().map_err(|_| Malformed("a number is cut off"))?;
    Ok(i64::from_le_bytes(bytes))
}

fn flag(left: &mut &[u8]) -> Result<bool, Malformed> {
    match take(left, 1)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(Malformed("neither yes nor no")),
    }
}

fn option(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put_number(out, number);
    }
}

fn take_option(left: &mut &[u8]) -> Result<Option<u64>, Malformed> {
    if flag(left)? { take_number(left).map(Some) } else { Ok(None) }
}

fn ended(left: &[u8]) -> Result<(), Malformed> {
    if left.is_empty() { Ok(()) } else { Err(Malformed("more than a row has")) }
}

fn named(scope: &str, name: &str) -> Result<(), StoreError> {
    if scope.len() > NAME_CAP || name.len() > NAME_CAP { Err(StoreError::NameTooLong) } else { Ok(()) }
}

impl Store {
    /// Adds `by` to a counter, which begins anew at `since` where it began before that; returns what it
    /// came to. Durable when it returns. It keeps to the bounds of its type.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written, or a name has more than [`NAME_CAP`] bytes.
    pub fn add_up(&self, scope: &str, name: &str, by: i64, since: Timestamp) -> Result<Counter, StoreError> {
        unharmed(|| {
            named(scope, name)?;
            let transaction = self.begin_write()?;
            let counter = {
                let mut table = transaction.open_table(COUNTERS)?;
                let before = table.get((scope, name))?.map(|row| row.value());
                let (value, began) = before.filter(|(_, began)| *began >= since.0).unwrap_or((0, since.0));
                let value = value.saturating_add(by);
                table.insert((scope, name), (value, began))?;
                Counter { value, since: Timestamp(began) }
            };
            transaction.commit()?;
            Ok(counter)
        })
    }

    /// The counters of a scope, by name.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub fn counters(&self, scope: &str) -> Result<Vec<(String, Counter)>, StoreError> {
        unharmed(|| {
            let mut found = Vec::new();
            let transaction = self.snapshot()?;
            let Some(table) = there(&transaction, COUNTERS)? else { return Ok(found) };
            for row in table.range::<(&str, &str)>((scope, "")..)? {
                let (key, value) = row?;
                let ((of, name), (value, since)) = (key.value(), value.value());
                if of != scope {
                    break;
                }
                found.push((name.to_owned(), Counter { value, since: Timestamp(since) }));
            }
            Ok(found)
        })
    }

    /// Sets a limit, or with `None` takes it away. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written, or a name has more than [`NAME_CAP`] bytes.
    pub fn set_limit(&self, scope: &str, name: &str, limit: Option<&Limit>) -> Result<(), StoreError> {
        unharmed(|| self.set(LIMITS, scope, name, limit.map(Limit::encode)))
    }

    /// A limit that was set.
    ///
    /// # Errors
    /// [`StoreError`] where the file or the row cannot be read.
    pub fn limit(&self, scope: &str, name: &str) -> Result<Option<Limit>, StoreError> {
        unharmed(|| self.row(LIMITS, scope, name, Limit::decode))
    }

    /// Keeps an approval, or with `None` forgets it. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written, or a name has more than [`NAME_CAP`] bytes.
    pub fn set_approval(
        &self,
        scope: &str,
        name: &str,
        approval: Option<&Approval>,
    ) -> Result<(), StoreError> {
        unharmed(|| self.set(APPROVALS, scope, name, approval.map(Approval::encode)))
    }

    /// What was approved, whether or not it holds at the moment.
    ///
    /// # Errors
    /// [`StoreError`] where the file or the row cannot be read.
    pub fn approval(&self, scope: &str, name: &str) -> Result<Option<Approval>, StoreError> {
        unharmed(|| self.row(APPROVALS, scope, name, Approval::decode))
    }

    fn set(
        &self,
        table: TableDefinition<'_, (&'static str, &'static str), &'static [u8]>,
        scope: &str,
        name: &str,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        named(scope, name)?;
        let transaction = self.begin_write()?;
        {
            let mut table = transaction.open_table(table)?;
            match value {
                Some(value) => table.insert((scope, name), value.as_slice())?,
                None => table.remove((scope, name))?,
            };
        }
        transaction.commit()?;
        Ok(())
    }

    fn row<T>(
        &self,
        table: TableDefinition<'_, (&'static str, &'static str), &'static [u8]>,
        scope: &str,
        name: &str,
        decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, StoreError> {
        let transaction = self.snapshot()?;
        let Some(table) = there(&transaction, table)? else { return Ok(None) };
        let found = table.get((scope, name))?;
        found.map(|row| decode(row.value()).map_err(StoreError::BadRow)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_and_begin_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.redb");
        let store = Store::open(&path).unwrap();
        assert!(store.counters("a").unwrap().is_empty());
        store.add_up("a", "tokens", 5, Timestamp(100)).unwrap();
        store.add_up("a", "usd", -1, Timestamp(100)).unwrap();
        store.add_up("ab", "tokens", 9, Timestamp(100)).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let counter = store.add_up("a", "tokens", 6, Timestamp(100)).unwrap();
        assert_eq!(counter, Counter { value: 11, since: Timestamp(100) });
        assert_eq!(store.add_up("a", "tokens", i64::MAX, Timestamp(50)).unwrap().value, i64::MAX);
        let anew = store.add_up("a", "tokens", 2, Timestamp(200)).unwrap();
        assert_eq!(anew, Counter { value: 2, since: Timestamp(200) });
        let all = store.counters("a").unwrap();
        let all: Vec<_> = all.iter().map(|(name, counter)| (name.as_str(), counter.value)).collect();
        assert_eq!(all, [("tokens", 2), ("usd", -1)]);
    }

    #[test]
    fn limits_and_approvals_are_read_as_they_were_set() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("audit.redb")).unwrap();
        assert_eq!(store.limit("all", "usd").unwrap(), None);
        assert_eq!(store.approval("all", "x").unwrap(), None);
        for limit in [
            Limit { most: -3, period_ms: None, record: RecordId(0) },
            Limit { most: i64::MAX, period_ms: Some(u64::MAX), record: RecordId(u64::MAX) },
        ] {
            store.set_limit("all", "usd", Some(&limit)).unwrap();
            assert_eq!(store.limit("all", "usd").unwrap(), Some(limit));
        }
        store.set_limit("all", "usd", None).unwrap();
        assert_eq!(store.limit("all", "usd").unwrap(), None);
        for approval in [
            Approval { granted: true, by: "uid 0".into(), until: None, uses: Some(3), record: RecordId(7) },
            Approval {
                granted: false,
                by: String::new(),
                until: Some(Timestamp(-5)),
                uses: None,
                record: RecordId(300),
            },
        ] {
            store.set_approval("host:a", "POST", Some(&approval)).unwrap();
            assert_eq!(store.approval("host:a", "POST").unwrap(), Some(approval));
        }
        let long = "x".repeat(NAME_CAP + 1);
        assert!(matches!(store.set_limit(&long, "usd", None), Err(StoreError::NameTooLong)));
        assert!(matches!(store.add_up("a", &long, 1, Timestamp(0)), Err(StoreError::NameTooLong)));
    }

    #[test]
    fn rows_that_are_none_are_told() {
        let limit = Limit { most: 1, period_ms: Some(2), record: RecordId(3) }.encode();
        let approval = Approval {
            granted: true,
            by: "b".into(),
            until: Some(Timestamp(1)),
            uses: Some(1),
            record: RecordId(1),
        }
        .encode();
        for end in 0..limit.len() {
            Limit::decode(&limit[..end]).unwrap_err();
        }
        for end in 0..approval.len() {
            Approval::decode(&approval[..end]).unwrap_err();
        }
        Limit::decode(&[limit.as_slice(), &[0]].concat()).unwrap_err();
        Limit::decode(&[2]).unwrap_err();
        Approval::decode(&[1, 2]).unwrap_err();
    }
}
