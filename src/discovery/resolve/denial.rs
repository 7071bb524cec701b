//! Names that cannot exist: what validated NSEC records say of the gaps between names (RFC 8198).
//!
//! The name of a device contains its DevEUI, so no earlier answer is about it; but the proof that another device had no
//! name of its own mostly says that none between two names has one. Pure: `now` comes from outside. Only records that
//! were validated come in here. Called by [`super::ask`] only.

use std::collections::BTreeMap;
use std::time::Duration;

use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::super::cache::{Security, Trouble, Worth};
use crate::clock::Instant;

/// Gaps remembered at most; then all are forgotten.
const MOST: usize = 1024;

/// The gaps of each zone, by the name in front of them, in the canonical order of RFC 4034 6.1.
#[derive(Debug, Default)]
pub(super) struct Denials(BTreeMap<Name, BTreeMap<Name, Gap>>);

#[derive(Debug)]
struct Gap {
    /// The name behind it; the zone's apex behind the last.
    next: Name,
    /// Below the name in front, this zone has nothing to say: it is delegated, or all of it is somewhere else (RFC 6840 4.1).
    cut: bool,
    until: Instant,
    /// Seconds since 1970.
    signed_until: Option<u64>,
}

impl Denials {
    /// Learn from the authority section of a denial whose proof is good. `ttl` and `signed_until` as for the denial itself.
    pub fn learn(&mut self, authorities: &[Record], ttl: Duration, signed_until: Option<u64>, now: Instant) {
        for (record, nsec) in authorities.iter().filter_map(secure_nsec) {
            let Some(apex) = signer(authorities, &record.name) else { continue };
            if !apex.zone_of(&record.name) || !apex.zone_of(nsec.next_domain_name()) {
                continue;
            }
            if self.0.values().map(BTreeMap::len).sum::<usize>() >= MOST {
                self.0.clear();
            }
            let types: Vec<RecordType> = nsec.type_bit_maps().collect();
            let has = |kind| types.contains(&kind);
            let gap = Gap {
                next: nsec.next_domain_name().clone(),
                cut: (has(RecordType::NS) && !has(RecordType::SOA)) || has(RecordType::DNAME),
                until: now + ttl.min(Duration::from_secs(record.ttl.into())),
                signed_until,
            };
            self.0.entry(apex.clone()).or_default().insert(record.name.clone(), gap);
        }
    }

    /// The denial that follows for a name, if one does: neither it nor a wildcard that could stand for it exists.
    pub fn deny(&self, name: &Name, now: Instant, wall: u64) -> Option<Trouble> {
        self.0.iter().find_map(|(apex, gaps)| {
            if !apex.zone_of(name) {
                return None;
            }
            let (owner, gap) = covering(gaps, name, now, wall)?;
            let mut encloser = name.base_name();
            while !encloser.zone_of(owner) && !encloser.zone_of(&gap.next) {
                encloser = encloser.base_name();
            }
            if !apex.zone_of(&encloser) {
                return None;
            }
            let wildcard = encloser.prepend_label("*").ok()?;
            let (_, other) = covering(gaps, &wildcard, now, wall)?;
            let ttl = gap.until.min(other.until).saturating_duration_since(now);
            let ends = [gap.signed_until, other.signed_until].into_iter().flatten();
            Some(Trouble::Missing(Worth { security: Security::Secure, ttl, signed_until: ends.min() }))
        })
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The gap that a name lies in, with the name in front of it.
fn covering<'a>(
    gaps: &'a BTreeMap<Name, Gap>,
    name: &Name,
    now: Instant,
    wall: u64,
) -> Option<(&'a Name, &'a Gap)> {
    let (owner, gap) = gaps.range::<Name, _>(..=name).next_back()?;
    let fresh = gap.until > now && gap.signed_until.is_none_or(|end| end > wall);
    // the last name of a zone leads back to the first
    let inside = owner != name && (name < &gap.next || &gap.next <= owner);
    // a name with names below it exists, although it has no records
    let exists = name.zone_of(&gap.next);
    (fresh && inside && !exists && !(gap.cut && owner.zone_of(name))).then_some((owner, gap))
}

fn secure_nsec(record: &Record) -> Option<(&Record, &NSEC)> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) if record.proof == Proof::Secure => Some((record, nsec)),
        _ => None,
    }
}

