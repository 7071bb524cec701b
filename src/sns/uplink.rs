//! Is this data frame of one of our sessions? Pure: MIC, 32-bit counter, what it asks for.

use crate::backend::door::Commit;
use crate::backend::message::{ClassMode, NwkKeys, Refusal, ResultCode, UlMeta, XmitAppUp};
use crate::lorawan::crypto::{self, Circumstances, Counter, Direction};
use crate::lorawan::frame::DataFrame;
use crate::lorawan::mac::{self, UplinkCommand};
use crate::lorawan::{NetId, Region};

use super::plan::Plan;
use super::{ForwardKey, Path, Session, Write};

/// An accepted frame, decided and about to be committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The session after the decision.
    pub session: Session,
    /// The full counter.
    pub fcnt_up: u32,
    /// The counter was accepted before: the device sent it again, or it came by another path.
    pub repeated: bool,
    /// The first frame of the session: the device has heard its Join-accept.
    pub activated: bool,
    /// The device wants an acknowledgement.
    pub confirmed: bool,
    /// The device has heard nothing for long and wants any downlink.
    pub adr_ack_req: bool,
    /// Commands of FOpts or of an FPort 0 payload.
    pub commands: Vec<UplinkCommand>,
    /// For the hNS.
    pub up: XmitAppUp,
}

/// TS002 12.5 step 5.3 and TS001 4.3.1.5: find the session whose key makes the MIC right with a
/// counter that is new, or that is the last one again. `region`: where it was heard; `visited`: through whom, where that
/// is not us; `now`: seconds since 1970.
pub fn accept(
    sessions: &mut [Session],
    frame: DataFrame<'_>,
    ul: &UlMeta,
    region: &Region,
    visited: Option<NetId>,
    now: u64,
) -> (Result<Accepted, Refusal>, Write) {
    let nothing = Write::sessions(Commit::Nothing);
    let sent_on = sent_on(ul, region);
    for session in &mut *sessions {
        if session.expires.is_some_and(|expires| expires <= now) {
            continue;
        }
        let Some(fcnt_up) = matching_counter(session, frame, sent_on) else { continue };
        // the MIC was right, so the device's own policy may be told (TS002 12.5 step 5.4)
        if visited.is_some() && !session.roaming {
            let why = format!("device {} may not roam", session.dev_eui);
            return (Err(Refusal::new(ResultCode::DevRoamingDisallowed, why)), nothing);
        }
        let repeated = session.fcnt_up == Some(fcnt_up);
        let activated = session.pending;
        session.fcnt_up = Some(fcnt_up);
        session.pending = false;
        let mut accepted = describe(session.clone(), frame, ul, fcnt_up, repeated, activated);
        accepted.up.via = visited;
        if repeated {
            // our own radio is the better way, whoever was faster
            let away = session.path.as_ref().is_some_and(|path| path.via.is_some());
            if visited.is_none() && away && session.plan.is_of(region) {
                session.path = Path::of(ul, None);
                return (Ok(accepted), Write::sessions(Commit::Lazy));
            }
            return (Ok(accepted), nothing);
        }
        let changed = obey(session, &accepted.commands, region);
        // where the radio is of another region, nobody there sends on the device's channel
        let reachable = session.class == ClassMode::C && session.plan.is_of(region);
        session.path = reachable.then(|| Path::of(ul, visited)).flatten();
        accepted.session = session.clone();
        // A confirmed uplink is acknowledged and a change is confirmed, so they are safe first; and a session's
        // activation ends its predecessor
        let confirmed = frame.is_confirmed();
        let commit = if confirmed || activated || changed { Commit::Durable } else { Commit::Lazy };
        let carries = accepted.up.ul.f_port.is_some_and(|port| port > 0) || accepted.up.ack;
        let forward = carries.then(|| (ForwardKey { session: session.id, fcnt_up }, accepted.up.clone()));
        let succeeds = activated.then(|| session.clone());
        return (Ok(accepted), Write { commit, forward, succeeds });
    }
    let in_force = |session: &&Session| session.expires.is_none_or(|expires| expires > now);
    if let Some(session) =
        sessions.iter().filter(in_force).find(|session| began_anew(session, frame, sent_on))
    {
        let (dev_eui, fcnt, last) = (session.dev_eui, frame.fcnt(), session.fcnt_up.unwrap_or(0));
        let why = format!(
            "FCnt {fcnt} of personalised device {dev_eui} comes after {last}: it forgot its counter, or somebody \
             replays an old frame; if it was restarted, `roamgate device reset-counter {dev_eui}`"
        );
        return (Err(Refusal::new(ResultCode::FrameReplayed, why)), nothing);
    }
    let mut why = format!("no session of {} makes this MIC right", frame.dev_addr());
    if sent_on.is_none() && sessions.iter().any(Session::is_v11) {
        // TS002 11.8: the MIC of 1.1 covers the channel
        why.push_str(&format!(
            ": {:?} Hz at data rate {:?} is no channel of {region}",
            ul.ul_freq, ul.data_rate
        ));
    }
    (Err(Refusal::new(ResultCode::MicFailed, why)), nothing)
}

