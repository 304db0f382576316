//! The dashboard over HTTP: who is let in, what is shown, what is changed, and that nothing hostile
//! gets through.

mod access;
mod content;
mod live;
mod seed;
mod served;
