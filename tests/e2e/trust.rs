//! Certificates and signatures that must not be believed: every failure ends closed, and says what it is.

use roamgate::backend::message::MacVersion;
use roamgate::demo::federation::{HOME, Site, VISITED};
use roamgate::demo::zone::{Data, Manner, Signing};
use roamgate::pki::make::{Authority, RootSpec};

use crate::federation::{Street, names};

pub async fn a_certificate_of_another_root_ends_the_join() {
    let mut street = Street::open().await;
    let other = Authority::root(&RootSpec::new("Another federation"), &street.clock).unwrap();
    street.certify(VISITED, &other, |_| ()).await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    let why = street.join_in_vain(&mut walker, VISITED).await;
    assert!(why.contains("cannot reach") && why.contains("certificate"), "{why}");
    street.close().await;
}

pub async fn a_home_with_a_certificate_of_another_root_is_not_asked() {
    let mut street = Street::open().await;
    let other = Authority::root(&RootSpec::new("Another federation"), &street.clock).unwrap();
    street.certify(HOME, &other, |_| ()).await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    let why = street.join_in_vain(&mut walker, VISITED).await;
    assert!(why.contains("cannot reach") && why.contains("certificate"), "{why}");
    // at home nobody's certificate matters
    walker.carry(HOME);
    street.join(&mut walker, HOME).await;
    street.close().await;
}

pub async fn an_expired_certificate_ends_the_join() {
    let mut street = Street::open().await;
    let root = street.federation.root.clone();
    let begin = street.days_ago(3);
    street.certify(VISITED, &root, |leaf| (leaf.not_before, leaf.days) = (Some(begin), 1)).await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    let why = street.join_in_vain(&mut walker, VISITED).await;
    assert!(why.contains("cannot reach") && why.contains("expired"), "{why}");
    // a new one, and all is well
    street.certify(VISITED, &root, |_| ()).await;
    street.join(&mut walker, VISITED).await;
    street.close().await;
}

pub async fn a_forged_zone_ends_the_join() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    for signing in [Signing::Forged, Signing::Absent] {
        street.federation.zone.set_signing(signing).unwrap();
        let why = street.join_in_vain(&mut walker, VISITED).await;
        assert!(why.contains("no way to") && why.contains("bogus"), "{signing:?}: {why}");
    }
    street.close().await;
}

/// SERVFAIL, no word at all, and a name that does not exist: each is told as what it is, and none is remembered for long.
pub async fn a_zone_that_fails_keeps_silent_or_denies_ends_the_join() {
    let mut street = Street::open().await;
    let mut walker = street.device(MacVersion::V1_0_3, VISITED).await;
    for (manner, words) in [(Manner::Failing, "Server Failure"), (Manner::Silent, "in time")] {
        street.federation.zone.set_manner(manner);
        let why = street.join_in_vain(&mut walker, VISITED).await;
        assert!(why.contains("no way to") && why.contains(words), "{manner:?}: {why}");
        // what the resolver remembers of it goes with the restart
        street.restart(VISITED, |_| ()).await;
    }
    street.federation.zone.set_manner(Manner::Prompt);
    let at =
        |site: Site| names(site.net_id, site.join_eui).map(|name| (name, Data::Address(site.address.into())));
    // its join server is there, its network is not
    let [_, join_server] = at(HOME);
    street.federation.zone.set_records([at(VISITED).to_vec(), vec![join_server]].concat()).unwrap();
    let why = street.join_in_vain(&mut walker, VISITED).await;
    assert!(why.contains("no way to") && why.contains("has no address"), "{why}");
    street.federation.zone.set_records([at(HOME), at(VISITED)].concat()).unwrap();
    street.restart(VISITED, |_| ()).await;
    street.join(&mut walker, VISITED).await;
    street.close().await;
}
