//! The product's own sources of what a word is.

#[path = "../../../src/words/address.rs"]
mod address;
#[path = "../../../src/words/needle.rs"]
mod needle;
#[path = "../../../src/words/scan.rs"]
mod scan;

pub use address::Address;
pub(crate) use address::Reach;
pub use needle::Needle;
pub(crate) use scan::{Form, Token, each, is_dense};
