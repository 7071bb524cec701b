//! Downlinks: one uplink opens one window, and the first downlink takes it.

use std::time::Duration;

use crate::backend::door::{self, Caller, Commit, Deadline, PeerError};
use crate::backend::message::{
    ClassMode, DlMeta, NwkKeys, Party, Refusal, ResultCode, Terms, UlMeta, XmitAns, XmitAppDown, XmitDown,
};
use crate::jit;
use crate::lorawan::frame::Downlink;
use crate::lorawan::{DevAddr, DevEui, NetId, Region, crypto};
use crate::usage::Way;

use super::uplink::Accepted;
use super::{Path, Session, Sns, Write};

/// What an uplink left open: where its downlink goes and what must go with it.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Session of the uplink.
    session: u64,
    dev_eui: DevEui,
    dev_addr: DevAddr,
    /// Whose device it is, where it is not ours.
    home: Option<NetId>,
    /// What that wants of its frames.
    terms: Terms,
    /// The fNS that heard it.
    to: Party,
    /// The two receive windows, with the uplink's tokens.
    pub(super) dl: DlMeta,
    /// Longest FRMPayload in either receive window, bytes.
    room: usize,
    /// FCntUp of the uplink, where it was confirmed.
    ack: Option<u32>,
    /// MAC answers, at most 15 bytes.
    fopts: Vec<u8>,
    /// Commands of the channel plan, all or none of which go out.
    plan: Vec<u8>,
    /// The fNS takes the downlink in its answer.
    rides: bool,
    by: Deadline,
}

/// Where the frame that took a window went.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Gone {
    /// Transmitted by the fNS.
    Sent(XmitAns),
    /// To be carried by the answer that the fNS waits for.
    Rides(Vec<u8>, DlMeta),
}

impl Window {
    /// The window of an accepted uplink. `None`: where it was heard has no receive windows that we
    /// know, so no downlink can follow.
    pub(super) fn of(
        accepted: &Accepted,
        ul: &UlMeta,
        region: &Region,
        from: &Caller,
        rides: bool,
        fopts: Vec<u8>,
    ) -> Option<Window> {
        let session = &accepted.session;
        let (dl, room) = class_a(ul, region, session)?;
        Some(Window {
            session: session.id,
            dev_eui: session.dev_eui,
            dev_addr: session.dev_addr,
            home: session.home,
            terms: session.terms.clone(),
            to: from.party.clone(),
            dl,
            room,
            ack: accepted.confirmed.then_some(accepted.fcnt_up),
            fopts,
            plan: Vec::new(),
            rides,
            by: from.by,
        })
    }

    /// The window with what the device must be told of the channel plan.
    pub(super) fn telling(self, plan: Vec<u8>) -> Window {
        Window { plan, ..self }
    }
}

/// Both receive windows of an uplink, as TS002 8.2 writes them, and the longest FRMPayload.
fn class_a(ul: &UlMeta, region: &Region, session: &Session) -> Option<(DlMeta, usize)> {
    if !ul.allows_downlink() {
        return None;
    }
    let rx1 = region.rx1(ul.ul_freq?, ul.data_rate?, session.rx1_dr_offset);
    // RX2 is of the session's own region: another one's radio must not be asked for it
    let rx2 = session.plan.is_of(region).then_some((session.rx2_frequency, session.rx2_data_rate));
    let dl = DlMeta {
        dl_freq1: rx1.map(|(frequency, _)| frequency),
        data_rate1: rx1.map(|(_, data_rate)| data_rate),
        dl_freq2: rx2.map(|(frequency, _)| frequency),
        data_rate2: rx2.map(|(_, data_rate)| data_rate),
        rx_delay1: Some(session.rx_delay.max(1)),
        class_mode: Some(ClassMode::A),
        ..DlMeta::answering(ul)
    };
    let rooms = [dl.data_rate1, dl.data_rate2].into_iter().flatten();
    let room = rooms.filter_map(|data_rate| region.max_payload(data_rate)).max()?;
    Some((dl, room))
}

/// What a frame should carry beside what its window demands.
pub(super) struct Content {
    /// FCntDown that it was encrypted for, FPort, FRMPayload, confirmed.
    payload: Option<(u32, u8, Vec<u8>, bool)>,
}

impl Content {
    /// Nothing of the application.
    pub(super) fn none() -> Content {
        Content { payload: None }
    }
}

/// Bytes of commands beside a payload.
const FOPTS: usize = 15;

