//! Frames of visitors whose home cannot be reached wait here, and go home when it can be.
//!
//! Only data frames, and only of devices that a home has called its own: a Join-request is worth nothing once its window has
//! closed, and anybody can send frames of addresses that are nobody's. A home gets its frames in the order in which they were
//! heard: while any of them wait, younger ones stand behind. They tell when they were heard, and that no downlink can answer
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::backend::door::{Boxed, Deadline, PeerError, StoreError};
use crate::backend::message::{Account, GwInfo, Party, PrStartReq, ResultCode, UlMeta, XmitUp};
use crate::clock::Instant;
use crate::lorawan::{DevAddr, NetId};

use super::{Fns, Numbered};
use crate::usage::Kind;

/// Frames that wait for one network at most; the oldest goes first.
const FRAMES: usize = 1_000;
/// The same in bytes of their PHYPayloads.
const BYTES: usize = 64 * 1024;
/// Networks that frames wait for.
const NETWORKS: usize = 64;
/// A frame that waited for so long is of no use, seconds.
const OLDEST: u64 = 24 * 3600;
/// How long a home may take for a frame that has no window.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the first failure a network is left alone for so long; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// It is never left alone for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A frame that comes meanwhile is reason to try again, unless that was done so lately: a device that talks hears sooner that
/// its home is back.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// A frame that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Parked {
    /// Its place among all: younger frames have greater numbers.
    pub number: u64,
    /// Its home, and how the frame stands to what that wants to pay for.
    pub account: Account,
    /// Its home has granted a context: XmitDataReq, not PRStartReq.
    pub by_context: bool,
    /// The frame.
    pub phy_payload: Vec<u8>,
    /// When, where and how it was heard.
    pub ul: UlMeta,
}

/// What is remembered of a frame that waits on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// See [`Parked::number`].
    pub number: u64,
    /// Its home.
    pub net_id: NetId,
    /// Whose frame it is.
    pub dev_addr: Option<DevAddr>,
    /// When it was heard, seconds since 1970.
    pub received: u64,
    /// Bytes of its PHYPayload.
    pub size: usize,
}

impl From<&Parked> for Place {
    fn from(frame: &Parked) -> Place {
        Place {
            number: frame.number,
            net_id: frame.account.net_id,
            dev_addr: frame.ul.dev_addr,
            received: frame.ul.recv_time.as_second().max(0).unsigned_abs(),
            size: frame.phy_payload.len(),
        }
    }
}

/// What the fNS keeps in the store of frames that wait.
pub trait Parking: Send + Sync {
    /// Every place, in order of number.
    fn places(&self) -> Boxed<'_, Result<Vec<Place>, StoreError>>;
    /// Keep a frame.
    fn park(&self, frame: Parked) -> Boxed<'_, Result<(), StoreError>>;
    /// There is hardly any room: visitors are to be turned away.
    fn is_full(&self) -> bool;
    /// Read one; `None`: it is gone, or cannot be read.
    fn parked(&self, number: u64) -> Boxed<'_, Result<Option<Parked>, StoreError>>;
    /// They are not wanted any more.
    fn unpark(&self, numbers: Vec<u64>) -> Boxed<'_, Result<(), StoreError>>;
}

/// Who waits for whom, and which networks are left alone.
#[derive(Debug, Default)]
pub(super) struct Lot {
    lines: BTreeMap<NetId, Line>,
    last: u64,
}

/// The frames of one network, oldest first.
#[derive(Debug, Default)]
struct Line {
    places: VecDeque<Place>,
    bytes: usize,
    failures: u32,
    failed: Option<Instant>,
    not_before: Option<Instant>,
}

impl Lot {
    /// A number for a frame that comes now.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Take a place. Answers the numbers of those that had to go.
    pub(super) fn put(&mut self, place: Place) -> Vec<u64> {
        self.last = self.last.max(place.number);
        if !self.lines.contains_key(&place.net_id) && self.lines.len() >= NETWORKS {
            return vec![place.number];
        }
        let line = self.lines.entry(place.net_id).or_default();
        line.places.push_back(place);
        line.bytes += place.size;
        let mut gone = Vec::new();
        while line.places.len() > FRAMES || line.bytes > BYTES {
            let Some(oldest) = line.places.pop_front() else { break };
            line.bytes -= oldest.size;
            gone.push(oldest.number);
        }
        gone
    }

