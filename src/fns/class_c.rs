//! Class C: a device that listens all the time is sent to at once (TS002 8.2), on the way that its last uplink showed.
//!
//! The way is the path part of that uplink's token: it outlives receive windows, radio sessions and this process. Whose
//! device it is makes no difference: the token says which device, and for whom.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::door::Caller;
use crate::backend::message::{DlMeta, Party, Radiated, Refusal, ResultCode, XmitAns};
use crate::clock::Instant;
use crate::jit;
use crate::lorawan::DevAddr;
use crate::lorawan::crypto::Direction;

use super::dedup::Ear;
use super::downlink::{Missed, Slot, Then, downlink_addr};
use super::token::Hearing;
use super::{Fns, Numbered, lock};

/// How long the way is believed in. A device of class C has mains power and stays where it is.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// From the decision to the frame: what `jit` and a head need.
const AHEAD: Duration = Duration::from_millis(60);
/// So long after RX1 opens a device still waits for a preamble there, and hears nothing else (SF12).
const RX1_OPEN: Duration = Duration::from_millis(250);
/// RX1 of a partner's device is awaited so long; partners give up after five seconds.
const RX1_WAIT: Duration = Duration::from_secs(3);
/// A head that is gone or busy is asked again after this; whoever asks doubles it.
const AGAIN: Duration = Duration::from_secs(10);
/// Devices of class C whose heads are remembered.
const DEVICES: usize = 1024;

/// Which heads heard the last uplink of each device of class C. May be lost: then the head in the token serves.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<DevAddr, (u64, Vec<Ear>)>);

impl Ways {
    fn note(&mut self, addr: DevAddr, number: u64, ears: Vec<Ear>) {
        if self.0.len() >= DEVICES && !self.0.contains_key(&addr) {
            self.0.pop_first();
        }
        self.0.insert(addr, (number, ears));
    }

    fn of(&self, hearing: &Hearing) -> Option<Vec<Ear>> {
        let (number, ears) = self.0.get(&hearing.dev_addr?)?;
        // numbers begin anew with the process
        let named = |ear: &Ear| (ear.gateway, ear.tmst) == (hearing.gateway, hearing.tmst);
        (*number == hearing.number && ears.iter().any(named)).then(|| ears.clone())
    }
}

impl Fns {
    /// The sNS calls this one class C: who heard it is of use for longer than its windows.
    pub(super) fn note_way(&self, heard: Numbered<'_>, addr: DevAddr) {
        let ears = self.dedup().heard_by(heard.number).copied().collect();
        lock(&self.ways).note(addr, heard.number, ears);
    }

