//! What the thread makes of texts that come again, beside what looking into every record finds.

use std::collections::BTreeSet;

use super::{Random, stored::Scene};
use crate::{
    filter::{Bounds, Expression, Filter, Pattern, Sort, Test},
    model::{
        Authority, Captured, HeaderFields, Host, Kind, Record, RecordId, RequestHead, ResponseHead,
        State as RecordState, TextIndex, Timestamp,
    },
    store::{Query, Write, canonical::tests::full, text::Sought},
    words::{Address, Token, in_bodies, in_heads},
};

fn body(text: String) -> Captured {
    Captured { total: text.len() as u64, truncated: false, bytes: text.into() }
}

fn exchange(id: u64, target: &str, headers: HeaderFields, bodies: [String; 2]) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(id.cast_signed()));
    (record.id, record.state) = (RecordId(id), RecordState::Done);
    let [request, response] = bodies.map(body);
    record.request = Some(RequestHead {
        method: "POST".into(),
        scheme: "https".into(),
        target: target.into(),
        headers,
        body: request,
        ..RequestHead::default()
    });
    record.response = Some(ResponseHead {
        status: 200,
        headers: HeaderFields::from(vec![("content-type", "text/event-stream"), ("server", "cloud")]),
        body: response,
        ..ResponseHead::default()
    });
    record
}

fn apply(scene: &Scene, records: &[Record]) {
    for some in records.chunks(100) {
        scene.store.apply(&some.iter().map(Write::Final).collect::<Vec<_>>()).unwrap();
    }
}

fn words(record: &Record) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut add = |token: Token<'_>| match token {
        Token::Word(word) | Token::Also(word) => {
            found.insert(String::from_utf8_lossy(word).into_owned());
        }
        Token::Gap | Token::Cut => {}
    };
    in_heads(record, &mut add);
    let bodies = [
        record.request.as_ref().map(|head| &*head.body.bytes),
        record.response.as_ref().map(|head| &*head.body.bytes),
    ];
    in_bodies(record, bodies, &mut add);
    found
}

/// The index reads fields where they lie, and looks into records by another way.
#[test]
fn every_word_of_a_record_with_every_field_is_in_the_index() {
    let scene = Scene::new();
    let records: Vec<_> = (1..=3)
        .map(|id| {
            let mut record = full(usize::try_from(id).unwrap() % 3);
            (record.id, record.state) = (RecordId(id), RecordState::Refused);
            record
        })
        .collect();
    apply(&scene, &records);
    let _indexer = scene.index(TextIndex::Bodies);
    for record in &records {
        let words = words(record);
        assert!(words.len() >= 20, "{}", words.len());
        for word in words {
            assert!(scene.candidates(&[&word]).contains(&record.id.0), "{word} of {}", record.id.0);
        }
    }
    assert_eq!(scene.candidates(&["nowhere"]), [0_u64; 0]);
}

/// A value that ends as the next header begins does not make two heads one.
#[test]
fn a_body_that_came_with_other_headers_is_looked_at_again() {
    let scene = Scene::new();
    let name = format!("content-{}", "a".repeat(25));
    let said = "{\"said\": \"marmalade\"}".to_owned();
    let headers = [
        HeaderFields::from(vec![("content-encoding", format!("identity!{name}x").as_str())]),
        HeaderFields::from(vec![("content-encoding", "identity"), (name.as_str(), "x")]),
    ];
    // A header is its name's length, 33, which is an exclamation mark, its name and its value.
    assert_eq!(name.len(), usize::from(b'!'));
    let records: Vec<_> = (1..)
        .zip(headers)
        .map(|(id, headers)| exchange(id, "/", headers, [said.clone(), String::new()]))
        .collect();
    apply(&scene, &records);
    let _indexer = scene.index(TextIndex::Bodies);
    assert!(words(&records[1]).contains("marmalade") && !words(&records[0]).contains("marmalade"));
    assert!(scene.candidates(&["marmalade"]).contains(&2));
}

/// Conversations that grow, answers that repeat, header fields that do: with what is remembered, and across
/// segments, the same is found as by looking.
#[test]
fn texts_that_come_again_give_the_same_words() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let scene = Scene::new();
    let (mut said, mut records) = (vec![String::new(); 3], Vec::new());
    for id in 1..=400_u64 {
        let at = random.below(3) as usize;
        if said[at].len() > 12_000 {
            said[at].clear();
        }
        for _ in 0..random.below(120) {
            let word = random.below(700);
            said[at].push_str(&match random.below(12) {
                0 => format!("\\n\"m{word}\": "),
                1 => format!("C:\\\\new\\\\t{word} "),
                2 => format!("0.{word}{word}, "),
                3 => "für \\u00dcber ".to_owned(),
                _ => format!("w{word} "),
            });
        }
        let answer: String = (0..random.below(4))
            .map(|_| {
                format!(
                    "data: {{\"text\":\"an{}\"}}\n\ndata: {{\"text\":\"swer{}\"}}\n\n",
                    id % 5,
                    random.below(9)
                )
            })
            .collect();
        let kind = ["application/json", "text/plain", "application/x-www-form-urlencoded"][id as usize % 3];
        let headers =
            HeaderFields::from(vec![("content-type", kind), ("x-of", ["one", "two"][id as usize % 2])]);
        let request = format!("{{\"said\":\"{}\"}}", said[at]);
        records.push(exchange(id, &format!("/v1/{}", id % 4), headers, [request, answer]));
    }
    apply(&scene, &records);
    let _indexer = scene.index(TextIndex::Bodies);
    let all: Vec<_> = records.iter().map(words).collect();
    let every: BTreeSet<_> = all.iter().flatten().cloned().collect();
    assert!(every.len() > 700, "{}", every.len());
    for word in every.iter().step_by(11) {
        let naive: Vec<_> =
            (1_u64..).zip(&all).filter(|(_, words)| words.contains(word)).map(|(id, _)| id).collect();
        assert_eq!(scene.candidates(&[word]), naive, "{word}");
    }
}

