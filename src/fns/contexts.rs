//! Roaming contexts of visitors: which network has said that we shall forward a device, until when, and how its
//! MICs are checked (TS002 12.5 step 8, 12.6.1, 13).
//!
//! Owns the rules; pure. The contexts are at rest behind [`Contexts`], and looked up there: a hundred thousand of them cost no
//! memory. Wall time rules, because a context survives the process; whoever asks has made sure that the clock is trusted.

use std::collections::{BTreeMap, BTreeSet};

use subtle::ConstantTimeEq;

use crate::backend::door::{Boxed, StoreError};
use crate::backend::message::{MicKey, PrStartAns, Terms};
use crate::lorawan::crypto::{self, Direction};
use crate::lorawan::frame::DataFrame;
use crate::lorawan::{DevAddr, DevEui, NetId};
use crate::partners::Lifetime;

/// Contexts of one network at most.
const OF_ONE: usize = 50_000;
/// Contexts of all networks.
const OF_ALL: usize = 100_000;
/// Contexts whose use is remembered.
const USED: usize = 4_096;

/// Which context: a device may have two sessions until the newer one has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContextId {
    /// The network that serves the device.
    pub net_id: NetId,
    /// The device.
    pub dev_eui: DevEui,
    /// Its address.
    pub dev_addr: DevAddr,
}

/// A visitor that we forward.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// Whose.
    pub id: ContextId,
    /// Seconds since 1970 at which it ends.
    pub until: u64,
    /// Seconds that were granted.
    pub lifetime: u32,
    /// Where it is agreed that we check MICs.
    pub mic_key: Option<MicKey>,
    /// A lower bound of the last FCntUp.
    pub fcnt_up: u32,
    /// What its network wants of its frames.
    pub terms: Terms,
}

/// Where a context stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Uplinks go by XmitDataReq.
    Live,
    /// The next uplink asks for a new Lifetime: the last tenth has begun, or the clock has gone back since the
    /// context was made and nobody knows how old it is.
    Due,
    /// It has ended.
    Over,
}

/// Contexts at rest.
pub trait Contexts: Send + Sync {
    /// So many ids at most, in their order, that come after one: all of them, page by page.
    fn page(&self, after: Option<ContextId>, most: usize) -> Boxed<'_, Result<Vec<ContextId>, StoreError>>;
    /// Those of an address.
    fn with_addr(&self, addr: DevAddr) -> Boxed<'_, Result<Vec<Context>, StoreError>>;
    /// Those of a device of a network.
    fn of_device(&self, net_id: NetId, dev_eui: DevEui) -> Boxed<'_, Result<Vec<Context>, StoreError>>;
    /// So many at most that have ended at a time, seconds since 1970.
    fn over(&self, now: u64, most: usize) -> Boxed<'_, Result<Vec<ContextId>, StoreError>>;
    /// Write one, in the place of that with the same id. On disk when this returns. `true`: there was none.
    fn keep(&self, context: Context) -> Boxed<'_, Result<bool, StoreError>>;
    /// Delete some. On disk when this returns. Answers those that were there, and whether their device has others.
    fn forget(&self, ids: Vec<ContextId>) -> Boxed<'_, Result<Vec<(ContextId, bool)>, StoreError>>;
}

/// Why an answer's Lifetime makes no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoContext {
    /// Theirs: a stateful answer names the device.
    #[error("a Lifetime without DevEUI")]
    Nameless,
    /// Theirs: with a Join-accept the address is said beside it.
    #[error("a Lifetime without DevAddr")]
    NoAddress,
    /// Theirs: about another device than was asked about.
    #[error("a Lifetime for another device than was asked about")]
    OtherDevice,
    /// An address of ours: its frames are our own devices'.
    #[error("DevAddr {0} is of our own NetID")]
    Ours(DevAddr),
    /// Theirs: an address of somebody else.
    #[error("DevAddr {0} is no address of NetID {1}")]
    DoesNotFit(DevAddr, NetId),
    /// Nobody's: too many devices visit.
    #[error("NetID {0} has as many contexts here as one network may have")]
    Full(NetId),
}

impl NoContext {
    /// What whose operator can do.
    pub fn remedy(self) -> &'static str {
        match self {
            NoContext::Nameless | NoContext::NoAddress | NoContext::OtherDevice => {
                "its operator's network server names the device in PRStartAns (TS002 table 13), or grants no Lifetime"
            }
            NoContext::Ours(_) | NoContext::DoesNotFit(..) => {
                "its operator allocates addresses of its own NetID; until then each uplink asks anew"
            }
            NoContext::Full(_) => "none; the devices beyond are forwarded without a context",
        }
    }
}

