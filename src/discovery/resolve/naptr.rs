//! What NAPTR and SRV records say of where to look next, and whom to try first (RFC 3403, RFC 2782, TS002 section 19).
//!
//! Pure: chance comes from outside. Called by [`super::ways`] only.

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::{NAPTR, SRV};
use regex::RegexBuilder;
use url::{Host, Url};

use super::ask::text;

/// Records of one set that are looked at; a set of more is not a server's but an attack.
pub(super) const MOST_RECORDS: usize = 16;
/// A regexp field is shorter than 256 bytes, and so is what a pattern may become.
const MOST_PATTERN: usize = 64 * 1024;

/// Where one NAPTR record leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Flag S: SRV records.
    Srv(Name),
    /// Flag A: addresses, at the port of HTTPS.
    Addresses(Name),
    /// Flag U: there.
    Uri(Place),
    /// Flag P, or none: NAPTR records.
    Again(Name),
}

/// What a URI names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A name without final dot, or an address.
    pub host: Host<String>,
    /// Of TCP.
    pub port: u16,
    /// With its query.
    pub path: String,
}

/// Where these records of `asked` lead: in the order of order and preference, and by lot where they are equal.
/// The words are for people: what was dropped, and why.
pub(super) fn steps(
    asked: &Name,
    records: &[NAPTR],
    chance: &mut dyn FnMut(u32) -> u32,
) -> (Vec<Step>, Vec<String>) {
    let mut dropped = Vec::new();
    let mut usable = Vec::new();
    for record in records.iter().take(MOST_RECORDS) {
        match step(asked, record) {
            Ok(step) => usable.push(((record.order, record.preference), 1, step)),
            Err(why) => dropped.push(format!("NAPTR {} {}: {why}", record.order, record.preference)),
        }
    }
    (in_order(usable, chance), dropped)
}

/// The SRV records of a name in the order in which they are to be tried; a target that is the root is no service.
pub(super) fn targets(records: &[SRV], chance: &mut dyn FnMut(u32) -> u32) -> Vec<(Name, u16)> {
    let records = records.iter().take(MOST_RECORDS).filter(|record| !record.target.is_root());
    let ranked = records.map(|record| {
        // one of weight 0 beside others is to be drawn now and then, not never
        let weight = u32::from(record.weight) * 100;
        (record.priority, weight.max(1), (record.target.clone(), record.port))
    });
    in_order(ranked.collect(), chance)
}

/// The lowest rank first; among equals again and again one by lot, with a probability in proportion to its weight.
/// `chance(n)` is one of 0 to n - 1.
fn in_order<R: Ord + Copy, T>(mut items: Vec<(R, u32, T)>, chance: &mut dyn FnMut(u32) -> u32) -> Vec<T> {
    let mut order = Vec::with_capacity(items.len());
    while let Some(first) = items.iter().map(|(rank, ..)| *rank).min() {
        let equal = |rank: &R| *rank == first;
        let all = items.iter().filter(|(rank, ..)| equal(rank)).map(|(_, weight, _)| weight).sum();
        let mut left = chance(all);
        let drawn = items.iter().position(|(rank, weight, _)| match equal(rank) {
            true if left < *weight => true,
            true => {
                left -= weight;
                false
            }
            false => false,
        });
        let Some(drawn) = drawn else { break };
        order.push(items.remove(drawn).2);
    }
    order
}

fn step(asked: &Name, record: &NAPTR) -> Result<Step, String> {
    let service = String::from_utf8_lossy(&record.services).to_ascii_uppercase();
    match service.as_str() {
        "LWNS" => (),
        "LWN" => return Err("its service LWN is HTTP without TLS".into()),
        other => return Err(format!("its service {other:?} is not LWNS")),
    }
    let flags = String::from_utf8_lossy(&record.flags).to_ascii_uppercase();
    match flags.as_str() {
        "S" => Ok(Step::Srv(record.replacement.clone())),
        "A" => Ok(Step::Addresses(record.replacement.clone())),
        "P" | "" => Ok(Step::Again(record.replacement.clone())),
        "U" => uri(&text(asked), &String::from_utf8_lossy(&record.regexp)).map(Step::Uri),
        other => Err(format!("its flag {other:?} is none of S, A, U and P")),
    }
}

/// The place that the regexp field of a record with flag U makes of a name without final dot; in words what is wrong with it.
pub fn uri(asked: &str, regexp: &str) -> Result<Place, String> {
    place(&substituted(asked, regexp)?)
}

