//! PHYPayloads (TS001 4): parsed once at the door, built once on the way out.
//!
//! A parsed frame is a view of bytes whose length and MHDR are right; its MIC has not been looked
//! at. What a MIC was found right for says so in its type.

use super::crypto::{self, Circumstances, Counter, Direction};
use super::{DevAddr, DevEui, JoinEui, Key, NetId};

/// Why bytes are no frame that this network handles. The two kinds have different Result codes
/// (TS002 11.1): an impossible length, and a type or version that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is impossible for the type: FrameSizeError.
    #[error("{0} bytes are an impossible length for this frame type")]
    Size(usize),
    /// Major version other than 0, or a type nobody expects here: MalformedRequest.
    #[error("MHDR {0:02X} is no frame type that is handled here")]
    Type(u8),
}

/// A frame from a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uplink<'a> {
    /// A Join-request.
    Join(JoinRequest<'a>),
    /// A Rejoin-request of type 0, 1 or 2.
    Rejoin(RejoinRequest<'a>),
    /// A data frame.
    Data(DataFrame<'a>),
}

impl<'a> Uplink<'a> {
    /// Parse what a radio heard. Downlink types are refused: another gateway's voice is no uplink.
    pub fn parse(phy: &'a [u8]) -> Result<Uplink<'a>, FrameError> {
        let mhdr = *phy.first().ok_or(FrameError::Size(0))?;
        if mhdr & 0b11 != 0 {
            return Err(FrameError::Type(mhdr));
        }
        match mhdr >> 5 {
            0b000 => phy
                .try_into()
                .map(|bytes| Uplink::Join(JoinRequest(bytes)))
                .map_err(|_| FrameError::Size(phy.len())),
            0b110 => RejoinRequest::parse(phy).map(Uplink::Rejoin),
            0b010 | 0b100 => DataFrame::parse(phy).map(Uplink::Data),
            _ => Err(FrameError::Type(mhdr)),
        }
    }
}

/// A Join-request whose length and MHDR are right; the MIC has not been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinRequest<'a>(&'a [u8; 23]);

/// Bytes of a frame whose length was checked.
fn field<const N: usize>(phy: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&phy[at..at + N]);
    bytes
}

impl<'a> JoinRequest<'a> {
    /// Parse a frame that must be a Join-request.
    pub fn parse(phy: &'a [u8]) -> Result<JoinRequest<'a>, FrameError> {
        match Uplink::parse(phy)? {
            Uplink::Join(join) => Ok(join),
            _ => Err(FrameError::Type(phy[0])),
        }
    }
    /// The whole frame.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
    /// JoinEUI (AppEUI in 1.0.0 to 1.0.3).
    pub fn join_eui(self) -> JoinEui {
        JoinEui::from_air(field(self.0, 1))
    }
    /// DevEUI.
    pub fn dev_eui(self) -> DevEui {
        DevEui::from_air(field(self.0, 9))
    }
    /// DevNonce.
    pub fn dev_nonce(self) -> u16 {
        u16::from_le_bytes(field(self.0, 17))
    }
    /// Check the MIC with a root key (AppKey, or NwkKey for 1.1).
    pub fn verify(self, root: &Key) -> Option<VerifiedJoin<'a>> {
        crypto::join_mic_matches(root, self.0).then_some(VerifiedJoin(self))
    }
}

/// A Join-request whose MIC matches a root key we hold. Only [`JoinRequest::verify`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedJoin<'a>(JoinRequest<'a>);

impl<'a> std::ops::Deref for VerifiedJoin<'a> {
    type Target = JoinRequest<'a>;
    fn deref(&self) -> &JoinRequest<'a> {
        &self.0
    }
}

/// A Rejoin-request whose layout is right; the MIC has not been looked at (TS001 1.1, 6.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejoinRequest<'a>(&'a [u8]);

/// What a Rejoin-request is for, and what it names beside the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejoinKind {
    /// Type 0: everything anew, with another serving network too. NetID of the home.
    Handover(NetId),
    /// Type 1: as a Join-request. JoinEUI.
    Recovery(JoinEui),
    /// Type 2: other keys and another address, the same radio parameters. NetID of the home.
    Rekeying(NetId),
}

impl RejoinKind {
    /// Rejoin Type, as on the air and in the MIC of the answer.
    pub fn number(self) -> u8 {
        match self {
            RejoinKind::Handover(_) => 0,
            RejoinKind::Recovery(_) => 1,
            RejoinKind::Rekeying(_) => 2,
        }
    }
}