/// Who signed the NSEC record of a name: the apex of its zone.
fn signer<'a>(authorities: &'a [Record], owner: &Name) -> Option<&'a Name> {
    authorities.iter().find_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(rrsig))
            if record.name == *owner
                && record.proof == Proof::Secure
                && rrsig.input().type_covered == RecordType::NSEC
                // of a wildcard's expansion, which proves nothing here
                && rrsig.input().num_labels == owner.num_labels() =>
        {
            Some(&rrsig.input().signer_name)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_800_000_000;

    fn name(text: &str) -> Name {
        let mut name = Name::from_ascii(text).unwrap();
        name.set_fqdn(true);
        name
    }

    /// Gaps of `example`: from, to, whether the first is delegated.
    fn denials(gaps: &[(&str, &str, bool)], now: Instant) -> Denials {
        let gap = |(from, to, cut): &(&str, &str, bool)| {
            let until = now + Duration::from_secs(30);
            (name(from), Gap { next: name(to), cut: *cut, until, signed_until: Some(WALL + 20) })
        };
        Denials(BTreeMap::from([(name("example"), gaps.iter().map(gap).collect())]))
    }

    fn denied(denials: &Denials, what: &str, now: Instant) -> bool {
        denials.deny(&name(what), now, WALL).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_between_two_names_does_not_exist_and_nor_does_what_is_below_the_first() {
        let now = Instant::now();
        let denials = denials(&[("example", "b.example", false), ("b.example", "d.example", false)], now);
        for missing in ["a.example", "x.a.example", "c.example", "C.Example", "9.8.b.example"] {
            assert!(denied(&denials, missing, now), "{missing}");
        }
        for other in ["example", "b.example", "d.example", "e.example", "c.elsewhere"] {
            assert!(!denied(&denials, other, now), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_gap_of_a_zone_leads_back_to_its_apex() {
        let now = Instant::now();
        let denials = denials(&[("example", "b.example", false), ("b.example", "example", false)], now);
        assert!(denied(&denials, "c.example", now));
        assert!(!denied(&denials, "c.other", now));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_denied_for_which_a_wildcard_may_stand_or_of_which_another_zone_speaks() {
        let now = Instant::now();
        let only = denials(&[("b.example", "d.example", false)], now);
        assert!(!denied(&only, "c.example", now), "nothing is known of *.example");
        assert!(denied(&only, "c.b.example", now), "*.b.example lies in the same gap");
        let wildcard = [("example", "*.example", false), ("*.example", "z.example", false)];
        assert!(!denied(&denials(&wildcard, now), "c.example", now));
        let cut = [("example", "b.example", false), ("b.example", "d.example", true)];
        assert!(denied(&denials(&cut, now), "c.example", now));
        assert!(!denied(&denials(&cut, now), "c.b.example", now), "delegated");
        let between = [("example", "x.b.example", false)];
        assert!(!denied(&denials(&between, now), "b.example", now), "it exists, with nothing but x below it");
        assert!(denied(&denials(&between, now), "a.example", now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_believed_no_longer_than_its_ttl_and_its_signature() {
        let now = Instant::now();
        let denials = denials(&[("example", "b.example", false)], now);
        let missing = Trouble::Missing(Worth {
            security: Security::Secure,
            ttl: Duration::from_secs(20),
            signed_until: Some(WALL + 20),
        });
        assert_eq!(denials.deny(&name("a.example"), now + Duration::from_secs(10), WALL + 10), Some(missing));
        assert_eq!(denials.deny(&name("a.example"), now + Duration::from_secs(30), WALL), None);
        assert_eq!(denials.deny(&name("a.example"), now, WALL + 20), None);
    }
}
