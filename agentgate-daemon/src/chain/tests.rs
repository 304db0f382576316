//! What is done to a log is found, and called what it is.

use super::*;
use crate::model::{RecordId, Timestamp};

const LOG: LogId = Hex([7; 16]);

/// A log as it goes by.
#[derive(Clone)]
enum Step {
    Entry(u64, Hash, Vec<u8>),
    Checkpoint(Checkpoint),
}

fn entry(id: u64) -> Vec<u8> {
    let mut entry = vec![1, 8];
    entry.extend_from_slice(&id.to_le_bytes());
    entry.extend_from_slice(format!("{id}").as_bytes());
    entry
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap().0
}

fn first_key(key: &SigningKey) -> KeyStatement {
    KeyStatement::sign(&LOG, (0, first(&LOG)), Timestamp(0), key, None, None).unwrap()
}

/// A log of `count` entries, each the begin of a record, with checkpoints where they are due.
fn log(key: &SigningKey, count: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut link = first(&LOG);
    for n in 0..count {
        steps.push(Step::Entry(n, link, entry(n + 1)));
        link = next(&link, &digest(&entry(n + 1)));
        if (n + 1) % INTERVAL == 0 || n + 1 == count {
            let time = Timestamp(i64::try_from(n).unwrap());
            steps.push(Step::Checkpoint(Checkpoint::sign(&LOG, n + 1, link, time, key).unwrap()));
        }
    }
    steps
}

/// As somebody without the key would: numbers and links follow from what is there.
fn relinked(steps: &[Step]) -> Vec<Step> {
    let (mut n, mut link) = (0, first(&LOG));
    let mut made = Vec::new();
    let mut checkpoints: Vec<_> = Vec::new();
    for step in steps {
        match step {
            Step::Entry(_, _, bytes) => {
                made.push(Step::Entry(n, link, bytes.clone()));
                link = next(&link, &digest(bytes));
                n += 1;
            }
            Step::Checkpoint(checkpoint) => checkpoints.push(*checkpoint),
        }
    }
    placed(made, &checkpoints)
}

/// Numbers follow from what is there, links stay with their entries.
fn renumbered(steps: &[Step]) -> Vec<Step> {
    let mut made = Vec::new();
    let mut checkpoints: Vec<_> = Vec::new();
    for step in steps {
        match step {
            Step::Entry(_, link, bytes) => made.push(Step::Entry(made.len() as u64, *link, bytes.clone())),
            Step::Checkpoint(checkpoint) => checkpoints.push(*checkpoint),
        }
    }
    placed(made, &checkpoints)
}

/// Checkpoints come before the entry of their number, as a table has them.
fn placed(entries: Vec<Step>, checkpoints: &[Checkpoint]) -> Vec<Step> {
    let mut made = Vec::new();
    let mut left = checkpoints.iter().peekable();
    for (n, step) in (0..).zip(entries) {
        while let Some(checkpoint) = left.next_if(|checkpoint| checkpoint.entries <= n) {
            made.push(Step::Checkpoint(*checkpoint));
        }
        made.push(step);
    }
    made.extend(left.map(|checkpoint| Step::Checkpoint(*checkpoint)));
    made
}

fn verify_by(steps: &[Step], keys: &[KeyStatement], trust: Trust) -> Report {
    let mut verifier = Verifier::new(trust, LOG, keys, true);
    for step in steps {
        match step {
            Step::Entry(n, link, bytes) => verifier.entry(*n, *link, bytes),
            Step::Checkpoint(checkpoint) => verifier.checkpoint(checkpoint),
        }
    }
    verifier.finish(None)
}

fn verify(steps: &[Step], key: &SigningKey) -> Report {
    verify_by(steps, &[first_key(key)], Trust { keys: vec![key.public()], ..Trust::default() })
}

/// Place of entry `n` among the steps.
fn place(steps: &[Step], n: u64) -> usize {
    steps.iter().position(|step| matches!(step, Step::Entry(at, ..) if *at == n)).unwrap()
}

