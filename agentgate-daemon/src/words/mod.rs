//! Words: what free text is made of, and where a record has them.
//!
//! Pure. The index of `store::text` and whoever looks into a record take texts apart by the same
//! functions, so that what is looked for is found by one where the other has it.

mod address;
mod deltas;
mod needle;
mod pieces;
mod scan;
mod texts;

pub use address::Address;
pub(crate) use address::{Reach, Run};
pub use needle::{Needle, NoNeedle};
pub(crate) use pieces::pieces;
pub(crate) use scan::{Form, Token, each, is_dense};
pub use texts::{Bodies, DECODED_CAP, contains, found};
pub(crate) use texts::{Part, heads, in_body, request};
#[cfg(test)]
pub(crate) use texts::{in_bodies, in_heads};
