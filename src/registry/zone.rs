//! What the registry's zone says to a question, signed as it is answered.
//!
//! Pure: what stands around a name in, sections of an answer out (RFC 1034 section 4.3.2, RFC 4035 section 3). Denials cover the
//! one name that was asked (RFC 4470), so nobody walks the zone from DevEUI to DevEUI, and nothing need be signed again when a
//! record changes, however many there are.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::dnssec::DnssecSigner;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};

use crate::store::registry::{Entry, View};

/// Signatures begin so long before they are made, for readers whose clocks are behind; and end so long after.
const BACK: u64 = 3600;
/// How long a signature holds from when it begins.
pub const SIGNED_FOR: Duration = Duration::from_secs(8 * 86_400);
/// TTL of the apex's own records, seconds.
pub const APEX_TTL: u32 = 3600;
/// Refresh, retry and expiry for secondaries, seconds.
const SECONDARIES: (i32, i32, i32) = (3600, 600, 14 * 86_400);

/// The zone, but for what members put into it.
#[derive(Clone)]
pub struct Apex {
    /// Its name.
    pub origin: Name,
    /// Its name servers, the first the primary.
    pub servers: Vec<Name>,
    /// TTL of denials, seconds.
    pub negative_ttl: u32,
    /// Keys that are published.
    pub keys: Vec<DNSKEY>,
    /// Those of them that sign.
    pub signers: Vec<Arc<DnssecSigner>>,
}

/// Sections of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// NoError, NXDomain or Refused.
    pub code: ResponseCode,
    /// It is ours to say.
    pub authoritative: bool,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// Denials, delegations.
    pub authorities: Vec<Record>,
    /// The answer goes on at this name.
    pub next: Option<Name>,
}

impl Answer {
    /// This code and nothing else.
    pub fn nothing(code: ResponseCode) -> Answer {
        let (answers, authorities) = (Vec::new(), Vec::new());
        Answer { code, authoritative: false, answers, authorities, next: None }
    }
}

/// Where a name stands in the order of the zone; `None`: it is not in the zone, or no name that could be there.
pub fn place(name: &Name, origin: &Name) -> Option<Vec<u8>> {
    if !origin.zone_of(name) {
        return None;
    }
    let depth = usize::from(name.num_labels() + u8::from(name.is_wildcard()))
        .checked_sub(usize::from(origin.num_labels()))?;
    let mut place = Vec::new();
    let labels: Vec<&[u8]> = name.iter().take(depth).collect();
    for label in labels.into_iter().rev() {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*');
        if !label.iter().all(fits) {
            return None;
        }
        place.extend(label.iter().map(u8::to_ascii_lowercase));
        place.push(0);
    }
    Some(place)
}

/// The name at a place.
pub fn name(place: &[u8], origin: &Name) -> Result<Name, ProtoError> {
    let mut name = origin.clone();
    for label in place.split(|byte| *byte == 0).filter(|label| !label.is_empty()) {
        name = name.prepend_label(label)?;
    }
    name.set_fqdn(true);
    Ok(name)
}

impl Apex {
    /// Answer a question about a name of the zone. `dnssec`: with signatures. `unix`: wall time, seconds since 1970.
    pub fn answer(
        &self,
        asked: &Name,
        kind: RecordType,
        view: &View,
        dnssec: bool,
        unix: u64,
    ) -> Result<Answer, ProtoError> {
        let reply = Reply { apex: self, serial: view.serial, dnssec, unix };
        let at_apex = *asked == self.origin;
        let cut = view.cut.first().map(|entry| entry.place.clone());
        if let Some(cut) = cut {
            // DS is the parent's to say, and that is us
            let at_cut = view.at.first().is_some_and(|entry| entry.place == cut);
            if !(at_cut && kind == RecordType::DS) {
                return reply.referral(&name(&cut, &self.origin)?, &view.cut);
            }
        }
        let exists = at_apex || !view.at.is_empty() || view.below || !view.block.is_empty();
        if exists {
            // Every name of a block is there, as if somebody had written it down: a wildcard of the DNS (RFC 4592) would end wherever
            // one name of the block has records of its own.
            let entries = if view.at.is_empty() { &view.block } else { &view.at };
            let mut sets = sets(asked, entries)?;
            if at_apex {
                sets.extend(reply.own()?);
            }
            return reply.from(asked, kind, &sets);
        }
        let encloser = name(&view.encloser, &self.origin)?;
        reply.no_name(&self.next_closer(asked, view)?, &encloser.prepend_label(b"*".as_slice())?)
    }

