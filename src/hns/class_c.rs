//! Downlinks to devices of class C, which need no uplink: they go as soon as they are there (TS001, class C).
//!
//! One item at a time for each device, in the order of its queue. A confirmed one is waited for before the next goes. The
//! queue is the store's; what is remembered here is when to look at it again, and may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tracing::Instrument;

use crate::backend::door::{self, Commit, Deadline, PeerError, StoreError};
use crate::backend::message::{ClassMode, DlMeta, Party, Refusal, ResultCode, XmitAppDown};
use crate::clock::Instant;
use crate::lorawan::{DevEui, NetId};
use crate::usage::Way;

use super::uplink::{ATTEMPTS, Settled, expired};
use super::{Activation, Device, Hns, QueueItem};

/// CLASS_C_RESP_TIMEOUT of RP002: so long after a confirmed downlink the device may take to acknowledge it.
const ACK_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the sNS and the radio may take over one frame.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the store could not do is tried again after this.
const STORE_PAUSE: Duration = Duration::from_secs(30);
/// A device that is being sent to is looked at again after this.
const BUSY: Duration = Duration::from_millis(100);
/// Between the end of one frame and the next one to the same device.
const GAP: Duration = Duration::from_millis(100);
/// What another network that serves the device could not send is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Another network does not say when a frame ends: SF12 and 51 bytes take less.
const UNTOLD: Duration = Duration::from_secs(3);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(3600);

/// When to look at which device.
#[derive(Default)]
pub(super) struct Reaching {
    state: Mutex<State>,
    /// Something is due earlier than before.
    wake: Notify,
}

#[derive(Default)]
struct State {
    due: BTreeMap<DevEui, Instant>,
    /// Being sent to right now.
    sending: BTreeSet<DevEui>,
    /// Until when an acknowledgement may come.
    acks: BTreeMap<DevEui, Instant>,
    /// Tries in vain since the last success or uplink.
    in_vain: BTreeMap<DevEui, u32>,
}

impl Reaching {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An uplink came: the way to the device is good.
    pub(super) fn heard(&self, dev_eui: DevEui) {
        self.state().in_vain.remove(&dev_eui);
    }

    /// A confirmed item was sent, and its frame ends then.
    pub(super) fn awaits(&self, dev_eui: DevEui, end: Instant) {
        let mut state = self.state();
        // a device of class A acknowledges with the next uplink, whenever that is
        state.acks.insert(dev_eui, end + ACK_TIMEOUT);
    }

    /// Send this item in an uplink's window? `None`: it is being sent, or its acknowledgement may still come.
    pub(super) fn begin(&self, item: &QueueItem, dev_eui: DevEui, now: Instant) -> Option<Sending<'_>> {
        let waits = |acks: &BTreeMap<_, Instant>| acks.get(&dev_eui).is_some_and(|until| now < *until);
        if item.sent_as.is_some() && waits(&self.state().acks) {
            return None;
        }
        self.enter(dev_eui)
    }

    fn enter(&self, dev_eui: DevEui) -> Option<Sending<'_>> {
        self.state().sending.insert(dev_eui).then(|| Sending { reaching: self, dev_eui })
    }

    fn remind(&self, dev_eui: DevEui, at: Instant) {
        let mut state = self.state();
        let due = state.due.entry(dev_eui).or_insert(at);
        *due = at.min(*due);
        drop(state);
        self.wake.notify_one();
    }

    /// What is due now, and when the next one is.
    fn take_due(&self, now: Instant) -> (Vec<DevEui>, Option<Instant>) {
        let mut state = self.state();
        let due: Vec<DevEui> =
            state.due.iter().filter(|(_, at)| **at <= now).map(|(dev_eui, _)| *dev_eui).collect();
        state.due.retain(|_, at| *at > now);
        let next = state.due.values().min().copied();
        (due, next)
    }

    /// How long to wait after another try in vain.
    fn pause(&self, dev_eui: DevEui, at_least: Duration) -> Duration {
        let mut state = self.state();
        let times = state.in_vain.entry(dev_eui).or_default();
        let doubled = at_least.saturating_mul(1 << (*times).min(12));
        *times += 1;
        doubled.min(LONGEST.max(at_least))
    }
}