/// The full counter that makes the MIC right: the smallest not below the last one with these low 16
/// bits, and where that is the last one itself, the next round as well.
fn matching_counter(session: &Session, frame: DataFrame<'_>, sent_on: Option<(u8, u8)>) -> Option<u32> {
    let low = u32::from(frame.fcnt());
    let last = session.fcnt_up.unwrap_or(0);
    let ahead = low.wrapping_sub(last) & 0xFFFF;
    let nearest = last.checked_add(ahead);
    let next_round = if ahead == 0 { last.checked_add(0x1_0000) } else { None };
    let mut candidates = [nearest, next_round].into_iter().flatten();
    candidates.find(|fcnt| mic_matches(session, frame, *fcnt, sent_on))
}

fn mic_matches(session: &Session, frame: DataFrame<'_>, fcnt: u32, sent_on: Option<(u8, u8)>) -> bool {
    match &session.keys {
        NwkKeys::V10 { nwk_s_key } => frame.up_mic_matches(nwk_s_key, fcnt),
        NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, .. } => {
            let Some((data_rate, channel)) = sent_on else { return false };
            acknowledges(session, frame, fcnt).any(|conf_fcnt| {
                let sent = Circumstances { data_rate, channel, conf_fcnt };
                frame.up_mic_matches_11(s_nwk_s_int_key, f_nwk_s_int_key, fcnt, sent)
            })
        }
    }
}

/// A personalised device whose counter began anew with its power: keys and address are right, the counter is not.
fn began_anew(session: &Session, frame: DataFrame<'_>, sent_on: Option<(u8, u8)>) -> bool {
    let fcnt = u32::from(frame.fcnt());
    session.personalised
        && session.fcnt_up.is_some_and(|last| fcnt < last)
        && mic_matches(session, frame, fcnt, sent_on)
}

/// Data rate and channel that an uplink was sent with, by their indexes where it was heard.
fn sent_on(ul: &UlMeta, region: &Region) -> Option<(u8, u8)> {
    let data_rate = ul.data_rate?;
    Some((data_rate, region.uplink_channel(ul.ul_freq?, data_rate)?))
}

/// What ConfFCnt of an uplink can be: the last confirmed downlink that it acknowledges. A device that sends its last
/// uplink again means the one before it: what its first sending brought may be confirmed as well.
fn acknowledges(session: &Session, frame: DataFrame<'_>, fcnt_up: u32) -> impl Iterator<Item = u16> {
    let (ack, again) = (frame.fctrl().ack(), session.fcnt_up == Some(fcnt_up));
    let last = if ack { session.confirmed_down.unwrap_or(0) } else { 0 };
    let before = if ack && again { 3 } else { 0 };
    // the MIC has 16 bits of it
    (0..=before).filter_map(move |back| last.checked_sub(back)).map(|fcnt| fcnt as u16)
}

