//! Every transmission: a hearing, two windows, the rules of the band, the radio's word.

use std::time::Duration;

use jiff::SignedDuration;

use crate::backend::door::{Caller, Deadline};
use crate::backend::message::{ClassMode, DlMeta, Refusal, ResultCode, XmitAns, XmitDown};
use crate::clock::Instant;
use crate::jit;
use crate::lorawan::DevAddr;
use crate::lorawan::crypto::Direction;

use super::token::Hearing;
use super::{AirError, Fns, Sent, Tx};

/// One receive window of a downlink.
struct Slot {
    name: &'static str,
    start: Instant,
    delay: Duration,
    frequency: u32,
    data_rate: u8,
}

impl Fns {
    /// XmitDataReq(down), as fNS (TS002 12.6.2). Serves a partner while our own PRStartReq to it is
    /// still pending: the token says everything.
    pub async fn downlink(&self, from: Caller, req: XmitDown) -> Result<XmitAns, Refusal> {
        // 3: agreement, message, token
        let dl = &req.dl;
        if dl.class_mode == Some(ClassMode::C) {
            return Err(Refusal::new(ResultCode::XmitFailed, "class C has no context here"));
        }
        let hearing = self.hearing(&from, dl)?;
        self.transmit(&hearing, req.phy_payload, dl).await
    }

    fn hearing(&self, from: &Caller, dl: &DlMeta) -> Result<Hearing, Refusal> {
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
        let (mut said, mut maybe_sent) = (Vec::new(), false);
        for slot in slots(hearing, dl)? {
            match self.try_slot(hearing, &phy, &slot).await {
                Ok(sent) => {
                    self.report(hearing, &phy, &slot, &sent);
                    let used = Some(slot.frequency);
                    return Ok(match slot.name {
                        "RX1" => XmitAns { dl_freq1: used, ..XmitAns::default() },
                        _ => XmitAns { dl_freq2: used, ..XmitAns::default() },
                    });
                }
                Err(Missed { why, then }) => {
                    said.push(format!("{}: {why}", slot.name));
                    match then {
                        Then::OtherWindow => {}
                        Then::GiveUp => break,
                        Then::MayBeSent => {
                            maybe_sent = true;
                            break;
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

    async fn try_slot(&self, hearing: &Hearing, phy: &[u8], slot: &Slot) -> Result<Sent, Missed> {
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
            .reserve(hearing.gateway, slot.start, airtime, slot.frequency, power, now)
            .map_err(|refused| Missed::next(self.until(refused)))?;
        let mut tx = Tx {
            gateway: hearing.gateway,
            session: hearing.session,
            phy: phy.to_vec(),
            frequency: slot.frequency,
            modulation,
            power,
            at: hearing.tmst.plus(slot.delay),
            start: slot.start,
        };
        let mut weaker = WEAKER.into_iter().filter(|weaker| *weaker < power);
        let error = loop {
            match self.air.transmit(tx.clone(), Deadline(slot.start)).await {
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
            AirError::Gone(_) => Then::GiveUp,
            _ => Then::OtherWindow,
        };
        Err(Missed { why: error.to_string(), then })
    }

    /// A rule of the band, with the time of day from which it allows the frame.
    fn until(&self, refused: jit::Refused) -> String {
        let later = refused.wait.and_then(|wait| SignedDuration::try_from(wait).ok());
        match later.and_then(|wait| self.clock.wall().checked_add(wait).ok()) {
            Some(at) => format!("{refused}, at {at:.3}"),
            None => refused.to_string(),
        }
    }

    fn report(&self, hearing: &Hearing, phy: &[u8], slot: &Slot, sent: &Sent) {
        let lead = slot.start.saturating_duration_since(self.clock.now());
        let milestone = if hearing.dev_addr.is_some() {
            "downlink handed to the radio"
        } else {
            "Join-accept handed to the radio"
        };
        tracing::info!(target: "roamgate::frame", milestone, window = slot.name, gateway = %hearing.gateway,
            frequency = slot.frequency, data_rate = slot.data_rate, size = phy.len(), power = sent.power,
            lead_ms = lead.as_secs_f64() * 1e3);
    }
}

/// Powers to fall back to where a head cannot send with the region's maximum, EIRP in dBm: all are
/// in the table of every packet forwarder known to us.
const WEAKER: [i8; 3] = [27, 16, 14];

/// Why a window was missed.
struct Missed {
    why: String,
    then: Then,
}

/// What a missed window leaves to do.
enum Then {
    /// The next window may do.
    OtherWindow,
    /// The head is gone, and all its windows with it.
    GiveUp,
    /// Nobody knows whether the frame went out: nothing else may.
    MayBeSent,
}

impl Missed {
    fn next(why: String) -> Missed {
        Missed { why, then: Then::OtherWindow }
    }
}

/// The windows that the metadata names, in order.
fn slots(hearing: &Hearing, dl: &DlMeta) -> Result<Vec<Slot>, Refusal> {
    let delay = Duration::from_secs(dl.rx_delay1.unwrap_or(1).max(1).into());
    let slot =
        |name, frequency: Option<u32>, data_rate: Option<u8>, delay: Duration| match (frequency, data_rate) {
            (Some(frequency), Some(data_rate)) => {
                Ok(Some(Slot { name, start: hearing.at + delay, delay, frequency, data_rate }))
            }
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
fn downlink_addr(phy: &[u8]) -> Result<Option<DevAddr>, Refusal> {
    match (phy.first().map(|mhdr| mhdr >> 5), phy.len()) {
        (Some(0b001), 17 | 33) => Ok(None),
        (Some(0b011 | 0b101), 12..=255) => Ok(Some(DevAddr::from_air([phy[1], phy[2], phy[3], phy[4]]))),
        (Some(0b001 | 0b011 | 0b101), size) => {
            Err(Refusal::new(ResultCode::FrameSizeError, format!("{size} bytes are no downlink")))
        }
        _ => Err(Refusal::new(ResultCode::MalformedRequest, "PHYPayload is no downlink")),
    }
}
