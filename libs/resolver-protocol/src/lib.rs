//! What hostd and the resolver of containers say to each other: the messages and how they are framed.
//! Nothing in this crate reads or writes anything.
