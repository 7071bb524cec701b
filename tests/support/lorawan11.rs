//! A LoRaWAN 1.1 end device for tests: its keys, counters and frames, as TS001 1.1 has them. It shares no code with
//! the program under test, and knows no radio: its user carries the bytes.
//!
//! Made over the air or by personalisation. On a network that speaks 1.0.x only (OptNeg clear in the Join-accept) it
//! falls back to the frames of 1.0.x. It never forgives: whatever is wrong with an answer is an error in words.

#![allow(dead_code)] // each test binary uses a part of it

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use cmac::{Cmac, Mac};

type Key = [u8; 16];

/// The three channels that every EU868 device has, in hertz.
const EU868: [u32; 3] = [868_100_000, 868_300_000, 868_500_000];

/// The keys of a session of 1.1.
#[derive(Clone, Copy)]
pub struct Keys {
    pub f_nwk_s_int_key: Key,
    pub s_nwk_s_int_key: Key,
    pub nwk_s_enc_key: Key,
    pub app_s_key: Key,
}

/// What the device has from its activation.
struct Session {
    addr: u32,
    keys: Keys,
    /// 1.1, or else 1.0.x, where all network keys are one.
    is_v11: bool,
    /// The next one.
    fcnt_up: u32,
    /// The last ones; in 1.0.x the first is of all downlinks.
    n_fcnt_down: Option<u32>,
    a_fcnt_down: Option<u32>,
}

/// An uplink on its way: what is repeated, and what an answer refers to.
#[derive(Clone)]
struct Sent {
    without_mic: Vec<u8>,
    fcnt: u32,
    conf_fcnt: u16,
    confirmed: bool,
}

/// A frame, and how it is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub phy: Vec<u8>,
    /// Hertz.
    pub frequency: u32,
    /// Index.
    pub data_rate: u8,
    /// FCntUp, or the DevNonce.
    pub counter: u32,
}

/// A downlink that the device has accepted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// It acknowledges the last uplink.
    pub ack: bool,
    /// It wants to be acknowledged.
    pub confirmed: bool,
    /// Where there is one.
    pub port: Option<u8>,
    /// Of the application, in the clear.
    pub payload: Vec<u8>,
    /// MAC commands of FOpts or of FPort 0, in the clear.
    pub commands: Vec<u8>,
    /// The counter, all 32 bits.
    pub fcnt: u32,
    /// It is AFCntDown; else NFCntDown, or the one of 1.0.x.
    pub application: bool,
}

/// The device.
pub struct Device {
    /// As printed.
    pub dev_eui: [u8; 8],
    /// As printed.
    pub join_eui: [u8; 8],
    nwk_key: Key,
    app_key: Key,
    /// Of the next Join-request.
    pub dev_nonce: u16,
    /// Of the last Join-accept.
    pub join_nonce: u32,
    /// Home_NetID of the last Join-accept, as on the air.
    home: [u8; 3],
    /// RJcount0 of the next Rejoin-request; begins anew with every session.
    pub rj_count0: u16,
    /// RJcount1, which never does.
    pub rj_count1: u16,
    /// What the next Join-accept answers: JoinReqType and counter.
    asked: (u8, u16),
    /// The network wants a Rejoin-request of this type.
    pub forced: Option<u8>,
    /// Hertz, by channel index.
    pub channels: Vec<u32>,
    /// Index of the channel of the next uplink.
    pub channel: usize,
    /// Index of the data rate of uplinks.
    pub data_rate: u8,
    /// Channel masks of the Join-accept's CFList, where it had some.
    pub masks: Option<[u8; 15]>,
    /// Of the Join-accept: OptNeg, RX1DROffset, RX2 data rate.
    pub dl_settings: u8,
    /// Seconds from an uplink to RX1.
    pub rx_delay: u8,
    session: Option<Session>,
    last: Option<Sent>,
    /// The counter of a confirmed downlink that the next uplink acknowledges.
    to_acknowledge: Option<u32>,
    /// RekeyInd is in every uplink until RekeyConf comes.
    pub rekey: bool,
    /// ResetInd is in every uplink until ResetConf comes.
    pub reset: bool,
    /// DeviceModeInd with this class is in every uplink until DeviceModeConf comes.
    pub mode: Option<u8>,
    /// Further MAC commands of the next uplink.
    pub commands: Vec<u8>,
}