    /// The ancestor of a missing name (or it itself) just below what exists.
    fn next_closer(&self, asked: &Name, view: &View) -> Result<Name, ProtoError> {
        let place = place(asked, &self.origin).unwrap_or_default();
        let rest = place.get(view.encloser.len()..).unwrap_or_default();
        let label = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        name(&[&view.encloser[..], label, &[0]].concat(), &self.origin)
    }

    /// All of the zone's own records at a place, signed, with the NSEC record that leads to the next place: what a secondary
    /// wants, who gets the zone in order. Without the SOA record, with which a transfer begins and ends.
    pub fn transferred(
        &self,
        at: &[u8],
        next: &[u8],
        entries: &[Entry],
        serial: u32,
        unix: u64,
    ) -> Result<Vec<Record>, ProtoError> {
        let reply = Reply { apex: self, serial, dnssec: true, unix };
        let owner = name(at, &self.origin)?;
        let mut sets = sets(&owner, entries)?;
        if at.is_empty() {
            sets.extend(reply.own()?);
        }
        let is_cut = !at.is_empty() && sets.iter().any(|set| set.record_type() == RecordType::NS);
        let kinds: Vec<RecordType> = sets.iter().map(RecordSet::record_type).collect();
        let mut records = Vec::new();
        for set in &sets {
            if set.record_type() != RecordType::SOA {
                records.extend(set.records_without_rrsigs().cloned());
            }
            // what stands at a delegation is the child's to sign, but for DS
            if !is_cut || set.record_type() == RecordType::DS {
                records.extend(reply.signatures(set)?);
            }
        }
        records.extend(reply.nsec(&owner, name(next, &self.origin)?, kinds)?);
        Ok(records)
    }

    /// The SOA record with which a transfer begins and ends.
    pub fn soa(&self, serial: u32) -> Record {
        let (refresh, retry, expire) = SECONDARIES;
        let primary = self.servers.first().unwrap_or(&self.origin).clone();
        let hand =
            self.origin.prepend_label(b"hostmaster".as_slice()).unwrap_or_else(|_| self.origin.clone());
        let soa = SOA::new(primary, hand, serial, refresh, retry, expire, self.negative_ttl);
        Record::from_rdata(self.origin.clone(), APEX_TTL, RData::SOA(soa))
    }
}

/// Entries as sets, by type.
fn sets(owner: &Name, entries: &[Entry]) -> Result<Vec<RecordSet>, ProtoError> {
    let mut sets: Vec<RecordSet> = Vec::new();
    for entry in entries {
        let kind = RecordType::from(entry.kind);
        let data = RData::try_from_str(kind, &entry.data)
            .map_err(|error| ProtoError::from(format!("record {} of {owner}: {error}", entry.data)))?;
        let record = Record::from_rdata(owner.clone(), entry.ttl, data);
        match sets.iter_mut().find(|set| set.record_type() == kind) {
            Some(set) => _ = set.insert(record, 0),
            None => sets.push(record.into()),
        }
    }
    Ok(sets)
}

struct Reply<'a> {
    apex: &'a Apex,
    serial: u32,
    dnssec: bool,
    unix: u64,
}

