//! A Join-request or Rejoin-request, as sNS: an address, the hNS's consent, a pending session (TS002 12.2, 12.7, 12.9 to
//! 12.11). Whose home is another network and what it agreed to, our fNS knows and says.

use jiff::Timestamp;
use rand::RngExt;

use crate::backend::door::{Caller, Commit, PeerError};
use crate::backend::message::{
    Account, ClassMode, DeviceProfile, DlMeta, HrStartAns, HrStartReq, MacVersion, MicKey, NwkKeys, Party,
    PrStartAns, PrStartReq, ProfileAt, Refusal, ResultCode, ServiceProfile, UlMeta, opt_neg,
};
use crate::clock::Clock;
use crate::lorawan::region::{SubBands, is_channel_masks};
use crate::lorawan::{DevEui, NetId, Region};

use super::plan::Plan;
use super::{Session, Sns, Write};

/// So often an HRStartReq goes again with a Device Profile that the home calls stale (TS002 12.7 step 7.2).
const STALE: usize = 2;

/// Who is to get a new session.
pub(super) struct Newcomer {
    pub(super) dev_eui: DevEui,
    /// The home, where it is another network.
    pub(super) home: Option<NetId>,
    /// What that says of the device.
    pub(super) profile: Option<ProfileAt>,
    /// It keeps its channels (a Rejoin-request of type 2).
    pub(super) keeps_channels: bool,
    /// The session whose keys its Rejoin-request is signed with, and RJcount0.
    pub(super) rejoins: Option<(u64, u16)>,
}

impl Newcomer {
    /// A device that joins. `req` says whose it is.
    pub(super) fn joining(dev_eui: DevEui, req: &PrStartReq) -> Newcomer {
        let home = req.home.as_deref();
        Newcomer {
            dev_eui,
            home: home.map(|home| home.net_id),
            profile: home.map(|home| home.profile.clone()),
            keeps_channels: false,
            rejoins: None,
        }
    }
}

