//! Who may roam how, as the configuration says it, and where each would be found.

use crate::config::Config;
use crate::control::{Everybody, PartnerView, PartnersView, Whereabouts};
use crate::discovery::name::net_id_name;
use crate::lorawan::NetId;
use crate::partners::{self, Version};
use crate::pki::dane::Evidence;

/// Every network with an entry, in the order of the file; then those that join servers have named (`learnt`,
/// known while a node runs).
pub fn all(config: &Config, learnt: Option<&[NetId]>) -> PartnersView {
    let listed = config.roaming.partner.iter().map(|partner| partner.net_id);
    let others = learnt.unwrap_or_default().iter().copied().filter(|net_id| {
        config.roaming.partner(*net_id).is_none() && !config.network.net_ids.contains(*net_id)
    });
    let partners = listed.chain(others).map(|net_id| one(config, net_id, learnt)).collect();
    let partners::Rules { passive, handover, .. } = config.roaming.default.clone().unwrap_or_default();
    let decided_by = match &config.roaming.default {
        Some(_) => "[roaming.default]",
        None => "there is no [roaming.default]",
    };
    PartnersView { partners, everybody_else: Everybody { passive, handover, decided_by: decided_by.into() } }
}

/// Whose word counts for the certificate of a partner whose entry does not say.
pub fn evidence(config: &Config) -> Evidence {
    config.discovery.as_ref().map_or(Evidence::Pkix, |discovery| discovery.dane.evidence())
}