impl Reply<'_> {
    /// What stands at the apex without anybody's doing.
    fn own(&self) -> Result<Vec<RecordSet>, ProtoError> {
        let origin = &self.apex.origin;
        let mut own: Vec<RecordSet> = vec![self.apex.soa(self.serial).into()];
        let servers = self.apex.servers.iter().map(|server| RData::NS(NS(server.clone())));
        let keys = self.apex.keys.iter().map(|key| RData::DNSSEC(DNSSECRData::DNSKEY(key.clone())));
        for data in [servers.collect::<Vec<_>>(), keys.collect()] {
            let mut records = data.into_iter().map(|data| Record::from_rdata(origin.clone(), APEX_TTL, data));
            let Some(first) = records.next() else { continue };
            let mut set = RecordSet::from(first);
            records.for_each(|record| _ = set.insert(record, 0));
            own.push(set);
        }
        Ok(own)
    }

    /// An answer from the sets of a name.
    fn from(&self, asked: &Name, kind: RecordType, sets: &[RecordSet]) -> Result<Answer, ProtoError> {
        let mut answer = Answer { authoritative: true, ..Answer::nothing(ResponseCode::NoError) };
        let is_wanted = |set: &&RecordSet| set.record_type() == kind || kind == RecordType::ANY;
        let mut wanted: Vec<&RecordSet> = sets.iter().filter(is_wanted).collect();
        if wanted.is_empty()
            && let Some(alias) = sets.iter().find(|set| set.record_type() == RecordType::CNAME)
        {
            wanted.push(alias);
            answer.next = alias.records_without_rrsigs().find_map(|record| match &record.data {
                RData::CNAME(target) => Some(target.0.clone()),
                _ => None,
            });
        }
        if wanted.is_empty() {
            let kinds = sets.iter().map(RecordSet::record_type);
            let denial = self.nsec(asked, just_below(asked)?, kinds)?;
            answer.authorities.extend(self.soa()?);
            answer.authorities.extend(denial);
            return Ok(answer);
        }
        // one set is enough to whoever asks for any (RFC 8482)
        if let Some(set) = wanted.first() {
            answer.answers.extend(set.records_without_rrsigs().cloned());
            answer.answers.extend(self.signatures(set)?);
        }
        Ok(answer)
    }

    fn referral(&self, cut: &Name, entries: &[Entry]) -> Result<Answer, ProtoError> {
        let sets = sets(cut, entries)?;
        let of = |kind| sets.iter().find(move |set: &&RecordSet| set.record_type() == kind);
        let mut authorities: Vec<Record> = Vec::new();
        if let Some(servers) = of(RecordType::NS) {
            authorities.extend(servers.records_without_rrsigs().cloned());
        }
        match of(RecordType::DS) {
            Some(keys) => {
                authorities.extend(keys.records_without_rrsigs().cloned());
                authorities.extend(self.signatures(keys)?);
            }
            None => authorities.extend(self.nsec(cut, just_below(cut)?, [RecordType::NS])?),
        }
        Ok(Answer { authorities, ..Answer::nothing(ResponseCode::NoError) })
    }

    fn no_name(&self, next_closer: &Name, wild: &Name) -> Result<Answer, ProtoError> {
        let mut authorities = self.soa()?;
        authorities.extend(self.covering(next_closer)?);
        authorities.extend(self.covering(wild)?);
        Ok(Answer { authoritative: true, authorities, ..Answer::nothing(ResponseCode::NXDomain) })
    }

    fn soa(&self) -> Result<Vec<Record>, ProtoError> {
        let set = RecordSet::from(self.apex.soa(self.serial));
        let ttl = APEX_TTL.min(self.apex.negative_ttl);
        let mut records: Vec<Record> =
            set.records_without_rrsigs().cloned().chain(self.signatures(&set)?).collect();
        records.iter_mut().for_each(|record| record.ttl = ttl);
        Ok(records)
    }

    /// Neither this name nor anything below it is there.
    fn covering(&self, name: &Name) -> Result<Vec<Record>, ProtoError> {
        self.nsec(&just_before(name)?, just_behind(name)?, [])
    }

    fn nsec(
        &self,
        owner: &Name,
        next: Name,
        kinds: impl IntoIterator<Item = RecordType>,
    ) -> Result<Vec<Record>, ProtoError> {
        if !self.dnssec || self.apex.signers.is_empty() {
            return Ok(Vec::new());
        }
        let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new_cover_self(next, kinds)));
        let set = RecordSet::from(Record::from_rdata(owner.clone(), self.apex.negative_ttl, nsec));
        Ok(set.records_without_rrsigs().cloned().chain(self.signatures(&set)?).collect())
    }

    fn signatures(&self, set: &RecordSet) -> Result<Vec<Record>, ProtoError> {
        if !self.dnssec {
            return Ok(Vec::new());
        }
        let begin = self.unix.saturating_sub(BACK);
        let inception = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(begin);
        let sign = |signer: &Arc<DnssecSigner>| {
            let signature = RRSIG::from_rrset(set, DNSClass::IN, inception, signer)?;
            let data = RData::DNSSEC(DNSSECRData::RRSIG(signature));
            Ok(Record::from_rdata(set.name().clone(), set.ttl(), data))
        };
        self.apex.signers.iter().map(sign).collect()
    }
}