impl Device {
    /// A device that has not joined yet.
    pub fn otaa(dev_eui: [u8; 8], join_eui: [u8; 8], nwk_key: Key, app_key: Key) -> Device {
        Device {
            dev_eui,
            join_eui,
            nwk_key,
            app_key,
            dev_nonce: 0,
            join_nonce: 0,
            home: [0; 3],
            rj_count0: 0,
            rj_count1: 0,
            asked: (0xFF, 0),
            forced: None,
            channels: EU868.to_vec(),
            channel: 0,
            data_rate: 5,
            masks: None,
            dl_settings: 0,
            rx_delay: 1,
            session: None,
            last: None,
            to_acknowledge: None,
            rekey: false,
            reset: false,
            mode: None,
            commands: Vec::new(),
        }
    }

    /// A device that was given its address and keys.
    pub fn abp(dev_eui: [u8; 8], addr: u32, keys: Keys) -> Device {
        let mut device = Device::otaa(dev_eui, [0; 8], [0; 16], [0; 16]);
        device.reset = true;
        device.begin(addr, keys, true);
        device
    }

    /// From now on the device listens all the time, and says so.
    pub fn become_class_c(&mut self) {
        self.mode = Some(2);
    }

    /// Back to receive windows, and to saying so.
    pub fn become_class_a(&mut self) {
        self.mode = Some(0);
    }

    /// DevAddr.
    pub fn addr(&self) -> Option<u32> {
        self.session.as_ref().map(|session| session.addr)
    }

