//! The product's index, compiled in from its sources, in a redb file of its own.

#![allow(dead_code, reason = "the product uses what is not used here")]

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadableDatabase as _};

use crate::{
    corpus::{Corpus, QUERIES},
    report::{Built, cpu, size, timed},
};

/// Bytes of redb's page cache, as the product has it.
const CACHE: usize = 16 << 20;

pub(crate) fn run(corpus: &Corpus, dir: &Path) -> Result<()> {
    let path = dir.join("text.redb");
    let database = Database::builder().set_cache_size(CACHE).create(&path)?;
    let mut index = crate::store::text::Index::default();
    let mut payload = 0;
    let at = cpu();
    let mut result = Ok(());
    corpus.each(&mut |number, texts| {
        payload += texts.iter().map(|text| text.len() as u64).sum::<u64>();
        if result.is_ok() {
            result = index.add(&database, number, texts);
        }
    });
    result?;
    index.close(&database)?;
    let took = cpu().saturating_sub(at);
    let at = cpu();
    corpus.each(&mut |_, _| {});
    let generating = cpu().saturating_sub(at);
    drop(database);
    let built = Built::new("agentgate", payload, took.saturating_sub(generating), size(dir));
    let database = Database::builder().set_cache_size(CACHE).open(&path)?;
    let mut found = Vec::new();
    for (_, words) in QUERIES {
        let needles: Vec<_> =
            words.iter().map(|word| crate::words::Needle::parse(word)).collect::<Result<_, _>>()?;
        let search = |limit: usize| -> Result<usize> {
            Ok(crate::store::text::search(&database.begin_read()?, &needles, limit)?)
        };
        let (first, _) = timed(|| search(50))?;
        let (count, many) = timed(|| search(usize::MAX))?;
        found.push((first, count, many));
    }
    built.show(&found);
    Ok(())
}
