//! The filter language: no text makes it panic or exceed its caps, faults point into the text, filters that
//! are put together say what their parts said, and a value that is quoted stands for itself.
//!
//! Up to the first line feed it is one filter, after it another, which is taken for a value too.

#![no_main]

use agentgate::{
    filter::{Expression, Filter, LENGTH_CAP, TERMS_CAP, shorthand},
    model::{Authority, Fact, Host, Kind, Record, RequestHead, Timestamp},
};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn conditions(expression: &Expression) -> usize {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => parts.iter().map(conditions).sum(),
        Expression::Not(part) => conditions(part),
        Expression::Is(_) => 1,
    }
}

fn parse(text: &str) -> Option<Filter> {
    match Filter::parse(text, NOW) {
        Ok(filter) => {
            assert!(conditions(&filter.expression) <= TERMS_CAP);
            assert_eq!(Filter::parse(text, NOW).as_ref(), Ok(&filter));
            Some(filter)
        }
        Err(error) => {
            assert!(error.column >= 1 && error.length >= 1, "{error:?}");
            assert!(error.column <= text.chars().count() + 1, "{error:?}");
            assert!(error.pointed(text).lines().count() >= 1);
            None
        }
    }
}

fn exchange(target: &str) -> Record {
    let mut record = Record::new(Kind::Exchange, Timestamp(NOW.0 - 60_000_000));
    record.authority = Some(Authority { host: Host::parse("api.example").expect("a name"), port: 443 });
    record.protocol = "http/2".into();
    record.request = Some(RequestHead { method: "POST".into(), target: target.into(), ..Default::default() });
    record.facts = vec![Fact::text("model", "m-1"), Fact::integer("tokens", 512)];
    record
}

fuzz_target!(|input: &str| {
    let (one, other) = input.split_once('\n').unwrap_or((input, ""));
    let record = exchange(other.trim());
    let parts = [one, other].map(parse);
    let [says_one, says_other] =
        parts.each_ref().map(|filter| filter.as_ref().map(|filter| filter.matches(&record)));

    let joined = shorthand::joined([one, other]);
    if let (Some(one), Some(other), Some(joined)) = (says_one, says_other, parse(&joined)) {
        assert_eq!(joined.matches(&record), one && other, "{input:?}");
    }
    let exact = shorthand::exact("path", other);
    if exact.len() <= LENGTH_CAP && !other.trim().is_empty() {
        let filter = parse(&exact).unwrap_or_else(|| panic!("{exact:?} is not read"));
        assert!(filter.matches(&record), "{exact:?}");
    }
    let part = shorthand::part("path", other);
    if part.len() <= LENGTH_CAP && let Some(filter) = parse(&part) {
        assert!(filter.matches(&record), "{part:?}");
    }
});