    /// Whether the session is of 1.1; else it is of 1.0.x.
    pub fn is_v11(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_v11)
    }

    /// Pretend that so many uplinks and downlinks of both kinds have been.
    pub fn set_counters(&mut self, next_up: u32, last_n_down: Option<u32>, last_a_down: Option<u32>) {
        let session = self.session.as_mut().expect("a session");
        (session.fcnt_up, session.n_fcnt_down, session.a_fcnt_down) = (next_up, last_n_down, last_a_down);
    }

    fn begin(&mut self, addr: u32, keys: Keys, is_v11: bool) {
        let (n_fcnt_down, a_fcnt_down) = (None, None);
        self.session = Some(Session { addr, keys, is_v11, fcnt_up: 0, n_fcnt_down, a_fcnt_down });
        self.to_acknowledge = None;
        self.last = None;
    }

    /// The next Join-request.
    pub fn join_request(&mut self) -> Frame {
        let nonce = self.dev_nonce;
        self.dev_nonce += 1;
        self.asked = (0xFF, nonce);
        let mut phy = vec![0x00];
        phy.extend(reversed(self.join_eui));
        phy.extend(reversed(self.dev_eui));
        phy.extend(nonce.to_le_bytes());
        let mic = cmac(&self.nwk_key, &[&phy]);
        phy.extend(&mic[..4]);
        self.sent(phy, nonce.into())
    }

    /// The next Rejoin-request of a type: 0 and 2 name the home, 1 the join server.
    pub fn rejoin_request(&mut self, kind: u8) -> Frame {
        let mut phy = vec![0xC0, kind];
        let (key, count) = if kind == 1 {
            phy.extend(reversed(self.join_eui));
            (self.derive(&self.nwk_key, 6, &[&reversed(self.dev_eui)]), &mut self.rj_count1)
        } else {
            phy.extend(self.home);
            (self.session.as_ref().expect("a session").keys.s_nwk_s_int_key, &mut self.rj_count0)
        };
        let counter = *count;
        *count += 1;
        phy.extend(reversed(self.dev_eui));
        phy.extend(counter.to_le_bytes());
        let mic = cmac(&key, &[&phy]);
        phy.extend(&mic[..4]);
        self.asked = (kind, counter);
        self.forced = None;
        self.sent(phy, counter.into())
    }

    fn sent(&self, phy: Vec<u8>, counter: u32) -> Frame {
        Frame { phy, frequency: self.channels[self.channel], data_rate: self.data_rate, counter }
    }

    /// Take the Join-accept to the last Join-request or Rejoin-request.
    pub fn take_accept(&mut self, phy: &[u8]) -> Result<(), String> {
        let (Some(0x20), 17 | 33) = (phy.first(), phy.len()) else {
            return Err(format!("no Join-accept: {phy:02X?}"));
        };
        let (kind, nonce) = self.asked;
        let js_enc_key = self.derive(&self.nwk_key, 5, &[&reversed(self.dev_eui)]);
        let key = if kind == 0xFF { self.nwk_key } else { js_enc_key };
        let mut clear = vec![0x20];
        for block in phy[1..].chunks(16) {
            clear.extend(aes(&key, block.try_into().unwrap()));
        }
        let (body, mic) = clear.split_at(clear.len() - 4);
        let nonce = nonce.to_le_bytes();
        let dl_settings = body[11];
        let is_v11 = dl_settings & 0x80 != 0;
        let right = if is_v11 {
            let js_int_key = self.derive(&self.nwk_key, 6, &[&reversed(self.dev_eui)]);
            cmac(&js_int_key, &[&[kind], &reversed(self.join_eui), &nonce, body])
        } else {
            cmac(&self.nwk_key, &[body])
        };
        if right[..4] != *mic {
            return Err(format!("the Join-accept's MIC is wrong, OptNeg {is_v11}"));
        }
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
        let join_nonce = number(&body[1..4]);
        if join_nonce <= self.join_nonce {
            return Err(format!("JoinNonce {join_nonce} is not above {}", self.join_nonce));
        }
        self.join_nonce = join_nonce;
        let addr = number(&body[7..11]);
        self.home = body[4..7].try_into().unwrap();
        self.rj_count0 = 0;
        (self.dl_settings, self.rx_delay) = (dl_settings, (body[12] & 0x0F).max(1));
        if kind == 2 && body.len() > 13 {
            return Err("new channels with new keys".into());
        }
        if let Some(list) = body.get(13..29).filter(|list| list[15] == 0) {
            self.channels.truncate(3);
            self.channels.extend(list[..15].chunks(3).map(|bytes| number(bytes) * 100));
        }
        self.masks = body.get(13..29).filter(|list| list[15] == 1).map(|list| list[..15].try_into().unwrap());
        let keys = if is_v11 {
            let key = |root, kind| self.derive(root, kind, &[&body[1..4], &reversed(self.join_eui), &nonce]);
            Keys {
                f_nwk_s_int_key: key(&self.nwk_key, 1),
                app_s_key: key(&self.app_key, 2),
                s_nwk_s_int_key: key(&self.nwk_key, 3),
                nwk_s_enc_key: key(&self.nwk_key, 4),
            }
        } else {
            // JoinNonce, NetID, DevNonce; and NwkKey is the root of all
            let key = |kind| self.derive(&self.nwk_key, kind, &[&body[1..7], &nonce]);
            let nwk_s_key = key(1);
            Keys {
                f_nwk_s_int_key: nwk_s_key,
                s_nwk_s_int_key: nwk_s_key,
                nwk_s_enc_key: nwk_s_key,
                app_s_key: key(2),
            }
        };
        self.begin(addr, keys, is_v11);
        self.rekey = is_v11;
        Ok(())
    }

    fn derive(&self, root: &Key, kind: u8, parts: &[&[u8]]) -> Key {
        let mut block = [0; 16];
        for (to, from) in block.iter_mut().zip([&[kind][..], &parts.concat()].concat()) {
            *to = from;
        }
        aes(root, block)
    }

    /// The next uplink; what has to be said to the network goes along in FOpts. `port` 1 and above.
    pub fn uplink(&mut self, port: u8, payload: &[u8], confirmed: bool) -> Frame {
        let commands = self.what_to_say();
        self.build(&commands, Some((port, payload)), confirmed)
    }

    /// An uplink without a payload.
    pub fn empty_uplink(&mut self, confirmed: bool) -> Frame {
        let commands = self.what_to_say();
        self.build(&commands, None, confirmed)
    }

    /// An uplink that says to the network on FPort 0 what has to be said.
    pub fn uplink_on_port_0(&mut self, confirmed: bool) -> Frame {
        let commands = self.what_to_say();
        self.build(&[], Some((0, &commands)), confirmed)
    }

    fn what_to_say(&mut self) -> Vec<u8> {
        let mut commands = Vec::new();
        if self.is_v11() {
            commands.extend(self.rekey.then_some([0x0B, 1]).into_iter().flatten());
            commands.extend(self.reset.then_some([0x01, 1]).into_iter().flatten());
            commands.extend(self.mode.map(|class| [0x20, class]).into_iter().flatten());
        }
        commands.append(&mut self.commands);
        assert!(commands.len() <= 15, "FOpts have 15 bytes");
        commands
    }

    fn build(&mut self, fopts: &[u8], payload: Option<(u8, &[u8])>, confirmed: bool) -> Frame {
        let acknowledged = self.to_acknowledge.take();
        let session = self.session.as_mut().expect("a session");
        let (fcnt, addr, keys) = (session.fcnt_up, session.addr, session.keys);
        session.fcnt_up += 1;
        let mut phy = vec![if confirmed { 0x80 } else { 0x40 }];
        phy.extend(addr.to_le_bytes());
        phy.push(u8::from(acknowledged.is_some()) << 5 | fopts.len() as u8);
        phy.extend((fcnt as u16).to_le_bytes());
        if session.is_v11 {
            phy.extend(xor(&keys.nwk_s_enc_key, [0, 0, 0, 1, 0], addr, fcnt, 1, fopts));
        } else {
            phy.extend(fopts);
        }
        if let Some((port, payload)) = payload {
            let key = if port == 0 { &keys.nwk_s_enc_key } else { &keys.app_s_key };
            phy.push(port);
            phy.extend(crypt_payload(key, 0, addr, fcnt, payload));
        }
        let conf_fcnt = acknowledged.unwrap_or(0) as u16;
        let sent = Sent { without_mic: phy, fcnt, conf_fcnt, confirmed };
        self.last = Some(sent.clone());
        self.sign(sent)
    }

    /// The last uplink once more, on the channel that is chosen now.
    pub fn repeat(&self) -> Frame {
        self.sign(self.last.clone().expect("an uplink"))
    }

    fn sign(&self, sent: Sent) -> Frame {
        let session = self.session.as_ref().expect("a session");
        let Sent { without_mic: mut phy, fcnt, conf_fcnt, .. } = sent;
        let b0 = block(0x49, [0, 0, 0, 0, 0], session.addr, fcnt, phy.len() as u8);
        let f = cmac(&session.keys.f_nwk_s_int_key, &[&b0, &phy]);
        let mic = if session.is_v11 {
            let [low, high] = conf_fcnt.to_le_bytes();
            let circumstances = [low, high, self.data_rate, self.channel as u8, 0];
            let b1 = block(0x49, circumstances, session.addr, fcnt, phy.len() as u8);
            let s = cmac(&session.keys.s_nwk_s_int_key, &[&b1, &phy]);
            [s[0], s[1], f[0], f[1]]
        } else {
            [f[0], f[1], f[2], f[3]]
        };
        phy.extend(mic);
        self.sent(phy, fcnt)
    }

    /// Take a downlink. Everything about it is checked.
    pub fn take(&mut self, phy: &[u8]) -> Result<Answer, String> {
        let session = self.session.as_mut().ok_or("no session")?;
        let (Some(0x60 | 0xA0), 12..) = (phy.first(), phy.len()) else {
            return Err(format!("no downlink: {phy:02X?}"));
        };
        let (body, mic) = phy.split_at(phy.len() - 4);
        let (addr, keys) = (session.addr, session.keys);
        if body[1..5] != addr.to_le_bytes() {
            return Err("another device's downlink".into());
        }
        let (confirmed, fctrl) = (body[0] == 0xA0, body[5]);
        let end = 8 + usize::from(fctrl & 0x0F);
        let fopts = body.get(8..end).ok_or("FOpts are cut")?;
        let (port, payload) = match body[end..].split_first() {
            Some((port, payload)) => (Some(*port), payload),
            None => (None, &[][..]),
        };
        if port == Some(0) && !fopts.is_empty() {
            return Err("commands in FOpts and on FPort 0".into());
        }
        let application = session.is_v11 && port.is_some_and(|port| port > 0);
        let last = if application { &mut session.a_fcnt_down } else { &mut session.n_fcnt_down };
        // the next one with these 16 bits
        let least = last.map_or(0, |last| last + 1);
        let low = u32::from(u16::from_le_bytes([body[6], body[7]]));
        let fcnt = least + (low.wrapping_sub(least) & 0xFFFF);
        let ack = fctrl & 0x20 != 0;
        let [conf_low, conf_high] = match &self.last {
            Some(sent) if ack && session.is_v11 => (sent.fcnt as u16).to_le_bytes(),
            _ => [0, 0],
        };
        let b0 = block(0x49, [conf_low, conf_high, 0, 0, 1], addr, fcnt, body.len() as u8);
        if cmac(&keys.s_nwk_s_int_key, &[&b0, body])[..4] != *mic {
            return Err(format!(
                "the MIC is wrong for counter {fcnt} (AFCntDown: {application}): {phy:02X?}"
            ));
        }
        if ack && !self.last.as_ref().is_some_and(|sent| sent.confirmed) {
            return Err("an acknowledgement of an unconfirmed uplink".into());
        }
        *last = Some(fcnt);
        let mut answer = Answer { ack, confirmed, port, fcnt, application, ..Answer::default() };
        answer.commands = if session.is_v11 {
            let kind = if application { 2 } else { 1 };
            xor(&keys.nwk_s_enc_key, [0, 0, 0, kind, 1], addr, fcnt, 1, fopts)
        } else {
            fopts.to_vec()
        };
        match port {
            Some(0) => answer.commands = crypt_payload(&keys.nwk_s_enc_key, 1, addr, fcnt, payload),
            Some(_) => answer.payload = crypt_payload(&keys.app_s_key, 1, addr, fcnt, payload),
            None => {}
        }
        if confirmed {
            self.to_acknowledge = Some(fcnt);
        }
        self.obey(&answer.commands)?;
        Ok(answer)
    }

    fn obey(&mut self, mut commands: &[u8]) -> Result<(), String> {
        while let [cid, rest @ ..] = commands {
            let length = match cid {
                0x01 | 0x04 | 0x08 | 0x09 | 0x0B | 0x0C | 0x0F | 0x20 => 1,
                0x02 | 0x0E => 2,
                0x03 | 0x05 | 0x0A => 4,
                0x0D | 0x07 => 5,
                0x06 => 0,
                other => return Err(format!("unknown command {other:02X}")),
            };
            let (said, next) = rest.split_at_checked(length).ok_or("a command is cut")?;
            match (cid, said) {
                (0x0E, [low, _]) => self.forced = Some(low >> 4 & 0b111),
                (0x0B, [1]) if self.rekey => self.rekey = false,
                (0x01, [1]) if self.reset => self.reset = false,
                (0x20, [class]) if self.mode == Some(*class) => self.mode = None,
                (0x0B | 0x01 | 0x20, said) => return Err(format!("{cid:02X} {said:02X?}: nobody asked")),
                _ => {}
            }
            commands = next;
        }
        Ok(())
    }
}