impl Sns {
    /// PRStartReq with a Join-request or Rejoin-request. `visited`: through whom, where that is not our own fNS.
    pub(super) async fn activate(
        &self,
        from: &Caller,
        visited: Option<NetId>,
        req: &PrStartReq,
        who: Newcomer,
    ) -> Result<PrStartAns, Refusal> {
        // the same frame by two paths at once makes one JoinReq (TS002 A32)
        let _busy = self.busy.enter(req.phy_payload.clone()).ok_or_else(|| Refusal {
            lifetime: Some(0),
            ..Refusal::new(ResultCode::Deferred, "this Join-request is being answered on another path")
        })?;
        let region = self.joined_in(&req.ul, visited)?;
        let (rx2_frequency, rx2_data_rate) = region.rx2();
        let mut start = HrStartReq {
            mac_version: self.mac_version,
            phy_payload: req.phy_payload.clone(),
            dev_eui: who.dev_eui,
            dev_addr: self.net_id.dev_addr(self.clock.rng().random()),
            dl_settings: opt_neg(self.mac_version) | rx2_data_rate & 0x0F,
            rx_delay: self.rx_delay,
            cf_list: region.cf_list().filter(|_| !who.keeps_channels),
            ul: req.ul.clone(),
            visited,
            profile_time: None,
        };
        let (dev_eui, dev_addr, rx_delay) = (start.dev_eui, start.dev_addr, start.rx_delay);
        let answer = match who.home {
            None => {
                let home = Party::Ns(self.net_id);
                self.peers.ask(home, start, from.by).await.map_err(PeerError::into_refusal)?
            }
            Some(home) => {
                start.ul.fns_ul_token = None;
                self.ask_abroad(home, who.profile, start, from).await?
            }
        };
        let created = self.clock.unix();
        // our own home wants nothing of us
        let service = answer.service.filter(|_| who.home.is_some());
        let terms = service.map(|service| service.terms).unwrap_or_default();
        let session = Session {
            id: newest_id(&self.clock),
            dev_eui,
            dev_addr,
            net_id: self.net_id,
            keys: answer.keys,
            fcnt_up: None,
            fcnt_down: 0,
            a_fcnt_down: 0,
            confirmed_down: None,
            class: answer.class,
            personalised: false,
            pending: true,
            rx_delay,
            rx1_dr_offset: 0,
            rx2_frequency,
            rx2_data_rate,
            plan: Plan::of_join(&region, answer.mac_version),
            roaming: answer.roaming,
            home: who.home,
            terms,
            rj_count0: None,
            path: None,
            created,
            expires: (answer.lifetime > 0).then(|| created + u64::from(answer.lifetime)),
        };
        let dl = DlMeta { dev_eui: Some(dev_eui), ..DlMeta::of_join(&req.ul, &region) };
        let (pending, rejoins) = (session.clone(), who.rejoins);
        let decide = move |sessions: &mut Vec<Session>| {
            if let Some((of, count)) = rejoins
                && let Some(session) = sessions.iter_mut().find(|session| session.id == of)
            {
                session.rj_count0 = session.rj_count0.max(Some(count));
            }
            make_room(sessions);
            sessions.push(session.clone());
            Write::sessions(Commit::Durable)
        };
        self.sessions.with_device(dev_eui, Box::new(decide)).await?;
        // 12.10 step 10
        let lifetime = self.grant(&pending, visited).await;
        let mic_key = (lifetime > 0 && self.checks_mics(visited)).then(|| MicKey::from(&pending.keys));
        Ok(PrStartAns {
            phy_payload: Some(answer.phy_payload),
            dev_eui: Some(dev_eui),
            dev_addr: Some(dev_addr),
            lifetime: Some(lifetime),
            fcnt_up: (lifetime > 0).then_some(0),
            mic_key,
            dl: Some(dl),
            service: visited.filter(|_| lifetime > 0).map(|net_id| self.service_at(net_id, &pending)),
            account: who.home.map(|home| Account { profile: pending.terms.profile, ..Account::of(home) }),
            taken: false,
            asked: None,
        })
    }

    /// 12.7 steps 6 and 7, 12.9 steps 7 and 8: a home that lets us serve its device. What inside the house goes without
    /// saying is in the Device Profile.
    async fn ask_abroad(
        &self,
        home: NetId,
        profile: Option<ProfileAt>,
        start: HrStartReq,
        from: &Caller,
    ) -> Result<HrStartAns, Refusal> {
        let no_profile = || Refusal::new(ResultCode::Other, format!("NetID {home} gave no Device Profile"));
        let mut at = profile.ok_or_else(no_profile)?;
        for _ in 0..=STALE {
            let mut req = start.clone();
            req.mac_version = self.mac_version.min(at.profile.mac_version);
            req.dl_settings = start.dl_settings & 0x7F | opt_neg(req.mac_version);
            // devices of 1.0.2 and older do not read channel masks
            let reads = |list: &[u8; 16]| req.mac_version >= MacVersion::V1_0_3 || !is_channel_masks(list);
            req.cf_list = start.cf_list.filter(reads);
            req.profile_time = Some(at.since);
            let (mac_version, class) = (req.mac_version, at.profile.class);
            match self.peers.ask(Party::Ns(home), req, from.by).await {
                Ok(answer) => {
                    let is_v11 = matches!(answer.keys, NwkKeys::V11 { .. });
                    if is_v11 != (mac_version >= MacVersion::V1_1) {
                        let why = format!("NetID {home} gave keys of another version than {mac_version}");
                        return Err(Refusal::new(ResultCode::Other, why));
                    }
                    // a 1.1 device says itself what class it is in (TS001 1.1, DeviceModeInd)
                    let class = if is_v11 { ClassMode::A } else { class };
                    return Ok(HrStartAns { class, mac_version, ..answer });
                }
                Err(error) => {
                    let refusal = error.into_refusal();
                    match (refusal.code, refusal.profile.clone()) {
                        (ResultCode::StaleDeviceProfile, Some(newer)) => at = *newer,
                        _ => return Err(refusal),
                    }
                }
            }
        }
        let why = format!("NetID {home} calls its own Device Profile stale");
        Err(Refusal::new(ResultCode::StaleDeviceProfile, why))
    }

