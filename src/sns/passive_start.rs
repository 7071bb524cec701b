//! PRStartReq, as sNS (TS002 12.5 and 12.10; the comments are their steps). Our own fNS asks with
//! the same message as a partner's.

use std::sync::Arc;

use tracing::Instrument;

use crate::backend::door::{self, Caller, Deadline, PeerError};
use crate::backend::message::{
    Account, ClassMode, DlMeta, MicKey, Party, PrStartAns, PrStartReq, Refusal, ResultCode, UlMeta, XmitAppUp,
};
use crate::clock::Instant;
use crate::lorawan::frame::{DataFrame, Uplink};
use crate::lorawan::mac::{self, UplinkCommand};
use crate::lorawan::region::SubBands;
use crate::lorawan::{NetId, Region};
use crate::usage::Way;

use super::activate::Newcomer;
use super::downlink::{Content, Gone, LEAD, Window};
use super::plan::{HeardAt, Plan};
use super::uplink::{Accepted, accept};
use super::{ForwardKey, HNS_PATIENCE, Sns};

impl Sns {
    /// A frame heard by an fNS, ours or a partner's.
    pub async fn passive_start(
        self: &Arc<Self>,
        from: Caller,
        req: PrStartReq,
    ) -> Result<PrStartAns, Refusal> {
        // 2: lengths and types
        let frame = Uplink::parse(&req.phy_payload)?;
        // 1: agreement, which a partner needs and our own fNS does not
        let visited = self.visited(&from)?;
        if let Some(net_id) = visited {
            self.agreed(net_id, &frame)?;
        }
        match frame {
            Uplink::Join(join) => {
                let who = Newcomer::joining(join.dev_eui(), &req);
                self.activate(&from, visited, &req, who).await
            }
            Uplink::Data(data) => self.data(from, visited, &req, data, false).await,
            Uplink::Rejoin(rejoin) => self.rejoin(&from, visited, &req, rejoin).await,
        }
    }

    /// The partner that asks; `None`: our own fNS.
    pub(super) fn visited(&self, from: &Caller) -> Result<Option<NetId>, Refusal> {
        match (&from.party, from.ours) {
            (_, true) => Ok(None),
            (Party::Ns(net_id), false) => Ok(Some(*net_id)),
            _ => Err(Refusal::new(ResultCode::MalformedRequest, "a PRStartReq comes from a network server")),
        }
    }

    fn agreed(&self, net_id: NetId, frame: &Uplink<'_>) -> Result<(), Refusal> {
        let agreement = self.partners.agreement(net_id);
        let (allowed, what) = match frame {
            Uplink::Data(_) => (agreement.passive.start, "passive.start"),
            _ => (agreement.passive.activation, "passive.activation"),
        };
        if allowed {
            return Ok(());
        }
        let why = format!("{what} is off for NetID {net_id}: {}", agreement.line);
        Err(Refusal::new(ResultCode::NoRoamingAgreement, why))
    }