fn reversed(mut eui: [u8; 8]) -> [u8; 8] {
    eui.reverse();
    eui
}

fn aes(key: &Key, block: Key) -> Key {
    let mut block = Array(block);
    Aes128::new(&Array(*key)).encrypt_block(&mut block);
    block.0
}

fn cmac(key: &Key, parts: &[&[u8]]) -> Key {
    let mut mac = Cmac::<Aes128>::new(&Array(*key));
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// What all blocks of data frames have in common: kind, five bytes with the direction last, address, counter, 0, end.
fn block(kind: u8, middle: [u8; 5], addr: u32, fcnt: u32, end: u8) -> Key {
    let mut block = [0; 16];
    block[0] = kind;
    block[1..6].copy_from_slice(&middle);
    block[6..10].copy_from_slice(&addr.to_le_bytes());
    block[10..14].copy_from_slice(&fcnt.to_le_bytes());
    block[15] = end;
    block
}

/// At most 16 bytes, xored with one encrypted block.
fn xor(key: &Key, middle: [u8; 5], addr: u32, fcnt: u32, end: u8, bytes: &[u8]) -> Vec<u8> {
    let pad = aes(key, block(0x01, middle, addr, fcnt, end));
    bytes.iter().zip(pad).map(|(byte, pad)| byte ^ pad).collect()
}

fn crypt_payload(key: &Key, direction: u8, addr: u32, fcnt: u32, payload: &[u8]) -> Vec<u8> {
    let blocks = payload.chunks(16).zip(1..);
    blocks.flat_map(|(chunk, i)| xor(key, [0, 0, 0, 0, direction], addr, fcnt, i, chunk)).collect()
}
