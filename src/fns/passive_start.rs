//! A data frame was heard (TS002 12.5): home first, then abroad; and the question that both the
//! data frame and the Join-request put.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::backend::door::{Deadline, PeerError};
use crate::backend::message::{
    Account, ClassMode, GwInfo, Home, Party, PrStartAns, PrStartReq, ResultCode, UlMeta,
};
use crate::limits::Wait;
use crate::lorawan::frame::{DataFrame, Uplink};
use crate::lorawan::{DevAddr, GatewayEui, NetId};

use super::activate::Unanswered;
use super::dedup::Ear;
use super::parked::is_away;
use super::passive_data::ByContext;
use super::token::Hearing;
use super::{Fns, Numbered, lock, route};
use crate::usage::Kind;

/// RX2 of the longest usual RECEIVE_DELAY1 of 1 s; a session with a longer one only has more time.
const DATA_RX2: Duration = Duration::from_secs(2);

impl Fns {
    /// Bring a data frame to its home, and what comes back to the radio.
    pub(super) async fn passive_start(
        &self,
        heard: Numbered<'_>,
        frame: DataFrame<'_>,
    ) -> Result<(), Unanswered> {
        let by = Deadline(heard.at + DATA_RX2);
        let (answer, home) = match self.start(self.me, heard, by).await {
            Err(error) if error.is(ResultCode::MicFailed) => self.ask_abroad(heard, frame, by).await?,
            answer => answer?,
        };
        if home == self.me && answer.dl.as_ref().is_some_and(|dl| dl.class_mode == Some(ClassMode::C)) {
            self.note_way(heard, frame.dev_addr());
        }
        let kind = if home == self.me { Kind::Handover } else { Kind::Passive };
        let unnamed = || (home != self.me).then(|| Account::of(home));
        let account = answer.account.clone().or_else(unnamed);
        let carried = match answer.phy_payload {
            Some(_) => self.carry(heard, Party::Ns(home), answer).await,
            None => Ok(()),
        };
        // behind the answer, which has a window to reach
        if let Some(account) = account {
            self.note_up(account, kind, &heard.phy).await;
        }
        carried
    }

    /// By its context, if it has one; else 12.5 steps 2 and 3: every candidate in parallel, the first that knows the
    /// device wins.
    async fn ask_abroad(
        &self,
        heard: Numbered<'_>,
        frame: DataFrame<'_>,
        by: Deadline,
    ) -> Result<(PrStartAns, NetId), Unanswered> {
        self.has_room()?;
        let addr = frame.dev_addr();
        if let Err(key) = self.partners.filter.carries(addr) {
            self.count.filtered.add();
            return Err(Unanswered::Rule(format!("visitors with address {addr} are not carried: {key}")));
        }
        let mut candidates = route::abroad(addr, &self.partners, &self.learned.net_ids(), &self.ours);
        let mut because = None;
        // how old a context is only a clock that is set can tell
        if self.clock.is_trusted() {
            match self.by_context(heard, frame, by).await {
                ByContext::Taken(answer, net_id) => return Ok((answer, net_id)),
                ByContext::Open { asked, last } => {
                    candidates.retain(|net_id| !asked.contains(net_id));
                    because = last;
                }
            }
        }
        if candidates.is_empty() && because.is_none() && self.clock.is_trusted() {
            let listed = self.listed(addr, heard.gateway, by).await;
            candidates = route::abroad(addr, &self.partners, &listed, &self.ours);
        }
        if candidates.is_empty()
            && let Some(why) = because
        {
            return Err(why);
        }
        if candidates.is_empty() {
            self.count.unknown.add();
            let why =
                format!("no session of {addr} here, and no network that roams with us has this address");
            return Err(Unanswered::Rule(why));
        }
        self.has_time()?;
        let now = self.clock.now();
        let mut asked = FuturesUnordered::new();
        let mut last = because.unwrap_or_else(|| {
            Unanswered::Rule(format!("every network that {addr} may be of refused it a moment ago"))
        });
        for net_id in candidates {
            if self.hold_offs().contains(net_id, addr, now) {
                continue;
            }
            // strangers cost little here too
            let served = self.hold_offs().is_served(net_id, addr, now);
            if served && self.has_parked(net_id) {
                return Err(self.wait_for(heard, net_id).await);
            }
            if let Err(wait) = self.admit_unserved(heard.gateway, net_id, served) {
                self.count.throttled.add();
                let why = format!("too many data frames of unknown devices of NetID {net_id}: {wait}");
                last = Unanswered::Rule(why);
                continue;
            }
            asked.push(async move { (net_id, self.start(net_id, heard, by).await) });
        }
        let mut away = None;
        while let Some((net_id, answer)) = asked.next().await {
            match answer {
                Ok((answer, _)) => {
                    drop(asked);
                    self.hold_offs().note_served(net_id, addr, now);
                    return Ok((self.begin(heard, net_id, answer, addr, by).await, net_id));
                }
                Err(error) => {
                    self.refused(net_id, addr, &error).await;
                    if is_away(&error) && self.hold_offs().is_served(net_id, addr, now) {
                        away = Some(net_id);
                    }
                    last = error.into();
                }
            }
        }
        drop(asked);
        match away {
            Some(net_id) => Err(self.wait_for(heard, net_id).await),
            None => Err(last),
        }
    }

