//! Times as people write them.

use jiff::{Span, SpanRelativeTo, civil::Date, tz::TimeZone};

use crate::model::Timestamp;

/// What is expected where a time is.
pub(super) const EXPECTED: &str =
    "a time span such as 15m, 2h or 7d, or a time such as 2026-11-20 or 2026-11-20T08:00:00Z";

/// A span before `now` (days have 24 hours), a day (its beginning, UTC), or a time.
pub(super) fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(time.as_microsecond()));
    }
    // A date first: a span begins with neither a year nor dashes.
    if text.len() == 10
        && let Ok(day) = text.parse::<Date>()
    {
        let time = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
        return Some(Timestamp(time.as_microsecond()));
    }
    if text.starts_with('-') || text.starts_with('+') {
        return None;
    }
    let span: Span = text.parse().ok()?;
    let back = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    if back.is_negative() {
        return None;
    }
    let now = jiff::Timestamp::from_microsecond(now.0).ok()?;
    Some(Timestamp(now.checked_sub(back).ok()?.as_microsecond()))
}
