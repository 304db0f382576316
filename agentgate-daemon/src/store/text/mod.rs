//! Full text: which records may hold words.

mod find;
mod format;
mod segment;
mod set;

#[cfg(test)]
mod tests;