    /// A data frame, behind PRStartReq and, by a `context`, behind XmitDataReq.
    pub(super) async fn data(
        self: &Arc<Self>,
        from: Caller,
        visited: Option<NetId>,
        req: &PrStartReq,
        frame: DataFrame<'_>,
        context: bool,
    ) -> Result<PrStartAns, Refusal> {
        // 3: session, MIC, counter: decided and committed in one transaction
        let region = self.region_of(&req.ul, visited.is_some()).unwrap_or_else(|_| self.region.clone());
        let accepted = self.accept(frame, &req.ul, visited, &region, context).await?;
        // 5.5: our own radio does as well
        if !context && let Some(net_id) = visited {
            self.is_wanted(net_id, &accepted)?;
        }
        // 6: what the fNS is granted
        let answer = if context { PrStartAns::default() } else { self.granted(&accepted, visited).await };
        let stateful = context || answer.lifetime.is_some_and(|lifetime| lifetime > 0);
        if accepted.repeated && context && self.came_with_the_start(&accepted, &from) {
            return Ok(answer);
        }
        if stateful && !context {
            self.note_started(&accepted, &from);
        }
        if accepted.repeated && self.came_by_another_path(&accepted, &from) {
            return Ok(answer);
        }
        self.remember(&accepted, &from);
        tracing::info!(target: "roamgate::frame", milestone = "uplink accepted", DevEUI = %accepted.session.dev_eui,
            DevAddr = %accepted.session.dev_addr, FCntUp = accepted.fcnt_up, confirmed = accepted.confirmed,
            repeated = accepted.repeated, via = %from.party);
        if accepted.activated {
            self.stop_earlier(&accepted.session);
        }
        // 7: the uplink opens a window, the payload goes home, a downlink comes back through it
        let dev_eui = accepted.session.dev_eui;
        let answers = self.mac_answers(&accepted, &req.ul, &region);
        let plan = accepted.session.plan.commands(&region, req.ul.data_rate);
        let window = Window::of(&accepted, &req.ul, &region, &from, req.downlink_in_answer, answers.clone())
            .map(|window| window.telling(plan.clone()));
        let opened = window.is_some();
        if let Some(mut window) = window {
            // a stateful fNS finds its context by it (table 5)
            window.dl.dev_eui = stateful.then_some(dev_eui);
            self.riding().remove(&dev_eui);
            self.windows().insert(dev_eui, window);
        }
        let account = self.bring_home(&accepted, &from).await;
        let left = self.windows().remove(&dev_eui).filter(|_| opened);
        let must_answer =
            accepted.confirmed || accepted.adr_ack_req || !answers.is_empty() || !plan.is_empty();
        if let Some(window) = left.filter(|_| must_answer) {
            match self.fill(window, Content::none()).await {
                Ok(Gone::Rides(phy, dl)) => {
                    self.riding().insert(dev_eui, (phy, dl));
                }
                Ok(Gone::Sent(_)) => {}
                // the uplink was accepted all the same; the device will send it again
                Err(refusal) => tracing::warn!(DevEUI = %dev_eui, "no acknowledgement went out: {refusal}"),
            }
        }
        let (phy_payload, dl) = self.riding().remove(&dev_eui).unzip();
        // our own fNS is told that more may come: its answer has no frame, but it has a class
        let at_home = accepted.session.path.as_ref().is_some_and(|path| path.via.is_none());
        let dl = dl.or_else(|| at_home.then(class_c));
        Ok(PrStartAns { phy_payload, dl, account, ..answer })
    }

    /// TS002 12.5 step 5.5: a network whose frame is a copy of one that our own radio has brought is not needed for a while,
    /// where that is configured. The frame itself is here already.
    fn is_wanted(&self, net_id: NetId, accepted: &Accepted) -> Result<(), Refusal> {
        let defer = self.partners.agreement(net_id).passive.defer;
        if defer.is_none() || !accepted.repeated || self.brought_by(accepted) != Some(Party::Ns(self.net_id))
        {
            return Ok(());
        }
        let why = format!("our own radio hears device {}", accepted.session.dev_eui);
        Err(Refusal { lifetime: Some(defer.seconds()), ..Refusal::new(ResultCode::Deferred, why) })
    }

    /// Give the uplink to the hNS, unless it is above what that pays for. On whose account it went, where the home is another
    /// network.
    async fn bring_home(self: &Arc<Self>, accepted: &Accepted, from: &Caller) -> Option<Account> {
        let session = &accepted.session;
        if accepted.repeated {
            self.ask_home(accepted, from).await;
            return session
                .home
                .map(|home| Account { profile: session.terms.profile.clone(), ..Account::of(home) });
        }
        match self.charge(session.id, session.home, &session.terms, Way::Up) {
            Ok(account) => {
                self.ask_home(accepted, from).await;
                account
            }
            Err(why) => {
                tracing::info!(target: "roamgate::frame", milestone = "uplink dropped", DevEUI = %session.dev_eui, why);
                let key = ForwardKey { session: session.id, fcnt_up: accepted.fcnt_up };
                if let Err(error) = self.sessions.forwarded(key).await {
                    tracing::warn!("an uplink that its home does not want goes there all the same: {error}");
                }
                None
            }
        }
    }

    /// TS002 12.5 step 6. Where the agreement is stateless, no keys leave the house.
    async fn granted(&self, accepted: &Accepted, visited: Option<NetId>) -> PrStartAns {
        let session = &accepted.session;
        let lifetime = self.grant(session, visited).await;
        let Some(net_id) = visited.filter(|_| lifetime > 0) else {
            return PrStartAns { lifetime: Some(0), ..PrStartAns::default() };
        };
        PrStartAns {
            lifetime: Some(lifetime),
            dev_eui: Some(session.dev_eui),
            mic_key: self.checks_mics(visited).then(|| MicKey::from(&session.keys)),
            fcnt_up: Some(accepted.fcnt_up),
            service: Some(self.service_at(net_id, session)),
            taken: true,
            ..PrStartAns::default()
        }
    }

