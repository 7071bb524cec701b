//! Every transmission: a hearing, two windows, the rules of the band, the radio's word.

use std::time::Duration;

use jiff::SignedDuration;

use crate::backend::door::{Caller, Deadline};
use crate::backend::message::{ClassMode, DlMeta, Party, Radiated, Refusal, ResultCode, XmitAns, XmitDown};
use crate::clock::Instant;
use crate::jit;
use crate::lorawan::DevAddr;
use crate::lorawan::crypto::Direction;
use crate::usage::Kind;

use super::dedup::Ear;
use super::token::Hearing;
use super::{AirError, Count, Fns, Sent, Tx};

/// The reports of several heads come in so fast: then the best of them is known.
const COLLECT: Duration = Duration::from_millis(200);
/// What must be left until a window for that to be awaited.
const SPARE: Duration = Duration::from_millis(500);

/// So long a head may take to say what becomes of a frame that it sends at once.
const SAY: Duration = Duration::from_secs(2);

/// One receive window of a downlink.
pub(super) struct Slot {
    pub name: &'static str,
    /// From the end of the uplink.
    pub delay: Duration,
    pub frequency: u32,
    pub data_rate: u8,
}

impl Fns {
    /// XmitDataReq(down), as fNS (TS002 12.6.2). Serves a partner while our own PRStartReq to it is
    /// still pending: the token says everything.
    pub async fn downlink(&self, from: Caller, req: XmitDown) -> Result<XmitAns, Refusal> {
        // 3: agreement, message, token
        let dl = &req.dl;
        let phy = req.phy_payload.clone();
        let mut context = None;
        if let Party::Ns(net_id) = from.party {
            self.may_send(net_id)?;
            context = self.may_go_down(net_id, downlink_addr(&phy)?).await?;
        }
        let sent = if dl.class_mode == Some(ClassMode::C) {
            self.transmit_now(&from, req.phy_payload, dl).await?
        } else {
            self.transmit(&self.hearing(&from, dl)?, req.phy_payload, dl).await?
        };
        if let Party::Ns(net_id) = from.party {
            self.note_there(net_id);
            self.note_airtime(net_id, phy.len(), &sent).await;
            let (kind, account) = match req.account {
                Some(account) => (Kind::Handover, Some(account)),
                None => (Kind::Passive, self.charge_down(net_id, context.as_ref())),
            };
            if let Some(account) = account {
                self.note_down(account, kind, &phy).await;
            }
        }
        Ok(sent)
    }

    pub(super) fn hearing(&self, from: &Caller, dl: &DlMeta) -> Result<Hearing, Refusal> {
        let tokens = dl.fns_ul_token.iter().chain(&dl.ul_tokens);
        let mut why = "FNSULToken is missing".to_string();
        for token in tokens {
            match self.seal.open(&from.party, token) {
                Ok(hearing) => return Ok(hearing),
                Err(error) => why = error.to_string(),
            }
        }
        Err(Refusal::new(ResultCode::XmitFailed, why))
    }

