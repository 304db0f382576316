//! Numbers and what is asked of them: `500`, `5xx`, `>=400`, `400..499`.

/// A range of numbers, both ends included; nothing lies in it where `low` is above `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub low: i128,
    pub high: i128,
}

impl Bounds {
    /// This number.
    #[must_use]
    pub fn exactly(number: impl Into<i128>) -> Self {
        let number = number.into();
        Self { low: number, high: number }
    }

    /// This number or more.
    #[must_use]
    pub fn from(number: impl Into<i128>) -> Self {
        Self { low: number.into(), high: i128::MAX }
    }

    /// Less than this number.
    #[must_use]
    pub fn below(number: impl Into<i128>) -> Self {
        Self { low: i128::MIN, high: number.into().saturating_sub(1) }
    }

    /// Whether it lies within.
    #[must_use]
    pub fn holds(&self, number: impl Into<i128>) -> bool {
        (self.low..=self.high).contains(&number.into())
    }

    /// The numbers of 64 bits within; `None` where there are none.
    #[must_use]
    pub fn within_u64(&self) -> Option<(u64, u64)> {
        if self.low > self.high || self.high < 0 {
            return None;
        }
        let low = u64::try_from(self.low.max(0)).ok()?;
        Some((low, u64::try_from(self.high).unwrap_or(u64::MAX)))
    }

    /// Reads a comparison, each of its numbers by `one`.
    pub(super) fn parse(text: &str, one: impl Fn(&str) -> Option<i128>) -> Option<Self> {
        if let Some((low, high)) = text.split_once("..") {
            let low = if low.is_empty() { i128::MIN } else { one(low)? };
            let high = if high.is_empty() { i128::MAX } else { one(high)? };
            return Some(Self { low, high });
        }
        let compared = |sign: &str| text.strip_prefix(sign).map(|rest| one(rest.trim_start()));
        if let Some(number) = compared(">=") {
            return Some(Self { low: number?, high: i128::MAX });
        }
        if let Some(number) = compared("<=") {
            return Some(Self { low: i128::MIN, high: number? });
        }
        if let Some(number) = compared(">") {
            return Some(Self { low: number?.saturating_add(1), high: i128::MAX });
        }
        if let Some(number) = compared("<") {
            return Some(Self::below(number?));
        }
        one(text.strip_prefix('=').unwrap_or(text)).map(Self::exactly)
    }
}

/// A number without sign or unit.
pub(super) fn count(text: &str) -> Option<i128> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<u64>().ok().map(i128::from)
    } else {
        None
    }
}

/// A number with up to 6 decimals, in millionths.
pub(super) fn micros(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if fraction.is_empty() || fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { count(whole)? };
    let fraction: i128 = format!("{fraction:0<6}").parse().ok()?;
    Some(sign * (whole * 1_000_000 + fraction))
}

/// An amount of bytes: `200`, `10k`, `1.5MB` (thousands), `1MiB` (1024s).
pub(super) fn bytes(text: &str) -> Option<i128> {
    let (number, unit) = split_unit(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    Some(positive(number)? * factor / 1_000_000)
}

/// A length of time in microseconds: `2s`, `500ms`, `1.5m`, `1h`; a bare number is milliseconds.
pub(super) fn duration(text: &str) -> Option<i128> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "us" | "µs" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    Some(positive(number)? * factor / 1_000_000)
}

fn positive(text: &str) -> Option<i128> {
    if text.is_empty() { None } else { micros(text).filter(|number| *number >= 0) }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(text.len());
    text.split_at(end)
}

/// An HTTP status, or `5xx` for all that begin alike.
pub(super) fn statuses(text: &str) -> Option<Bounds> {
    let class = text.to_ascii_lowercase();
    if let Some(first) = class.strip_suffix("xx") {
        let first = count(first).filter(|first| (1..=9).contains(first))?;
        return Some(Bounds { low: first * 100, high: first * 100 + 99 });
    }
    Bounds::parse(text, |text| if text.is_empty() { None } else { count(text) })
}