fn words(report: &Report) -> Vec<(What, Option<u64>)> {
    report.findings.iter().map(|finding| (finding.what, finding.entry)).collect()
}

#[test]
fn a_log_that_is_whole_is_found_so() {
    let key = key();
    for count in [0, 1, 2, 255, 256, 257, 700] {
        let report = verify(&log(&key, count), &key);
        assert!(report.whole, "{count}: {report:?}");
        assert_eq!((report.entries, report.end), (count, count));
    }
}

/// Every place in a log of three checkpoints and a bit, and each of what can be done there.
#[test]
fn each_change_is_found_and_named() {
    let key = key();
    let whole = log(&key, 600);
    for n in [0, 1, 2, 100, 254, 255, 256, 257, 400, 510, 511, 512, 598, 599] {
        let at = place(&whole, n);
        let mut altered = whole.clone();
        if let Step::Entry(_, _, bytes) = &mut altered[at] {
            *bytes.last_mut().unwrap() ^= 1;
        }
        let report = verify(&altered, &key);
        assert_eq!(words(&report), [(What::Altered, Some(n))], "{n}: {report:?}");
        assert_eq!(report.findings[0].record, Some(RecordId(n + 1)));

        let mut removed = whole.clone();
        removed.remove(at);
        for (how, steps) in [("kept", removed.clone()), ("renumbered", renumbered(&removed))] {
            let report = verify(&steps, &key);
            assert_eq!(report.findings[0].what, What::Removed, "{how} {n}: {report:?}");
            assert!(report.findings[0].entry.unwrap().abs_diff(n) <= 1, "{how} {n}: {report:?}");
            assert_eq!(report.findings.len(), 1, "{how} {n}: {report:?}");
        }

        let mut twice = whole.clone();
        twice.insert(at, whole[at].clone());
        for (how, steps) in [("kept", twice.clone()), ("renumbered", renumbered(&twice))] {
            let report = verify(&steps, &key);
            // After the last there is no checkpoint that could say so.
            let expect = if n == 599 { What::Unsigned } else { What::Inserted };
            assert_eq!(report.findings[0].what, expect, "{how} {n}: {report:?}");
            assert!(report.findings[0].entry.unwrap().abs_diff(n) <= 1, "{how} {n}: {report:?}");
            assert_eq!(report.findings.len(), 1, "{how} {n}: {report:?}");
        }

        // With the one after it, where no checkpoint is between them.
        if n % 256 != 255 && n != 599 {
            let mut swapped = whole.clone();
            swapped.swap(at, at + 1);
            let mut contents = whole.clone();
            let (Step::Entry(.., one), Step::Entry(.., two)) = (&whole[at], &whole[at + 1]) else {
                unreachable!()
            };
            for (at, bytes) in [(at, two), (at + 1, one)] {
                if let Step::Entry(.., into) = &mut contents[at] {
                    into.clone_from(bytes);
                }
            }
            for (how, steps) in
                [("kept", swapped.clone()), ("renumbered", renumbered(&swapped)), ("contents", contents)]
            {
                let report = verify(&steps, &key);
                assert_eq!(words(&report), [(What::Moved, Some(n))], "{how} {n}: {report:?}");
            }
        }
    }
}