/// Apply `delimiter pattern delimiter replacement delimiter flags` (RFC 3402 section 3.2) to a name.
fn substituted(name: &str, field: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("its regexp {field:?} {why}");
    let mut chars = field.chars();
    let delimiter = chars.next().filter(|c| !c.is_ascii_digit() && !matches!(c, '\\' | 'i' | 'I'));
    let delimiter = delimiter.ok_or_else(|| wrong("has no delimiter"))?;
    let mut parts = vec![String::new()];
    while let Some(c) = chars.next() {
        let Some(part) = parts.last_mut() else { break };
        match c {
            '\\' => match chars.next() {
                Some(next) if next == delimiter => part.push(next),
                next => part.extend(std::iter::once('\\').chain(next)),
            },
            c if c == delimiter => parts.push(String::new()),
            c => part.push(c),
        }
    }
    let [pattern, replacement, flags] = parts.as_slice() else {
        return Err(wrong("has not three delimiters"));
    };
    if !matches!(flags.as_str(), "" | "i" | "I") {
        return Err(wrong("has a flag other than i"));
    }
    let pattern =
        RegexBuilder::new(pattern).case_insensitive(!flags.is_empty()).size_limit(MOST_PATTERN).build();
    let pattern = pattern.map_err(|_| wrong("has no pattern that we understand"))?;
    let found = pattern.captures(name).ok_or_else(|| wrong("does not fit the name"))?;
    let mut result = String::new();
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(digit @ '1'..='9')) => {
                chars.next();
                let group = digit.to_digit(10).and_then(|n| found.get(n as usize));
                result.push_str(group.map_or("", |group| group.as_str()));
            }
            ('\\', Some(other)) => {
                chars.next();
                result.push(other);
            }
            (c, _) => result.push(c),
        }
    }
    Ok(result)
}