    /// `context`: only a session that the asking network forwards by a context may take it.
    async fn accept(
        &self,
        frame: DataFrame<'_>,
        ul: &UlMeta,
        visited: Option<NetId>,
        region: &Region,
        context: bool,
    ) -> Result<Accepted, Refusal> {
        let (bytes, ul, now) = (frame.as_bytes().to_vec(), ul.clone(), self.clock.unix());
        let region = region.clone();
        let forwarded = match visited.filter(|_| context) {
            Some(net_id) => Some(self.forwarded_by(net_id, frame.dev_addr(), now).await?),
            None => None,
        };
        let (decide, slot) = door::decided(move |sessions: &mut Vec<super::Session>| {
            let before = forwarded.as_ref().map(|_| sessions.clone());
            match Uplink::parse(&bytes) {
                Ok(Uplink::Data(frame)) => {
                    let (mut outcome, write) = accept(sessions, frame, &ul, &region, visited, now);
                    if let (Ok(accepted), Some(before), Some(of)) = (&outcome, before, &forwarded)
                        && !of.contains(&accepted.session.id)
                    {
                        // the frame comes again by PRStartReq, so it must not be known already
                        *sessions = before;
                        let why = "no roaming context with you for this device: send PRStartReq";
                        let nothing = super::Write::sessions(super::Commit::Nothing);
                        return (Err(Refusal::new(ResultCode::UnknownDevAddr, why)), nothing);
                    }
                    if let Ok(accepted) = &mut outcome {
                        note_plan(sessions, accepted, &region, &ul, visited);
                    }
                    (outcome, write)
                }
                // it parsed a moment ago
                _ => (
                    Err(Refusal::new(ResultCode::MalformedRequest, "no data frame")),
                    super::Write::sessions(super::Commit::Nothing),
                ),
            }
        });
        self.sessions.with_dev_addr(frame.dev_addr(), Box::new(decide)).await?;
        door::outcome(&slot)?
    }

    /// Give the uplink to the hNS and wait until it has answered, but not past RX1's lead time. The
    /// asking goes on in a task of its own, and the forward row goes when the hNS has answered.
    async fn ask_home(self: &Arc<Self>, accepted: &Accepted, from: &Caller) {
        let now = self.clock.now();
        let delay = std::time::Duration::from_secs(accepted.session.rx_delay.max(1).into());
        let rx2_after_rx1 = std::time::Duration::from_secs(1);
        let due = from.by.0.checked_sub(rx2_after_rx1 + LEAD).unwrap_or(now).max(now).min(now + delay);
        let key = ForwardKey { session: accepted.session.id, fcnt_up: accepted.fcnt_up };
        let (sns, up) = (self.clone(), accepted.up.clone());
        let work = async move { sns.forward(key, up, sns.clock.now() + HNS_PATIENCE).await };
        let asking = tokio::spawn(work.in_current_span());
        // an overrun or a panic in there leaves the forward row, which is sent again
        let _ = tokio::time::timeout_at(due, asking).await;
    }

    /// Bring one uplink to the hNS, unless that is being done right now. `false`: the hNS did not answer.
    pub(super) async fn forward(self: &Arc<Self>, key: ForwardKey, up: XmitAppUp, until: Instant) -> bool {
        let Some(_busy) = self.forwarding.enter(key) else { return true };
        let home = up.home.unwrap_or(self.net_id);
        let dev_eui = up.ul.dev_eui;
        match self.peers.ask(Party::Ns(home), up, Deadline(until)).await {
            // the hNS's store failed: it may do better at the next try
            Err(error) if error.is(ResultCode::Other) => {
                tracing::warn!("an uplink waits for its home: {error}");
                false
            }
            // any other refusal is an answer too: asking again would bring the same
            answer @ (Ok(_) | Err(PeerError::Refused { .. })) => {
                if let Err(error) = self.sessions.forwarded(key).await {
                    tracing::warn!("an uplink may be delivered twice: {error}");
                }
                if let (Err(error), Some(dev_eui)) = (&answer, dev_eui)
                    && error.is(ResultCode::UnknownDevEui)
                {
                    self.disowned(dev_eui, key.session).await;
                }
                true
            }
            Err(error) => {
                tracing::warn!("an uplink waits for its home: {error}");
                false
            }
        }
    }

