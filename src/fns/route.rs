//! Which networks may be home to a data frame (TS002 3.2). Pure.

use crate::lorawan::{DevAddr, NetId};
use crate::partners;

/// Networks asked about one frame at most: types 3 to 7 share address ranges.
const CANDIDATES: usize = 8;

/// Candidates in order: listed partners, homes learnt from joins, and the network that an address of
/// type 0 to 2 names, wherever our rules let a visitor of theirs talk. `ours` never roams.
pub fn abroad(addr: DevAddr, partners: &partners::Config, learned: &[NetId], ours: &[NetId]) -> Vec<NetId> {
    let listed = partners.partner.iter().map(|partner| partner.net_id);
    let mut found = Vec::new();
    for net_id in listed.chain(learned.iter().copied()).chain(addr.net_id()) {
        let fits = net_id.covers(addr) && !ours.contains(&net_id) && !found.contains(&net_id);
        if fits && partners.agreement(net_id).passive.start {
            found.push(net_id);
        }
    }
    found.truncate(CANDIDATES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> NetId {
        text.parse().unwrap()
    }

    fn config(toml: &str) -> partners::Config {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_type_0_address_names_its_network_where_the_default_lets_it_in() {
        let open = config("[default]\npassive = { start = true, activation = true }");
        let addr = net("000001").dev_addr(5);
        assert_eq!(abroad(addr, &open, &[], &[net("000000")]), [net("000001")]);
        assert_eq!(abroad(addr, &config(""), &[], &[net("000000")]), []);
        assert_eq!(abroad(addr, &open, &[], &[net("000001")]), []);
    }

    #[test]
    fn networks_that_share_a_range_are_all_asked_and_listed_ones_first() {
        let rules = "[default]\npassive = { start = true }\n[[partner]]\nnet_id = \"600801\"\npassive = { start = true }";
        let learned = [net("600001"), net("600801"), net("C0002F")];
        let addr = net("600001").dev_addr(9);
        assert_eq!(abroad(addr, &config(rules), &learned, &[]), [net("600801"), net("600001")]);
    }

    #[test]
    fn a_listed_partner_whose_data_does_not_roam_is_not_asked() {
        let rules = "[default]\npassive = { start = true }\n[[partner]]\nnet_id = \"000001\"";
        assert_eq!(abroad(net("000001").dev_addr(5), &config(rules), &[], &[]), []);
    }
}