    /// Send a frame in the first window that the rules and the radio allow (TS002 8.2, class A).
    pub(super) async fn transmit(
        &self,
        hearing: &Hearing,
        phy: Vec<u8>,
        dl: &DlMeta,
    ) -> Result<XmitAns, Refusal> {
        // the answer is for the device that was heard, whoever made it
        if hearing.dev_addr != downlink_addr(&phy)? {
            return Err(Refusal::new(ResultCode::XmitFailed, "this uplink was another device's"));
        }
        // one transmission for one hearing; given back if nothing went out
        if !self.spend(hearing) {
            return Err(Refusal::new(ResultCode::XmitFailed, "this uplink was answered already"));
        }
        let slots = slots(dl).inspect_err(|_| self.give_back(hearing))?;
        let mut heads = self.carriers(hearing, &slots).await;
        let mut said = Vec::new();
        if heads.is_empty() {
            said.push(AirError::Gone(hearing.gateway).to_string());
        }
        let mut maybe_sent = false;
        'windows: for slot in &slots {
            // the best head first; what it cannot do in this window, another may
            for head in heads.clone() {
                match self.try_slot(&head, &phy, slot).await {
                    Ok(sent) => {
                        self.heads().note_sent(head.gateway);
                        self.report(hearing, &head, &phy, slot, &sent);
                        let radiated =
                            self.region.downlink_modulation(slot.data_rate).map(|modulation| Radiated {
                                gateway: head.gateway,
                                frequency: slot.frequency,
                                modulation,
                                power: sent.power,
                            });
                        let until_end = self.until_end(head.at + slot.delay, phy.len(), slot.data_rate);
                        let used = Some(slot.frequency);
                        let (dl_freq1, dl_freq2) =
                            if slot.name == "RX1" { (used, None) } else { (None, used) };
                        return Ok(XmitAns { dl_freq1, dl_freq2, riding: None, radiated, until_end });
                    }
                    Err(Missed { why, then, .. }) => {
                        said.push(match heads.len() {
                            1 => format!("{}: {why}", slot.name),
                            _ => format!("{} by {}: {why}", slot.name, head.gateway),
                        });
                        match then {
                            Then::NextChance => {}
                            Then::Gone => {
                                self.heads().note_offline(head.gateway);
                                heads.retain(|other| other.gateway != head.gateway);
                            }
                            Then::MayBeSent => {
                                self.heads().note_silent(head.gateway, self.clock.now());
                                maybe_sent = true;
                                break 'windows;
                            }
                        }
                    }
                }
            }
        }
        if !maybe_sent {
            self.give_back(hearing);
        }
        let why = said.join("; ");
        // who follows frames gets every one; the log gets each cause once a minute
        match self.complain(hearing.gateway, &why) {
            Some(left_out) => {
                let remedy =
                    "the network that sends it keeps to the rule, or its device uses another data rate";
                tracing::warn!(target: "roamgate::frame", milestone = "downlink not sent", gateway = %hearing.gateway, why, remedy, left_out);
            }
            None => {
                tracing::debug!(target: "roamgate::frame", milestone = "downlink not sent", gateway = %hearing.gateway, why);
            }
        }
        Err(Refusal::new(ResultCode::XmitFailed, why))
    }

    /// The heads that may carry the answer to a transmission, best first. Where several listen, there is
    /// time until the window: the copies of the slower ones are awaited, if that costs no window.
    async fn carriers(&self, hearing: &Hearing, slots: &[Slot]) -> Vec<Ear> {
        let collected = hearing.at + COLLECT;
        let in_time = slots.first().is_some_and(|slot| hearing.at + slot.delay >= collected + SPARE);
        let ears = if in_time { self.collect(hearing, collected).await } else { self.ears(hearing) };
        let online = |gateway| self.air.online(gateway);
        self.heads().best_first(ears, hearing.gateway, online, self.clock.now())
    }

    /// Wait for the heads that lately heard the same frames as those that have heard this one, but not for
    /// long. Heads that never share a frame wait for nobody.
    async fn collect(&self, hearing: &Hearing, until: Instant) -> Vec<Ear> {
        loop {
            // asked before the look, so that no copy slips between the two
            let copy = self.copy.notified();
            let ears = self.ears(hearing);
            let awaited = self.dedup().neighbours(hearing.number, self.clock.now());
            if self.clock.now() >= until || !awaited.into_iter().any(|head| self.air.online(head)) {
                return ears;
            }
            tokio::select! {
                () = copy => {}
                () = self.clock.sleep_until(until) => {}
            }
        }
    }

    /// Every head that is known to have heard it; where that is forgotten, the one that the token names.
    pub(super) fn ears(&self, hearing: &Hearing) -> Vec<Ear> {
        let ears: Vec<Ear> = self.dedup().heard_by(hearing.number).copied().collect();
        // numbers begin anew with the process, so a token of an earlier one may name a stranger
        let named = |ear: &Ear| {
            (ear.gateway, ear.session, ear.tmst) == (hearing.gateway, hearing.session, hearing.tmst)
        };
        if ears.iter().any(named) { ears } else { vec![Ear::from(hearing)] }
    }

    async fn try_slot(&self, head: &Ear, phy: &[u8], slot: &Slot) -> Result<Sent, Missed> {
        let (start, at) = (head.at + slot.delay, Some(head.tmst.plus(slot.delay)));
        self.try_at(head, phy, slot, start, at).await
    }

    /// Hand a frame to a head for a moment that `jit` allows. `at`: the same moment on the head's counter; `None`: at
    /// once.
    pub(super) async fn try_at(
        &self,
        head: &Ear,
        phy: &[u8],
        slot: &Slot,
        start: Instant,
        at: Option<Count>,
    ) -> Result<Sent, Missed> {
        let now = self.clock.now();
        let modulation = self.region.downlink_modulation(slot.data_rate).ok_or_else(|| {
            Missed::next(format!("DR{} is no downlink data rate of {}", slot.data_rate, self.region))
        })?;
        if let Some(most) = self.region.max_phy(slot.data_rate).filter(|most| phy.len() > *most) {
            let (size, region) = (phy.len(), &self.region);
            return Err(Missed::next(format!(
                "{size} bytes are more than the {most} of DR{} in {region}",
                slot.data_rate
            )));
        }
        let power = self.region.max_downlink_eirp(slot.frequency);
        let airtime = jit::airtime(modulation, phy.len(), Direction::Down);
        let ticket = self
            .jit()
            .reserve(head.gateway, start, airtime, slot.frequency, power, now)
            .map_err(|refused| Missed { retry_in: refused.wait, ..Missed::next(self.until(refused)) })?;
        let mut tx = Tx {
            gateway: head.gateway,
            session: head.session,
            phy: phy.to_vec(),
            frequency: slot.frequency,
            modulation,
            power,
            at,
            start,
        };
        let mut weaker = WEAKER.into_iter().filter(|weaker| *weaker < power);
        let error = loop {
            // a head that sends at once says so when it has the frame, not before it begins
            let said_by = if at.is_some() { start } else { start + SAY };
            match self.air.transmit(tx.clone(), Deadline(said_by)).await {
                Ok(sent) => return Ok(sent),
                // older packet forwarders refuse a power that is not in their table
                Err(AirError::Power) => match weaker.next() {
                    Some(power) => tx.power = power,
                    None => break AirError::Power,
                },
                Err(error) => break error,
            }
        };
        // A head that says nothing may have sent it all the same: its airtime stays spent, and a
        // second frame could be a second transmission.
        if error != AirError::Silent {
            self.jit().release(ticket);
        }
        let then = match error {
            AirError::Silent => Then::MayBeSent,
            AirError::Gone(_) => Then::Gone,
            _ => Then::NextChance,
        };
        Err(Missed { why: error.to_string(), then, retry_in: None })
    }

    /// A rule of the band, with the time of day from which it allows the frame.
    fn until(&self, refused: jit::Refused) -> String {
        let later = refused.wait.and_then(|wait| SignedDuration::try_from(wait).ok());
        match later.and_then(|wait| self.clock.wall().checked_add(wait).ok()) {
            Some(at) => format!("{refused}, at {at:.3}"),
            None => refused.to_string(),
        }
    }

    /// From now to the end of a frame that starts then.
    pub(super) fn until_end(&self, start: Instant, size: usize, data_rate: u8) -> Option<Duration> {
        let airtime = jit::airtime(self.region.downlink_modulation(data_rate)?, size, Direction::Down);
        Some((start + airtime).saturating_duration_since(self.clock.now()))
    }

    fn report(&self, hearing: &Hearing, head: &Ear, phy: &[u8], slot: &Slot, sent: &Sent) {
        let lead = (head.at + slot.delay).saturating_duration_since(self.clock.now());
        let milestone = if hearing.dev_addr.is_some() {
            "downlink handed to the radio"
        } else {
            "Join-accept handed to the radio"
        };
        tracing::info!(target: "roamgate::frame", milestone, window = slot.name, gateway = %head.gateway,
            frequency = slot.frequency, data_rate = slot.data_rate, size = phy.len(), power = sent.power,
            lead_ms = lead.as_secs_f64() * 1e3);
    }
}

