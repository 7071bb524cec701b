//! An uplink of one of our devices comes home; what waits for the device goes back through the
//! window that the uplink opened (TS002 12.8.1 and 12.8.2, inside the house and out).

use crate::backend::door::{self, Caller, Commit, PeerError};
use crate::backend::message::{ClassMode, DlMeta, Refusal, ResultCode, XmitAns, XmitAppDown, XmitAppUp};
use crate::lorawan::{DevAddr, DevEui, NetId};

use super::profile::visited;
use super::{Activation, Device, Hns, Notice, QueueItem, Uplink};
use crate::usage::Way;

/// A confirmed downlink that nobody acknowledges is given up after this many transmissions.
pub(super) const ATTEMPTS: u32 = 8;

impl Hns {
    /// XmitDataReq(up, FRMPayload). The same uplink may come twice (a forward row sent again): it
    /// is delivered once.
    pub async fn uplink(&self, from: Caller, mut req: XmitAppUp) -> Result<XmitAns, Refusal> {
        let (dev_eui, fcnt_up) = addressed(&req)?;
        let device = self.device(dev_eui).await?;
        let unknown = || Refusal::new(ResultCode::UnknownDevEui, format!("no session of {dev_eui} here"));
        let device = device.ok_or_else(unknown)?;
        let activation = self.activation_of(&from, &mut req, &device)?.ok_or_else(unknown)?;
        let dev_addr = activation.dev_addr;
        let first = !self.delivered().knows(dev_eui, dev_addr, activation.fcnt_up, fcnt_up);
        if activation.fcnt_up.is_none() && activation.session_key_id.is_some() {
            let joined = Notice::Joined { activation: activation.clone(), ul: req.ul.clone() };
            self.application.notice(device.clone(), joined).await?;
        }
        if first && req.ul.f_port.is_some_and(|port| port > 0) {
            let up = Uplink { frm_payload: req.frm_payload.clone(), ul: req.ul.clone() };
            self.application.uplink(device.clone(), activation.clone(), up).await?;
        }
        self.delivered().note(dev_eui, dev_addr, activation.fcnt_up, fcnt_up);
        // Whoever replays an uplink must not draw the queue into the void: a repetition brings what the
        // first one brought, once more, and nothing new.
        let next = self.noted(&req, dev_addr, fcnt_up).await?.filter(|item| first || item.sent_as.is_some());
        if let (Some(item), Some(fcnt_down)) = (next, req.ul.fcnt_down) {
            if device.class == ClassMode::C {
                // sending to it may have begun without this uplink
                if let Some(_sending) = self.reaching.begin(&item, dev_eui, self.clock.now()) {
                    self.send_down(&from, &req, &device, &activation, item, fcnt_down).await;
                }
            } else {
                self.send_down(&from, &req, &device, &activation, item, fcnt_down).await;
            }
        }
        if device.class == ClassMode::C {
            self.reaching.heard(dev_eui);
            self.reach(dev_eui);
        }
        if first && req.ul.f_port.is_some_and(|port| port > 0) {
            self.note_carried(req.via, &activation, Way::Up, req.frm_payload.len()).await;
        }
        if activation.fcnt_up.is_none() {
            self.end_earlier(&device, &activation, from.by).await;
        }
        Ok(XmitAns::default())
    }

    /// The session of an uplink, if whoever brings it serves it (12.8.1 step 3).
    fn activation_of(
        &self,
        from: &Caller,
        req: &mut XmitAppUp,
        device: &Device,
    ) -> Result<Option<Activation>, Refusal> {
        if from.ours {
            let dev_addr = req.ul.dev_addr.ok_or_else(|| missing("DevAddr"))?;
            return Ok(device.activation(dev_addr).cloned());
        }
        let net_id = visited(from)?;
        let agreement = self.abroad.partners.agreement(net_id);
        if !agreement.handover.any() {
            let why = format!("no handover roaming with NetID {net_id}: {}", agreement.line);
            return Err(Refusal::new(ResultCode::NoRoamingAgreement, why));
        }
        let of = |activation: &&Activation| {
            activation.sns == Some(net_id) && req.ul.dev_addr.is_none_or(|addr| addr == activation.dev_addr)
        };
        let lets = self.abroad.partners.lets(device.dev_eui, Some(device.join_eui));
        let may = device.enabled && device.roaming && lets.handover.any();
        let found = device.activations.iter().rev().find(of).filter(|_| may).cloned();
        req.via = Some(net_id);
        if let Some(activation) = &found {
            req.ul.dev_addr = Some(activation.dev_addr);
            let next = activation.fcnt_down.map_or(0, |last| last.saturating_add(1));
            req.ul.fcnt_down = req.ul.fcnt_down.max(Some(next));
        }
        Ok(found)
    }

