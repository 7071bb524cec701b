//! A Join-request, as sNS: an address, the hNS's consent, a pending session (TS002 12.2, 12.10).

use rand::RngExt;

use crate::backend::door::{Caller, Commit, PeerError};
use crate::backend::message::{
    ClassMode, DlMeta, HrStartAns, HrStartReq, MicKey, Party, PrStartAns, PrStartReq, Refusal, ResultCode,
    UlMeta, opt_neg,
};
use crate::clock::Clock;
use crate::lorawan::frame::JoinRequest;
use crate::lorawan::region::{JOIN_ACCEPT_DELAY1, SubBands};
use crate::lorawan::{NetId, Region};

use super::plan::Plan;
use super::{Session, Sns, Write, downlink};

impl Sns {
    /// PRStartReq with a Join-request. `visited`: through whom, where that is not our own fNS.
    pub(super) async fn activate(
        &self,
        from: &Caller,
        visited: Option<NetId>,
        req: &PrStartReq,
        join: JoinRequest<'_>,
    ) -> Result<PrStartAns, Refusal> {
        // the same frame by two paths at once makes one JoinReq (TS002 A32)
        let _busy = self.busy.enter(join.as_bytes().to_vec()).ok_or_else(|| Refusal {
            lifetime: Some(0),
            ..Refusal::new(ResultCode::Deferred, "this Join-request is being answered on another path")
        })?;
        let region = self.joined_in(&req.ul, visited)?;
        let (rx2_frequency, rx2_data_rate) = region.rx2();
        let start = HrStartReq {
            mac_version: self.mac_version,
            phy_payload: req.phy_payload.clone(),
            dev_eui: join.dev_eui(),
            dev_addr: self.net_id.dev_addr(self.clock.rng().random()),
            dl_settings: opt_neg(self.mac_version) | rx2_data_rate & 0x0F,
            rx_delay: self.rx_delay,
            cf_list: region.cf_list(),
            ul: req.ul.clone(),
            visited,
        };
        let (dev_eui, dev_addr, rx_delay) = (start.dev_eui, start.dev_addr, start.rx_delay);
        let home = Party::Ns(self.net_id);
        let answer: HrStartAns =
            self.peers.ask(home, start, from.by).await.map_err(PeerError::into_refusal)?;
        let created = self.clock.unix();
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
            path: None,
            created,
            expires: (answer.lifetime > 0).then(|| created + u64::from(answer.lifetime)),
        };
        let dl = DlMeta { dev_eui: Some(dev_eui), ..join_windows(req, &region) };
        let pending = session.clone();
        let decide = move |sessions: &mut Vec<Session>| {
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
            taken: false,
        })
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

/// The two windows of a Join-accept: RX1 at 5 s, RX2 at 6 s.
fn join_windows(req: &PrStartReq, region: &Region) -> DlMeta {
    let rx1 = match (req.ul.ul_freq, req.ul.data_rate) {
        (Some(frequency), Some(data_rate)) => region.rx1(frequency, data_rate, 0),
        _ => None,
    };
    let (rx2_frequency, rx2_data_rate) = region.rx2();
    DlMeta {
        dl_freq1: rx1.map(|(frequency, _)| frequency),
        data_rate1: rx1.map(|(_, data_rate)| data_rate),
        dl_freq2: Some(rx2_frequency),
        data_rate2: Some(rx2_data_rate),
        rx_delay1: Some(JOIN_ACCEPT_DELAY1),
        class_mode: Some(ClassMode::A),
        ..downlink::with_tokens(&req.ul)
    }
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
