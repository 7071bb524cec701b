//! Serving network server: sessions, MIC and counters, DevAddr allocation, windows, MAC commands.

mod activate;
mod downlink;
mod handover;
mod passive_data;
mod passive_start;
mod passive_stop;
pub mod plan;
mod rejoin;
pub mod uplink;
mod visits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::backend::door::{Boxed, Caller, Commit, Peers, StoreError};
use crate::backend::message::{
    Account, ClassMode, DlMeta, MacVersion, NwkKeys, Party, Terms, UlMeta, XmitAppUp,
};
use crate::clock::{Clock, Instant};
use crate::limits::{Profiled, RateLimit, RatePolicy, Standing};
use crate::lorawan::{DevAddr, DevEui, Key, NetId, Region};
use crate::partners;
use crate::usage::Way;

use plan::Plan;
use uplink::Accepted;
pub use visits::{Visit, Visits};

/// A session, as the sNS needs it. Its LoRaWAN version is the one that its keys are of.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Ours, never reused; of two sessions of a device the newer one has the greater.
    pub id: u64,
    /// The device.
    pub dev_eui: DevEui,
    /// Its address in this session.
    pub dev_addr: DevAddr,
    /// Our NetID that the address was allocated from (and that is in the Join-accept).
    pub net_id: NetId,
    /// The network session keys.
    pub keys: NwkKeys,
    /// Last accepted FCntUp; `None` before the first uplink.
    pub fcnt_up: Option<u32>,
    /// Next FCntDown, in 1.1 the next NFCntDown; never given out twice.
    pub fcnt_down: u32,
    /// Next AFCntDown; never given out twice. Of 1.1 only.
    pub a_fcnt_down: u32,
    /// The counter of the last confirmed downlink: an ACK of the device is for this one, and in 1.1 its
    /// MIC says so (TS001 1.1, 4.4).
    pub confirmed_down: Option<u32>,
    /// Class C: the device can be reached at any time.
    pub class: ClassMode,
    /// Made by personalisation: no join began it, and no join ends it.
    pub personalised: bool,
    /// `true` until the first uplink: the device may not have heard the Join-accept.
    pub pending: bool,
    /// RxDelay of the Join-accept, seconds (0 means 1).
    pub rx_delay: u8,
    /// RX1DROffset.
    pub rx1_dr_offset: u8,
    /// RX2 frequency, hertz.
    pub rx2_frequency: u32,
    /// RX2 data rate index.
    pub rx2_data_rate: u8,
    /// The region that it was made in, and which of its channels the device uses.
    pub plan: Plan,
    /// The device may talk through other networks.
    pub roaming: bool,
    /// The device's home, where that is another network which has handed it over to us.
    pub home: Option<NetId>,
    /// What that wants of its frames.
    pub terms: Terms,
    /// Last RJcount0 of a Rejoin-request under this session (TS002 11.6).
    pub rj_count0: Option<u16>,
    /// The way down to a class C device, as its last uplink showed it.
    pub path: Option<Path>,
    /// Seconds since 1970 when it was made.
    pub created: u64,
    /// Seconds since 1970 after which it is void; `None`: no limit.
    pub expires: Option<u64>,
}

/// The way down to a device that listens all the time: the tokens of an uplink, and who gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The network that heard it, where that is not us.
    pub via: Option<NetId>,
    /// FNSULToken.
    pub fns_ul_token: Option<Vec<u8>>,
    /// ULTokens of its gateways.
    pub ul_tokens: Vec<Vec<u8>>,
}

/// Tokens of so many gateways are kept, and none that is longer: they are written with every uplink of class C.
const TOKENS: (usize, usize) = (4, 1024);

impl Path {
    /// The tokens of an uplink; `None`: it has none, or its fNS sends nothing down.
    pub fn of(ul: &UlMeta, via: Option<NetId>) -> Option<Path> {
        let (most, longest) = TOKENS;
        let DlMeta { fns_ul_token, mut ul_tokens, .. } = DlMeta::answering(ul);
        ul_tokens.retain(|token| token.len() <= longest);
        ul_tokens.truncate(most);
        let is_way = fns_ul_token.is_some() || !ul_tokens.is_empty();
        (is_way && ul.allows_downlink()).then_some(Path { via, fns_ul_token, ul_tokens })
    }
}