/// What an answer with a Lifetime says, for the device that was asked about: its address from a data frame, or its
/// DevEUI from a Join-request. `None`: stateless.
pub fn granted(
    net_id: NetId,
    answer: &PrStartAns,
    asked: (Option<DevEui>, Option<DevAddr>),
    ours: &[NetId],
    now: u64,
) -> Result<Option<Context>, NoContext> {
    let lifetime = Lifetime::of_seconds(answer.lifetime.unwrap_or(0)).seconds();
    if lifetime == 0 {
        return Ok(None);
    }
    let dev_eui = answer.dev_eui.ok_or(NoContext::Nameless)?;
    let dev_addr = asked.1.or(answer.dev_addr).ok_or(NoContext::NoAddress)?;
    let other_device = asked.0.is_some_and(|asked| asked != dev_eui);
    if other_device || answer.dev_addr.is_some_and(|said| said != dev_addr) {
        return Err(NoContext::OtherDevice);
    }
    if ours.iter().any(|ours| ours.covers(dev_addr)) {
        return Err(NoContext::Ours(dev_addr));
    }
    if !net_id.covers(dev_addr) {
        return Err(NoContext::DoesNotFit(dev_addr, net_id));
    }
    Ok(Some(Context {
        id: ContextId { net_id, dev_eui, dev_addr },
        until: now.saturating_add(lifetime.into()),
        lifetime,
        mic_key: answer.mic_key.clone(),
        fcnt_up: answer.fcnt_up.unwrap_or(0),
        terms: answer.service.as_ref().map(|service| service.terms.clone()).unwrap_or_default(),
    }))
}

impl Context {
    /// Where it stands at a time, seconds since 1970.
    pub fn stage(&self, now: u64) -> Stage {
        let lifetime = u64::from(self.lifetime);
        match self.until.checked_sub(now) {
            None | Some(0) => Stage::Over,
            Some(left) if left > lifetime || left <= lifetime / 10 => Stage::Due,
            Some(_) => Stage::Live,
        }
    }

    /// The counter for which the MIC of a frame is right (TS002 11.8), where a key is held.
    fn verify(&self, frame: DataFrame<'_>) -> Option<u32> {
        let key = self.mic_key.as_ref()?;
        let low = u32::from(frame.fcnt());
        let ahead = low.wrapping_sub(self.fcnt_up) & 0xFFFF;
        // a peer may have announced the counter that it expects next, and a device repeats itself
        let before = self.fcnt_up.checked_sub(1).filter(|before| before & 0xFFFF == low);
        let nearest = self.fcnt_up.checked_add(ahead);
        let next_round = if ahead == 0 { self.fcnt_up.checked_add(0x1_0000) } else { None };
        let counters = [nearest, before, next_round].into_iter().flatten();
        counters.into_iter().find(|fcnt| mic_matches(key, frame, *fcnt))
    }
}

/// The whole MIC with NwkSKey, its second half with FNwkSIntKey.
fn mic_matches(key: &MicKey, frame: DataFrame<'_>, fcnt: u32) -> bool {
    match key {
        MicKey::NwkSKey(key) => frame.up_mic_matches(key, fcnt),
        MicKey::FNwkSIntKey(key) => frame.as_bytes().split_last_chunk::<4>().is_some_and(|(body, mic)| {
            let expected = crypto::data_mic(key, Direction::Up, frame.dev_addr(), fcnt, body);
            bool::from(expected[..2].ct_eq(&mic[2..]))
        }),
    }
}

/// Whose a frame may be, by the contexts of its address.
#[derive(Debug, Default, PartialEq)]
pub struct Fitting {
    /// Contexts to ask: one whose key makes the MIC right, or all that have no key.
    pub ask: Vec<Context>,
    /// Networks whose keys do not fit it: to them it is forged.
    pub forged: Vec<NetId>,
}

/// Those of the same device that are older than one that it uses. A younger one may be of a join whose answer the device
/// has not heard.
pub fn before(of_device: &[Context], used: ContextId) -> Vec<ContextId> {
    let begun = |context: &Context| context.until.saturating_sub(context.lifetime.into());
    let Some(since) = of_device.iter().find(|context| context.id == used).map(begun) else {
        return Vec::new();
    };
    let earlier = of_device.iter().filter(|context| context.id != used && begun(context) < since);
    earlier.map(|context| context.id).collect()
}