    /// A frame has come for a network that is left alone.
    fn is_asked_for(&mut self, net_id: NetId, now: Instant) {
        let Some(line) = self.lines.get_mut(&net_id) else { return };
        if line.failed.is_some_and(|failed| now.duration_since(failed) >= ASKED_FOR) {
            line.not_before = None;
        }
    }

    /// Whether anything waits for a network.
    fn waits(&self, net_id: NetId) -> bool {
        self.lines.contains_key(&net_id)
    }

    fn first(&self, net_id: NetId) -> Option<u64> {
        self.lines.get(&net_id)?.places.front().map(|place| place.number)
    }

    /// A frame has gone, wherever to.
    fn gone(&mut self, net_id: NetId, number: u64) {
        let Some(line) = self.lines.get_mut(&net_id) else { return };
        if let Some(at) = line.places.iter().position(|place| place.number == number)
            && let Some(place) = line.places.remove(at)
        {
            line.bytes -= place.size;
        }
        (line.failures, line.not_before) = (0, None);
        if line.places.is_empty() {
            self.lines.remove(&net_id);
        }
    }

    /// The network cannot be reached. Answers how long it is left alone.
    fn failed(&mut self, net_id: NetId, now: Instant) -> Duration {
        let Some(line) = self.lines.get_mut(&net_id) else { return FIRST_PAUSE };
        let pause = FIRST_PAUSE.saturating_mul(1 << line.failures.min(16)).min(LONGEST_PAUSE);
        line.failures += 1;
        line.failed = Some(now);
        line.not_before = Some(now + pause);
        pause
    }

    /// The network is there. Answers whether frames wait that may go now.
    fn is_there(&mut self, net_id: NetId) -> bool {
        let Some(line) = self.lines.get_mut(&net_id) else { return false };
        (line.failures, line.not_before) = (0, None);
        true
    }

    /// Networks that may be tried now.
    fn due(&self, now: Instant) -> Vec<NetId> {
        let due = |line: &Line| line.not_before.is_none_or(|then| then <= now);
        self.lines.iter().filter(|(_, line)| due(line)).map(|(net_id, _)| *net_id).collect()
    }

    /// When the next network may be tried.
    fn next(&self, now: Instant) -> Option<Instant> {
        self.lines.values().map(|line| line.not_before.unwrap_or(now)).min()
    }

    /// Takes out what has waited too long.
    fn over(&mut self, unix: u64) -> Vec<u64> {
        let mut over = Vec::new();
        self.lines.retain(|_, line| {
            while let Some(place) =
                line.places.pop_front_if(|place| unix.saturating_sub(place.received) > OLDEST)
            {
                line.bytes -= place.size;
                over.push(place.number);
            }
            !line.places.is_empty()
        });
        over
    }

    fn len(&self) -> usize {
        self.lines.values().map(|line| line.places.len()).sum()
    }
}

/// The home may be there again later; it has not said no.
pub(super) fn is_away(error: &PeerError) -> bool {
    matches!(error, PeerError::NotFound { .. } | PeerError::Late { .. } | PeerError::Transport { .. })
}

impl Fns {
    /// Read the frames that earlier runs left.
    pub(super) async fn recall_parked(&self) -> Result<(), StoreError> {
        for place in self.parking.places().await? {
            // the bounds were kept when they were written
            self.lot().put(place);
            // its home had called it its own
            if let Some(dev_addr) = place.dev_addr {
                self.hold_offs().note_served(place.net_id, dev_addr, self.clock.now());
            }
        }
        Ok(())
    }

    /// Whether frames wait for this network, so that a younger one must stand behind them.
    pub(super) fn has_parked(&self, net_id: NetId) -> bool {
        self.lot().waits(net_id)
    }

    /// A network has answered, or spoken to us: what waits for it need not wait for its next turn.
    pub(super) fn note_there(&self, net_id: NetId) {
        if self.lot().is_there(net_id) {
            self.parked_news.notify_one();
        }
    }