impl Session {
    /// Whether it was made as LoRaWAN 1.1 makes sessions.
    pub fn is_v11(&self) -> bool {
        matches!(self.keys, NwkKeys::V11 { .. })
    }

    /// Whether its first uplink ends another session of the device. A session made after it stays as long as nobody was
    /// heard in it: the device may be about to use it.
    pub fn replaces(&self, other: &Session) -> bool {
        let age = |session: &Session| (session.created, session.id);
        other.id != self.id && (!other.pending || age(other) < age(self))
    }

    /// What encrypts MAC commands on FPort 0: NwkSKey, or NwkSEncKey.
    fn port_0_key(&self) -> &Key {
        match &self.keys {
            NwkKeys::V10 { nwk_s_key } => nwk_s_key,
            NwkKeys::V11 { nwk_s_enc_key, .. } => nwk_s_enc_key,
        }
    }

    /// The counter of the next downlink that is the application's, or that is not: two counters in 1.1.
    fn next_down(&mut self, application: bool) -> &mut u32 {
        if application && self.is_v11() { &mut self.a_fcnt_down } else { &mut self.fcnt_down }
    }
}

/// What one decision over sessions wants written.
#[derive(Debug)]
pub struct Write {
    /// How durably the changed sessions must be written.
    pub commit: Commit,
    /// The message that must reach the next room, written by the same commit: it goes when the hNS
    /// has answered ([`Sessions::forwarded`]) and is sent again after a restart.
    pub forward: Option<(ForwardKey, XmitAppUp)>,
    /// The device was heard under the keys of this session (TS002 12.2 step 9): those of its sessions that it
    /// [replaces](Session::replaces) end with the same commit. Later would be too late: a join of the meantime has made
    /// one that must stay.
    pub succeeds: Option<Session>,
}

impl Write {
    /// The changed sessions, and nothing else.
    pub fn sessions(commit: Commit) -> Write {
        Write { commit, forward: None, succeeds: None }
    }
}

/// Which uplink a forward row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardKey {
    /// Session.
    pub session: u64,
    /// Full counter.
    pub fcnt_up: u32,
}

/// A decision over the sessions found: changes them in place. May run twice.
pub type Decide = Box<dyn Fn(&mut Vec<Session>) -> Write + Send + Sync>;

/// Sessions at rest. One method per way to find them; each reads, decides, writes as
/// [`Write::commit`] says, and only then returns. Sessions removed from the vector are deleted, new
/// ones inserted, changed ones written.
pub trait Sessions: Visits {
    /// Over all sessions with this address.
    fn with_dev_addr(&self, addr: DevAddr, decide: Decide) -> Boxed<'_, Result<(), StoreError>>;
    /// Over all sessions of this device.
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>>;
    /// All whose home is another network.
    fn guests(&self) -> Boxed<'_, Result<Vec<Session>, StoreError>>;
    /// The hNS has answered for this uplink: its row may go.
    fn forwarded(&self, key: ForwardKey) -> Boxed<'_, Result<(), StoreError>>;
    /// Rows that wait, oldest first: for the start and for retries.
    fn waiting(&self) -> Boxed<'_, Result<Vec<(ForwardKey, XmitAppUp)>, StoreError>>;
}

/// How long the hNS is asked about an uplink before its forward row waits for the next try.
const HNS_PATIENCE: Duration = Duration::from_secs(10);
/// An uplink of another network's device waits so long for its home.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);
/// A frame that made a context is sent again within this time, if at all.
const JUST_NOW: SignedDuration = SignedDuration::from_secs(10);
/// Copies of one frame by other paths arrive within this time.
const COPY_WINDOW: Duration = Duration::from_secs(2);

/// Sessions of other networks' devices with a limit whose buckets are remembered, each way.
const RATES: usize = 4_096;