    /// Write down that the uplink came, settle what has come to its end, and give the next one.
    async fn noted(
        &self,
        req: &XmitAppUp,
        dev_addr: DevAddr,
        fcnt_up: u32,
    ) -> Result<Option<QueueItem>, Refusal> {
        let Some(dev_eui) = req.ul.dev_eui else { return Ok(None) };
        let seen = Seen { at: self.clock.unix(), via: req.via, ack: req.ack };
        let (decide, slot) = door::decided(move |device: &mut Option<Device>| match device {
            Some(device) => {
                let settled = note_uplink(device, dev_addr, fcnt_up, &seen);
                // a lost note costs a second delivery or a second transmission, never a message
                let commit = if settled.is_empty() { Commit::Lazy } else { Commit::Durable };
                let notices = settled.iter().map(Settled::notice).collect();
                ((settled, device.queue.first().cloned()), (commit, notices))
            }
            None => ((Vec::new(), None), (Commit::Nothing, Vec::new())),
        });
        self.devices.telling(dev_eui, Box::new(decide)).await?;
        let (settled, next) = door::outcome(&slot)?;
        for settled in settled {
            tracing::info!(target: "roamgate::frame", milestone = settled.milestone(), DevEUI = %dev_eui,
                item = settled.id(), "downlink settled");
        }
        Ok(next)
    }

    /// Encrypt a queued item for exactly the counter that the sNS offers, and hand it over. A
    /// refused counter is asked for once more with the right one; whatever else is refused stays
    /// in the queue for the next uplink.
    async fn send_down(
        &self,
        from: &Caller,
        req: &XmitAppUp,
        device: &Device,
        activation: &Activation,
        item: QueueItem,
        mut fcnt_down: u32,
    ) {
        let Some(dev_eui) = req.ul.dev_eui else { return };
        for _ in 0..2 {
            let frm_payload = match self.application.encrypt(activation, fcnt_down, &item.payload) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::warn!(DevEUI = %dev_eui, item = item.id, "downlink stays in the queue: {error}");
                    return;
                }
            };
            let dl = DlMeta {
                dev_eui: Some(dev_eui),
                f_port: Some(item.f_port),
                fcnt_down: Some(fcnt_down),
                confirmed: item.confirmed,
                ..DlMeta::default()
            };
            let down = XmitAppDown { frm_payload, dl, dev_addr: Some(activation.dev_addr) };
            match self.peers.ask(from.party.clone(), down, from.by).await {
                Ok(taken) => {
                    self.note_carried(req.via, activation, Way::Down, item.payload.len()).await;
                    if let Err(error) = self.sent(dev_eui, activation, &item, fcnt_down, taken).await {
                        tracing::warn!(DevEUI = %dev_eui, item = item.id, "sent, but may be sent again: {error}");
                    }
                    return;
                }
                Err(PeerError::Refused { refusal: Refusal { fcnt_down: Some(right), .. }, .. }) => {
                    fcnt_down = right;
                }
                Err(error) => {
                    tracing::info!(DevEUI = %dev_eui, item = item.id, "downlink stays in the queue: {error}");
                    if error.is(ResultCode::FrameSizeError) {
                        self.tell(device, Notice::TooLong { item: item.id, why: error.to_string() }).await;
                    }
                    return;
                }
            }
        }
    }

    /// The sNS took the item: an unconfirmed one is done, a confirmed one waits for its ACK.
    pub(super) async fn sent(
        &self,
        dev_eui: DevEui,
        activation: &Activation,
        item: &QueueItem,
        fcnt_down: u32,
        taken: XmitAns,
    ) -> Result<(), Refusal> {
        let (id, confirmed) = (item.id.clone(), item.confirmed);
        // our own sNS keeps the counter itself
        let elsewhere = activation.sns.map(|_| activation.dev_addr);
        let until_end = taken.until_end.unwrap_or_default();
        let decide = move |device: &mut Option<Device>| {
            let Some(device) = device else { return (Commit::Nothing, Vec::new()) };
            note_sent(device, &id, fcnt_down);
            let of = |activation: &&mut Activation| Some(activation.dev_addr) == elsewhere;
            if let Some(activation) = device.activations.iter_mut().find(of) {
                activation.fcnt_down = activation.fcnt_down.max(Some(fcnt_down));
            }
            (Commit::Durable, vec![Notice::Sent { item: id.clone(), fcnt_down, taken: taken.clone() }])
        };
        self.devices.telling(dev_eui, Box::new(decide)).await?;
        if confirmed {
            self.reaching.awaits(dev_eui, self.clock.now() + until_end);
        }
        Ok(())
    }

    /// What happened has happened: a notice that cannot be kept is told in the log.
    pub(super) async fn tell(&self, device: &Device, notice: Notice) {
        if let Err(error) = self.application.notice(device.clone(), notice).await {
            tracing::warn!(DevEUI = %device.dev_eui, "the application is not told: {error}");
        }
    }
}

