//! The host API and the machine's keys.