/// The serving network server.
pub struct Sns {
    net_id: NetId,
    region: Region,
    rx_delay: u8,
    /// The highest that sessions are made of.
    mac_version: MacVersion,
    partners: Arc<partners::Config>,
    sessions: Arc<dyn Sessions>,
    peers: Arc<dyn Peers>,
    clock: Clock,
    /// One a device: lost with the process, and with it only a receive window.
    windows: Mutex<BTreeMap<DevEui, downlink::Window>>,
    /// Frames that took a window and ride in the answer to come.
    riding: Mutex<BTreeMap<DevEui, (Vec<u8>, DlMeta)>>,
    /// Who brought the last uplink of a session, and when.
    heard: Mutex<Lately>,
    /// What came with a PRStartReq that was granted a Lifetime, by session: the frame may come once more by XmitDataReq.
    started: Mutex<BTreeMap<u64, (u32, Party, Timestamp)>>,
    /// Join-requests that are being answered.
    busy: Busy<Vec<u8>>,
    /// Uplinks that are on their way to the hNS.
    forwarding: Busy<ForwardKey>,
    /// What homes pay for of the frames of their devices, by session. Full after a start.
    rates: Mutex<Profiled<(u64, Way)>>,
    /// Devices that are told to rejoin. Lost with the process: then their Rejoin-requests are unsolicited.
    forced: Mutex<BTreeMap<DevEui, rejoin::Forced>>,
}

impl Sns {
    /// Addresses are allocated from `net_id`; `rx_delay` in seconds goes into Join-accepts.
    pub fn new(
        net_id: NetId,
        region: Region,
        rx_delay: u8,
        partners: Arc<partners::Config>,
        sessions: Arc<dyn Sessions>,
        peers: Arc<dyn Peers>,
        clock: Clock,
    ) -> Sns {
        Sns {
            net_id,
            region,
            rx_delay,
            mac_version: MacVersion::V1_1,
            partners,
            sessions,
            peers,
            clock,
            windows: Mutex::default(),
            riding: Mutex::default(),
            heard: Mutex::default(),
            started: Mutex::default(),
            busy: Busy::default(),
            forwarding: Busy::default(),
            forced: Mutex::default(),
            rates: Mutex::new(Profiled::new(RATES)),
        }
    }

    /// The highest LoRaWAN version of new sessions; 1.1 where nothing is said. Sessions that stand go on as they are.
    pub fn speaking(self, mac_version: MacVersion) -> Sns {
        Sns { mac_version, ..self }
    }

    /// Send what waits for the hNS again: after a start, and now and then.
    pub async fn resend_waiting(self: &Arc<Self>) -> Result<usize, StoreError> {
        let mut waiting = self.sessions.waiting().await?;
        let count = waiting.len();
        // ours first, and no longer than is needed to learn that another network is away
        waiting.sort_by_key(|(_, up)| up.home);
        let mut away = BTreeSet::new();
        let too_old = self.clock.wall() - LONGEST_WAIT;
        for (key, mut up) in waiting {
            let home = up.home;
            if home.is_some() && up.ul.recv_time < too_old {
                tracing::warn!(DevEUI = ?up.ul.dev_eui, "an uplink was not taken by its home for a day, and is given up");
                self.sessions.forwarded(key).await?;
                continue;
            }
            if home.is_some() && away.contains(&home) {
                continue;
            }
            // Its receive windows have passed: a downlink would take those of a later uplink, perhaps of
            // another session, for which it was not encrypted.
            up.ul.fcnt_down = None;
            if !self.forward(key, up, self.clock.now() + HNS_PATIENCE).await {
                away.insert(home);
            }
        }
        Ok(count)
    }