/// Nobody else sends to the device until this is dropped.
pub(super) struct Sending<'a> {
    reaching: &'a Reaching,
    dev_eui: DevEui,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.reaching.state().sending.remove(&self.dev_eui);
    }
}

impl Hns {
    /// Something waits for a device: if it is of class C, it goes at once.
    pub fn reach(&self, dev_eui: DevEui) {
        self.reaching.remind(dev_eui, self.clock.now());
    }

    /// Send to devices of class C, for ever. `sns`: the network that serves them, ours.
    pub async fn reach_all(self: Arc<Self>, sns: NetId) {
        let mut looking = FuturesUnordered::new();
        loop {
            let (due, next) = self.reaching.take_due(self.clock.now());
            for dev_eui in due {
                let hns = self.clone();
                // a task of its own: what has begun is finished when the node stops
                let work = async move {
                    if let Some(at) = hns.look_after(dev_eui, Party::Ns(sns)).await {
                        hns.reaching.remind(dev_eui, at);
                    }
                };
                looking.push(tokio::spawn(work.in_current_span()));
            }
            let sleep = async {
                match next {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.reaching.wake.notified() => {}
                Some(_) = looking.next() => {}
                () = sleep => {}
            }
        }
    }

    /// Send what is next for a device, if that may be now. When to look again; `None`: not before something comes, an
    /// uplink or another item.
    async fn look_after(&self, dev_eui: DevEui, sns: Party) -> Option<Instant> {
        let now = self.clock.now();
        let Some(_sending) = self.reaching.enter(dev_eui) else { return Some(now + BUSY) };
        let (device, item) = match self.next_item(dev_eui, now).await {
            Ok(Next::Send(device, item)) => (*device, item),
            Ok(Next::Wait(at)) => return Some(at),
            Ok(Next::Nothing) => return None,
            Err(error) => {
                tracing::warn!(DevEUI = %dev_eui, "a downlink of class C waits: {error}");
                return Some(now + STORE_PAUSE);
            }
        };
        // the newest activation may be one that the device has not heard of
        for activation in device.activations.iter().rev() {
            match self.send_now(&device, activation, &item, &sns).await {
                Tried::Sent(until_end) => {
                    self.reaching.heard(dev_eui);
                    return Some(self.clock.now() + until_end + GAP);
                }
                Tried::OtherSession => {}
                Tried::Later(wait) => {
                    return Some(self.clock.now() + self.reaching.pause(dev_eui, wait));
                }
                Tried::NextUplink => return None,
            }
        }
        None
    }

    /// What the queue says: expired and unacknowledged items go first.
    async fn next_item(&self, dev_eui: DevEui, now: Instant) -> Result<Next, StoreError> {
        let until = self.reaching.state().acks.get(&dev_eui).copied();
        let at = self.clock.unix();
        let (decide, slot) = door::decided(move |device: &mut Option<Device>| {
            let Some(device) =
                device.as_mut().filter(|device| device.class == ClassMode::C && device.enabled)
            else {
                return ((Vec::new(), Next::Nothing), (Commit::Nothing, Vec::new()));
            };
            let (settled, next) = decide_next(device, at, now, until);
            let commit = if settled.is_empty() { Commit::Nothing } else { Commit::Durable };
            let notices = settled.iter().map(Settled::notice).collect();
            ((settled, next), (commit, notices))
        });
        self.devices.telling(dev_eui, Box::new(decide)).await?;
        let (settled, next) = door::outcome(&slot)?;
        for settled in settled {
            tracing::info!(target: "roamgate::frame", milestone = settled.milestone(), DevEUI = %dev_eui,
                item = settled.id(), "downlink settled");
        }
        if let Next::Wait(until) = next {
            // after a restart nobody knows when it was sent
            self.reaching.state().acks.entry(dev_eui).or_insert(until);
        }
        Ok(next)
    }

    /// Encrypt an item and hand it over without an uplink. The counter is the sNS's to say.
    async fn send_now(
        &self,
        device: &Device,
        activation: &Activation,
        item: &QueueItem,
        sns: &Party,
    ) -> Tried {
        let dev_eui = device.dev_eui;
        let by = Deadline(self.clock.now() + PATIENCE);
        // another network that serves it is asked for the one after the last that it took
        let sns = activation.sns.map_or_else(|| sns.clone(), Party::Ns);
        let mut fcnt_down = activation.fcnt_down.map_or(0, |last| last.saturating_add(1));
        // the first answer names the counter; an acknowledgement of the network may take that one
        for _ in 0..3 {
            let frm_payload = match self.application.encrypt(activation, fcnt_down, &item.payload) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::warn!(DevEUI = %dev_eui, item = item.id, "downlink stays in the queue: {error}");
                    return Tried::NextUplink;
                }
            };
            let dl = DlMeta {
                dev_eui: Some(dev_eui),
                f_port: Some(item.f_port),
                fcnt_down: Some(fcnt_down),
                confirmed: item.confirmed,
                class_mode: Some(ClassMode::C),
                ..DlMeta::default()
            };
            let down = XmitAppDown { frm_payload, dl, dev_addr: Some(activation.dev_addr) };
            match self.peers.ask(sns.clone(), down, by).await {
                Ok(taken) => {
                    self.note_carried(activation.sns, activation, Way::Down, item.payload.len()).await;
                    let until_end = taken.until_end.or(activation.sns.map(|_| UNTOLD)).unwrap_or_default();
                    if let Err(error) = self.sent(dev_eui, activation, item, fcnt_down, taken).await {
                        tracing::warn!(DevEUI = %dev_eui, item = item.id, "sent, but may be sent again: {error}");
                        return Tried::Later(STORE_PAUSE);
                    }
                    return Tried::Sent(until_end);
                }
                Err(PeerError::Refused { refusal: Refusal { fcnt_down: Some(right), .. }, .. }) => {
                    fcnt_down = right;
                }
                Err(PeerError::Refused { refusal, .. }) if refusal.code == ResultCode::UnknownDevAddr => {
                    return Tried::OtherSession;
                }
                // another network does not say when its radio will be free
                Err(PeerError::Refused { refusal, .. })
                    if refusal.code == ResultCode::XmitFailed
                        && refusal.retry_in.is_none()
                        && activation.sns.is_some() =>
                {
                    return Tried::Later(AGAIN);
                }
                Err(PeerError::Refused {
                    refusal: Refusal { retry_in: Some(wait), description, .. },
                    ..
                }) => {
                    tracing::info!(target: "roamgate::frame", milestone = "downlink of class C waits", DevEUI = %dev_eui,
                        item = item.id, why = description, wait_s = wait.as_secs_f64());
                    return Tried::Later(wait);
                }
                Err(error) => {
                    tracing::info!(DevEUI = %dev_eui, item = item.id, "downlink stays in the queue: {error}");
                    if error.is(ResultCode::FrameSizeError) {
                        let (item, why) = (item.id.clone(), error.to_string());
                        self.tell(device, super::Notice::TooLong { item, why }).await;
                    }
                    return match error {
                        PeerError::Refused { .. } => Tried::NextUplink,
                        // the radio says nothing, or the node is stopping
                        _ => Tried::Later(STORE_PAUSE),
                    };
                }
            }
        }
        Tried::Later(BUSY)
    }
}