/// Build the next downlink of a session and take its counter. Pure.
fn frame(sessions: &mut [Session], window: &Window, content: &Content) -> (Result<Vec<u8>, Refusal>, Write) {
    let nothing = Write::sessions(Commit::Nothing);
    let Some(session) = sessions.iter_mut().find(|session| session.id == window.session) else {
        let why = format!("the session of {} has ended", window.dev_eui);
        return (Err(Refusal::new(ResultCode::UnknownDevEui, why)), nothing);
    };
    let is_v11 = session.is_v11();
    let next = *session.next_down(content.payload.is_some());
    let fcnt = match &content.payload {
        // TS002 12.8.2 step 2: in 1.1 the counter is the application's own, and may leave some out
        Some((wanted, ..)) if *wanted == next || is_v11 && *wanted > next => *wanted,
        Some((wanted, ..)) => {
            let mut refusal =
                Refusal::new(ResultCode::XmitFailed, format!("FCntDown {wanted} is taken, {next} is next"));
            refusal.fcnt_down = Some(next);
            return (Err(refusal), nothing);
        }
        None => next,
    };
    let Some(following) = fcnt.checked_add(1) else {
        let why = "every FCntDown of this session is used: the device must join again";
        return (Err(Refusal::new(ResultCode::XmitFailed, why)), nothing);
    };
    let mut down = Downlink { ack: window.ack.is_some(), ..Downlink::default() };
    // the plan's commands go together or not at all, and a payload goes first
    let room = content
        .payload
        .as_ref()
        .map_or(window.room, |(_, _, payload, _)| FOPTS.min(window.room.saturating_sub(payload.len())));
    let mut commands = window.fopts.clone();
    let tells = !window.plan.is_empty() && commands.len() + window.plan.len() <= room;
    if tells {
        commands.extend(&window.plan);
    }
    match &content.payload {
        Some((_, port, payload, confirmed)) => {
            down.confirmed = *confirmed;
            down.payload = Some((*port, payload));
            down.fopts = &commands;
        }
        // Commands without a payload travel on FPort 0: a widely used device stack drops a frame
        // that has FOpts but no FPort, with the ACK in it.
        None if !commands.is_empty() => {
            let (key, addr) = (session.port_0_key(), session.dev_addr);
            crypto::crypt_payload(key, crypto::Direction::Down, addr, fcnt, &mut commands);
            down.payload = Some((0, &commands));
        }
        None => {}
    }
    let phy = match &session.keys {
        NwkKeys::V10 { nwk_s_key } => down.build(nwk_s_key, session.dev_addr, fcnt),
        NwkKeys::V11 { s_nwk_s_int_key, nwk_s_enc_key, .. } => {
            let acked = window.ack.unwrap_or(0);
            down.build_11(s_nwk_s_int_key, nwk_s_enc_key, acked, session.dev_addr, fcnt)
        }
    };
    if down.confirmed {
        session.confirmed_down = Some(fcnt);
    }
    *session.next_down(content.payload.is_some()) = following;
    if tells {
        session.plan.note_told();
    }
    (Ok(phy), Write::sessions(Commit::Durable))
}

/// The session in which a device of class C can be reached now. Pure.
fn reachable(
    sessions: &[Session],
    dev_eui: DevEui,
    dev_addr: Option<DevAddr>,
    home: Option<NetId>,
    now: u64,
) -> Result<(&Session, &Path), Refusal> {
    if home.is_some() && sessions.iter().all(|session| session.home != home) {
        let why = format!("no session of {dev_eui} that you have handed over");
        return Err(Refusal::new(ResultCode::UnknownDevEui, why));
    }
    let in_force = |session: &&Session| {
        !session.pending
            && session.home == home
            && session.expires.is_none_or(|expires| expires > now)
            && dev_addr.is_none_or(|dev_addr| dev_addr == session.dev_addr)
    };
    let Some(session) = sessions.iter().rev().find(in_force) else {
        let why = format!("no session of {dev_eui} with this address is in use");
        return Err(Refusal::new(ResultCode::UnknownDevAddr, why));
    };
    let why = match (session.class, &session.path) {
        (ClassMode::C, Some(path)) => return Ok((session, path)),
        (ClassMode::C, None) => "its next uplink shows the way to it",
        (ClassMode::A, _) => "its session is of class A",
    };
    Err(Refusal::new(ResultCode::XmitFailed, format!("no receive window of {dev_eui} is open: {why}")))
}