    /// A frame of a device whose home may be another network: on whose account it goes, or why that wants it dropped (TS002
    /// table 18).
    fn charge(
        &self,
        session: u64,
        home: Option<NetId>,
        terms: &Terms,
        way: Way,
    ) -> Result<Option<Account>, String> {
        let Some(home) = home else { return Ok(None) };
        let limit = if way == Way::Up { terms.ul } else { terms.dl };
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = rates.spend(&(session, way), limit, self.clock.now());
        if standing == Standing::Above(RatePolicy::Drop) {
            let RateLimit { rate, bucket, .. } = limit;
            let (way, profile) = (if way == Way::Up { "uplinks" } else { "downlinks" }, &terms.profile);
            return Err(format!(
                "more than {rate} {way} an hour and {bucket} at once, above which ServiceProfile {profile:?} of NetID {home} drops them"
            ));
        }
        let out_of_profile = standing != Standing::Within;
        Ok(Some(Account { net_id: home, profile: terms.profile.clone(), out_of_profile }))
    }

    fn windows(&self) -> MutexGuard<'_, BTreeMap<DevEui, downlink::Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn riding(&self) -> MutexGuard<'_, BTreeMap<DevEui, (Vec<u8>, DlMeta)>> {
        self.riding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forced(&self) -> MutexGuard<'_, BTreeMap<DevEui, rejoin::Forced>> {
        self.forced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame came with a PRStartReq that makes a context (TS002 A9).
    fn note_started(&self, accepted: &Accepted, from: &Caller) {
        let entry = (accepted.fcnt_up, from.party.clone(), accepted.up.ul.recv_time);
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        // only a frame that comes again at once matters
        started.retain(|_, (_, _, at)| at.duration_until(entry.2).abs() < JUST_NOW);
        started.insert(accepted.session.id, entry);
    }

    /// Whether an XmitDataReq brings the very hearing that a PRStartReq has brought: a duplicate, not a repetition by
    /// the device. Once.
    fn came_with_the_start(&self, accepted: &Accepted, from: &Caller) -> bool {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let found = started.remove(&accepted.session.id);
        found.is_some_and(|(fcnt_up, party, at)| {
            let same_second = at.as_second() == accepted.up.ul.recv_time.as_second();
            (fcnt_up, party, same_second) == (accepted.fcnt_up, from.party.clone(), true)
        })
    }

    /// Whether a repeated counter is a copy that another network heard, not a repetition by the
    /// device: a copy wants no acknowledgement of its own.
    fn came_by_another_path(&self, accepted: &Accepted, from: &Caller) -> bool {
        self.brought_by(accepted).is_some_and(|party| party != from.party)
    }

    /// Who brought this very frame a moment ago.
    fn brought_by(&self, accepted: &Accepted) -> Option<Party> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (fcnt_up, party, at) = heard.by_session.get(&accepted.session.id)?;
        let same = *fcnt_up == accepted.fcnt_up && self.clock.now().duration_since(*at) < COPY_WINDOW;
        same.then(|| party.clone())
    }

    fn remember(&self, accepted: &Accepted, from: &Caller) {
        let now = self.clock.now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.note(accepted.session.id, accepted.fcnt_up, from.party.clone(), now);
    }
}

/// Who brought the last uplink of each session, its counter, and when.
#[derive(Default)]
struct Lately {
    by_session: BTreeMap<u64, (u32, Party, Instant)>,
    /// When old entries were last looked for: a look at all of them with every uplink would cost more than the uplink.
    swept: Option<Instant>,
}

impl Lately {
    fn note(&mut self, session: u64, fcnt_up: u32, party: Party, now: Instant) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= COPY_WINDOW) {
            self.by_session.retain(|_, (_, _, at)| now.duration_since(*at) < COPY_WINDOW);
            self.swept = Some(now);
        }
        self.by_session.insert(session, (fcnt_up, party, now));
    }
}

/// What is being done right now, so that nobody begins it a second time.
struct Busy<T: Ord>(Mutex<BTreeSet<T>>);

impl<T: Ord> Default for Busy<T> {
    fn default() -> Busy<T> {
        Busy(Mutex::default())
    }
}

impl<T: Ord + Clone> Busy<T> {
    /// `None`: it is being done already.
    fn enter(&self, what: T) -> Option<Entered<'_, T>> {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.insert(what.clone()).then(|| Entered { busy: self, what })
    }
}

/// Done when dropped.
struct Entered<'a, T: Ord> {
    busy: &'a Busy<T>,
    what: T,
}

impl<T: Ord> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        self.busy.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
    }
}