    /// What the commands of an uplink want answered, at most 15 bytes.
    fn mac_answers(&self, accepted: &Accepted, ul: &UlMeta, region: &Region) -> Vec<u8> {
        let (session, v11) = (&accepted.session, accepted.session.is_v11());
        let mut answers = Vec::new();
        for command in &accepted.commands {
            let answer: &[u8] = match command {
                UplinkCommand::LinkCheckReq => {
                    let best = ul.gw_info.iter().filter_map(|gateway| gateway.snr).reduce(f64::max);
                    let margin = margin(best, ul.data_rate, region);
                    let heard = ul.gw_cnt.unwrap_or(1).clamp(1, 255) as u8;
                    &mac::link_check_ans(margin, heard)
                }
                UplinkCommand::DeviceTimeReq => {
                    let (seconds, fraction) = mac::gps_time(ul.recv_time);
                    &mac::device_time_ans(seconds, fraction)
                }
                // no device of 1.0.x says these, and whoever does not speak 1.1 is not told that we do
                UplinkCommand::RekeyInd { minor: 1.. } if v11 && !session.personalised => &mac::rekey_conf(),
                UplinkCommand::ResetInd { minor: 1.. } if v11 && session.personalised => &mac::reset_conf(),
                UplinkCommand::DeviceModeInd { class: class @ (0 | 2) } if v11 => {
                    &mac::device_mode_conf(*class)
                }
                _ => &[],
            };
            if answers.len() + answer.len() <= 15 {
                answers.extend(answer);
            }
        }
        let forced = self.forced().get(&session.dev_eui).copied();
        if let Some(forced) =
            forced.filter(|forced| v11 && !accepted.activated && self.clock.now() < forced.until)
        {
            let command = mac::force_rejoin_req(forced.kind, ul.data_rate.unwrap_or(0));
            if answers.len() + command.len() <= 15 {
                answers.extend(command);
            }
        }
        answers
    }

    /// The channel plan where the frame was heard (TS002 8.3): ours as it is configured here, a partner's as
    /// its name says.
    pub(super) fn region_of(&self, ul: &UlMeta, visited: bool) -> Result<Region, Refusal> {
        let Some(name) = &ul.rf_region else { return Ok(self.region.clone()) };
        let region: Region = name
            .parse()
            .map_err(|_| Refusal::new(ResultCode::Other, format!("RFRegion {name:?} is unknown here")))?;
        Ok(if !visited && region == self.region { self.region.clone() } else { region })
    }
}

/// A device that can be reached at any time.
fn class_c() -> DlMeta {
    DlMeta { class_mode: Some(ClassMode::C), ..DlMeta::default() }
}

/// The session learns from its uplink what the device knows of the channel plan.
fn note_plan(
    sessions: &mut [super::Session],
    accepted: &mut Accepted,
    region: &Region,
    ul: &UlMeta,
    visited: Option<NetId>,
) {
    let of_it = |session: &&mut super::Session| session.id == accepted.session.id;
    let Some(session) = sessions.iter_mut().find(of_it).filter(|_| !accepted.repeated) else { return };
    let heard = HeardAt {
        region,
        visited: visited.is_some(),
        frequency: ul.ul_freq,
        adr_ack_req: accepted.adr_ack_req,
        commands: &accepted.commands,
    };
    let forgot = accepted.commands.iter().any(|command| matches!(command, UplinkCommand::ResetInd { .. }));
    if session.personalised && (forgot || session.plan.region.is_none()) {
        // no Join-accept has ever told it anything
        let number = visited.and(ul.ul_freq).and_then(|frequency| region.sub_band(frequency));
        let target = region.clone().with_sub_bands(number.map_or(region.sub_bands(), SubBands::only));
        session.plan = Plan::untold(&target);
    }
    if let Some(news) = session.plan.note_uplink(&heard) {
        tracing::info!(DevEUI = %session.dev_eui, %region, sub_bands = %session.plan.sub_bands, "{news}");
    }
    accepted.session.plan = session.plan.clone();
}

/// Demodulation margin of LinkCheckAns, dB above what the spreading factor needs.
fn margin(snr: Option<f64>, data_rate: Option<u8>, region: &Region) -> u8 {
    let sf = match data_rate.and_then(|data_rate| region.modulation(data_rate)) {
        Some(crate::lorawan::Modulation::Lora { sf, .. }) => f64::from(sf),
        _ => return 0,
    };
    // the demodulation floor falls by 2.5 dB a spreading factor, from -7.5 dB at SF7
    let floor = -7.5 - 2.5 * (sf - 7.0);
    snr.map_or(0, |snr| (snr - floor).round().clamp(0.0, 254.0) as u8)
}
