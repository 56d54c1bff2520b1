//! Creates the container's first process: the parent's part, the child's part, and the messages
//! between them. Also creates additional processes in the container.

pub(crate) mod capabilities;
pub(crate) mod channel;
pub(crate) mod child;
pub(crate) mod command;
pub(crate) mod confinement;
pub(crate) mod exec;
pub(crate) mod hooks;
pub(crate) mod inner;
pub(crate) mod keeper;
pub(crate) mod labels;
pub(crate) mod limits;
pub(crate) mod notify;
pub(crate) mod pid_namespace;
pub(crate) mod scheduling;
pub(crate) mod settings;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod stat;