/// What applies to one network, and where it would be found.
pub fn one(config: &Config, net_id: NetId, learnt: Option<&[NetId]>) -> PartnerView {
    let (agreement, entry) = (config.roaming.agreement(net_id), config.roaming.partner(net_id));
    let suffix = config.discovery.clone().unwrap_or_default().net_id_suffix;
    let name = net_id_name(net_id, &suffix);
    let ours = config.network.net_ids.contains(net_id);
    let server = match (entry.and_then(|entry| entry.server.clone()), &config.discovery) {
        _ if ours => Whereabouts::Nowhere { why: "it is this network".into() },
        _ if config.backend.is_none() => {
            Whereabouts::Nowhere { why: "there is no [backend], so nobody can be asked".into() }
        }
        (Some(url), _) => Whereabouts::Configuration { url },
        (None, Some(_)) => Whereabouts::Dns { name: name.clone(), answer: None },
        (None, None) => {
            let why = "there is no [discovery], and no [[roaming.partner]] with a server for it";
            Whereabouts::Nowhere { why: why.into() }
        }
    };
    let rules = if ours { Default::default() } else { agreement.rules };
    let speakers = config.roaming.partner.iter().filter(|partner| partner.speaks_for.contains(&net_id));
    PartnerView {
        net_id,
        ours,
        listed: entry.is_some(),
        trust: entry.and_then(|entry| entry.trust).unwrap_or_else(|| evidence(config)),
        passive: rules.passive,
        handover: rules.handover,
        airtime: rules.airtime,
        ul: rules.ul,
        dl: rules.dl,
        decided_by: if ours { "[network] net_ids".into() } else { agreement.line },
        server,
        identity: entry.and_then(|entry| entry.identity.clone()).unwrap_or(name),
        pin: entry.and_then(|entry| entry.pin.clone()),
        asked_in: match (entry.map(|entry| entry.version).unwrap_or_default(), config.network.ns_id) {
            (Version::V1_1, _) => "1.1",
            (Version::Auto, Some(_)) => "1.1, or 1.0 if it does not understand that",
            (Version::V1_0, _) | (Version::Auto, None) => "1.0",
        }
        .into(),
        quirks: entry.map(|entry| entry.quirks.clone()).unwrap_or_default(),
        mode: entry.map(|entry| entry.mode).unwrap_or_default(),
        own_roots: entry.is_some_and(|entry| !entry.roots.is_empty()),
        kek: entry.and_then(|entry| Some(entry.kek.as_ref()?.label.clone())),
        speaks_for: entry.map(|entry| entry.speaks_for.clone()).unwrap_or_default(),
        spoken_for_by: speakers.map(|partner| partner.net_id).collect(),
        learnt: learnt.map(|learnt| learnt.contains(&net_id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const FILE: &str = r#"
        [network]
        net_ids = ["C00ABC"]
        [backend]
        identity = { chain = "chain.pem", key = "key.pem" }
        roots = ["root.pem"]
        [discovery]
        net_id_suffix = "netids.iotroam.example"
        [roaming.default]
        passive = { start = true, activation = true }
        [[roaming.partner]]
        net_id = "C0002F"
        passive = { start = true }
        server = "https://ns.partner.example:7005"
        identity = "ns.partner.example"
        speaks_for = ["00050A"]
        [[roaming.partner]]
        net_id = "C00030"
    "#;

    fn net(text: &str) -> NetId {
        text.parse().unwrap()
    }

    fn config(text: &str) -> Config {
        parse(None, text.into(), std::iter::empty()).unwrap().config
    }

    #[test]
    fn an_entry_decides_for_its_network_and_the_default_for_all_others() {
        let config = config(FILE);
        let listed = one(&config, net("C0002F"), None);
        assert_eq!((listed.passive.start, listed.passive.activation), (true, false));
        assert_eq!(listed.decided_by, "[[roaming.partner]] net_id = \"C0002F\"");
        assert_eq!(
            listed.server,
            Whereabouts::Configuration { url: "https://ns.partner.example:7005".into() }
        );
        assert_eq!((&*listed.identity, listed.speaks_for), ("ns.partner.example", vec![net("00050A")]));
        assert_eq!((&*listed.asked_in, listed.own_roots), ("1.0", false));
        let newer = FILE.replace("[network]", "[network]\nns_id = \"70B3D57ED0000A02\"");
        let asked_in = |text: &str| one(&self::config(text), net("C0002F"), None).asked_in;
        assert!(asked_in(&newer).starts_with("1.1, or 1.0"));
        assert_eq!(asked_in(&newer.replace("server =", "version = \"1.1\"\nserver =")), "1.1");
        // an entry that allows nothing is a refusal, not a gap for the default
        let refused = one(&config, net("C00030"), None);
        assert_eq!((refused.listed, refused.passive), (true, Default::default()));
        let other = one(&config, net("00050A"), Some(&[net("00050A")]));
        assert_eq!((other.listed, &*other.decided_by), (false, "[roaming.default]"));
        assert!(other.passive.start && other.passive.activation);
        assert_eq!(
            other.server,
            Whereabouts::Dns { name: "00050a.netids.iotroam.example".into(), answer: None }
        );
        assert_eq!((other.learnt, other.spoken_for_by), (Some(true), vec![net("C0002F")]));
    }

    #[test]
    fn homes_that_were_learnt_follow_those_that_are_listed() {
        let config = config(FILE);
        let view = all(&config, Some(&[net("00050A"), net("C0002F"), net("C00ABC")]));
        let shown: Vec<_> = view.partners.iter().map(|partner| (partner.net_id, partner.listed)).collect();
        assert_eq!(shown, [(net("C0002F"), true), (net("C00030"), true), (net("00050A"), false)]);
        assert!(view.everybody_else.passive.start);
    }

    #[test]
    fn whoever_cannot_be_asked_says_why() {
        let alone = config("");
        let view = one(&alone, net("C0002F"), None);
        assert!(view.decided_by.starts_with("no [roaming.default]"));
        assert!(matches!(view.server, Whereabouts::Nowhere { why } if why.contains("[backend]")));
        let ours = one(&config(FILE), net("C00ABC"), None);
        assert!(ours.ours && matches!(ours.server, Whereabouts::Nowhere { .. }));
    }
}