/// What is remembered of contexts: how many there are, and those that were used lately.
#[derive(Debug, Default)]
pub struct Book {
    of: BTreeMap<NetId, usize>,
    /// The counter of the last frame whose MIC was right. May be lost: then an old frame goes home once more.
    counters: BTreeMap<ContextId, u32>,
    used: BTreeSet<ContextId>,
    shut: Vec<ContextId>,
}

impl Book {
    /// Which contexts of its address a frame may be of. The counter of one whose key fits is noted; `true` beside it: its
    /// upper half has moved on, so that what is at rest must follow.
    pub fn fitting(&mut self, here: Vec<Context>, frame: DataFrame<'_>, now: u64) -> (Fitting, bool) {
        let mut fitting = Fitting::default();
        for mut context in here {
            let at_rest = context.fcnt_up;
            context.fcnt_up = at_rest.max(self.counters.get(&context.id).copied().unwrap_or(0));
            if context.stage(now) == Stage::Over {
                continue;
            }
            if context.mic_key.is_none() {
                fitting.ask.push(context);
            } else if let Some(fcnt_up) = context.verify(frame) {
                context.fcnt_up = context.fcnt_up.max(fcnt_up);
                self.count_to(context.id, context.fcnt_up);
                let moved_on = context.fcnt_up >> 16 > at_rest >> 16;
                return (Fitting { ask: vec![context], forged: Vec::new() }, moved_on);
            } else {
                fitting.forged.push(context.id.net_id);
            }
        }
        // a network that we ask anyway judges for itself
        fitting.forged.retain(|net_id| fitting.ask.iter().all(|context| context.id.net_id != *net_id));
        (fitting, false)
    }

    fn count_to(&mut self, id: ContextId, fcnt_up: u32) {
        if self.counters.len() >= USED && !self.counters.contains_key(&id) {
            // whichever it is: at worst an old frame of it goes home
            self.counters.pop_first();
        }
        self.counters.insert(id, fcnt_up);
    }

    /// Whether a device uses a context for the first time, as far as is remembered.
    pub fn is_first_use(&mut self, id: ContextId) -> bool {
        if self.used.len() >= USED && !self.used.contains(&id) {
            self.used.pop_first();
        }
        self.used.insert(id)
    }

    /// Whether a network may have one more.
    pub fn room_for(&self, net_id: NetId) -> Result<(), NoContext> {
        let of_one = self.of.get(&net_id).copied().unwrap_or(0);
        if of_one >= OF_ONE || self.count() >= OF_ALL { Err(NoContext::Full(net_id)) } else { Ok(()) }
    }

    /// There is one more.
    pub fn added(&mut self, id: ContextId) {
        *self.of.entry(id.net_id).or_default() += 1;
    }

