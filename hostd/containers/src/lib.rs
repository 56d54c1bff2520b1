//! The container engine: life cycle, shims, logs, events.
