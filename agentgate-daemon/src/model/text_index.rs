//! What free text is indexed.

use serde::{Deserialize, Serialize};

/// Of what of a record an index of words is kept. What is not indexed is looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextIndex {
    /// URLs, hosts, headers, notes, and bodies as they are decoded.
    #[default]
    Bodies,
    /// The same without bodies, which are not searched then.
    Heads,
    /// Nothing.
    Off,
}