impl Sns {
    /// XmitDataReq(down, FRMPayload), from our hNS: takes the open window of the device. A refused
    /// counter leaves the window open.
    pub async fn downlink(&self, from: Caller, req: XmitAppDown) -> Result<XmitAns, Refusal> {
        // whose devices it may be about
        let home = match &from.party {
            _ if from.ours => None,
            Party::Ns(net_id) => Some(*net_id),
            _ => return Err(Refusal::new(ResultCode::MalformedRequest, "it comes from a network server")),
        };
        let missing = |what| Refusal::new(ResultCode::MalformedRequest, format!("{what} is missing"));
        let dev_eui = req.dl.dev_eui.ok_or_else(|| missing("DevEUI"))?;
        let fcnt_down = req.dl.fcnt_down.ok_or_else(|| missing("FCntDown"))?;
        let f_port = match req.dl.f_port.ok_or_else(|| missing("FPort"))? {
            0 => return Err(Refusal::new(ResultCode::InvalidFPort, "FPort 0 belongs to the network")),
            port => port,
        };
        let window = match self.take_window(dev_eui, req.dev_addr, home) {
            Some(window) => window,
            None => self.at_any_time(dev_eui, req.dev_addr, home, from.by).await?,
        };
        let closes = window.dl.class_mode != Some(ClassMode::C);
        if req.frm_payload.len() + window.fopts.len() > window.room {
            let why = format!(
                "FRMPayload may have {} bytes now",
                window.room - window.fopts.len().min(window.room)
            );
            if closes {
                self.windows().insert(dev_eui, window);
            }
            return Err(Refusal::new(ResultCode::FrameSizeError, why));
        }
        let content = Content { payload: Some((fcnt_down, f_port, req.frm_payload, req.dl.confirmed)) };
        match self.fill(window.clone(), content).await {
            Ok(Gone::Sent(answer)) => Ok(answer),
            Ok(Gone::Rides(phy, dl)) => {
                self.riding().insert(dev_eui, (phy, dl));
                Ok(XmitAns::default())
            }
            Err(refusal) => {
                if closes && refusal.fcnt_down.is_some() {
                    self.windows().insert(dev_eui, window);
                }
                Err(refusal)
            }
        }
    }

    /// The window that an uplink of this session opened.
    fn take_window(&self, dev_eui: DevEui, dev_addr: Option<DevAddr>, home: Option<NetId>) -> Option<Window> {
        let mut windows = self.windows();
        let open = windows.get(&dev_eui)?;
        if open.home != home || dev_addr.is_some_and(|dev_addr| dev_addr != open.dev_addr) {
            return None;
        }
        windows.remove(&dev_eui)
    }

    /// Class C: what stands open between two uplinks, with the parameters of RX2.
    async fn at_any_time(
        &self,
        dev_eui: DevEui,
        dev_addr: Option<DevAddr>,
        home: Option<NetId>,
        by: Deadline,
    ) -> Result<Window, Refusal> {
        let now = self.clock.unix();
        let (decide, slot) = door::decided(move |sessions: &mut Vec<Session>| {
            let nothing = Write::sessions(Commit::Nothing);
            let found = reachable(sessions, dev_eui, dev_addr, home, now);
            (found.map(|(session, path)| (session.clone(), path.clone())), nothing)
        });
        self.sessions.with_device(dev_eui, Box::new(decide)).await?;
        let (session, path) = door::outcome(&slot)??;
        let via = path.via;
        // a stateful fNS finds its context by the DevEUI (table 5)
        let stateful = match via {
            Some(net_id) => self.forwarded_by(net_id, session.dev_addr, now).await?.contains(&session.id),
            None => false,
        };
        let dl = DlMeta {
            dl_freq2: Some(session.rx2_frequency),
            data_rate2: Some(session.rx2_data_rate),
            rx_delay1: Some(session.rx_delay.max(1)),
            class_mode: Some(ClassMode::C),
            dev_eui: stateful.then_some(dev_eui),
            fns_ul_token: path.fns_ul_token,
            ul_tokens: path.ul_tokens,
            ..DlMeta::default()
        };
        let room = session.plan.region.as_ref().unwrap_or(&self.region);
        let room = room.max_payload(session.rx2_data_rate).unwrap_or(0);
        Ok(Window {
            session: session.id,
            dev_eui,
            dev_addr: session.dev_addr,
            home: session.home,
            terms: session.terms,
            to: Party::Ns(via.unwrap_or(self.net_id)),
            dl,
            room,
            ack: None,
            plan: Vec::new(),
            fopts: Vec::new(),
            rides: false,
            by,
        })
    }

