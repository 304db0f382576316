//! Origins for tests.