fn missing(what: &str) -> Refusal {
    Refusal::new(ResultCode::MalformedRequest, format!("{what} is missing"))
}

/// Who the uplink is of; both are mandatory between sNS and hNS (TS002 8.1).
fn addressed(req: &XmitAppUp) -> Result<(DevEui, u32), Refusal> {
    let ul = &req.ul;
    Ok((ul.dev_eui.ok_or_else(|| missing("DevEUI"))?, ul.fcnt_up.ok_or_else(|| missing("FCntUp"))?))
}

/// How an item ended that was not simply sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Settled {
    Acknowledged(QueueItem),
    /// Sent in vain.
    GivenUp(QueueItem),
    /// Never sent.
    Expired(QueueItem),
}

impl Settled {
    fn item(&self) -> &QueueItem {
        match self {
            Settled::Acknowledged(item) | Settled::GivenUp(item) | Settled::Expired(item) => item,
        }
    }
    pub(super) fn id(&self) -> &str {
        &self.item().id
    }
    pub(super) fn notice(&self) -> Notice {
        let item = self.item().id.clone();
        match self {
            Settled::Expired(_) => Notice::Expired { item },
            Settled::Acknowledged(QueueItem { sent_as, .. })
            | Settled::GivenUp(QueueItem { sent_as, .. }) => {
                let acknowledged = matches!(self, Settled::Acknowledged(_));
                Notice::Settled { item, fcnt_down: sent_as.unwrap_or_default(), acknowledged }
            }
        }
    }
    pub(super) fn milestone(&self) -> &'static str {
        match self {
            Settled::Acknowledged(_) => "downlink acknowledged",
            Settled::GivenUp(_) => "downlink given up",
            Settled::Expired(_) => "downlink expired",
        }
    }
}

/// When and how an uplink was seen.
struct Seen {
    /// Seconds since 1970.
    at: u64,
    /// Through whom, where that is not us.
    via: Option<NetId>,
    /// It acknowledges our last confirmed downlink.
    ack: bool,
}

/// Record an uplink; an ACK settles the confirmed item that was sent last, and what has expired goes.
fn note_uplink(device: &mut Device, dev_addr: DevAddr, fcnt_up: u32, seen: &Seen) -> Vec<Settled> {
    device.last_seen = Some(seen.at);
    device.last_via = seen.via;
    let mut settled = Vec::new();
    let activation = device.activations.iter_mut().find(|activation| activation.dev_addr == dev_addr);
    if let Some(activation) = activation {
        let repeated = activation.fcnt_up.is_some_and(|last| fcnt_up <= last);
        activation.fcnt_up = activation.fcnt_up.max(Some(fcnt_up));
        if let Some(waiting) = device.queue.iter().position(|item| item.sent_as.is_some()) {
            if seen.ack {
                settled.push(Settled::Acknowledged(device.queue.remove(waiting)));
            } else if !repeated && device.queue[waiting].attempts >= ATTEMPTS {
                settled.push(Settled::GivenUp(device.queue.remove(waiting)));
            }
        }
    }
    settled.extend(expired(device, seen.at));
    settled
}

/// Take out what has expired.
pub(super) fn expired(device: &mut Device, now: u64) -> Vec<Settled> {
    let is_over = |item: &mut QueueItem| item.expires.is_some_and(|expires| expires <= now);
    let over = device.queue.extract_if(.., is_over).map(|item| match item.sent_as {
        Some(_) => Settled::GivenUp(item),
        None => Settled::Expired(item),
    });
    over.collect()
}

