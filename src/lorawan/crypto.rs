//! The formulas of TS001: MICs, payload encryption, Join-accepts, session keys.
//!
//! The 1.1 forms stand beside those of 1.0.x. MICs are compared
//! in constant time.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use cmac::{Cmac, Mac};

use super::{DevAddr, DevEui, JoinEui, Key, NetId};

/// Which way a data frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the device.
    Up,
    /// To the device.
    Down,
}

/// AES-CMAC (RFC 4493) over the concatenation of `parts`.
pub fn cmac(key: &Key, parts: &[&[u8]]) -> [u8; 16] {
    running_cmac(key, parts).finalize().into_bytes().into()
}

fn running_cmac(key: &Key, parts: &[&[u8]]) -> Cmac<Aes128> {
    let mut mac = Cmac::<Aes128>::new(&Array(*key.expose()));
    for part in parts {
        mac.update(part);
    }
    mac
}

/// Whether `mic` is the start of the CMAC over `parts`, in constant time.
fn mic_matches(key: &Key, parts: &[&[u8]], mic: &[u8]) -> bool {
    running_cmac(key, parts).verify_truncated_left(mic).is_ok()
}

fn first_four(mac: [u8; 16]) -> [u8; 4] {
    [mac[0], mac[1], mac[2], mac[3]]
}

/// MIC of a Join-request or Rejoin-request over everything before it (TS001 6.2.2).
pub fn join_mic(key: &Key, before_mic: &[u8]) -> [u8; 4] {
    first_four(cmac(key, &[before_mic]))
}

/// Whether the last four bytes of `frame` are its Join-request or Rejoin-request MIC.
pub fn join_mic_matches(key: &Key, frame: &[u8]) -> bool {
    frame.split_last_chunk::<4>().is_some_and(|(body, mic)| mic_matches(key, &[body], mic))
}

/// Block B0 of a data frame's MIC (TS001 4.4), `len` bytes before the MIC.
fn b0(direction: Direction, addr: DevAddr, fcnt: u32, conf_fcnt: u16, len: usize) -> [u8; 16] {
    let (a, f, c) = (addr.to_air(), fcnt.to_le_bytes(), conf_fcnt.to_le_bytes());
    let dir = matches!(direction, Direction::Down).into();
    // A frame has at most 255 bytes: its length fits one byte by the parser's word.
    let len = len as u8;
    [0x49, c[0], c[1], 0, 0, dir, a[0], a[1], a[2], a[3], f[0], f[1], f[2], f[3], 0, len]
}

/// MIC of a 1.0.x data frame over everything before it.
pub fn data_mic(key: &Key, dir: Direction, addr: DevAddr, fcnt: u32, before_mic: &[u8]) -> [u8; 4] {
    first_four(cmac(key, &[&b0(dir, addr, fcnt, 0, before_mic.len()), before_mic]))
}

/// Whether the last four bytes of `frame` are its 1.0.x data MIC for the 32-bit counter `fcnt`.
pub fn data_mic_matches(key: &Key, dir: Direction, addr: DevAddr, fcnt: u32, frame: &[u8]) -> bool {
    frame
        .split_last_chunk::<4>()
        .is_some_and(|(body, mic)| mic_matches(key, &[&b0(dir, addr, fcnt, 0, body.len()), body], mic))
}

/// What the MIC of a 1.1 uplink covers beside the frame itself (TS001 1.1, 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// TxDr: index of the data rate it was sent with.
    pub data_rate: u8,
    /// TxCh: index of the channel it was sent on.
    pub channel: u8,
    /// ConfFCnt: 16 bits of the counter of the downlink that it acknowledges; else 0.
    pub conf_fcnt: u16,
}

/// Block B1 of a 1.1 uplink's MIC, `len` bytes before the MIC.
fn b1(addr: DevAddr, fcnt: u32, sent: Circumstances, len: usize) -> [u8; 16] {
    let mut block = b0(Direction::Up, addr, fcnt, sent.conf_fcnt, len);
    block[3] = sent.data_rate;
    block[4] = sent.channel;
    block
}

/// Whether the last four bytes of `frame` are its 1.1 uplink MIC for the 32-bit counter `fcnt`: two of the serving
/// network's half, then two of the forwarding network's.
pub fn up_mic_matches_11(
    s_nwk_s_int_key: &Key,
    f_nwk_s_int_key: &Key,
    addr: DevAddr,
    fcnt: u32,
    sent: Circumstances,
    frame: &[u8],
) -> bool {
    frame.split_last_chunk::<4>().is_some_and(|(body, [s0, s1, f0, f1])| {
        let forwarding = b0(Direction::Up, addr, fcnt, 0, body.len());
        let serving = b1(addr, fcnt, sent, body.len());
        mic_matches(f_nwk_s_int_key, &[&forwarding, body], &[*f0, *f1])
            && mic_matches(s_nwk_s_int_key, &[&serving, body], &[*s0, *s1])
    })
}

/// MIC of a 1.1 downlink over everything before it. `conf_fcnt`: 16 bits of the counter of the uplink that it
/// acknowledges; else 0.
pub fn down_mic_11(
    s_nwk_s_int_key: &Key,
    addr: DevAddr,
    fcnt: u32,
    conf_fcnt: u16,
    before_mic: &[u8],
) -> [u8; 4] {
    let block = b0(Direction::Down, addr, fcnt, conf_fcnt, before_mic.len());
    first_four(cmac(s_nwk_s_int_key, &[&block, before_mic]))
}

/// Which counter a 1.1 frame counts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// FCntUp.
    Up,
    /// NFCntDown: downlinks without FPort or with FPort 0.
    NetworkDown,
    /// AFCntDown: downlinks with another FPort.
    ApplicationDown,
}