    /// Commit the next downlink of a window and send it on its way.
    pub(super) async fn fill(&self, window: Window, content: Content) -> Result<Gone, Refusal> {
        let dev_eui = window.dev_eui;
        let account = self.charge(window.session, window.home, &window.terms, Way::Down);
        let account = account.map_err(|why| Refusal::new(ResultCode::XmitFailed, why))?;
        let of = window.clone();
        let (decide, slot) = door::decided(move |sessions: &mut Vec<Session>| frame(sessions, &of, &content));
        self.sessions.with_device(dev_eui, Box::new(decide)).await?;
        let phy_payload = door::outcome(&slot)??;
        if window.rides {
            return Ok(Gone::Rides(phy_payload, window.dl));
        }
        let at_any_time = window.dl.class_mode == Some(ClassMode::C);
        // when the next one may follow: our own fNS says it, others do not
        let modulation =
            window.dl.data_rate2.and_then(|data_rate| self.region.downlink_modulation(data_rate));
        let takes = modulation.map(|of| jit::airtime(of, phy_payload.len(), crypto::Direction::Down));
        let down = XmitDown { phy_payload, dl: window.dl, account };
        let sent = self.peers.ask(window.to, down, window.by).await.map_err(PeerError::into_refusal);
        let told = |sent: XmitAns| match at_any_time {
            true => XmitAns { until_end: sent.until_end.or(takes), ..sent },
            false => sent,
        };
        sent.map(told).map(Gone::Sent).map_err(|refusal| match refusal.code {
            // another network does not say when its radio will be free
            ResultCode::XmitFailed | ResultCode::Other if at_any_time && refusal.retry_in.is_none() => {
                Refusal { retry_in: Some(AGAIN), ..refusal }
            }
            _ => refusal,
        })
    }
}

/// What could not be sent to a device that listens all the time is tried again after this; who asks doubles it.
const AGAIN: Duration = Duration::from_secs(10);

