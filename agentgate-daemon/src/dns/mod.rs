//! The agents' resolver: names are judged before they are asked for, and what an agent was told is kept.

mod answers;

pub use answers::Answers;
