//! Formats within bodies and upgraded connections, parsed as their bytes pass.
