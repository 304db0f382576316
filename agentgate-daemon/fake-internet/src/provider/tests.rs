//! Providers against a client of its own.