/// Addresses with all that makes words of them other than what stands there.
fn targets() -> Vec<String> {
    let mut random = Random(7);
    let blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZn-9".repeat(7);
    let long = "segment".repeat(12);
    let mut targets = vec![
        "*".to_owned(),
        "api.example.com:443".to_owned(),
        format!("/blob/{blob}/tail"),
        format!("/{long}/end"),
        "/v1.123456/x".to_owned(),
        "/f%C3%BCr/%zz?Q=A+B".to_owned(),
        "/fürst/ÄFFFF".to_owned(),
        String::new(),
    ];
    for _ in 0..300 {
        targets.push(format!(
            "/v{}/Msg{:x}/part-{}.json?trace={}&id=q{:04x}Z",
            random.below(3),
            random.below(1 << 24),
            random.below(50),
            random.below(100_000),
            random.below(1 << 16),
        ));
    }
    targets
}

#[test]
fn parts_of_addresses_are_found_in_words() {
    let scene = Scene::new();
    let records: Vec<_> = (1_u64..)
        .zip(targets())
        .map(|(id, target)| {
            let mut record = exchange(id, &target, HeaderFields::default(), [String::new(), String::new()]);
            if id % 5 > 0 {
                let (host, port) = ([("api.example.com", 8443), ("h.test", 443)])[id as usize % 2];
                record.authority = Host::parse(host).ok().map(|host| Authority { host, port });
            }
            record
        })
        .collect();
    apply(&scene, &records);
    let check = || {
        let mut random = Random(11);
        let mut rare = 0;
        for _ in 0..80 {
            let target =
                records[random.below(records.len() as u64) as usize].request.as_ref().unwrap().target.clone();
            let text: Vec<_> = target.chars().collect();
            let start = random.below(text.len() as u64 + 1) as usize;
            let length = (1 + random.below(9) as usize).min(text.len() - start);
            let part: String = text[start..start + length].iter().filter(|c| **c != '*').collect();
            let pattern = match random.below(5) {
                0 => format!("{part}*"),
                1 => format!("*{part}"),
                2 => format!("*{}?{part}*", text.get(start.wrapping_sub(2)).unwrap_or(&'/')),
                _ => format!("*{part}*"),
            };
            for (field, address) in [
                ("path", Address::of_target(&Pattern::whole(&pattern).runs())),
                ("url", Address::of_url(&Pattern::whole(&pattern).runs())),
            ] {
                let test = match field {
                    "path" => Test::Path(Pattern::whole(&pattern)),
                    _ => Test::Url(Pattern::whole(&pattern)),
                };
                let truth: Vec<_> =
                    records.iter().filter(|record| test.matches(record)).map(|record| record.id.0).collect();
                if let Some(address) = address {
                    let found = scene.found(vec![Sought::Address(address)]);
                    for id in &truth {
                        assert!(
                            found.contains(id),
                            "{field}:{pattern} lacks {id}: {:?}",
                            records[*id as usize - 1]
                        );
                    }
                    rare += usize::from(found.len() * 10 < records.len());
                }
                let others = Test::Id(Bounds::below(1000));
                let mut query = Query::of(Filter::from(Expression::from(test).and(others)), 1000);
                let mut page = scene.store.query(&query).unwrap().records;
                page.reverse();
                assert_eq!(
                    page.iter().map(|record| record.id.0).collect::<Vec<_>>(),
                    truth,
                    "{field}:{pattern}"
                );
                query.sort = Some(Sort::Oldest);
                let oldest = scene.store.query(&query).unwrap().records;
                assert_eq!(oldest, page, "{field}:{pattern}");
            }
        }
        rare
    };
    assert_eq!(check(), 0, "without an index none is ruled out");
    let indexer = scene.index(TextIndex::Bodies);
    assert!(check() > 25);
    // The same of a segment that is in the tables.
    let more: Vec<_> = (0..8192 - records.len() as u64)
        .map(|more| exchange(1000 + more, "/other", HeaderFields::default(), [String::new(), String::new()]))
        .collect();
    apply(&scene, &more);
    let entries = scene.store.text_status().unwrap().entries;
    scene.store.text.wait(|state| state.indexed >= entries);
    apply(&scene, &[exchange(100_000, "/last", HeaderFields::default(), [String::new(), String::new()])]);
    assert_eq!(scene.store.text_status().unwrap().segments, 1);
    drop(indexer);
    assert!(check() > 25);
}