    /// What its home lets a device do at another network, and what it wants of its frames.
    pub(super) fn service_at(&self, net_id: NetId, session: &Session) -> ServiceProfile {
        ServiceProfile::new(self.partners.agreement(net_id).terms(), session.roaming, false)
    }

    /// The region of a join, with the sub-bands that the device shall use.
    fn joined_in(&self, ul: &UlMeta, visited: Option<NetId>) -> Result<Region, Refusal> {
        let region = self.region_of(ul, visited.is_some())?;
        // which channels a partner's gateways listen to is not known, but this one they heard
        let heard = visited.and(ul.ul_freq).and_then(|frequency| region.sub_band(frequency));
        Ok(match heard {
            Some(number) => region.with_sub_bands(SubBands::only(number)),
            None => region,
        })
    }
}

/// A Device Profile of the time when a session was made, as far as the session knows it: if it has changed since, the home
/// says so.
pub(super) fn profile_then(session: &Session) -> Option<ProfileAt> {
    let since = Timestamp::from_second(i64::try_from(session.created).ok()?).ok()?;
    let mac_version = if session.is_v11() { MacVersion::V1_1 } else { MacVersion::V1_0_4 };
    let profile = DeviceProfile {
        id: String::new(),
        mac_version,
        reg_params_revision: String::new(),
        class: session.class,
        supports_join: true,
        max_eirp: 16,
        rf_region: String::new(),
    };
    Some(ProfileAt { profile, since })
}

/// Sessions of a device that may wait for their first uplink: several joins of it may be answered at once (one its own,
/// others replayed, or late by another network, or left over in a head's queue), and which of them it has heard is not
/// known. Within a millisecond not even their order is.
const PENDING: usize = 4;

/// Before another session comes. The running one stays: the device may not hear this Join-accept. Of those that were
/// never used the newest stay.
fn make_room(sessions: &mut Vec<Session>) {
    sessions.sort_by_key(|session| (session.created, session.id));
    let pending = sessions.iter().filter(|session| session.pending).count();
    let mut surplus = (pending + 1).saturating_sub(PENDING);
    sessions.retain(|session| {
        let goes = session.pending && surplus > 0;
        surplus -= usize::from(goes);
        !goes
    });
}

/// Milliseconds since 1970 and then chance, 63 bits in all: SQLite's integers are signed.
fn newest_id(clock: &Clock) -> u64 {
    let ms = u64::try_from(clock.wall().as_millisecond()).unwrap_or(0);
    let chance: u32 = clock.rng().random();
    (ms << 20 | u64::from(chance >> 12)) & (u64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::super::uplink::tests::session;
    use super::*;

    #[test]
    fn joins_answered_at_once_leave_their_sessions_and_the_running_one() {
        let of = |id, pending| Session { id, pending, ..session(None) };
        // in whatever order they are found
        let ids = |sessions: &[Session]| sessions.iter().map(|session| session.id).collect::<Vec<_>>();
        let mut sessions = vec![of(9, true), of(6, true), of(7, true), of(3, false), of(8, true)];
        make_room(&mut sessions);
        assert_eq!(ids(&sessions), [3, 7, 8, 9]);
        sessions.push(of(10, true));
        assert!(of(9, false).replaces(&sessions[0]) && !of(9, false).replaces(&sessions[4]));
        make_room(&mut sessions);
        assert_eq!(ids(&sessions), [3, 8, 9, 10]);
    }

    #[test]
    fn a_later_id_is_a_greater_one() {
        let clock = Clock::system();
        let first = newest_id(&clock);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(first < newest_id(&clock) && newest_id(&clock) >> 63 == 0);
    }
}