/// By somebody who computes all links and numbers anew, but has no key.
#[test]
fn new_links_do_not_hide_a_change() {
    let key = key();
    let whole = log(&key, 600);
    for n in [0, 1, 100, 254, 255, 256, 257, 400, 511, 512, 598] {
        let at = place(&whole, n);
        let segment = n / 256 * 256;
        let within = |report: &Report| {
            let first = report.findings[0].entry.unwrap();
            (segment..segment + 256).contains(&first) || first == segment + 256
        };
        let mut altered = whole.clone();
        if let Step::Entry(_, _, bytes) = &mut altered[at] {
            *bytes.last_mut().unwrap() ^= 1;
        }
        let report = verify(&relinked(&altered), &key);
        assert!(report.findings[0].what == What::Altered && within(&report), "{n}: {report:?}");

        let mut removed = whole.clone();
        removed.remove(at);
        let report = verify(&relinked(&removed), &key);
        assert!(report.findings[0].what == What::Removed && within(&report), "{n}: {report:?}");

        let mut twice = whole.clone();
        twice.insert(at, whole[at].clone());
        let report = verify(&relinked(&twice), &key);
        assert!(report.findings[0].what == What::Inserted && within(&report), "{n}: {report:?}");

        if n % 256 != 255 {
            let mut swapped = whole.clone();
            swapped.swap(at, at + 1);
            let report = verify(&relinked(&swapped), &key);
            let what = report.findings[0].what;
            // The first of a segment has nothing before it whose id would tell.
            let named = what == What::Moved || n % 256 == 0 && what == What::Altered;
            assert!(named && within(&report), "{n}: {report:?}");
        }
    }
}

#[test]
fn the_end_is_missed_by_what_was_kept_elsewhere() {
    let key = key();
    let whole = log(&key, 600);
    let Some(Step::Checkpoint(last)) = whole.last().cloned() else { unreachable!() };
    let cut = &whole[..place(&whole, 512)];
    assert!(verify(cut, &key).whole, "nothing in the log itself can tell");
    let trust = || Trust { keys: vec![key.public()], checkpoints: vec![last], ..Trust::default() };
    let report = verify_by(cut, &[first_key(&key)], trust());
    assert_eq!(words(&report), [(What::Truncated, Some(512))], "{report:?}");
    let report = verify_by(&whole, &[first_key(&key)], trust());
    assert!(report.whole && report.kept_elsewhere == 1, "{report:?}");
    // Cut where there is no checkpoint.
    let report = verify(&whole[..place(&whole, 300)], &key);
    assert_eq!(words(&report), [(What::Unsigned, Some(256))], "{report:?}");
    // Written anew by somebody who has the key.
    let bytes = |n| if n == 3 { entry(9) } else { entry(n + 1) };
    let mut link = first(&LOG);
    let mut forged = Vec::new();
    for n in 0..601 {
        forged.push(Step::Entry(n, link, bytes(n)));
        link = next(&link, &digest(&bytes(n)));
        if (n + 1) % INTERVAL == 0 || n == 600 {
            forged.push(Step::Checkpoint(Checkpoint::sign(&LOG, n + 1, link, Timestamp(0), &key).unwrap()));
        }
    }
    assert!(verify(&forged, &key).whole);
    let report = verify_by(&forged, &[first_key(&key)], trust());
    assert_eq!(report.findings[0].what, What::Altered, "{report:?}");
}

#[test]
fn checkpoints_that_are_not_whole_are_told() {
    let key = key();
    let whole = log(&key, 600);
    let at = place(&whole, 256) - 1;
    let mut missing = whole.clone();
    missing.remove(at);
    let report = verify(&missing, &key);
    assert_eq!(words(&report), [(What::Checkpoint, Some(256))], "{report:?}");
    let mut altered = whole.clone();
    if let Step::Checkpoint(checkpoint) = &mut altered[at] {
        checkpoint.link.0[3] ^= 1;
    }
    let report = verify(&altered, &key);
    assert_eq!(words(&report)[0], (What::Signature, Some(256)), "{report:?}");
    let mut links = whole;
    if let Step::Entry(_, link, _) = &mut links[40] {
        link.0[0] ^= 1;
    }
    let report = verify(&links, &key);
    assert_eq!(words(&report), [(What::Links, Some(40))], "{report:?}");
}