impl<'a> RejoinRequest<'a> {
    fn parse(phy: &'a [u8]) -> Result<RejoinRequest<'a>, FrameError> {
        match (phy.get(1), phy.len()) {
            (Some(0 | 2), 19) | (Some(1), 24) => Ok(RejoinRequest(phy)),
            _ => Err(FrameError::Size(phy.len())),
        }
    }
    /// The whole frame.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
    /// Which of the three it is.
    pub fn kind(self) -> RejoinKind {
        match self.0[1] {
            1 => RejoinKind::Recovery(JoinEui::from_air(field(self.0, 2))),
            0 => RejoinKind::Handover(NetId::from_air(field(self.0, 2))),
            _ => RejoinKind::Rekeying(NetId::from_air(field(self.0, 2))),
        }
    }
    /// DevEUI.
    pub fn dev_eui(self) -> DevEui {
        DevEui::from_air(field(self.0, self.0.len() - 14))
    }
    /// RJcount0, or RJcount1 of type 1.
    pub fn rj_count(self) -> u16 {
        u16::from_le_bytes(field(self.0, self.0.len() - 6))
    }
    /// Whether this key made the MIC: SNwkSIntKey of the session, or JSIntKey for type 1.
    pub fn mic_matches(self, key: &Key) -> bool {
        crypto::join_mic_matches(key, self.0)
    }
}

/// A data frame whose layout is right; the MIC has not been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFrame<'a>(&'a [u8]);

impl<'a> DataFrame<'a> {
    fn parse(phy: &'a [u8]) -> Result<DataFrame<'a>, FrameError> {
        let size = FrameError::Size(phy.len());
        if !(12..=255).contains(&phy.len()) {
            return Err(size);
        }
        let fopts = usize::from(phy[5] & 0x0F);
        // FRMPayload of at most 242 bytes (TS001 4.3): N of the largest data rate
        match phy.len().checked_sub(12 + fopts) {
            Some(rest) if rest <= 243 => Ok(DataFrame(phy)),
            _ => Err(size),
        }
    }
    /// The whole frame.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
    /// Whether the sender wants an acknowledgement.
    pub fn is_confirmed(self) -> bool {
        matches!(self.0[0] >> 5, 0b100 | 0b101)
    }
    /// DevAddr.
    pub fn dev_addr(self) -> DevAddr {
        DevAddr::from_air([self.0[1], self.0[2], self.0[3], self.0[4]])
    }
    /// FCtrl, as sent.
    pub fn fctrl(self) -> FCtrl {
        FCtrl(self.0[5])
    }
    /// The 16 low bits of the frame counter.
    pub fn fcnt(self) -> u16 {
        u16::from_le_bytes([self.0[6], self.0[7]])
    }
    /// FOpts, as sent.
    pub fn fopts(self) -> &'a [u8] {
        &self.0[8..8 + self.fopts_len()]
    }
    fn fopts_len(self) -> usize {
        usize::from(self.0[5] & 0x0F)
    }
    /// FPort and FRMPayload as sent (encrypted); `None` without FPort.
    pub fn payload(self) -> Option<(u8, &'a [u8])> {
        let rest = &self.0[8 + self.fopts_len()..self.0.len() - 4];
        rest.split_first().map(|(port, payload)| (*port, payload))
    }
    /// Check the 1.0.x uplink MIC for a full 32-bit counter.
    pub fn up_mic_matches(self, nwk_s_key: &Key, fcnt: u32) -> bool {
        crypto::data_mic_matches(nwk_s_key, Direction::Up, self.dev_addr(), fcnt, self.0)
    }
    /// Check both halves of the 1.1 uplink MIC for a full 32-bit counter.
    pub fn up_mic_matches_11(self, s_int: &Key, f_int: &Key, fcnt: u32, sent: Circumstances) -> bool {
        crypto::up_mic_matches_11(s_int, f_int, self.dev_addr(), fcnt, sent, self.0)
    }
}

/// FCtrl of an uplink (TS001 4.3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FCtrl(u8);

impl FCtrl {
    /// ADR bit: the network may set the data rate.
    pub fn adr(self) -> bool {
        self.0 & 0x80 != 0
    }
    /// ADRACKReq: the device wants to hear anything at all.
    pub fn adr_ack_req(self) -> bool {
        self.0 & 0x40 != 0
    }
    /// The device acknowledges our last confirmed downlink.
    pub fn ack(self) -> bool {
        self.0 & 0x20 != 0
    }
}

/// A data downlink to be built.
#[derive(Debug, Clone, Default)]
pub struct Downlink<'a> {
    /// Ask for an acknowledgement.
    pub confirmed: bool,
    /// Acknowledge the uplink.
    pub ack: bool,
    /// More is waiting: the device may want to send soon.
    pub f_pending: bool,
    /// MAC commands, at most 15 bytes.
    pub fopts: &'a [u8],
    /// FPort and FRMPayload, encrypted already.
    pub payload: Option<(u8, &'a [u8])>,
}

impl Downlink<'_> {
    /// The bytes of a 1.0.x frame with MIC. FOpts beyond 15 bytes are the caller's mistake and are cut.
    pub fn build(&self, nwk_s_key: &Key, addr: DevAddr, fcnt: u32) -> Vec<u8> {
        let mut phy = self.without_mic(addr, fcnt);
        let mic = crypto::data_mic(nwk_s_key, Direction::Down, addr, fcnt, &phy);
        phy.extend(mic);
        phy
    }
    /// The bytes of a 1.1 frame with MIC, the FOpts encrypted here. `acked`: FCntUp of the uplink that it acknowledges,
    /// where it does; `fcnt`: of the counter that [`Downlink::counter`] names.
    pub fn build_11(
        &self,
        s_nwk_s_int_key: &Key,
        nwk_s_enc_key: &Key,
        acked: u32,
        addr: DevAddr,
        fcnt: u32,
    ) -> Vec<u8> {
        let mut phy = self.without_mic(addr, fcnt);
        let end = 8 + self.fopts.len().min(15);
        crypto::crypt_fopts(nwk_s_enc_key, self.counter(), addr, fcnt, &mut phy[8..end]);
        // ConfFCnt is 0 without an acknowledgement, and 16 bits with one
        let conf_fcnt = if self.ack { acked as u16 } else { 0 };
        let mic = crypto::down_mic_11(s_nwk_s_int_key, addr, fcnt, conf_fcnt, &phy);
        phy.extend(mic);
        phy
    }
    /// Which of the two downlink counters of 1.1 it counts with.
    pub fn counter(&self) -> Counter {
        match self.payload {
            Some((1.., _)) => Counter::ApplicationDown,
            _ => Counter::NetworkDown,
        }
    }
    fn without_mic(&self, addr: DevAddr, fcnt: u32) -> Vec<u8> {
        let fopts = &self.fopts[..self.fopts.len().min(15)];
        let mut phy = vec![if self.confirmed { 0xA0 } else { 0x60 }];
        phy.extend(addr.to_air());
        let flags = u8::from(self.ack) << 5 | u8::from(self.f_pending) << 4;
        phy.push(0x80 | flags | fopts.len() as u8);
        phy.extend(&fcnt.to_le_bytes()[..2]);
        phy.extend(fopts);
        if let Some((port, payload)) = self.payload {
            phy.push(port);
            phy.extend(payload);
        }
        phy
    }
}

