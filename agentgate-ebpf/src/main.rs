//! The cgroup programs.
#![no_std]
#![no_main]