    /// The home of a device that it has served cannot be reached, or older frames wait for it.
    async fn wait_for(&self, heard: Numbered<'_>, net_id: NetId) -> Unanswered {
        let ul = self.ul_meta(heard, Vec::new(), false);
        self.park(heard, Account::of(net_id), ul, false).await;
        Unanswered::Rule(format!("NetID {net_id} cannot be reached: the frame waits for it"))
    }

    /// An address of types 3 to 7 that nobody known to us has given: whose it may be, the federation knows.
    async fn listed(&self, addr: DevAddr, gateway: GatewayEui, by: Deadline) -> Vec<NetId> {
        // who is listed has been looked at; the others are let in by the default alone
        let lets = self.partners.default.as_ref().is_some_and(|rules| rules.passive.start);
        let of_kind = addr.kind().and_then(|kind| NetId::new(u32::from(kind) << 21));
        let Some(of_kind) = of_kind.filter(|_| lets && addr.net_id().is_none()) else { return Vec::new() };
        // a question costs little, but anybody can make such frames
        match self.admit_unserved(gateway, of_kind, false) {
            Ok(()) => self.peers.networks(addr, by).await,
            Err(_) => Vec::new(),
        }
    }

    pub(super) fn admit_unserved(
        &self,
        gateway: GatewayEui,
        net_id: NetId,
        served: bool,
    ) -> Result<(), Wait> {
        if served {
            return Ok(());
        }
        lock(&self.unserved).take((gateway, net_id), self.clock.now())
    }

    /// PRStartReq to one network, ours or another, with a token made for it.
    pub(super) async fn start(
        &self,
        to: NetId,
        heard: Numbered<'_>,
        by: Deadline,
    ) -> Result<(PrStartAns, NetId), PeerError> {
        self.start_for(to, None, heard, by).await
    }

    /// The same; our own sNS is told whose device it is and that it may serve it.
    pub(super) async fn start_for(
        &self,
        to: NetId,
        home: Option<Box<Home>>,
        heard: Numbered<'_>,
        by: Deadline,
    ) -> Result<(PrStartAns, NetId), PeerError> {
        let party = Party::Ns(to);
        let token = self.seal.make(&party, &self.hearing_of(heard), self.clock.random());
        let req = PrStartReq {
            phy_payload: heard.phy.clone(),
            ul: self.ul_meta(heard, token, to == self.me),
            // our own sNS hears from us whether the radio took a downlink; a partner need not reach us
            downlink_in_answer: self.downlink_in_answer && to != self.me,
            // the first hearing goes out at once
            dedup_window: (to != self.me).then_some(0),
            mic_check: to != self.me && self.partners.agreement(to).passive.mic_check,
            home,
        };
        self.peers.ask(party, req, by).await.map(|answer| (answer, to))
    }

