//! Header fields as a record keeps them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names and values in the order they came, with repeats. All text is in one piece: a record with thirty
/// fields costs two allocations, not sixty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderFields {
    text: String,
    /// Where each name and its value end in it.
    ends: Vec<(u32, u32)>,
}

impl HeaderFields {
    /// None yet, with room for `fields` of `bytes` in all.
    #[must_use]
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(fields) }
    }

    /// One more; `value` appends its text.
    pub fn push_with(&mut self, name: &str, value: impl FnOnce(&mut String)) {
        self.text.push_str(name);
        let name = self.end();
        value(&mut self.text);
        self.ends.push((name, self.end()));
    }

    /// One more.
    pub fn push(&mut self, name: &str, value: &str) {
        self.push_with(name, |text| text.push_str(value));
    }

    fn end(&self) -> u32 {
        // What a record holds of a head is far smaller.
        u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    /// Names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.ends.iter().enumerate().map(|(index, (name, value))| {
            let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| end.1);
            let part = |from: u32, to: u32| self.text.get(from as usize..to as usize).unwrap_or_default();
            (part(start, *name), part(*name, *value))
        })
    }

    /// The first value of a name, in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keeps the first `fields`.
    pub fn truncate(&mut self, fields: usize) {
        self.ends.truncate(fields);
        self.text.truncate(self.ends.last().map_or(0, |end| end.1) as usize);
    }
}

impl fmt::Debug for HeaderFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for HeaderFields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut made = Self::default();
        for (name, value) in fields {
            made.push(name.as_ref(), value.as_ref());
        }
        made
    }
}

impl<N: AsRef<str>, V: AsRef<str>> From<Vec<(N, V)>> for HeaderFields {
    fn from(fields: Vec<(N, V)>) -> Self {
        fields.into_iter().collect()
    }
}

impl Serialize for HeaderFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for HeaderFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<(String, String)>::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_what_was_put_in() {
        let rows = vec![("a", "1"), ("", ""), ("B", "zwei ü"), ("a", "")];
        let mut fields = HeaderFields::from(rows.clone());
        assert_eq!(fields.iter().collect::<Vec<_>>(), rows);
        assert_eq!((fields.get("b"), fields.get("c"), fields.len()), (Some("zwei ü"), None, 4));
        let text = serde_json::to_string(&fields).unwrap();
        assert_eq!(text, r#"[["a","1"],["",""],["B","zwei ü"],["a",""]]"#);
        assert_eq!(serde_json::from_str::<HeaderFields>(&text).unwrap(), fields);
        fields.truncate(2);
        fields.push("c", "3");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("a", "1"), ("", ""), ("c", "3")]);
    }
}
