//! Types that the kernel programs and the daemon share: one layout, one meaning.
//!
//! `no_std`, no allocation, no behaviour beyond pure functions, so that all of it compiles for
//! the BPF target and is tested on the host. The feature `user` adds what only user space needs.
#![no_std]

pub mod event;
pub mod flow;
pub mod names;
pub mod pod;
pub mod rules;
pub mod settings;
pub mod subject;
pub mod tally;
pub mod verdict;