    /// Keep a frame for a home that cannot be reached. Answers whether it is kept.
    pub(super) async fn park(
        &self,
        heard: Numbered<'_>,
        account: Account,
        ul: UlMeta,
        by_context: bool,
    ) -> bool {
        let no_way_down = |gateway: GwInfo| GwInfo { ul_token: None, dl_allowed: Some(false), ..gateway };
        let gw_info = ul.gw_info.into_iter().map(no_way_down).collect();
        let ul = UlMeta { fns_ul_token: None, gw_info, ..ul };
        let (number, net_id) = (self.lot().number(), account.net_id);
        let frame = Parked { number, account, by_context, phy_payload: heard.phy.clone(), ul };
        let place = Place::from(&frame);
        if let Err(error) = self.parking.park(frame).await {
            self.count.parked_dropped.add();
            tracing::warn!(NetID = %net_id, "a frame is lost: neither its home can be reached nor the store: {error}");
            return false;
        }
        let gone = {
            let mut lot = self.lot();
            lot.is_asked_for(net_id, self.clock.now());
            lot.put(place)
        };
        let kept = !gone.contains(&number);
        self.count.parked.add();
        self.count.parked_dropped.add_all(gone.len());
        if let Err(error) = self.parking.unpark(gone).await {
            tracing::warn!("frames that were given up come back with the next start: {error}");
        }
        tracing::info!(target: "roamgate::frame", milestone = "frame waits for its home", NetID = %net_id,
            waiting = self.lot().len());
        self.parked_news.notify_one();
        kept
    }

    /// Send what waits, network by network, each in order, until one cannot be reached.
    pub async fn send_parked(&self) -> Result<(), StoreError> {
        // how old a frame is only a clock that is set can tell, and without it nobody is talked to
        if !self.clock.is_trusted() {
            return Ok(());
        }
        let over = self.lot().over(self.clock.unix());
        if !over.is_empty() {
            tracing::warn!(
                frames = over.len(),
                "frames have waited for their home for a day and are given up"
            );
            self.count.parked_dropped.add_all(over.len());
            self.parking.unpark(over).await?;
        }
        let due = self.lot().due(self.clock.now());
        let mut lines: FuturesUnordered<_> = due.into_iter().map(|net_id| self.send_line(net_id)).collect();
        let mut last = Ok(());
        while let Some(done) = lines.next().await {
            last = last.and(done);
        }
        last
    }

    /// Until frames may be sent, or come.
    pub async fn parked_due(&self) {
        let next = self.lot().next(self.clock.now());
        let until = next.unwrap_or(self.clock.now() + LONGEST_PAUSE);
        tokio::select! {
            () = self.clock.sleep_until(until) => {}
            () = self.parked_news.notified() => {}
        }
    }

    /// Frames that wait.
    pub fn parked(&self) -> usize {
        self.lot().len()
    }

    async fn send_line(&self, net_id: NetId) -> Result<(), StoreError> {
        let mut sent = 0_u64;
        while let Some(number) = self.next_of(net_id) {
            let allowed = self.partners.agreement(net_id).passive.start;
            let frame = self.parking.parked(number).await?.filter(|_| allowed);
            let outcome = match &frame {
                Some(frame) => self.send_again(frame).await,
                None => Ok(false),
            };
            let taken = match outcome {
                Ok(taken) => taken,
                Err(error) => {
                    let pause = self.lot().failed(net_id, self.clock.now());
                    tracing::debug!(NetID = %net_id, ?pause, "frames go on waiting: {error}");
                    break;
                }
            };
            self.parking.unpark(vec![number]).await?;
            self.lot().gone(net_id, number);
            if let Some(frame) = frame.filter(|_| taken) {
                sent += 1;
                self.count.parked_sent.add();
                self.note_up(frame.account, Kind::Passive, &frame.phy_payload).await;
            } else {
                self.count.parked_dropped.add();
            }
        }
        if sent > 0 {
            tracing::info!(NetID = %net_id, frames = sent, "frames that waited for their home have gone there");
        }
        Ok(())
    }

    /// The lock is free again when it answers, which it must be over what follows.
    fn next_of(&self, net_id: NetId) -> Option<u64> {
        self.lot().first(net_id)
    }

