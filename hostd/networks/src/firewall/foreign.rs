//! What other tables do to containers' packets.

use keelson_nftables::{BaseChain, Policy, Table};

/// The kernel's number of the hook that containers' packets pass (forward).
const FORWARD: u32 = 2;

/// Returns a text for each other chain whose policy is drop. Rules that drop are not searched for,
/// and neither are the tables of the older iptables.
pub(super) fn warnings(chains: &[BaseChain], own: Table) -> Vec<String> {
    let dropping = chains.iter().filter(|chain| {
        let is_own = chain.table == own.name && chain.family == own.family;
        chain.hook == FORWARD && chain.policy == Policy::Drop && !is_own
    });
    dropping
        .map(|chain| {
            let family = chain.family.as_str();
            let BaseChain { table, name, .. } = chain;
            format!(
                "chain {name} of nftables' table {family} {table} drops forwarded packets by its policy: \
                 containers may be cut off and published ports unreachable, whatever the engine accepts; \
                 accept packets to and from the bridges of networks there, or change it with: \
                 nft 'chain {family} {table} {name} {{ policy accept; }}'"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use keelson_nftables::Family;

    use super::*;
    use crate::firewall::table::TABLE;

    #[test]
    fn chains_that_drop_by_policy_are_reported() {
        let chain = |family, table: &str, hook, policy| BaseChain {
            family,
            table: table.to_owned(),
            name: "FORWARD".to_owned(),
            hook,
            priority: 0,
            policy,
        };
        let chains = [
            chain(Family::Ipv4, "filter", FORWARD, Policy::Drop),
            chain(Family::Ipv6, "filter", FORWARD, Policy::Accept),
            chain(Family::Ipv4, "filter", 1, Policy::Drop),
            chain(Family::Inet, "keelson", FORWARD, Policy::Drop),
        ];
        let found = warnings(&chains, TABLE);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("chain FORWARD of nftables' table ip filter"));
    }
}