#[test]
fn keys_follow_one_another_both_ways() {
    let (one, two, stranger) = (key(), key(), key());
    let mut steps = log(&one, 256);
    let Some(Step::Checkpoint(last)) = steps.last().cloned() else { unreachable!() };
    let place = (256, last.link);
    let vouched =
        KeyStatement::sign(&LOG, place, Timestamp(1), &two, Some(one.public()), Some(&one)).unwrap();
    steps.push(Step::Entry(256, last.link, entry(257)));
    let link = next(&last.link, &digest(&entry(257)));
    steps.push(Step::Checkpoint(Checkpoint::sign(&LOG, 257, link, Timestamp(2), &two).unwrap()));
    let given = |key: &SigningKey| Trust { keys: vec![key.public()], ..Trust::default() };
    let keys = [first_key(&one), vouched];
    for trust in [given(&one), given(&two), Trust::default()] {
        let report = verify_by(&steps, &keys, trust);
        assert!(report.whole, "{report:?}");
    }
    let report = verify_by(&steps, &keys, given(&stranger));
    assert!(report.findings.iter().any(|finding| finding.what == What::UnknownKey), "{report:?}");
    // The key before was lost: whoever trusts it alone goes no further.
    let lost = KeyStatement { vouched: None, ..vouched };
    let keys = [first_key(&one), lost];
    let report = verify_by(&steps, &keys, given(&one));
    assert_eq!(words(&report)[0], (What::UnknownKey, Some(257)), "{report:?}");
    let both = Trust { keys: vec![one.public(), two.public()], ..Trust::default() };
    assert!(verify_by(&steps, &keys, both).whole);
    // A key that is out of use signs nothing.
    let Some(end) = steps.last_mut() else { unreachable!() };
    *end = Step::Checkpoint(Checkpoint::sign(&LOG, 257, link, Timestamp(2), &one).unwrap());
    let report = verify_by(&steps, &[first_key(&one), vouched], given(&one));
    assert_eq!(words(&report)[0], (What::Signature, Some(257)), "{report:?}");
}

#[test]
fn statements_are_what_they_were_signed_as() {
    let key = key();
    let place = (9, Hex([5; 32]));
    let checkpoint = Checkpoint::sign(&LOG, place.0, place.1, Timestamp(-3), &key).unwrap();
    let statement =
        KeyStatement::sign(&LOG, place, Timestamp(4), &key, Some(Hex([1; 32])), Some(&key)).unwrap();
    let prune = Prune {
        what: Pruned::Entries,
        from: 0,
        from_link: first(&LOG),
        to: 9,
        to_link: Hex([5; 32]),
        records: 4,
        first: 1,
        last: 4,
        earliest: Timestamp(1),
        latest: Timestamp(2),
        time: Timestamp(0),
        key: Hex([0; 32]),
        reason: "older than 90 days".into(),
        signature: Hex([0; 64]),
    };
    let prune = prune.sign(&LOG, Timestamp(5), &key).unwrap();
    assert!(checkpoint.is_signed(&LOG) && statement.is_signed(&LOG) && prune.is_signed(&LOG));
    assert!(!checkpoint.is_signed(&Hex([8; 16])), "another log");
    assert_eq!(Checkpoint::decode(&checkpoint.encode()), Some(checkpoint));
    assert_eq!(KeyStatement::decode(&statement.encode()), Some(statement));
    assert_eq!(Prune::decode(&prune.encode()), Some(prune.clone()));
    for bytes in [checkpoint.encode(), statement.encode(), prune.encode()] {
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let holds = Checkpoint::decode(&flipped).is_some_and(|made| made.is_signed(&LOG))
                || KeyStatement::decode(&flipped)
                    .is_some_and(|made| made.is_signed(&LOG) && made.vouched == statement.vouched)
                || Prune::decode(&flipped).is_some_and(|made| made.is_signed(&LOG));
            assert!(!holds, "byte {at} of {}", bytes.len());
        }
    }
}

#[test]
fn keys_are_read_as_they_are_written() {
    let (key, pem) = SigningKey::generate().unwrap();
    assert_eq!(SigningKey::from_pem(&pem).unwrap().public(), key.public());
    assert_eq!(PublicKey::read(&key.public().to_pem()), Ok(key.public()));
    assert_eq!(PublicKey::read(&format!("{}\n", key.public())), Ok(key.public()));
    for bad in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", pem.as_str()] {
        assert_eq!(PublicKey::read(bad), Err(KeyError::Format), "{bad}");
    }
}
