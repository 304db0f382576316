//! tantivy: one text field, newest first by a fast field; its own tokeniser.

use std::path::Path;

use anyhow::Result;
use tantivy::{
    Index, IndexWriter, Order, TantivyDocument, Term,
    collector::{Count, TopDocs},
    query::{BooleanQuery, Occur, Query, TermQuery},
    schema::{FAST, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
};

use crate::{
    corpus::{Corpus, QUERIES},
    report::{Built, cpu, size, timed},
};

/// Memory that it may use before it writes a segment.
const BUDGET: usize = 50_000_000;
/// Records after which it commits: as often as the gate closes a segment.
const COMMIT: u64 = 8192;

pub(crate) fn run(corpus: &Corpus, dir: &Path, positions: bool) -> Result<()> {
    let mut schema = Schema::builder();
    let (option, engine) = match positions {
        true => (IndexRecordOption::WithFreqsAndPositions, "tantivy, positions"),
        false => (IndexRecordOption::Basic, "tantivy, no positions"),
    };
    let indexing =
        TextFieldIndexing::default().set_tokenizer("default").set_index_option(option).set_fieldnorms(false);
    let text = schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));
    let id = schema.add_u64_field("id", FAST);
    let index = Index::create_in_dir(dir, schema.build())?;
    let mut writer: IndexWriter = index.writer_with_num_threads(1, BUDGET)?;
    let mut payload = 0;
    let at = cpu();
    let mut result = Ok(());
    corpus.each(&mut |number, texts| {
        payload += texts.iter().map(|text| text.len() as u64).sum::<u64>();
        let mut document = TantivyDocument::default();
        document.add_u64(id, number);
        for part in texts {
            document.add_text(text, part);
        }
        let added = writer.add_document(document).map(drop);
        let committed = if number % COMMIT == 0 { writer.commit().map(drop) } else { Ok(()) };
        if result.is_ok() {
            result = added.and(committed);
        }
    });
    result?;
    writer.commit()?;
    writer.wait_merging_threads()?;
    let took = cpu().saturating_sub(at);
    let at = cpu();
    corpus.each(&mut |_, _| {});
    let generating = cpu().saturating_sub(at);
    let built = Built::new(engine, payload, took.saturating_sub(generating), size(dir));
    let reader = index.reader()?;
    let searcher = reader.searcher();
    let mut found = Vec::new();
    for (_, words) in QUERIES {
        let terms = words.iter().map(|word| {
            let query = TermQuery::new(Term::from_field_text(text, word), IndexRecordOption::Basic);
            (Occur::Must, Box::new(query) as Box<dyn Query>)
        });
        let query = BooleanQuery::new(terms.collect());
        let newest = || TopDocs::with_limit(50).order_by_fast_field::<u64>("id", Order::Desc);
        let (first, _) = timed(|| Ok(searcher.search(&query, &newest())?))?;
        let (count, many) = timed(|| Ok(searcher.search(&query, &Count)?))?;
        found.push((first, count, many));
    }
    built.show(&found);
    Ok(())
}
