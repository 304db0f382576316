//! Records that are too long for a line of the control protocol are sent cut, never left out: one record
//! that an agent made long must not hide those around it.

use serde_json::Value;

use super::wire::LINE_CAP;
use crate::model::Record;

/// Bytes for what a line has around a record.
const AROUND: usize = 256;

/// Longest text in characters and longest list in entries, from mild to certain: a record has a dozen
/// texts and six lists of at most two texts an entry, and JSON writes a character in six bytes at most,
/// so the last step gives less than a third of a line. A host name, which must stay one, has at most
/// 253 characters.
const STEPS: [(usize, usize); 2] = [(4096, 64), (256, 16)];

/// `record` as it is where it fits a line; else with its long texts and lists cut, which its note then
/// says.
pub(super) fn to_fit(record: Record) -> Record {
    let Ok(whole) = serde_json::to_vec(&record).map(|json| json.len()) else {
        return bare(&record, "this record cannot be shown");
    };
    if fits(whole) {
        return record;
    }
    for (characters, entries) in STEPS {
        let cut = cut(&record, characters, entries);
        if let Some(mut cut) = cut {
            let said = format!(
                "cut to be shown: the whole record has {whole} bytes; texts beyond {characters} characters and \
                 lists beyond {entries} entries are left out"
            );
            cut.note = Some(match cut.note {
                Some(note) => format!("{note} [{said}]"),
                None => said,
            });
            if serde_json::to_vec(&cut).is_ok_and(|json| fits(json.len())) {
                return cut;
            }
        }
    }
    bare(&record, &format!("cut to be shown: the whole record has {whole} bytes"))
}

fn fits(bytes: usize) -> bool {
    bytes + AROUND <= LINE_CAP
}

fn cut(record: &Record, characters: usize, entries: usize) -> Option<Record> {
    let mut value = serde_json::to_value(record).ok()?;
    shorten(&mut value, characters, entries);
    serde_json::from_value(value).ok()
}

fn shorten(value: &mut Value, characters: usize, entries: usize) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(characters) {
                text.truncate(end);
            }
        }
        Value::Array(list) => {
            list.truncate(entries);
            list.iter_mut().for_each(|value| shorten(value, characters, entries));
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| shorten(value, characters, entries)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Only what has a bounded size.
fn bare(record: &Record, note: &str) -> Record {
    let mut bare = Record::new(record.kind, record.started);
    (bare.id, bare.state, bare.finished, bare.parent) =
        (record.id, record.state, record.finished, record.parent);
    bare.note = Some(note.to_owned());
    bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::wire::{Item, Payload, Reply, encode},
        model::{Ancestor, Authority, Failure, Flag, Host, Kind, RequestHead, SessionId, Severity, Subject},
        model::{HeaderFields, ResponseHead, Timestamp},
    };

    fn sent(record: &Record) -> bool {
        let record = || Box::new(record.clone());
        encode(&Reply::item(Item::Record(record()))).is_ok()
            && encode(&Reply::ok(Payload::Record(record()))).is_ok()
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let mut record = Record::new(Kind::Exchange, Timestamp(1));
        record.note = Some("n".repeat(LINE_CAP - 2000));
        assert_eq!(to_fit(record.clone()), record);
        assert!(sent(&record));
    }

    #[test]
    fn a_record_that_is_too_long_in_every_part_is_cut_and_says_so() {
        // Six bytes a character in JSON, and four.
        for character in ["\u{1}", "\u{1f600}"] {
            let long = || character.repeat(10_000);
            let headers = || HeaderFields::from(vec![(long(), long()); 3]);
            let mut record = Record::new(Kind::Exchange, Timestamp(1));
            record.id = crate::model::RecordId(7);
            let host = format!("{}.{}.{}.example", "a".repeat(60), "b".repeat(60), "c".repeat(60));
            record.authority = Some(Authority { host: Host::parse(&host).unwrap(), port: 443 });
            record.request = Some(RequestHead {
                method: long(),
                scheme: long(),
                target: long(),
                version: long(),
                headers: headers(),
                body: crate::model::Captured { total: u64::MAX, ..Default::default() },
            });
            record.response = Some(ResponseHead { headers: headers(), ..Default::default() });
            record.subject = Some(
                Subject {
                    session: SessionId(long()),
                    pid: 1,
                    uid: 1,
                    start: None,
                    comm: long(),
                    exe: Some(long()),
                    cmdline: vec![long(); 3],
                    ancestors: vec![Ancestor { pid: 2, exe: long() }; 40],
                    cgroup: long(),
                    privileges: Vec::new(),
                }
                .into(),
            );
            record.flags = vec![Flag::new(&long(), Severity::High, long()); 40];
            record.failure = Some(Failure { blame: long(), code: long(), detail: long() });
            record.note = Some(long());
            assert!(!sent(&record));
            let cut = to_fit(record.clone());
            assert!(sent(&cut));
            assert_eq!((cut.id, cut.kind, &cut.authority), (record.id, record.kind, &record.authority));
            let request = cut.request.unwrap();
            assert_eq!((request.target.chars().count(), request.body.total), (256, u64::MAX));
            assert_eq!((request.headers.len(), cut.flags.len()), (3, 16));
            assert!(cut.note.unwrap().contains("cut to be shown: the whole record has "));
        }
    }
}