    /// One frame. Answers whether its home took it; an error: it cannot be reached.
    async fn send_again(&self, frame: &Parked) -> Result<bool, PeerError> {
        let (net_id, by) = (frame.account.net_id, Deadline(self.clock.now() + PATIENCE));
        let refused = |error: PeerError| match is_away(&error) {
            true => Err(error),
            false => {
                tracing::info!(NetID = %net_id, "a frame that waited is not wanted: {error}");
                Ok(false)
            }
        };
        if frame.by_context {
            let req = XmitUp {
                phy_payload: frame.phy_payload.clone(),
                ul: frame.ul.clone(),
                downlink_in_answer: self.downlink_in_answer,
            };
            match self.peers.ask(Party::Ns(net_id), req, by).await {
                Ok(_) => return Ok(true),
                // the context has ended meanwhile: begin anew with the same frame
                Err(error) if error.is(ResultCode::UnknownDevAddr) || error.is(ResultCode::UnknownDevEui) => {
                }
                Err(error) => return refused(error),
            }
        }
        let req = PrStartReq {
            dedup_window: None,
            phy_payload: frame.phy_payload.clone(),
            ul: frame.ul.clone(),
            downlink_in_answer: self.downlink_in_answer,
            mic_check: self.partners.agreement(net_id).passive.mic_check,
            home: None,
        };
        match self.peers.ask(Party::Ns(net_id), req, by).await {
            Ok(answer) => {
                self.keep(net_id, &answer, (None, frame.ul.dev_addr)).await;
                Ok(true)
            }
            Err(error) => refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: NetId = NetId::from_msb([0xC0, 0x0A, 0xBC]);
    const OTHER: NetId = NetId::from_msb([0xC0, 0x00, 0x2F]);

    fn place(number: u64, net_id: NetId, size: usize) -> Place {
        Place { number, net_id, dev_addr: None, received: 1_000 + number, size }
    }

    #[test]
    fn a_line_is_bounded_by_frames_and_bytes_and_the_oldest_goes() {
        let mut lot = Lot::default();
        for number in 1..=1_000 {
            assert!(lot.put(place(number, NET, 20)).is_empty());
        }
        assert_eq!(lot.put(place(1_001, NET, 20)), [1]);
        assert!(lot.put(place(1_002, OTHER, 255)).is_empty(), "each network has its own line");
        assert_eq!((lot.first(NET), lot.number(), lot.len()), (Some(2), 1_003, 1_001));
        let mut lot = Lot::default();
        for number in 1..=300 {
            let gone = lot.put(place(number, NET, 255));
            assert_eq!(gone.len(), usize::from(number > 257), "{number}");
        }
    }

    #[test]
    fn networks_are_bounded() {
        let mut lot = Lot::default();
        for n in 0..64 {
            assert!(lot.put(place(u64::from(n) + 1, NetId::from_msb([0xC0, 1, n]), 20)).is_empty());
        }
        assert_eq!(lot.put(place(99, NET, 20)), [99], "no room for another network");
    }

    #[test]
    fn a_network_that_is_away_is_tried_less_and_less_often_and_at_once_when_it_is_back() {
        let (mut lot, now) = (Lot::default(), Instant::now());
        lot.put(place(1, NET, 20));
        lot.put(place(2, NET, 20));
        assert_eq!((lot.due(now), lot.next(now)), (vec![NET], Some(now)));
        let pauses: Vec<u64> = (0..11).map(|_| lot.failed(NET, now).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
        assert_eq!((lot.due(now), lot.next(now)), (vec![], Some(now + LONGEST_PAUSE)));
        // who talks is not left waiting for a minute
        lot.is_asked_for(NET, now + ASKED_FOR - Duration::from_millis(1));
        assert_eq!(lot.due(now), []);
        lot.is_asked_for(NET, now + ASKED_FOR);
        assert_eq!(lot.due(now), [NET]);
        assert_eq!(lot.failed(NET, now), LONGEST_PAUSE);
        assert!(lot.is_there(NET) && !lot.is_there(OTHER));
        assert_eq!(lot.due(now), [NET]);
        lot.failed(NET, now);
        lot.gone(NET, 1);
        assert_eq!(lot.due(now), [NET]);
        assert_eq!(lot.failed(NET, now), FIRST_PAUSE);
        lot.gone(NET, 2);
        assert!(!lot.waits(NET) && lot.next(now).is_none());
    }

    #[test]
    fn after_a_day_a_frame_is_given_up() {
        let mut lot = Lot::default();
        for number in 1..=3 {
            lot.put(place(number, NET, 20));
        }
        assert!(lot.over(1_001 + OLDEST).is_empty());
        assert_eq!(lot.over(1_003 + OLDEST), [1, 2]);
        assert_eq!(lot.over(1_004 + OLDEST), [3]);
        assert!(!lot.waits(NET));
    }
}