/// What to do for a device.
#[derive(Debug, Clone, PartialEq)]
enum Next {
    Nothing,
    /// An acknowledgement may come until then.
    Wait(Instant),
    Send(Box<Device>, QueueItem),
}

/// What came of a try.
enum Tried {
    /// The frame ends so long from now.
    Sent(Duration),
    /// The device does not use this activation.
    OtherSession,
    /// A rule or the radio forbids it for so long.
    Later(Duration),
    /// Nothing helps before the device has spoken.
    NextUplink,
}

/// The next item of a device of class C. `at`: seconds since 1970; `until`: when the acknowledgement of the item that was
/// sent last is overdue, if that is known. Pure.
fn decide_next(device: &mut Device, at: u64, now: Instant, until: Option<Instant>) -> (Vec<Settled>, Next) {
    let mut settled = expired(device, at);
    loop {
        let Some(item) = device.queue.first() else { return (settled, Next::Nothing) };
        if item.sent_as.is_some() {
            let until = until.unwrap_or(now + ACK_TIMEOUT);
            if now < until {
                return (settled, Next::Wait(until));
            }
            if item.attempts >= ATTEMPTS {
                settled.push(Settled::GivenUp(device.queue.remove(0)));
                continue;
            }
        }
        let item = item.clone();
        return (settled, Next::Send(Box::new(device.clone()), item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::message::MacVersion;
    use crate::lorawan::JoinEui;

    const S: Duration = Duration::from_secs(1);

    fn lamp(queue: Vec<QueueItem>) -> Device {
        Device {
            dev_eui: DevEui::from_msb([1; 8]),
            join_eui: JoinEui::from_msb([0; 8]),
            name: "lamp".into(),
            mac_version: MacVersion::V1_0_4,
            enabled: true,
            roaming: true,
            personalised: false,
            class: ClassMode::C,
            activations: Vec::new(),
            queue,
            last_seen: None,
            last_via: None,
            profile_since: 0,
            home: None,
        }
    }

    fn item(id: &str, sent_as: Option<u32>, attempts: u32) -> QueueItem {
        let (f_port, payload, confirmed) = (2, vec![1], sent_as.is_some());
        QueueItem { id: id.into(), f_port, payload, confirmed, sent_as, attempts, expires: None }
    }

    fn sends(next: &Next) -> Option<&str> {
        match next {
            Next::Send(_, item) => Some(&item.id),
            _ => None,
        }
    }

    #[test]
    fn the_first_item_goes_and_one_that_waits_for_its_acknowledgement_holds_up_the_others() {
        let now = Instant::now();
        let mut device = lamp(vec![item("a", None, 0), item("b", None, 0)]);
        assert_eq!(sends(&decide_next(&mut device, 0, now, None).1), Some("a"));
        let mut device = lamp(vec![item("a", Some(4), 1), item("b", None, 0)]);
        assert_eq!(decide_next(&mut device, 0, now, Some(now + S)).1, Next::Wait(now + S));
        assert_eq!(sends(&decide_next(&mut device, 0, now + S, Some(now + S)).1), Some("a"));
        // after a restart it is waited for anew
        assert_eq!(decide_next(&mut device, 0, now, None).1, Next::Wait(now + ACK_TIMEOUT));
        assert_eq!(decide_next(&mut lamp(vec![]), 0, now, None).1, Next::Nothing);
    }

    #[test]
    fn after_its_attempts_an_item_is_given_up_and_the_next_goes() {
        let now = Instant::now();
        let mut device = lamp(vec![item("a", Some(4), ATTEMPTS), item("b", None, 0)]);
        let (settled, next) = decide_next(&mut device, 0, now, Some(now));
        assert!(matches!(&settled[..], [Settled::GivenUp(item)] if item.id == "a"));
        assert_eq!(sends(&next), Some("b"));
        let mut device = lamp(vec![QueueItem { expires: Some(9), ..item("a", None, 0) }]);
        let (settled, next) = decide_next(&mut device, 9, now, None);
        assert!(matches!(&settled[..], [Settled::Expired(_)]) && next == Next::Nothing);
    }

    #[test]
    fn tries_in_vain_become_rarer_until_the_device_is_heard() {
        let (reaching, dev_eui) = (Reaching::default(), DevEui::from_msb([1; 8]));
        let pauses: Vec<Duration> = (0..12).map(|_| reaching.pause(dev_eui, 10 * S)).collect();
        assert_eq!(pauses[..4], [10 * S, 20 * S, 40 * S, 80 * S]);
        assert_eq!(pauses[11], LONGEST);
        assert_eq!(reaching.pause(dev_eui, 2 * LONGEST), 2 * LONGEST, "a rule is not asked before its time");
        reaching.heard(dev_eui);
        assert_eq!(reaching.pause(dev_eui, 10 * S), 10 * S);
    }

    #[test]
    fn nobody_sends_to_a_device_twice_at_once_or_before_its_acknowledgement_is_overdue() {
        let (reaching, dev_eui, now) = (Reaching::default(), DevEui::from_msb([1; 8]), Instant::now());
        let first = reaching.begin(&item("a", None, 0), dev_eui, now);
        assert!(first.is_some() && reaching.begin(&item("a", None, 0), dev_eui, now).is_none());
        drop(first);
        reaching.awaits(dev_eui, now);
        let sent = item("a", Some(4), 1);
        assert!(reaching.begin(&sent, dev_eui, now + ACK_TIMEOUT - S).is_none());
        assert!(reaching.begin(&sent, dev_eui, now + ACK_TIMEOUT).is_some());
    }
}