/// What a transfer has to say of a zone with blocks: its readers know wildcards only as RFC 4592 has them, which end where
/// a name has records of its own. So every place between a block and such a name gets the block's records and its wildcard.
#[derive(Default)]
pub struct Blocks {
    /// What is open above the present place: a block's records, or `None` for a place with records of its own.
    open: Vec<(Vec<u8>, Option<Vec<Entry>>)>,
    before: Vec<u8>,
}

impl Blocks {
    /// The next place of the zone, in order: the places to send before it, each with its records.
    pub fn before(&mut self, place: &[u8], entries: &[Entry]) -> Vec<(Vec<u8>, Vec<Entry>)> {
        while self.open.last().is_some_and(|(above, _)| !place.starts_with(above)) {
            self.open.pop();
        }
        let mut first = Vec::new();
        if let Some((block, Some(records))) = self.open.last() {
            let ends = place.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
            for end in ends.filter(|end| *end > block.len() && *end < place.len()) {
                let between = place.get(..end).unwrap_or_default();
                if self.before.starts_with(between) {
                    continue;
                }
                let wild = [between, b"*\0"].concat();
                for at in [between.to_vec(), wild].into_iter().filter(|at| *at != place) {
                    let copies = records.iter().map(|entry| Entry { place: at.clone(), ..entry.clone() });
                    first.push((at.clone(), copies.collect()));
                }
            }
        }
        match place.strip_suffix(b"*\0") {
            Some(block) => self.open.push((block.to_vec(), Some(entries.to_vec()))),
            None => self.open.push((place.to_vec(), None)),
        }
        self.before = place.to_vec();
        first
    }
}

/// The first name below one.
fn just_below(name: &Name) -> Result<Name, ProtoError> {
    name.prepend_label([0u8].as_slice())
}

/// A name before this one, and behind all that could stand before it at the same depth.
fn just_before(name: &Name) -> Result<Name, ProtoError> {
    let mut labels = name.iter();
    let mut label = labels.next().unwrap_or_default().to_vec();
    if let Some(last) = label.last_mut() {
        // of a label that could be there, the last byte is never the first of all
        *last = last.saturating_sub(1);
    }
    if label.len() < 63 {
        label.push(0xff);
    }
    Name::from_labels(std::iter::once(&label[..]).chain(labels))
}

/// The first name behind this one and all that could be below it.
fn just_behind(name: &Name) -> Result<Name, ProtoError> {
    let mut labels = name.iter();
    let mut label = labels.next().unwrap_or_default().to_vec();
    match label.len() < 63 {
        true => label.push(0),
        false => label.iter_mut().last().into_iter().for_each(|last| *last = last.saturating_add(1)),
    }
    Name::from_labels(std::iter::once(&label[..]).chain(labels))
}
