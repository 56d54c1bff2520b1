//! System services that run as containers.