fn note_sent(device: &mut Device, id: &str, fcnt_down: u32) {
    let Some(at) = device.queue.iter().position(|item| item.id == id) else { return };
    let item = &mut device.queue[at];
    if item.confirmed {
        item.sent_as = Some(fcnt_down);
        item.attempts += 1;
    } else {
        device.queue.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::message::MacVersion;
    use crate::lorawan::JoinEui;

    const ADDR: DevAddr = DevAddr::new(0x0200_0001);

    fn device(queue: Vec<QueueItem>) -> Device {
        let activation = Activation {
            dev_addr: ADDR,
            session_key_id: None,
            app_s_key: None,
            fcnt_up: None,
            sns: None,
            fcnt_down: None,
            created: 0,
        };
        Device {
            dev_eui: DevEui::from_msb([1; 8]),
            join_eui: JoinEui::from_msb([0; 8]),
            name: "barometer".into(),
            mac_version: MacVersion::V1_0_4,
            enabled: true,
            roaming: true,
            personalised: false,
            class: crate::backend::message::ClassMode::A,
            activations: vec![activation],
            queue,
            last_seen: None,
            last_via: None,
            profile_since: 0,
            home: None,
        }
    }

    fn item(id: &str, confirmed: bool) -> QueueItem {
        QueueItem {
            id: id.into(),
            f_port: 2,
            payload: vec![1],
            confirmed,
            sent_as: None,
            attempts: 0,
            expires: None,
        }
    }

    fn seen(ack: bool) -> Seen {
        Seen { at: 10, via: None, ack }
    }

    #[test]
    fn an_unconfirmed_item_leaves_the_queue_when_the_sns_took_it() {
        let mut device = device(vec![item("a", false), item("b", false)]);
        note_sent(&mut device, "a", 4);
        assert_eq!(device.queue, [item("b", false)]);
    }

    #[test]
    fn a_confirmed_item_stays_until_the_device_acknowledges_it() {
        let mut device = device(vec![item("a", true)]);
        note_sent(&mut device, "a", 4);
        assert_eq!(note_uplink(&mut device, ADDR, 1, &seen(false)), []);
        assert_eq!(device.queue[0].sent_as, Some(4));
        let sent = QueueItem { sent_as: Some(4), attempts: 1, ..item("a", true) };
        assert_eq!(note_uplink(&mut device, ADDR, 2, &seen(true)), [Settled::Acknowledged(sent)]);
        assert!(device.queue.is_empty());
    }

    #[test]
    fn a_confirmed_item_is_given_up_after_its_attempts_but_not_by_a_repetition() {
        let mut device = device(vec![item("a", true)]);
        for attempt in 0..ATTEMPTS {
            assert_eq!(note_uplink(&mut device, ADDR, attempt, &seen(false)), []);
            note_sent(&mut device, "a", attempt);
        }
        assert_eq!(note_uplink(&mut device, ADDR, ATTEMPTS - 1, &seen(false)), []);
        let given_up = note_uplink(&mut device, ADDR, ATTEMPTS, &seen(false));
        assert!(matches!(&given_up[..], [Settled::GivenUp(item)] if item.id == "a"));
    }

    #[test]
    fn what_has_expired_is_sent_no_more_and_says_whether_it_ever_was() {
        let until = |id: &str, expires| QueueItem { expires: Some(expires), ..item(id, true) };
        let mut device =
            device(vec![until("sent", 10), until("late", 9), until("early", 11), item("ever", false)]);
        note_sent(&mut device, "sent", 4);
        let settled = note_uplink(&mut device, ADDR, 1, &seen(false));
        let notices: Vec<Notice> = settled.iter().map(Settled::notice).collect();
        let given_up = Notice::Settled { item: "sent".into(), fcnt_down: 4, acknowledged: false };
        assert_eq!(notices, [given_up, Notice::Expired { item: "late".into() }]);
        let left: Vec<&str> = device.queue.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(left, ["early", "ever"]);
        // an acknowledgement that comes with the same uplink counts
        let mut device = self::device(vec![until("sent", 10)]);
        note_sent(&mut device, "sent", 4);
        let settled = note_uplink(&mut device, ADDR, 1, &seen(true));
        assert!(matches!(&settled[..], [Settled::Acknowledged(_)]), "{settled:?}");
    }
}
