//! Reading of the host configuration from its layers.