/// How long before RX1 the last word is due: an ACK goes without the hNS rather than too late.
pub(super) const LEAD: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use crate::lorawan::Key;
    use crate::lorawan::crypto::Counter;

    use super::super::uplink::tests::{session, session_11};
    use super::*;

    fn window(ack: bool, fopts: &[u8]) -> Window {
        Window {
            session: 1,
            dev_eui: session(None).dev_eui,
            dev_addr: session(None).dev_addr,
            home: None,
            terms: Terms::default(),
            to: Party::Ns(session(None).net_id),
            dl: DlMeta::default(),
            room: 51,
            ack: ack.then_some(1),
            fopts: fopts.to_vec(),
            plan: Vec::new(),
            rides: false,
            by: Deadline(tokio::time::Instant::now()),
        }
    }

    fn content(fcnt: u32) -> Content {
        Content { payload: Some((fcnt, 3, vec![0xAA], false)) }
    }

    #[test]
    fn no_counter_is_used_twice_and_the_right_one_is_named() {
        let mut sessions = vec![session(Some(1))];
        let (first, write) = frame(&mut sessions, &window(true, &[]), &content(0));
        assert_eq!(hex::encode(&first.unwrap()[..10]), "6001000002a0000003aa");
        assert_eq!(write.commit, Commit::Durable);
        let refusal = frame(&mut sessions, &window(true, &[]), &content(0)).0.unwrap_err();
        assert_eq!((refusal.code, refusal.fcnt_down), (ResultCode::XmitFailed, Some(1)));
        assert_eq!(sessions[0].fcnt_down, 1);
    }

    #[test]
    fn commands_ride_in_fopts_with_a_payload_and_on_port_0_without() {
        let mut sessions = vec![session(Some(1))];
        let with = frame(&mut sessions, &window(false, &[2, 10, 1]), &content(0)).0.unwrap();
        assert_eq!(hex::encode(&with[5..13]), "830000020a0103aa");
        let without = frame(&mut sessions, &window(false, &[2, 10, 1]), &Content::none()).0.unwrap();
        assert_eq!((without[5], without[8], without.len()), (0x80, 0, 8 + 1 + 3 + 4));
    }

    /// What a 1.1 device reads with keys 3 (SNwkSIntKey) and 4 (NwkSEncKey): FCtrl, FCnt and FOpts in the clear.
    fn read_11(phy: &[u8], counter: Counter, conf: u16) -> (u8, u16, Vec<u8>) {
        let (addr, fcnt) = (session(None).dev_addr, u16::from_le_bytes([phy[6], phy[7]]));
        let (body, mic) = phy.split_at(phy.len() - 4);
        let right = crypto::down_mic_11(&Key::new([3; 16]), addr, fcnt.into(), conf, body);
        assert_eq!(right, mic, "signed with SNwkSIntKey, for the uplink {conf}");
        let mut fopts = phy[8..8 + usize::from(phy[5] & 0x0F)].to_vec();
        crypto::crypt_fopts(&Key::new([4; 16]), counter, addr, fcnt.into(), &mut fopts);
        (phy[5], fcnt, fopts)
    }

    #[test]
    fn in_1_1_the_application_and_the_network_count_for_themselves() {
        let mut sessions = vec![session_11(Some(1))];
        (sessions[0].fcnt_down, sessions[0].a_fcnt_down) = (9, 4);
        let window = window(true, &[2, 10, 1]);
        let with = frame(&mut sessions, &window, &content(4)).0.unwrap();
        let read = read_11(&with, Counter::ApplicationDown, 1);
        assert_eq!(read, (0xA3, 4, vec![2, 10, 1]));
        assert_eq!(with[11], 3);
        let without = frame(&mut sessions, &window, &Content::none()).0.unwrap();
        assert_eq!(read_11(&without, Counter::NetworkDown, 1), (0xA0, 9, vec![]));
        let mut commands = without[9..12].to_vec();
        crypto::crypt_payload(
            &Key::new([4; 16]),
            crypto::Direction::Down,
            session(None).dev_addr,
            9,
            &mut commands,
        );
        assert_eq!((without[8], commands), (0, vec![2, 10, 1]));
        let empty = frame(&mut sessions, &self::window(false, &[]), &Content::none()).0.unwrap();
        assert_eq!(read_11(&empty, Counter::NetworkDown, 0), (0x80, 10, vec![]));
        assert_eq!((sessions[0].fcnt_down, sessions[0].a_fcnt_down), (11, 5));
    }

    #[test]
    fn the_application_may_leave_out_counters_of_its_own_but_use_none_twice() {
        let mut sessions = vec![session_11(Some(1))];
        sessions[0].fcnt_down = 9;
        assert!(frame(&mut sessions, &window(false, &[]), &content(3)).0.is_ok());
        let refusal = frame(&mut sessions, &window(false, &[]), &content(3)).0.unwrap_err();
        assert_eq!((refusal.code, refusal.fcnt_down), (ResultCode::XmitFailed, Some(4)));
        assert_eq!(
            frame(&mut sessions, &window(false, &[]), &content(u32::MAX)).0.unwrap_err().code,
            ResultCode::XmitFailed
        );
        assert_eq!((sessions[0].a_fcnt_down, sessions[0].fcnt_down), (4, 9));
    }

    #[test]
    fn a_confirmed_downlink_of_1_1_is_remembered_by_the_counter_of_the_application() {
        let mut sessions = vec![session_11(Some(1))];
        sessions[0].a_fcnt_down = 6;
        let confirmed = Content { payload: Some((6, 3, vec![0xAA], true)) };
        frame(&mut sessions, &window(false, &[]), &confirmed).0.unwrap();
        assert_eq!(sessions[0].confirmed_down, Some(6));
    }

    #[test]
    fn a_device_of_class_c_is_reached_in_the_session_that_was_asked_for_once_the_way_is_known() {
        let (dev_eui, addr) = (session(None).dev_eui, session(None).dev_addr);
        let way = Path { via: None, fns_ul_token: Some(vec![1]), ul_tokens: Vec::new() };
        let class_c = Session { class: ClassMode::C, path: Some(way), ..session(Some(1)) };
        let newer = Session { id: 2, dev_addr: DevAddr::new(0x0200_0002), pending: true, ..class_c.clone() };
        let both = [class_c.clone(), newer.clone()];
        let id = |sessions: &[Session], addr| {
            reachable(sessions, dev_eui, addr, None, 1000)
                .map(|(session, _)| session.id)
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(id(&both, Some(addr)), Ok(1));
        assert_eq!(id(&both, None), Ok(1));
        assert_eq!(id(&both, Some(newer.dev_addr)), Err(ResultCode::UnknownDevAddr), "it was not heard yet");
        let void = Session { expires: Some(1000), ..class_c.clone() };
        assert_eq!(id(&[void], Some(addr)), Err(ResultCode::UnknownDevAddr));
        for not_yet in
            [Session { path: None, ..class_c.clone() }, Session { class: ClassMode::A, ..class_c.clone() }]
        {
            assert_eq!(id(&[not_yet], Some(addr)), Err(ResultCode::XmitFailed));
        }
    }

    #[test]
    fn the_last_counter_is_never_given_out() {
        let mut sessions = vec![session(Some(1))];
        sessions[0].fcnt_down = u32::MAX;
        let refused = frame(&mut sessions, &window(true, &[]), &Content::none()).0.unwrap_err();
        assert_eq!(refused.code, ResultCode::XmitFailed);
    }
}