/// Powers to fall back to where a head cannot send with the region's maximum, EIRP in dBm: all are
/// in the table of every packet forwarder known to us.
const WEAKER: [i8; 3] = [27, 16, 14];

/// Why a window was missed.
pub(super) struct Missed {
    pub why: String,
    pub then: Then,
    /// When a rule allows it.
    pub retry_in: Option<Duration>,
}

/// What a missed window leaves to do.
pub(super) enum Then {
    /// Another head or the next window may do.
    NextChance,
    /// The head is gone, and all its windows with it.
    Gone,
    /// Nobody knows whether the frame went out: nothing else may.
    MayBeSent,
}

impl Missed {
    fn next(why: String) -> Missed {
        Missed { why, then: Then::NextChance, retry_in: None }
    }
}

/// The windows that the metadata names, in order.
fn slots(dl: &DlMeta) -> Result<Vec<Slot>, Refusal> {
    let delay = Duration::from_secs(dl.rx_delay1.unwrap_or(1).max(1).into());
    let slot =
        |name, frequency: Option<u32>, data_rate: Option<u8>, delay: Duration| match (frequency, data_rate) {
            (Some(frequency), Some(data_rate)) => Ok(Some(Slot { name, delay, frequency, data_rate })),
            (None, _) => Ok(None),
            (Some(_), None) => Err(Refusal::new(
                ResultCode::MalformedRequest,
                format!("{name} has a frequency but no data rate"),
            )),
        };
    let rx1 = slot("RX1", dl.dl_freq1, dl.data_rate1, delay)?;
    let rx2 = slot("RX2", dl.dl_freq2, dl.data_rate2, delay + Duration::from_secs(1))?;
    let slots: Vec<Slot> = rx1.into_iter().chain(rx2).collect();
    if slots.is_empty() {
        return Err(Refusal::new(ResultCode::MalformedRequest, "neither DLFreq1 nor DLFreq2"));
    }
    Ok(slots)
}

/// The device a downlink is for: `None` for a Join-accept.
pub(super) fn downlink_addr(phy: &[u8]) -> Result<Option<DevAddr>, Refusal> {
    match (phy.first().map(|mhdr| mhdr >> 5), phy.len()) {
        (Some(0b001), 17 | 33) => Ok(None),
        (Some(0b011 | 0b101), 12..=255) => Ok(Some(DevAddr::from_air([phy[1], phy[2], phy[3], phy[4]]))),
        (Some(0b001 | 0b011 | 0b101), size) => {
            Err(Refusal::new(ResultCode::FrameSizeError, format!("{size} bytes are no downlink")))
        }
        _ => Err(Refusal::new(ResultCode::MalformedRequest, "PHYPayload is no downlink")),
    }
}