    /// There is one less.
    pub fn removed(&mut self, id: ContextId) {
        self.counters.remove(&id);
        self.used.remove(&id);
        if let Some(count) = self.of.get_mut(&id.net_id) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&id.net_id);
            }
        }
    }

    /// One that is not allowed any more.
    pub fn shut(&mut self, id: ContextId) {
        self.shut.push(id);
    }

    /// Those that are not allowed any more; once.
    pub fn take_shut(&mut self) -> Vec<ContextId> {
        std::mem::take(&mut self.shut)
    }

    /// All of them.
    pub fn count(&self) -> usize {
        self.of.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lorawan::Key;
    use crate::lorawan::frame::Uplink;

    const HOME: NetId = NetId::from_msb([0, 0, 1]);
    const OURS: NetId = NetId::from_msb([0, 0, 0]);
    const DEV: DevEui = DevEui::from_msb([1; 8]);
    const NOW: u64 = 1_000_000;

    fn addr() -> DevAddr {
        HOME.dev_addr(5)
    }

    fn answer(lifetime: u32) -> PrStartAns {
        PrStartAns { lifetime: Some(lifetime), dev_eui: Some(DEV), ..PrStartAns::default() }
    }

    fn context(net_id: NetId, key: Option<MicKey>, fcnt_up: u32) -> Context {
        let id = ContextId { net_id, dev_eui: DEV, dev_addr: addr() };
        Context { id, until: NOW + 3600, lifetime: 3600, mic_key: key, fcnt_up, terms: Terms::default() }
    }

    fn frame(key: &Key, fcnt: u32) -> Vec<u8> {
        let mut phy = vec![0x40];
        phy.extend(addr().to_air());
        phy.push(0);
        phy.extend(&fcnt.to_le_bytes()[..2]);
        phy.extend(crypto::data_mic(key, Direction::Up, addr(), fcnt, &phy.clone()));
        phy
    }

    fn data(phy: &[u8]) -> DataFrame<'_> {
        match Uplink::parse(phy) {
            Ok(Uplink::Data(data)) => data,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lifetime_makes_a_context_and_none_makes_none() {
        let asked = (None, Some(addr()));
        let made = granted(HOME, &answer(60), asked, &[OURS], NOW).unwrap().unwrap();
        assert_eq!((made.id.dev_addr, made.until, made.lifetime), (addr(), NOW + 60, 60));
        for stateless in [answer(0), PrStartAns::default()] {
            assert_eq!(granted(HOME, &stateless, asked, &[OURS], NOW), Ok(None));
        }
        // nobody is believed for ever
        assert_eq!(granted(HOME, &answer(u32::MAX), asked, &[], NOW).unwrap().unwrap().lifetime, 30 * 86_400);
    }

    #[test]
    fn a_context_that_does_not_fit_is_refused() {
        let join = (Some(DEV), None);
        let with = |dev_addr| PrStartAns { dev_addr: Some(dev_addr), ..answer(60) };
        let refused = |answer: &PrStartAns, asked| granted(HOME, answer, asked, &[OURS], NOW).unwrap_err();
        assert_eq!(refused(&with(OURS.dev_addr(7)), join), NoContext::Ours(OURS.dev_addr(7)));
        let elsewhere = NetId::from_msb([0, 0, 2]).dev_addr(7);
        assert_eq!(refused(&with(elsewhere), join), NoContext::DoesNotFit(elsewhere, HOME));
        assert_eq!(refused(&answer(60), join), NoContext::NoAddress);
        assert_eq!(refused(&with(addr()), (Some(DevEui::from_msb([2; 8])), None)), NoContext::OtherDevice);
        assert_eq!(refused(&with(HOME.dev_addr(6)), (None, Some(addr()))), NoContext::OtherDevice);
        let nameless = PrStartAns { dev_eui: None, ..answer(60) };
        assert_eq!(refused(&nameless, (None, Some(addr()))), NoContext::Nameless);
    }

    #[test]
    fn a_context_is_due_in_its_last_tenth_and_when_the_clock_went_back() {
        let context = context(HOME, None, 0);
        let stage = |now| context.stage(now);
        assert_eq!((stage(NOW), stage(NOW + 3239)), (Stage::Live, Stage::Live));
        assert_eq!((stage(NOW + 3240), stage(NOW + 3599)), (Stage::Due, Stage::Due));
        assert_eq!((stage(NOW + 3600), stage(u64::MAX)), (Stage::Over, Stage::Over));
        assert_eq!((stage(NOW - 1), stage(0)), (Stage::Due, Stage::Due));
    }

    #[test]
    fn the_mic_decides_between_contexts_of_one_address() {
        let (one, two, other) = (Key::new([1; 16]), Key::new([2; 16]), Key::new([3; 16]));
        let mut book = Book::default();
        let second = NetId::from_msb([0, 0, 2]);
        let mut here = vec![
            context(HOME, Some(MicKey::NwkSKey(one.clone())), 0),
            context(second, Some(MicKey::NwkSKey(two.clone())), 0),
        ];
        let mut asked = |here: &[Context], phy: &[u8]| {
            let (fitting, _) = book.fitting(here.to_vec(), data(phy), NOW);
            let ask: Vec<NetId> = fitting.ask.iter().map(|context| context.id.net_id).collect();
            (ask, fitting.forged)
        };
        assert_eq!(asked(&here, &frame(&one, 9)), (vec![HOME], vec![]));
        assert_eq!(asked(&here, &frame(&two, 9)), (vec![second], vec![]));
        assert_eq!(asked(&here, &frame(&other, 9)), (vec![], vec![HOME, second]));
        // without a key nobody is shut out
        let third = NetId::from_msb([0, 0, 3]);
        here.push(context(third, None, 0));
        assert_eq!(asked(&here, &frame(&other, 9)), (vec![third], vec![HOME, second]));
        assert_eq!(book.fitting(here, data(&frame(&one, 10)), NOW + 3600).0, Fitting::default());
    }

    #[test]
    fn both_generations_are_checked_with_the_counter_as_it_goes() {
        let key = Key::new([7; 16]);
        let v1_1 = |fcnt| {
            let mut phy = frame(&key, fcnt);
            let at = phy.len() - 4;
            // the first half is of SNwkSIntKey, which stays at home; the second begins as cmacF does
            let f = [phy[at], phy[at + 1]];
            phy.splice(at.., [0xEE, 0xEE, f[0], f[1]]);
            phy
        };
        let v1_0 = |fcnt| frame(&key, fcnt);
        let keys = [MicKey::NwkSKey(key.clone()), MicKey::FNwkSIntKey(key.clone())];
        for (mic_key, up) in keys.into_iter().zip([&v1_0 as &dyn Fn(u32) -> Vec<u8>, &v1_1]) {
            let passes =
                |stored: u32, sent: u32| context(HOME, Some(mic_key.clone()), stored).verify(data(&up(sent)));
            assert_eq!(passes(0, 0), Some(0));
            assert_eq!(passes(5, 5), Some(5), "a repetition");
            assert_eq!(passes(6, 5), Some(5), "the next expected one was announced");
            assert_eq!(passes(0xFFFE, 0x1_0002), Some(0x1_0002), "past 16 bits");
            assert_eq!(passes(9, 5), None, "an old frame");
            assert_eq!(passes(u32::MAX, 3), None);
        }
        let mut book = Book::default();
        let mut fits = |at_rest: u32, sent: u32| {
            let here = vec![context(HOME, Some(MicKey::NwkSKey(key.clone())), at_rest)];
            let (fitting, moved_on) = book.fitting(here, data(&v1_0(sent)), NOW);
            (fitting.ask.first().map(|context| context.fcnt_up), moved_on)
        };
        assert_eq!(fits(0xFFF0, 0xFFFE), (Some(0xFFFE), false));
        assert_eq!(fits(0xFFF0, 0xFFF8), (None, false), "older than the last one");
        assert_eq!(fits(0xFFF0, 0x1_0000), (Some(0x1_0000), true), "worth a write");
        assert_eq!(fits(0x1_0000, 0x1_0001), (Some(0x1_0001), false));
    }

    #[test]
    fn one_network_does_not_take_the_place_of_another() {
        let mut book = Book::default();
        let numbered =
            |net_id: NetId, n: u32| ContextId { net_id, dev_eui: DEV, dev_addr: net_id.dev_addr(n) };
        for n in 0..OF_ONE as u32 {
            assert_eq!(book.room_for(HOME), Ok(()));
            book.added(numbered(HOME, n));
        }
        let second = NetId::from_msb([0, 0, 2]);
        assert_eq!((book.room_for(HOME), book.room_for(second)), (Err(NoContext::Full(HOME)), Ok(())));
        book.removed(numbered(HOME, 0));
        assert_eq!((book.count(), book.room_for(HOME)), (OF_ONE - 1, Ok(())));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_an_earlier_context_goes_when_a_later_one_is_used() {
        let mut book = Book::default();
        let id = |n: u32| ContextId { net_id: HOME, dev_eui: DEV, dev_addr: HOME.dev_addr(n) };
        for n in 0..10_000 {
            assert!(book.is_first_use(id(n)) && !book.is_first_use(id(n)));
            book.count_to(id(n), 1);
        }
        assert_eq!((book.used.len(), book.counters.len()), (USED, USED));
        let made = |n: u32, at: u64| Context { id: id(n), until: at + 3600, ..context(HOME, None, 0) };
        let all = [made(1, NOW), made(2, NOW + 10), made(3, NOW + 20)];
        assert_eq!(before(&all, id(2)), [id(1)]);
        assert_eq!((before(&all, id(1)), before(&all, id(4))), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn a_forged_frame_fits_no_key(body in prop::collection::vec(any::<u8>(), 8..40), fcnt_up: u32) {
            let mut phy = vec![0x40];
            phy.extend(addr().to_air());
            phy.push(0);
            phy.extend(body);
            let key = MicKey::NwkSKey(Key::new([9; 16]));
            prop_assert_eq!(context(HOME, Some(key), fcnt_up).verify(data(&phy)), None);
        }
    }
}
