//! The kernel's packet filter: tables, chains, rules, sets and their elements, changed in one
//! transaction through nf_tables netlink.