    /// Send a frame as soon as the rules and the radio allow it, through the best head that heard the device last. Nothing
    /// waits here: what cannot go out now is refused with the time when it can, so that frames of one device are not
    /// overtaken by later ones.
    pub(super) async fn transmit_now(
        &self,
        from: &Caller,
        phy: Vec<u8>,
        dl: &DlMeta,
    ) -> Result<XmitAns, Refusal> {
        let failed = |why: String| Refusal::new(ResultCode::XmitFailed, why);
        // the token is of yesterday, and what was agreed then need not be agreed any more
        if let (Party::Ns(net_id), false) = (&from.party, from.ours) {
            let agreement = self.partners.agreement(*net_id);
            if !agreement.passive.any() {
                let why = format!("passive roaming is off for NetID {net_id}: {}", agreement.line);
                return Err(Refusal::new(ResultCode::NoRoamingAgreement, why));
            }
        }
        let hearing = self.hearing(from, dl)?;
        if hearing.dev_addr.is_none() || hearing.dev_addr != downlink_addr(&phy)? {
            return Err(failed("the way is to another device".into()));
        }
        let age = Duration::from_secs(self.clock.unix().saturating_sub(hearing.time));
        if age > TOKEN_LIFETIME {
            let hours = age.as_secs() / 3600;
            return Err(failed(format!(
                "the device was heard {hours} hours ago: its next uplink shows the way"
            )));
        }
        let (Some(frequency), Some(data_rate)) = (dl.dl_freq2, dl.data_rate2) else {
            let why = "class C is sent on DLFreq2 with DataRate2";
            return Err(Refusal::new(ResultCode::MalformedRequest, why));
        };
        let slot = Slot { name: "RXC", delay: Duration::ZERO, frequency, data_rate };
        let mut start = self.clock.now() + AHEAD;
        if let Some(wait) = self.rx1_ahead(&hearing, dl, start, phy.len(), data_rate) {
            if from.ours {
                let why = "the device is about to listen in RX1 of its last uplink";
                return Err(Refusal { retry_in: Some(wait), ..failed(why.into()) });
            }
            // between networks there is no word for it, and it is a matter of a second
            self.clock.sleep(wait.min(RX1_WAIT)).await;
            start = self.clock.now() + AHEAD;
        }
        let ears = lock(&self.ways).of(&hearing).unwrap_or_else(|| self.ears(&hearing));
        let online = |gateway| self.air.online(gateway);
        let heads = self.heads().best_first(ears, hearing.gateway, online, self.clock.now());
        if heads.is_empty() {
            let why = format!("no radio head that heard the device is online ({} was one)", hearing.gateway);
            return Err(Refusal { retry_in: Some(AGAIN), ..failed(why) });
        }
        let (mut said, mut soonest) = (Vec::new(), None);
        for head in &heads {
            match self.try_at(head, &phy, &slot, start, None).await {
                Ok(sent) => {
                    self.heads().note_sent(head.gateway);
                    tracing::info!(target: "roamgate::frame", milestone = "downlink handed to the radio", window = "RXC",
                        gateway = %head.gateway, frequency, data_rate, size = phy.len(), power = sent.power);
                    let modulation = self.region.downlink_modulation(data_rate);
                    let radiated = modulation.map(|modulation| Radiated {
                        gateway: head.gateway,
                        frequency,
                        modulation,
                        power: sent.power,
                    });
                    let until_end = self.until_end(start, phy.len(), data_rate);
                    return Ok(XmitAns {
                        dl_freq2: Some(frequency),
                        radiated,
                        until_end,
                        ..XmitAns::default()
                    });
                }
                Err(Missed { why, then, retry_in }) => {
                    said.push(format!("RXC by {}: {why}", head.gateway));
                    soonest = [soonest, Some(retry_in.unwrap_or(AGAIN))].into_iter().flatten().min();
                    match then {
                        Then::NextChance => {}
                        Then::Gone => self.heads().note_offline(head.gateway),
                        Then::MayBeSent => {
                            self.heads().note_silent(head.gateway, self.clock.now());
                            soonest = Some(AGAIN);
                            break;
                        }
                    }
                }
            }
        }
        let why = said.join("; ");
        tracing::debug!(target: "roamgate::frame", milestone = "downlink not sent", gateway = %hearing.gateway, why);
        Err(Refusal { retry_in: soonest, ..failed(why) })
    }

    /// How long a frame has to wait so that the device does not leave it for RX1 of its last uplink.
    fn rx1_ahead(
        &self,
        hearing: &Hearing,
        dl: &DlMeta,
        start: Instant,
        size: usize,
        data_rate: u8,
    ) -> Option<Duration> {
        let airtime = jit::airtime(self.region.downlink_modulation(data_rate)?, size, Direction::Down);
        let rx1 = hearing.at + Duration::from_secs(dl.rx_delay1.unwrap_or(1).max(1).into());
        let over = rx1 + RX1_OPEN;
        // an instant of an earlier process means nothing here; at worst the frame waits for a second
        let heard_lately = hearing.at <= start && start < over;
        (heard_lately && start + airtime > rx1).then(|| over.saturating_duration_since(start))
    }
}
