//! Packets that the host forwards and that are no container's.

/// What becomes of forwarded packets that are no container's. They are dropped in a family whose
/// forwarding was switched on for containers, which must not make the machine a router. In a family that
/// somebody else forwards, that is not ours to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transit {
    /// Whether those of IPv4 are dropped.
    pub(crate) drop_ipv4: bool,
    /// Whether those of IPv6 are dropped.
    pub(crate) drop_ipv6: bool,
    /// Pairs of links between which they pass all the same, from the first to the second.
    pub(crate) between: Vec<(String, String)>,
}