fn place(uri: &str) -> Result<Place, String> {
    let wrong = |why: &str| format!("its URI {uri:?} {why}");
    let url = Url::parse(uri).map_err(|err| wrong(&format!("is none: {err}")))?;
    if url.scheme() != "https" {
        return Err(wrong("is not https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("names a user"));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => Host::Domain(name.trim_end_matches('.').to_ascii_lowercase()),
        Some(Host::Ipv4(address)) => Host::Ipv4(address),
        Some(Host::Ipv6(address)) => Host::Ipv6(address),
        None => return Err(wrong("has no host")),
    };
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(Place {
        host,
        port: url.port_or_known_default().unwrap_or(443),
        path: format!("{}{query}", url.path()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        let mut name = Name::from_ascii(text).unwrap();
        name.set_fqdn(true);
        name
    }
    fn naptr(order: u16, preference: u16, flags: &str, service: &str, regexp: &str, to: &str) -> NAPTR {
        let bytes = |text: &str| text.as_bytes().into();
        NAPTR::new(order, preference, bytes(flags), bytes(service), bytes(regexp), name(to))
    }
    fn asked() -> Name {
        name("00050a.netids.iotroam.example")
    }
    /// Always the first.
    fn first(_: u32) -> u32 {
        0
    }
    fn uri(regexp: &str) -> Result<String, String> {
        match step(&asked(), &naptr(1, 1, "u", "lwns", regexp, "."))? {
            Step::Uri(Place { host, port, path }) => Ok(format!("{host} {port} {path}")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_specification_keeps_what_is_https() {
        let records = [
            naptr(100, 50, "S", "LWN", "", "_LWN._X2H.operator.example"),
            naptr(90, 50, "S", "LWNS", "", "_LWNS._J2H.operator.example"),
            naptr(50, 50, "S", "LWN", "", "_LWN._B2H.operator.example"),
        ];
        let (steps, dropped) = steps(&asked(), &records, &mut first);
        assert_eq!(steps, [Step::Srv(name("_LWNS._J2H.operator.example"))]);
        assert_eq!(dropped.len(), 2);
        assert!(dropped.iter().all(|why| why.contains("without TLS")), "{dropped:?}");
    }

    #[test]
    fn order_counts_before_preference_and_flags_and_services_have_any_case() {
        let records = [
            naptr(20, 1, "s", "lwns", "", "d.example"),
            naptr(10, 30, "", "LWNS", "", "c.example"),
            naptr(10, 20, "p", "lwNS", "", "b.example"),
            naptr(10, 10, "a", "LWNs", "", "a.example"),
            naptr(5, 5, "Q", "LWNS", "", "q.example"),
            naptr(5, 5, "SA", "LWNS", "", "q.example"),
            naptr(5, 5, "S", "SIP+D2U", "", "q.example"),
        ];
        let (steps, dropped) = steps(&asked(), &records, &mut first);
        let expected = [
            Step::Addresses(name("a.example")),
            Step::Again(name("b.example")),
            Step::Again(name("c.example")),
            Step::Srv(name("d.example")),
        ];
        assert_eq!(steps, expected);
        assert_eq!(dropped.len(), 3);
    }

    #[test]
    fn a_regexp_turns_the_name_into_a_uri() {
        let cases = [
            ("!^.*$!https://ns.operator.example:7005/api/roaming!", "ns.operator.example 7005 /api/roaming"),
            ("!^.*$!https://NS.operator.example.!", "ns.operator.example 443 /"),
            ("/^([0-9a-f]+)\\..*$/https:\\/\\/ns.example\\/\\1?a=b/", "ns.example 443 /00050a?a=b"),
            ("!^(.*)\\.NETIDS\\.!https://\\1.ns.example/!i", "00050a.ns.example 443 /"),
            ("#^00050a#https://192.0.2.7:8443#", "192.0.2.7 8443 /"),
            ("#^#https://[2001:db8::7]/x#", "[2001:db8::7] 443 /x"),
            ("!a!https://ns.example/\\9!", "ns.example 443 /"),
        ];
        for (regexp, expected) in cases {
            assert_eq!(uri(regexp).as_deref(), Ok(expected), "{regexp}");
        }
        let wrong = [
            ("", "delimiter"),
            ("1a1b1", "delimiter"),
            ("\\a\\b\\", "delimiter"),
            ("!a!b", "three"),
            ("!a!b!c!", "three"),
            ("!a!https://x!g", "flag"),
            ("!(!https://x!", "pattern"),
            ("!^zzz$!https://x!", "fit"),
            ("!((((a{99}){99}){99}){99})!https://x!", "pattern"),
            ("!^.*$!http://ns.example/!", "https"),
            ("!^.*$!https://user@ns.example/!", "user"),
            ("!^.*$!nonsense!", "none"),
        ];
        for (regexp, why) in wrong {
            let err = uri(regexp).unwrap_err();
            assert!(err.contains(why), "{regexp}: {err}");
        }
    }

    /// Numbers that are the same each time and look like chance.
    fn lots() -> impl FnMut(u32) -> u32 {
        let mut state = 1u64;
        move |most| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((state >> 33) % u64::from(most.max(1))).unwrap()
        }
    }

    /// How often each target comes first in 10,000 draws.
    fn firsts(records: &[SRV]) -> BTreeMap<String, u32> {
        let mut chance = lots();
        let mut count = BTreeMap::new();
        for _ in 0..10_000 {
            let drawn = targets(records, &mut chance);
            assert_eq!(drawn.len(), records.len());
            *count.entry(text(&drawn[0].0)).or_default() += 1;
        }
        count
    }

    #[test]
    fn srv_targets_come_by_priority_and_then_by_weight() {
        let srv = |priority, weight, target: &str| SRV::new(priority, weight, 7005, name(target));
        let count = firsts(&[srv(20, 9, "later"), srv(10, 30, "a"), srv(10, 10, "b"), srv(10, 0, "c")]);
        assert!(!count.contains_key("later"));
        assert!((7_200..7_800).contains(&count["a"]), "{count:?}");
        assert!((2_200..2_800).contains(&count["b"]), "{count:?}");
        assert!(count.get("c").is_none_or(|n| *n < 500), "below 5 percent: {count:?}");
        let count = firsts(&[srv(1, 0, "a"), srv(1, 0, "b")]);
        assert!((4_700..5_300).contains(&count["a"]), "{count:?}");
        assert_eq!(targets(&[SRV::new(0, 0, 443, Name::root())], &mut first), []);
    }

    #[test]
    fn equal_naptr_records_share_the_load() {
        let records = [naptr(1, 1, "A", "LWNS", "", "a"), naptr(1, 1, "A", "LWNS", "", "b")];
        let mut chance = lots();
        let a = Step::Addresses(name("a"));
        let n = (0..10_000).filter(|_| steps(&asked(), &records, &mut chance).0[0] == a).count();
        assert!((4_700..5_300).contains(&n), "{n}");
    }

    proptest! {
        #[test]
        fn any_record_is_a_step_or_dropped_but_never_a_panic(
            order: u16, preference: u16, flags in "[suapSUAPx]{0,2}", service in "(LWNS|lwn|.{0,8})",
            regexp in "([!/#]?.{0,40}|!.{0,20}!.{0,20}!i?)",
        ) {
            let record = naptr(order, preference, &flags, &service, &regexp, "x.example");
            let (steps, dropped) = steps(&asked(), &[record], &mut first);
            prop_assert_eq!(steps.len() + dropped.len(), 1);
        }

        #[test]
        fn every_item_is_drawn_once(ranks in proptest::collection::vec((0..3u16, 0..4u16), 0..16)) {
            let records: Vec<SRV> = ranks.iter().enumerate()
                .map(|(n, (priority, weight))| SRV::new(*priority, *weight, n as u16, name("x"))).collect();
            let drawn: Vec<usize> = targets(&records, &mut lots()).iter().map(|(_, n)| usize::from(*n)).collect();
            let priorities: Vec<u16> = drawn.iter().map(|n| ranks[*n].0).collect();
            prop_assert!(priorities.is_sorted());
            let mut sorted = drawn.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..ranks.len()).collect::<Vec<_>>());
        }
    }
}