    pub(super) fn hearing_of(&self, heard: Numbered<'_>) -> Hearing {
        let dev_addr = match Uplink::parse(&heard.phy) {
            Ok(Uplink::Data(frame)) => Some(frame.dev_addr()),
            _ => None,
        };
        Hearing {
            gateway: heard.gateway,
            session: heard.session,
            tmst: heard.tmst,
            at: heard.at,
            time: heard.time.as_second().max(0).unsigned_abs(),
            dev_addr,
            number: heard.number,
        }
    }

    /// `at_home`: inside the house, where more may be told.
    pub(super) fn ul_meta(&self, heard: Numbered<'_>, token: Vec<u8>, at_home: bool) -> UlMeta {
        let (mut dev_eui, mut dev_addr) = (None, None);
        match Uplink::parse(&heard.phy) {
            Ok(Uplink::Join(join)) => dev_eui = Some(join.dev_eui()),
            Ok(Uplink::Rejoin(rejoin)) => dev_eui = Some(rejoin.dev_eui()),
            Ok(Uplink::Data(frame)) => dev_addr = Some(frame.dev_addr()),
            Err(_) => {}
        }
        let region = self.region.to_string();
        // all that have reported by now; nobody waits for more
        let mut ears: Vec<Ear> = self.dedup().heard_by(heard.number).copied().collect();
        if ears.is_empty() {
            ears.push(Ear::from(heard.heard));
        }
        let gw_info: Vec<GwInfo> = ears
            .iter()
            .map(|ear| GwInfo {
                // 32 bits by the specification: the low half of the EUI, as the peers do
                id: ear.gateway.to_msb().get(if at_home { 0.. } else { 4.. }).map(<[u8]>::to_vec),
                rf_region: Some(region.clone()),
                rssi: Some(ear.rssi),
                snr: Some(ear.snr),
                fine_recv_time: ear.fine_time,
                lat: ear.location.map(|(lat, _)| lat),
                lon: ear.location.map(|(_, lon)| lon),
                ul_token: None,
                dl_allowed: Some(true),
            })
            .collect();
        UlMeta {
            dev_eui,
            dev_addr,
            data_rate: self.region.uplink_data_rate(heard.modulation),
            ul_freq: Some(heard.frequency),
            fns_ul_token: Some(token),
            rf_region: Some(region),
            gw_cnt: u32::try_from(gw_info.len()).ok(),
            gw_info,
            ..UlMeta::at(heard.time)
        }
    }

    /// Bring the frame of an answer to the radio that heard the question.
    pub(super) async fn carry(
        &self,
        heard: Numbered<'_>,
        from: Party,
        answer: PrStartAns,
    ) -> Result<(), Unanswered> {
        let (Some(phy), Some(dl)) = (answer.phy_payload, answer.dl) else {
            return Err(Unanswered::Rule(format!(
                "{from} answered without PHYPayload or DLMetaData: nothing to send"
            )));
        };
        let hearing = self.hearing_of(heard);
        let Party::Ns(net_id) = from else {
            return Err(Unanswered::Rule(format!("{from} is no network server: nothing to send")));
        };
        let sending = async {
            self.may_send(net_id)?;
            let context = self.may_go_down(net_id, hearing.dev_addr).await?;
            Ok((self.transmit(&hearing, phy.clone(), &dl).await?, context))
        };
        let (sent, context) = sending.await.map_err(Unanswered::NotSent)?;
        self.note_airtime(net_id, phy.len(), &sent).await;
        if let Some(account) = self.charge_down(net_id, context.as_ref()) {
            self.note_down(account, Kind::Passive, &phy).await;
        }
        Ok(())
    }
}