/// The request that a Join-accept of 1.1 answers: its MIC covers that (TS001 1.1, 6.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// JoinReqType: [`Answered::JOIN`], or the type of a Rejoin-request.
    pub kind: u8,
    /// JoinEUI of the device.
    pub join_eui: JoinEui,
    /// DevNonce or RJcount.
    pub nonce: u16,
}

impl Answered {
    /// JoinReqType of a Join-request.
    pub const JOIN: u8 = 0xFF;
}

/// A Join-accept to be built (TS001 6.2.3).
#[derive(Debug, Clone)]
pub struct JoinAccept {
    /// 24 bits.
    pub join_nonce: u32,
    /// The home network.
    pub net_id: NetId,
    /// The session's address.
    pub dev_addr: DevAddr,
    /// OptNeg, RX1DROffset, RX2 data rate, as on the air.
    pub dl_settings: u8,
    /// RxDelay, 0 to 15 s.
    pub rx_delay: u8,
    /// Extra channels, as on the air.
    pub cf_list: Option<[u8; 16]>,
}

impl JoinAccept {
    /// The encrypted frame for OptNeg 0 (1.0.x), signed and encrypted with `root`.
    pub fn build(&self, root: &Key) -> Vec<u8> {
        let mut phy = self.clear();
        let mic = crypto::join_mic(root, &phy);
        phy.extend(mic);
        crypto::encrypt_join_accept(root, &mut phy[1..]);
        phy
    }
    /// The encrypted frame for OptNeg 1 (1.1), signed with JSIntKey. `encrypt`: NwkKey, or JSEncKey where it answers a
    /// Rejoin-request.
    pub fn build_11(&self, encrypt: &Key, js_int_key: &Key, answered: Answered) -> Vec<u8> {
        let mut phy = self.clear();
        let before =
            [&[answered.kind][..], &answered.join_eui.to_air(), &answered.nonce.to_le_bytes(), &phy].concat();
        let mic = crypto::join_mic(js_int_key, &before);
        phy.extend(mic);
        crypto::encrypt_join_accept(encrypt, &mut phy[1..]);
        phy
    }
    /// MHDR and fields, without MIC, in the clear.
    fn clear(&self) -> Vec<u8> {
        let mut phy = vec![0x20];
        phy.extend(&self.join_nonce.to_le_bytes()[..3]);
        phy.extend(self.net_id.to_air());
        phy.extend(self.dev_addr.to_air());
        phy.extend([self.dl_settings, self.rx_delay]);
        phy.extend(self.cf_list.iter().flatten());
        phy
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_of_an_impossible_length_is_no_frame() {
        for (phy, error) in [
            (vec![], FrameError::Size(0)),
            (vec![0; 22], FrameError::Size(22)),
            (vec![0; 24], FrameError::Size(24)),
            (vec![0x40; 11], FrameError::Size(11)),
            // FOpts of 15 bytes, and room for 14
            ([&[0x40, 1, 2, 3, 4, 0x0F][..], &[0; 20]].concat(), FrameError::Size(26)),
            ([&[0x40, 1, 2, 3, 4, 0][..], &[0; 250]].concat(), FrameError::Size(256)),
            (vec![0xC0; 19], FrameError::Size(19)),
            (vec![0x20; 17], FrameError::Type(0x20)),
            (vec![0x01; 23], FrameError::Type(0x01)),
        ] {
            assert_eq!(Uplink::parse(&phy), Err(error), "{phy:02X?}");
        }
    }

    proptest! {
        #[test]
        fn a_1_1_downlink_is_what_was_asked_for_and_its_fopts_come_back(
            fopts in proptest::collection::vec(any::<u8>(), 0..=15),
            payload in proptest::option::of((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200))),
            (ack, acked, fcnt, addr) in any::<(bool, u32, u32, u32)>(),
        ) {
            let (s_int, enc, addr) = (Key::new([3; 16]), Key::new([4; 16]), DevAddr::new(addr));
            let payload = payload.as_ref().map(|(port, payload)| (*port, &payload[..]));
            let down = Downlink { ack, fopts: &fopts, payload, ..Downlink::default() };
            let phy = down.build_11(&s_int, &enc, acked, addr, fcnt);
            let (body, mic) = phy.split_at(phy.len() - 4);
            let conf = if ack { acked as u16 } else { 0 };
            prop_assert_eq!(&crypto::down_mic_11(&s_int, addr, fcnt, conf, body)[..], mic);
            let mut clear = body[8..8 + fopts.len()].to_vec();
            crypto::crypt_fopts(&enc, down.counter(), addr, fcnt, &mut clear);
            prop_assert_eq!(&clear, &fopts);
            prop_assert_eq!(down.counter() == Counter::ApplicationDown, payload.is_some_and(|(port, _)| port > 0));
        }

        #[test]
        fn any_bytes_are_a_frame_or_none_and_whole_if_one(
            mhdr in prop_oneof![any::<u8>(), Just(0x00), Just(0x40), Just(0x80), Just(0xC0)],
            rest in prop_oneof![Just(22..23), Just(18..24), Just(0..300)]
                .prop_flat_map(|length: std::ops::Range<usize>| proptest::collection::vec(any::<u8>(), length)),
        ) {
            let phy = [&[mhdr][..], &rest].concat();
            let key = Key::new([7; 16]);
            match Uplink::parse(&phy) {
                Ok(Uplink::Join(join)) => {
                    prop_assert_eq!(join.as_bytes(), &phy[..]);
                    let (join_eui, dev_eui) = (join.join_eui().to_msb(), join.dev_eui().to_msb());
                    prop_assert_eq!((join_eui[7], dev_eui[7]), (phy[1], phy[9]));
                    let _ = (join.dev_nonce(), join.verify(&key).is_some());
                }
                Ok(Uplink::Data(data)) => {
                    let port = data.payload().map_or(0, |(_, payload)| 1 + payload.len());
                    prop_assert_eq!(12 + data.fopts().len() + port, phy.len());
                    let _ = (data.fctrl().adr(), data.is_confirmed(), data.up_mic_matches(&key, data.fcnt().into()));
                    let sent = Circumstances { data_rate: 5, channel: 255, conf_fcnt: data.fcnt() };
                    let _ = data.up_mic_matches_11(&key, &key, data.fcnt().into(), sent);
                }
                Ok(Uplink::Rejoin(rejoin)) => {
                    prop_assert_eq!(rejoin.as_bytes(), &phy[..]);
                    prop_assert!(rejoin.kind().number() <= 2);
                    let _ = (rejoin.dev_eui(), rejoin.rj_count());
                }
                Err(FrameError::Size(size)) => prop_assert_eq!(size, phy.len()),
                Err(FrameError::Type(kind)) => prop_assert_eq!(kind, mhdr),
            }
            let _ = JoinRequest::parse(&phy);
        }
    }
}