/// Whether a command changed the session (TS001 1.1, 5). What is asked for is answered elsewhere.
fn obey(session: &mut Session, commands: &[UplinkCommand], region: &Region) -> bool {
    if !session.is_v11() {
        return false;
    }
    let before = session.clone();
    for command in commands {
        match command {
            UplinkCommand::DeviceModeInd { class: 0 } => session.class = ClassMode::A,
            UplinkCommand::DeviceModeInd { class: 2 } => session.class = ClassMode::C,
            // a personalised device began anew: what commands had changed is as its maker set it
            UplinkCommand::ResetInd { .. } if session.personalised => {
                let of = session.plan.region.as_ref().unwrap_or(region);
                let of = of.clone().with_sub_bands(session.plan.sub_bands);
                (session.rx2_frequency, session.rx2_data_rate) = of.rx2();
                (session.rx1_dr_offset, session.rx_delay) = (0, 1);
                session.plan = Plan::untold(&of);
                session.class = ClassMode::A;
            }
            _ => {}
        }
    }
    *session != before
}

fn describe(
    session: Session,
    frame: DataFrame<'_>,
    ul: &UlMeta,
    fcnt_up: u32,
    repeated: bool,
    activated: bool,
) -> Accepted {
    let mut fopts = frame.fopts().to_vec();
    if let NwkKeys::V11 { nwk_s_enc_key, .. } = &session.keys {
        crypto::crypt_fopts(nwk_s_enc_key, Counter::Up, session.dev_addr, fcnt_up, &mut fopts);
    }
    let mut commands = mac::uplink_commands(&fopts);
    let (f_port, frm_payload) = match frame.payload() {
        Some((0, encrypted)) => {
            let mut clear = encrypted.to_vec();
            crypto::crypt_payload(session.port_0_key(), Direction::Up, session.dev_addr, fcnt_up, &mut clear);
            commands.extend(mac::uplink_commands(&clear));
            (None, Vec::new())
        }
        Some((port, payload)) => (Some(port), payload.to_vec()),
        None => (None, Vec::new()),
    };
    let ul = UlMeta {
        dev_eui: Some(session.dev_eui),
        dev_addr: Some(session.dev_addr),
        f_port,
        fcnt_up: Some(fcnt_up),
        // of a downlink of the application
        fcnt_down: Some(if session.is_v11() { session.a_fcnt_down } else { session.fcnt_down }),
        confirmed: frame.is_confirmed(),
        adr: frame.fctrl().adr(),
        // between sNS and fNS only
        fns_ul_token: None,
        ..ul.clone()
    };
    Accepted {
        fcnt_up,
        repeated,
        activated,
        confirmed: frame.is_confirmed(),
        adr_ack_req: frame.fctrl().adr_ack_req(),
        commands,
        // a repetition acknowledges again what it acknowledged before, and not what was sent since
        up: XmitAppUp {
            frm_payload,
            ul,
            ack: frame.fctrl().ack() && !repeated,
            via: None,
            home: session.home,
        },
        session,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backend::message::{ClassMode, GwInfo, NwkKeys};
    use crate::lorawan::frame::Uplink;
    use crate::lorawan::{DevAddr, DevEui, Key};

    pub fn session(fcnt_up: Option<u32>) -> Session {
        Session {
            id: 1,
            dev_eui: DevEui::from_msb([1; 8]),
            dev_addr: DevAddr::new(0x0200_0001),
            net_id: NetId::from_msb([0, 0, 1]),
            keys: NwkKeys::V10 { nwk_s_key: Key::new([7; 16]) },
            fcnt_up,
            fcnt_down: 0,
            a_fcnt_down: 0,
            confirmed_down: None,
            class: ClassMode::A,
            personalised: false,
            pending: fcnt_up.is_none(),
            rx_delay: 1,
            rx1_dr_offset: 0,
            rx2_frequency: 869_525_000,
            rx2_data_rate: 0,
            plan: Default::default(),
            roaming: true,
            home: None,
            terms: Default::default(),
            rj_count0: None,
            path: None,
            created: 0,
            expires: None,
        }
    }

    pub fn up(key: &Key, mhdr: u8, fctrl: u8, fcnt: u32, rest: &[u8]) -> Vec<u8> {
        let addr = session(None).dev_addr;
        let mut phy = vec![mhdr];
        phy.extend(addr.to_air());
        phy.push(fctrl);
        phy.extend(&fcnt.to_le_bytes()[..2]);
        phy.extend(rest);
        phy.extend(crypto::data_mic(key, Direction::Up, addr, fcnt, &phy.clone()));
        phy
    }

    fn run(session: &mut Session, phy: &[u8]) -> (Result<Accepted, Refusal>, Write) {
        let Ok(Uplink::Data(frame)) = Uplink::parse(phy) else { panic!("a data frame") };
        let ul = UlMeta {
            ul_freq: Some(868_100_000),
            data_rate: Some(5),
            ..UlMeta::at(jiff::Timestamp::UNIX_EPOCH)
        };
        accept(std::slice::from_mut(session), frame, &ul, &Region::eu868(), None, 1000)
    }

    fn counter(session: &mut Session, phy: &[u8]) -> Option<u32> {
        run(session, phy).0.ok().map(|accepted| accepted.fcnt_up)
    }

    #[test]
    fn a_first_uplink_may_start_at_0_or_1_and_activates_durably() {
        for first in [0, 1] {
            let mut session = session(None);
            let (accepted, write) = run(&mut session, &up(&Key::new([7; 16]), 0x40, 0, first, &[5, 1, 2]));
            let accepted = accepted.unwrap();
            assert!(accepted.activated && !accepted.repeated);
            assert_eq!((session.fcnt_up, session.pending), (Some(first), false));
            assert_eq!(write.commit, Commit::Durable);
            assert_eq!(write.succeeds, Some(session.clone()));
            assert_eq!(write.forward.unwrap().0, ForwardKey { session: 1, fcnt_up: first });
        }
    }

    #[test]
    fn the_counter_goes_past_16_bits_and_never_back() {
        let (mut session, key) = (session(Some(0xFFFE)), Key::new([7; 16]));
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 0xFFFF, &[])), Some(0xFFFF));
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 0x1_0000, &[])), Some(0x1_0000));
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 0xFFFF, &[])), None);
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 0x1_FFFF, &[])), Some(0x1_FFFF));
        // a whole round of silence: the low bits are those of the last one
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 0x2_FFFF, &[])), Some(0x2_FFFF));
        session.fcnt_up = Some(u32::MAX);
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 0, &[])), None);
    }

    #[test]
    fn a_repetition_is_known_and_writes_nothing() {
        let (mut session, key) = (session(Some(4)), Key::new([7; 16]));
        let frame = up(&key, 0x80, 0, 5, &[5, 1]);
        assert_eq!(run(&mut session, &frame).1.commit, Commit::Durable);
        let (again, write) = run(&mut session, &frame);
        assert!(again.unwrap().repeated);
        assert_eq!((write.commit, write.forward, write.succeeds), (Commit::Nothing, None, None));
    }

    #[test]
    fn an_old_frame_and_a_wrong_mic_are_refused_and_change_nothing() {
        let (mut session, key) = (session(Some(9)), Key::new([7; 16]));
        for phy in [up(&key, 0x40, 0, 8, &[]), up(&Key::new([8; 16]), 0x40, 0, 10, &[])] {
            let before = session.clone();
            assert_eq!(run(&mut session, &phy).0.unwrap_err().code, ResultCode::MicFailed);
            assert_eq!(session, before);
        }
    }

    #[test]
    fn commands_come_from_fopts_or_from_port_0_in_the_clear() {
        let (mut session, key) = (session(Some(0)), Key::new([7; 16]));
        let in_fopts = run(&mut session, &up(&key, 0x40, 1, 1, &[0x02])).0.unwrap();
        assert_eq!(in_fopts.commands, [UplinkCommand::LinkCheckReq]);
        let mut payload = vec![0x0D];
        crypto::crypt_payload(&key, Direction::Up, session.dev_addr, 2, &mut payload);
        let on_port_0 = run(&mut session, &up(&key, 0x40, 0, 2, &[&[0][..], &payload].concat()));
        let accepted = on_port_0.0.unwrap();
        assert_eq!(accepted.commands, [UplinkCommand::DeviceTimeReq]);
        assert_eq!((accepted.up.ul.f_port, on_port_0.1.forward), (None, None));
    }

    fn key(byte: u8) -> Key {
        Key::new([byte; 16])
    }

    /// A session of 1.1 with keys 3 (SNwkSIntKey), 1 (FNwkSIntKey) and 4 (NwkSEncKey).
    pub fn session_11(fcnt_up: Option<u32>) -> Session {
        let (s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key) = (key(3), key(1), key(4));
        Session { keys: NwkKeys::V11 { s_nwk_s_int_key, f_nwk_s_int_key, nwk_s_enc_key }, ..session(fcnt_up) }
    }

    /// An uplink of that session: DR5, on a channel, with FOpts encrypted here.
    fn up_11(mhdr: u8, fctrl: u8, fcnt: u32, fopts: &[u8], rest: &[u8], channel: u8, conf: u16) -> Vec<u8> {
        let addr = session(None).dev_addr;
        let mut fopts = fopts.to_vec();
        crypto::crypt_fopts(&key(4), Counter::Up, addr, fcnt, &mut fopts);
        let mut phy = vec![mhdr];
        phy.extend(addr.to_air());
        phy.push(fctrl | fopts.len() as u8);
        phy.extend(&fcnt.to_le_bytes()[..2]);
        phy.extend(fopts);
        phy.extend(rest);
        let block = |circumstances: [u8; 5]| {
            let head = [&[0x49][..], &circumstances, &addr.to_air(), &fcnt.to_le_bytes()].concat();
            [head, vec![0, phy.len() as u8]].concat()
        };
        let [low, high] = conf.to_le_bytes();
        let s = crypto::cmac(&key(3), &[&block([low, high, 5, channel, 0]), &phy]);
        let f = crypto::cmac(&key(1), &[&block([0; 5]), &phy]);
        phy.extend([s[0], s[1], f[0], f[1]]);
        phy
    }

    #[test]
    fn a_1_1_uplink_is_taken_on_the_channel_that_its_mic_covers_and_with_both_halves_right() {
        let phy = up_11(0x40, 0, 5, &[], &[5, 1], 0, 0);
        assert_eq!(counter(&mut session_11(Some(4)), &phy), Some(5));
        for at in 1..=4 {
            let mut forged = phy.clone();
            let end = forged.len();
            forged[end - at] ^= 1;
            assert_eq!(counter(&mut session_11(Some(4)), &forged), None, "byte {at} of the MIC");
        }
        assert_eq!(counter(&mut session_11(Some(4)), &up_11(0x40, 0, 5, &[], &[5, 1], 1, 0)), None);
        let Ok(Uplink::Data(frame)) = Uplink::parse(&phy) else { panic!("a data frame") };
        let heard =
            |ul_freq, data_rate| UlMeta { ul_freq, data_rate, ..UlMeta::at(jiff::Timestamp::UNIX_EPOCH) };
        for (ul, why) in [
            (heard(Some(868_300_000), Some(5)), "no session"),
            (heard(Some(868_100_000), Some(4)), "no session"),
            (heard(Some(868_200_000), Some(5)), "is no channel of EU868"),
            (heard(None, None), "is no channel of EU868"),
        ] {
            let mut sessions = [session_11(Some(4))];
            let refusal = accept(&mut sessions, frame, &ul, &Region::eu868(), None, 0).0.unwrap_err();
            assert_eq!(refusal.code, ResultCode::MicFailed);
            assert!(refusal.description.contains(why), "{refusal}");
        }
    }

    #[test]
    fn the_32_bit_counter_of_1_1_goes_past_16_bits() {
        let mut session = session_11(Some(0xFFFF));
        assert_eq!(counter(&mut session, &up_11(0x40, 0, 0x1_0000, &[], &[5, 1], 0, 0)), Some(0x1_0000));
        assert_eq!(counter(&mut session, &up_11(0x40, 0, 0xFFFF, &[], &[5, 1], 0, 0)), None);
    }

    #[test]
    fn an_acknowledgement_of_1_1_names_the_downlink_that_it_is_for() {
        let ack = |fcnt, conf| up_11(0x40, 0x20, fcnt, &[], &[5, 1], 0, conf);
        let mut session = session_11(Some(4));
        session.confirmed_down = Some(0x1_0007);
        assert_eq!(counter(&mut session, &ack(5, 6)), None, "an older one");
        assert_eq!(counter(&mut session, &ack(5, 0)), None);
        assert_eq!(counter(&mut session, &ack(5, 7)), Some(5));
        // its answer was confirmed too, and did not arrive: the repetition means the same one as before
        session.confirmed_down = Some(0x1_0009);
        let (again, write) = run(&mut session, &ack(5, 7));
        let again = again.unwrap();
        assert!(again.repeated && !again.up.ack, "and settles nothing a second time");
        assert_eq!(write.commit, Commit::Nothing);
    }

    #[test]
    fn fopts_and_port_0_of_1_1_are_read_with_nwksenckey() {
        let mut session = session_11(Some(0));
        let accepted = run(&mut session, &up_11(0x40, 0, 1, &[0x0B, 1, 0x02], &[5, 1], 0, 0)).0.unwrap();
        assert_eq!(accepted.commands, [UplinkCommand::RekeyInd { minor: 1 }, UplinkCommand::LinkCheckReq]);
        let mut payload = vec![0x0D];
        crypto::crypt_payload(&key(4), Direction::Up, session.dev_addr, 2, &mut payload);
        let phy = up_11(0x40, 0, 2, &[], &[&[0][..], &payload].concat(), 0, 0);
        assert_eq!(run(&mut session, &phy).0.unwrap().commands, [UplinkCommand::DeviceTimeReq]);
    }

    #[test]
    fn a_1_1_uplink_offers_the_counter_of_the_application() {
        let mut session = session_11(Some(0));
        (session.fcnt_down, session.a_fcnt_down) = (7, 3);
        let accepted = run(&mut session, &up_11(0x40, 0, 1, &[], &[5, 1], 0, 0)).0.unwrap();
        assert_eq!(accepted.up.ul.fcnt_down, Some(3));
    }

    #[test]
    fn the_class_follows_devicemodeind_of_1_1_on_disk_before_it_is_confirmed() {
        let mut session = session_11(Some(0));
        let classes = [(2, ClassMode::C, Commit::Durable), (2, ClassMode::C, Commit::Lazy)];
        let classes = classes.into_iter().chain([(7, ClassMode::C, Commit::Lazy)]);
        for (fcnt, (said, class, commit)) in classes.chain([(0, ClassMode::A, Commit::Durable)]).enumerate() {
            let phy = up_11(0x40, 0, 1 + fcnt as u32, &[0x20, said], &[5, 1], 0, 0);
            let (accepted, write) = run(&mut session, &phy);
            assert_eq!(
                (session.class, accepted.unwrap().session.class, write.commit),
                (class, class, commit)
            );
        }
        // in 1.0.x nobody says so
        let mut old = super::tests::session(Some(0));
        run(&mut old, &up(&key(7), 0x40, 2, 1, &[0x20, 2])).0.unwrap();
        assert_eq!(old.class, ClassMode::A);
    }

    #[test]
    fn resetind_brings_back_what_a_personalised_device_began_with() {
        for personalised in [true, false] {
            let mut session = session_11(Some(0));
            (session.personalised, session.rx2_data_rate, session.rx1_dr_offset) = (personalised, 3, 2);
            run(&mut session, &up_11(0x40, 0, 1, &[0x01, 1], &[5, 1], 0, 0)).0.unwrap();
            let expected = if personalised { (0, 0) } else { (3, 2) };
            assert_eq!((session.rx2_data_rate, session.rx1_dr_offset), expected);
        }
    }

    #[test]
    fn a_device_that_may_not_roam_is_refused_abroad_only() {
        let (mut session, key) = (session(Some(0)), Key::new([7; 16]));
        session.roaming = false;
        let phy = up(&key, 0x40, 0, 1, &[]);
        let Ok(Uplink::Data(frame)) = Uplink::parse(&phy) else { panic!("a data frame") };
        let ul = UlMeta::at(jiff::Timestamp::UNIX_EPOCH);
        let visited = Some(NetId::from_msb([0, 0, 2]));
        let (refused, write) =
            accept(std::slice::from_mut(&mut session), frame, &ul, &Region::eu868(), visited, 0);
        assert_eq!(refused.unwrap_err().code, ResultCode::DevRoamingDisallowed);
        assert_eq!((session.fcnt_up, write.commit), (Some(0), Commit::Nothing));
        assert_eq!(counter(&mut session, &phy), Some(1));
    }

    #[test]
    fn a_personalised_device_that_began_anew_is_refused_with_the_remedy_and_sent_to_nobody_else() {
        let (mut session, key) = (session(Some(212)), Key::new([7; 16]));
        session.personalised = true;
        let before = session.clone();
        let (refused, write) = run(&mut session, &up(&key, 0x40, 0, 3, &[5, 1]));
        let refusal = refused.unwrap_err();
        assert_eq!((refusal.code, write.commit), (ResultCode::FrameReplayed, Commit::Nothing));
        assert!(refusal.description.contains("roamgate device reset-counter 0101010101010101"), "{refusal}");
        assert_eq!(session, before);
        let wrong = up(&Key::new([8; 16]), 0x40, 0, 3, &[5, 1]);
        assert_eq!(run(&mut session, &wrong).0.unwrap_err().code, ResultCode::MicFailed);
        session.fcnt_up = None;
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 3, &[5, 1])), Some(3));
    }

    #[test]
    fn the_way_to_a_device_of_class_c_is_that_of_its_last_uplink_and_home_is_the_better_one() {
        let (mut session, key) = (session(Some(0)), Key::new([7; 16]));
        let heard = |session: &mut Session, fcnt, visited| {
            let phy = up(&key, 0x40, 0, fcnt, &[5, 1]);
            let Ok(Uplink::Data(frame)) = Uplink::parse(&phy) else { panic!("a data frame") };
            let token = Some(vec![fcnt as u8]);
            let ul = UlMeta { fns_ul_token: token, ..UlMeta::at(jiff::Timestamp::UNIX_EPOCH) };
            accept(std::slice::from_mut(session), frame, &ul, &Region::eu868(), visited, 0).0.unwrap();
            session.path.clone().map(|path| (path.via, path.fns_ul_token.unwrap()))
        };
        let away = Some(NetId::from_msb([0, 0, 2]));
        assert_eq!(heard(&mut session, 1, None), None, "class A has none");
        session.class = ClassMode::C;
        assert_eq!(heard(&mut session, 2, None), Some((None, vec![2])));
        assert_eq!(heard(&mut session, 3, None), Some((None, vec![3])));
        assert_eq!(heard(&mut session, 4, away), Some((away, vec![4])));
        assert_eq!(heard(&mut session, 4, None), Some((None, vec![4])), "a copy at home");
        assert_eq!(heard(&mut session, 5, None), Some((None, vec![5])));
        assert_eq!(heard(&mut session, 5, away), Some((None, vec![5])), "a copy elsewhere");
        session.plan = Plan::untold(&"US915".parse().unwrap());
        assert_eq!(heard(&mut session, 6, away), None, "made for another region");
    }

    #[test]
    fn a_way_has_few_tokens_and_is_none_where_nothing_goes_down() {
        let gateway = |size| GwInfo { ul_token: Some(vec![1; size]), ..GwInfo::default() };
        let gw_info: Vec<GwInfo> = [1, 2000, 2, 3, 4, 5].map(gateway).into();
        let ul = UlMeta { gw_info, ..UlMeta::at(jiff::Timestamp::UNIX_EPOCH) };
        let sizes =
            |ul: &UlMeta| Path::of(ul, None).map(|path| path.ul_tokens.iter().map(Vec::len).collect());
        assert_eq!(sizes(&ul), Some(vec![1, 2, 3, 4]));
        assert_eq!(sizes(&UlMeta { gw_info: vec![], ..ul }), None::<Vec<usize>>);
    }

    #[test]
    fn an_expired_session_accepts_nothing() {
        let (mut session, key) = (session(Some(0)), Key::new([7; 16]));
        session.expires = Some(1000);
        assert_eq!(counter(&mut session, &up(&key, 0x40, 0, 1, &[])), None);
    }
}
