//! Full text: which records may hold words.

mod find;
mod format;
mod needle;
mod segment;
mod set;
mod words;

#[cfg(test)]
mod tests;

pub use needle::{Needle, NoNeedle};
