//! The index itself, driven as the store does.

#[path = "../../../../src/store/text/find.rs"]
mod find;
#[path = "../../../../src/store/text/format.rs"]
mod format;
#[path = "../../../../src/store/text/segment.rs"]
mod segment;
#[path = "../../../../src/store/text/set.rs"]
mod set;
#[path = "../../../../src/store/text/table.rs"]
mod table;

use redb::{Database, ReadTransaction};

use super::{StoreError, packed::Packer};
use crate::words::{Form, Needle, Token, each};
use find::Sought;
use segment::Builder;
use table::{Reading, Writing};

#[derive(Debug, Default)]
pub(crate) struct Index(Option<Builder>);

impl Index {
    pub(crate) fn add(&mut self, database: &Database, id: u64, texts: &[&str]) -> Result<(), StoreError> {
        let builder = self.0.get_or_insert_with(|| Builder::new(id - 1, id - 1, true));
        builder.begin(id);
        for (at, text) in texts.iter().enumerate() {
            builder.begin_text(text.len());
            let form = if at == 0 { Form::Plain } else { Form::Json };
            each(text.as_bytes(), form, &mut |token| match token {
                Token::Word(word) | Token::Also(word) => drop(builder.add(word)),
                Token::Gap | Token::Cut => {}
            });
        }
        builder.end();
        if builder.is_full() { self.close(database) } else { Ok(()) }
    }

    pub(crate) fn close(&mut self, database: &Database) -> Result<(), StoreError> {
        let Some(builder) = self.0.take() else { return Ok(()) };
        let segment = builder.finish().map_err(StoreError::Packing)?;
        let transaction = database.begin_write()?;
        Writing::open(&transaction)?.put(&segment, &mut Packer::new()?)?;
        transaction.commit()?;
        Ok(())
    }
}

/// How many records have all of `needles`, newest first, up to `limit`.
pub(crate) fn search(
    transaction: &ReadTransaction,
    needles: &[Needle],
    limit: usize,
) -> Result<usize, StoreError> {
    let sought: Vec<_> = needles.iter().cloned().map(Sought::from).collect();
    let reading = Reading::of(transaction)?;
    let (mut at, mut count) = (u64::MAX, 0);
    while let Some((from, head)) = reading.last_before(at)? {
        at = from;
        let Some(head) = head else { continue };
        let set = head.candidates(&reading.content(from), &sought)?;
        count += set.iter().filter_map(|place| head.id(place)).count();
        if count >= limit {
            break;
        }
    }
    Ok(count)
}