/// Encrypt or decrypt FOpts of 1.1 in place: one operation, both ways. The block's fifth byte keeps the two downlink
/// counters apart (erratum to TS001 1.1, 4.3.1.6).
pub fn crypt_fopts(nwk_s_enc_key: &Key, counter: Counter, addr: DevAddr, fcnt: u32, fopts: &mut [u8]) {
    let (a, f) = (addr.to_air(), fcnt.to_le_bytes());
    let dir = u8::from(counter != Counter::Up);
    let kind = if counter == Counter::ApplicationDown { 2 } else { 1 };
    let mut block = Array([1, 0, 0, 0, kind, dir, a[0], a[1], a[2], a[3], f[0], f[1], f[2], f[3], 0, 1]);
    Aes128::new(&Array(*nwk_s_enc_key.expose())).encrypt_block(&mut block);
    for (byte, pad) in fopts.iter_mut().zip(block) {
        *byte ^= pad;
    }
}

/// Encrypt or decrypt an FRMPayload in place (TS001 4.3.3): one operation, both ways.
pub fn crypt_payload(key: &Key, dir: Direction, addr: DevAddr, fcnt: u32, payload: &mut [u8]) {
    let cipher = Aes128::new(&Array(*key.expose()));
    let (a, f) = (addr.to_air(), fcnt.to_le_bytes());
    let dir = matches!(dir, Direction::Down).into();
    for (chunk, i) in payload.chunks_mut(16).zip(1u8..) {
        let mut block = Array([1, 0, 0, 0, 0, dir, a[0], a[1], a[2], a[3], f[0], f[1], f[2], f[3], 0, i]);
        cipher.encrypt_block(&mut block);
        for (byte, pad) in chunk.iter_mut().zip(block) {
            *byte ^= pad;
        }
    }
}

/// Session keys of the 1.0.x derivation (TS001 6.2.5).
pub struct SessionKeys {
    /// Network session key: all of FNwkSIntKey, SNwkSIntKey and NwkSEncKey.
    pub nwk_s_key: Key,
    /// Application session key.
    pub app_s_key: Key,
}

/// Derive the 1.0.x session keys. `root` is AppKey (or NwkKey of a 1.1 device on a 1.0 network);
/// `join_nonce` has 24 bits; `net_id` is the one in the Join-accept.
pub fn session_keys(root: &Key, join_nonce: u32, net_id: NetId, dev_nonce: u16) -> SessionKeys {
    let derive = |kind: u8| {
        let (j, n, d) = (join_nonce.to_le_bytes(), net_id.to_air(), dev_nonce.to_le_bytes());
        derive(root, &[kind, j[0], j[1], j[2], n[0], n[1], n[2], d[0], d[1]])
    };
    SessionKeys { nwk_s_key: derive(1), app_s_key: derive(2) }
}

/// Session keys of the 1.1 derivation, with n = DevNonce or RJcount (TS001 1.1, 6.2.5).
pub struct SessionKeys11 {
    /// Forwarding network session integrity key.
    pub f_nwk_s_int_key: Key,
    /// Serving network session integrity key.
    pub s_nwk_s_int_key: Key,
    /// Network session encryption key.
    pub nwk_s_enc_key: Key,
    /// Application session key.
    pub app_s_key: Key,
}

/// Derive the 1.1 session keys.
pub fn session_keys_11(
    nwk_key: &Key,
    app_key: &Key,
    join_nonce: u32,
    join_eui: JoinEui,
    n: u16,
) -> SessionKeys11 {
    let derive = |root: &Key, kind: u8| {
        let (j, n) = (join_nonce.to_le_bytes(), n.to_le_bytes());
        let mut block = vec![kind, j[0], j[1], j[2]];
        block.extend(join_eui.to_air());
        block.extend(n);
        derive(root, &block)
    };
    SessionKeys11 {
        f_nwk_s_int_key: derive(nwk_key, 1),
        app_s_key: derive(app_key, 2),
        s_nwk_s_int_key: derive(nwk_key, 3),
        nwk_s_enc_key: derive(nwk_key, 4),
    }
}

/// The two join-server keys of a 1.1 device: JSEncKey, JSIntKey (TS001 1.1, 6.1.1.4).
pub fn join_server_keys(nwk_key: &Key, dev_eui: DevEui) -> (Key, Key) {
    let key = |kind: u8| {
        let mut block = vec![kind];
        block.extend(dev_eui.to_air());
        derive(nwk_key, &block)
    };
    (key(5), key(6))
}

/// aes(root, block padded with zeros to 16 bytes).
fn derive(root: &Key, block: &[u8]) -> Key {
    let mut padded = Array([0; 16]);
    padded.iter_mut().zip(block).for_each(|(to, from)| *to = *from);
    Aes128::new(&Array(*root.expose())).encrypt_block(&mut padded);
    Key::new(padded.0)
}

/// Encrypt the part of a Join-accept after its MHDR in place, with the block *decryption*, so that
/// a device needs encryption only (TS001 6.2.3). A tail that fills no block stays as it is.
pub fn encrypt_join_accept(key: &Key, after_mhdr: &mut [u8]) {
    let cipher = Aes128::new(&Array(*key.expose()));
    for block in after_mhdr.chunks_exact_mut(16) {
        if let Ok(block) = <&mut Array<u8, _>>::try_from(block) {
            cipher.decrypt_block(block);
        }
    }
}

/// Undo [`encrypt_join_accept`], as a device does.
pub fn decrypt_join_accept(key: &Key, after_mhdr: &mut [u8]) {
    let cipher = Aes128::new(&Array(*key.expose()));
    for block in after_mhdr.chunks_exact_mut(16) {
        if let Ok(block) = <&mut Array<u8, _>>::try_from(block) {
            cipher.encrypt_block(block);
        }
    }
}
