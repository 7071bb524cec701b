//! The messages of TS002 as the house speaks them: bodies without headers, keys without envelopes.
//!
//! Headers, hex, aliases and envelopes belong to the two ends (`wire`). Every pair of TS002 table 12
//! that we know is one line of `messages!`.

mod profile;
pub mod wire;

pub use super::keywrap::KeyEnvelope;
pub use profile::{Account, DeviceProfile, RoamingActivation, ServiceProfile, Terms};

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::lorawan::frame::FrameError;
use crate::lorawan::region::JOIN_ACCEPT_DELAY1;
use crate::lorawan::{DevAddr, DevEui, GatewayEui, JoinEui, Key, Modulation, NetId, NsId, Region};

/// Who speaks or is spoken to (SenderID, ReceiverID).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A network server, by NetID.
    Ns(NetId),
    /// A join server, by JoinEUI.
    Js(JoinEui),
    /// An application server, by AS-ID.
    As(String),
}

impl fmt::Display for Party {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Ns(id) => id.fmt(to),
            Party::Js(id) => id.fmt(to),
            Party::As(id) => id.fmt(to),
        }
    }
}

/// Result codes (TS002 table 24). 1.1-only codes are decoded too; `wire` never sends them in 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ResultCode {
    Success,
    MicFailed,
    JoinReqFailed,
    NoRoamingAgreement,
    DevRoamingDisallowed,
    RoamingActDisallowed,
    ActivationDisallowed,
    UnknownDevEui,
    UnknownDevAddr,
    UnknownSender,
    UnknownReceiver,
    Deferred,
    XmitFailed,
    InvalidFPort,
    InvalidProtocolVersion,
    StaleDeviceProfile,
    MalformedRequest,
    FrameSizeError,
    Other,
    NoAction,
    FrameReplayed,
}

/// A failing Ans: the code, and what the tables let it carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Never `Success`.
    pub code: ResultCode,
    /// Lifetime of a hold-off, in seconds (Deferred and policy refusals).
    pub lifetime: Option<u32>,
    /// The counter that would have been right, from an sNS that refuses an FCntDown. TS002 has no object for it in an
    /// answer: between Roamgates it is a VSExtension.
    pub fcnt_down: Option<u32>,
    /// What has changed since, with StaleDeviceProfile.
    pub profile: Option<Box<ProfileAt>>,
    /// When the same may be asked again, where a rule or the radio says so. Inside the house only.
    pub retry_in: Option<Duration>,
    /// For people.
    pub description: String,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(code: ResultCode, description: impl Into<String>) -> Refusal {
        Refusal {
            code,
            lifetime: None,
            fcnt_down: None,
            profile: None,
            retry_in: None,
            description: description.into(),
        }
    }
}

impl From<FrameError> for Refusal {
    /// Which code a frame that does not parse deserves (TS002 11.1): an empty one is malformed.
    fn from(error: FrameError) -> Refusal {
        let code = match error {
            FrameError::Size(0) | FrameError::Type(_) => ResultCode::MalformedRequest,
            FrameError::Size(_) => ResultCode::FrameSizeError,
        };
        Refusal::new(code, error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:?}", self.code)?;
        if self.description.is_empty() { Ok(()) } else { write!(to, " ({})", self.description) }
    }
}

/// Uplink metadata (TS002 table 4). Frequencies in hertz.
#[derive(Debug, Clone, PartialEq)]
pub struct UlMeta {
    /// From a Join-request, or known from a context.
    pub dev_eui: Option<DevEui>,
    /// From a data frame.
    pub dev_addr: Option<DevAddr>,
    /// sNS to hNS: FPort of the frame.
    pub f_port: Option<u8>,
    /// sNS to hNS: the FCntDown that the next downlink of this uplink will carry.
    pub fcnt_down: Option<u32>,
    /// sNS to hNS: the full counter.
    pub fcnt_up: Option<u32>,
    /// sNS to hNS: Confirmed Data Up.
    pub confirmed: bool,
    /// sNS to hNS, inside the house only (TS002 has no object for it): the device lets the network control its data rate.
    pub adr: bool,
    /// Regional data rate index.
    pub data_rate: Option<u8>,
    /// Hertz.
    pub ul_freq: Option<u32>,
    /// Opaque to everyone but the fNS that made it.
    pub fns_ul_token: Option<Vec<u8>>,
    /// Arrival at the gateway, UTC.
    pub recv_time: Timestamp,
    /// RFRegion as sent; parsed by whoever needs the plan (TS002 8.3).
    pub rf_region: Option<String>,
    /// Gateways that heard the frame.
    pub gw_cnt: Option<u32>,
    /// One entry a gateway.
    pub gw_info: Vec<GwInfo>,
}

impl UlMeta {
    /// Nothing but the time of arrival.
    pub fn at(recv_time: Timestamp) -> UlMeta {
        UlMeta {
            dev_eui: None,
            dev_addr: None,
            f_port: None,
            fcnt_down: None,
            fcnt_up: None,
            confirmed: false,
            adr: false,
            data_rate: None,
            ul_freq: None,
            fns_ul_token: None,
            recv_time,
            rf_region: None,
            gw_cnt: None,
            gw_info: Vec::new(),
        }
    }
}

/// One gateway's hearing of an uplink (TS002 table 21).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GwInfo {
    /// 1 to 16 bytes; we send the last four of the EUI, and all eight inside the house.
    pub id: Option<Vec<u8>>,
    /// RFRegion of the gateway.
    pub rf_region: Option<String>,
    /// dBm.
    pub rssi: Option<i32>,
    /// dB.
    pub snr: Option<f64>,
    /// FineRecvTime (1.1): nanoseconds within the second of arrival.
    pub fine_recv_time: Option<u32>,
    /// Degrees.
    pub lat: Option<f64>,
    /// Degrees.
    pub lon: Option<f64>,
    /// Opaque to everyone but the gateway side.
    pub ul_token: Option<Vec<u8>>,
    /// This gateway can take a downlink.
    pub dl_allowed: Option<bool>,
}

impl UlMeta {
    /// Whether a downlink can answer this uplink; a network that says nothing of its gateways can take one.
    pub fn allows_downlink(&self) -> bool {
        self.gw_info.is_empty() || self.gw_info.iter().any(|gateway| gateway.dl_allowed != Some(false))
    }
}

/// Classes that TS002 downlinks know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ClassMode {
    A,
    C,
}

/// Downlink metadata (TS002 table 5). Frequencies in hertz.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DlMeta {
    /// Mandatory towards a stateful fNS and from the hNS.
    pub dev_eui: Option<DevEui>,
    /// hNS to sNS: 1 to 255.
    pub f_port: Option<u8>,
    /// hNS to sNS: the counter that FRMPayload was encrypted for.
    pub fcnt_down: Option<u32>,
    /// hNS to sNS: ask the device to acknowledge.
    pub confirmed: bool,
    /// RX1 frequency, hertz.
    pub dl_freq1: Option<u32>,
    /// RX2 frequency, hertz.
    pub dl_freq2: Option<u32>,
    /// Seconds from the end of the uplink to RX1; RX2 is one later. 0 means 1.
    pub rx_delay1: Option<u8>,
    /// sNS to fNS: mandatory.
    pub class_mode: Option<ClassMode>,
    /// RX1 data rate index.
    pub data_rate1: Option<u8>,
    /// RX2 data rate index.
    pub data_rate2: Option<u8>,
    /// Copy of the uplink's.
    pub fns_ul_token: Option<Vec<u8>>,
    /// Copies of the ULTokens of the uplink.
    pub ul_tokens: Vec<Vec<u8>>,
    /// Best effort wanted.
    pub hi_priority: bool,
}

impl DlMeta {
    /// With the tokens of an uplink, and nothing else.
    pub fn answering(ul: &UlMeta) -> DlMeta {
        DlMeta {
            fns_ul_token: ul.fns_ul_token.clone(),
            ul_tokens: ul.gw_info.iter().filter_map(|gateway| gateway.ul_token.clone()).collect(),
            ..DlMeta::default()
        }
    }

    /// The two windows of a Join-accept: RX1 at 5 s, RX2 at 6 s.
    pub fn of_join(ul: &UlMeta, region: &Region) -> DlMeta {
        let rx1 = match (ul.ul_freq, ul.data_rate) {
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
            ..DlMeta::answering(ul)
        }
    }
}

/// Network session keys, by the derivation that made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NwkKeys {
    /// LoRaWAN 1.0.x (and 1.1 devices with OptNeg 0).
    V10 {
        /// The one network session key.
        nwk_s_key: Key,
    },
    /// LoRaWAN 1.1.
    V11 {
        /// SNwkSIntKey
        s_nwk_s_int_key: Key,
        /// FNwkSIntKey
        f_nwk_s_int_key: Key,
        /// NwkSEncKey
        nwk_s_enc_key: Key,
    },
}

/// LoRaWAN version of a device or of a join (TS002 11.7), ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum MacVersion {
    V1_0,
    V1_0_1,
    V1_0_2,
    V1_0_3,
    V1_0_4,
    V1_1,
}

/// Text that is no LoRaWAN version we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no LoRaWAN version (1.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4, 1.1)")]
pub struct UnknownMacVersion(String);

impl std::str::FromStr for MacVersion {
    type Err = UnknownMacVersion;
    fn from_str(text: &str) -> Result<MacVersion, UnknownMacVersion> {
        Ok(match text {
            "1.0" | "1.0.0" => MacVersion::V1_0,
            "1.0.1" => MacVersion::V1_0_1,
            "1.0.2" => MacVersion::V1_0_2,
            "1.0.3" => MacVersion::V1_0_3,
            "1.0.4" => MacVersion::V1_0_4,
            "1.1" | "1.1.0" | "1.1.1" => MacVersion::V1_1,
            other => return Err(UnknownMacVersion(other.chars().take(20).collect())),
        })
    }
}

impl fmt::Display for MacVersion {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            MacVersion::V1_0 => "1.0",
            MacVersion::V1_0_1 => "1.0.1",
            MacVersion::V1_0_2 => "1.0.2",
            MacVersion::V1_0_3 => "1.0.3",
            MacVersion::V1_0_4 => "1.0.4",
            MacVersion::V1_1 => "1.1",
        })
    }
}

impl serde::Serialize for MacVersion {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MacVersion {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// OptNeg, as DLSettings of a Join-accept has it: set where the session is of 1.1 (TS002 11.1).
pub const OPT_NEG: u8 = 0x80;

/// OptNeg of a session of this version.
pub fn opt_neg(mac_version: MacVersion) -> u8 {
    if mac_version >= MacVersion::V1_1 { OPT_NEG } else { 0 }
}

/// vNS to JS: who is home to this device?
#[derive(Debug, Clone, PartialEq)]
pub struct HomeNsReq {
    /// The device.
    pub dev_eui: DevEui,
}

/// JS to vNS.
#[derive(Debug, Clone, PartialEq)]
pub struct HomeNsAns {
    /// HNetID.
    pub h_net_id: NetId,
    /// HNSID (1.1), where it is known.
    pub h_nsid: Option<NsId>,
}

/// fNS to sNS: a Join, Rejoin or data frame without a context (TS002 12.5, 12.10).
#[derive(Debug, Clone, PartialEq)]
pub struct PrStartReq {
    /// The frame as heard.
    pub phy_payload: Vec<u8>,
    /// How it was heard.
    pub ul: UlMeta,
    /// The asker takes a class A downlink in the answer (between Roamgates; a VSExtension).
    pub downlink_in_answer: bool,
    /// DedupWindowSize (1.1): how long the asker collects copies before it asks, milliseconds.
    pub dedup_window: Option<u32>,
    /// It is agreed that the asker checks MICs: a key in the answer is wanted. Without, keys that a partner
    /// sends unasked are not even opened. Inside the house only.
    pub mic_check: bool,
    /// The device's home, where it is another network that lets us serve the device (handover roaming). Inside the house
    /// only: our fNS asks our sNS.
    pub home: Option<Box<Home>>,
}

/// A network that lets another serve a device of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Which one.
    pub net_id: NetId,
    /// What it says of the device.
    pub profile: ProfileAt,
}

/// A Device Profile, and since when it is so (DeviceProfileTimestamp).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileAt {
    /// The profile.
    pub profile: DeviceProfile,
    /// Of its last change, to the second.
    pub since: Timestamp,
}

/// sNS to fNS.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrStartAns {
    /// The Join-accept, or a downlink that rides in the answer.
    pub phy_payload: Option<Vec<u8>>,
    /// For a stateful fNS.
    pub dev_eui: Option<DevEui>,
    /// With a Join-accept.
    pub dev_addr: Option<DevAddr>,
    /// Seconds; 0 or `None`: stateless.
    pub lifetime: Option<u32>,
    /// Where it is agreed that the fNS checks MICs.
    pub mic_key: Option<MicKey>,
    /// The last valid counter, with the key (a widely deployed peer: the next expected).
    pub fcnt_up: Option<u32>,
    /// With `phy_payload`.
    pub dl: Option<DlMeta>,
    /// For a stateful fNS.
    pub service: Option<ServiceProfile>,
    /// Whose device it is, where our sNS serves it for another network. Inside the house only.
    pub account: Option<Account>,
    /// The frame of the question was taken as any uplink is, so nobody need send it again by XmitDataReq
    /// (between Roamgates; a VSExtension).
    pub taken: bool,
    /// TransactionID of the question, where it was of 1.1: who answered wants to hear what became of a Join-accept
    /// (PRStartNotif). Our client's word, no object of the answer.
    pub asked: Option<u32>,
}

/// The key that an fNS checks uplink MICs with (TS002 12.5 step 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MicKey {
    /// NwkSKey of LoRaWAN 1.0.x: the whole MIC.
    NwkSKey(Key),
    /// FNwkSIntKey of LoRaWAN 1.1: the second half of the MIC.
    FNwkSIntKey(Key),
}

impl From<&NwkKeys> for MicKey {
    fn from(keys: &NwkKeys) -> MicKey {
        match keys {
            NwkKeys::V10 { nwk_s_key } => MicKey::NwkSKey(nwk_s_key.clone()),
            NwkKeys::V11 { f_nwk_s_int_key, .. } => MicKey::FNwkSIntKey(f_nwk_s_int_key.clone()),
        }
    }
}

/// Either way between sNS and fNS: the roaming of a device by a context ends (TS002 12.6.3).
#[derive(Debug, Clone, PartialEq)]
pub struct PrStopReq {
    /// The device.
    pub dev_eui: DevEui,
    /// From the sNS: which session's context.
    pub dev_addr: Option<DevAddr>,
    /// From the sNS, seconds: no PRStartReq for the device so long; 0 cancels such a hold-off, `None`: none.
    pub lifetime: Option<u32>,
}

/// The context is gone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrStopAns;

/// XmitDataReq with PHYPayload and ULMetaData: fNS to sNS.
#[derive(Debug, Clone, PartialEq)]
pub struct XmitUp {
    /// The frame as heard.
    pub phy_payload: Vec<u8>,
    /// How it was heard.
    pub ul: UlMeta,
    /// As in [`PrStartReq`].
    pub downlink_in_answer: bool,
}

/// XmitDataReq with PHYPayload and DLMetaData: sNS to fNS.
#[derive(Debug, Clone, PartialEq)]
pub struct XmitDown {
    /// The frame to transmit.
    pub phy_payload: Vec<u8>,
    /// Where and when.
    pub dl: DlMeta,
    /// Whose device it is, where our sNS serves it for another network. Inside the house only.
    pub account: Option<Account>,
}

/// XmitDataReq with FRMPayload and ULMetaData: sNS to hNS.
#[derive(Debug, Clone, PartialEq)]
pub struct XmitAppUp {
    /// As the device encrypted it.
    pub frm_payload: Vec<u8>,
    /// With DevEUI, FPort, FCntUp and the next FCntDown.
    pub ul: UlMeta,
    /// The device acknowledged our last confirmed downlink. TS002 has no object for it: inside the
    /// house only.
    pub ack: bool,
    /// Through whom it was heard, where that is not us. Inside the house only.
    pub via: Option<NetId>,
    /// Where it goes, where the home is another network. Inside the house only.
    pub home: Option<NetId>,
}

/// XmitDataReq with FRMPayload and DLMetaData: hNS to sNS.
#[derive(Debug, Clone, PartialEq)]
pub struct XmitAppDown {
    /// Encrypted for exactly `dl.fcnt_down`.
    pub frm_payload: Vec<u8>,
    /// With DevEUI, FPort, FCntDown.
    pub dl: DlMeta,
    /// Whose AppSKey it is encrypted with, where no uplink tells. Inside the house only.
    pub dev_addr: Option<DevAddr>,
}

/// XmitDataAns, for all four requests.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct XmitAns {
    /// RX1 was used, at this frequency in hertz.
    pub dl_freq1: Option<u32>,
    /// RX2 was used.
    pub dl_freq2: Option<u32>,
    /// A downlink that rides in the answer to an [`XmitUp`].
    pub riding: Option<(Vec<u8>, DlMeta)>,
    /// How it goes out, inside the house only: TS002 has no objects for it.
    pub radiated: Option<Radiated>,
    /// From now to the end of the frame, inside the house only.
    pub until_end: Option<Duration>,
}

/// A transmission that a radio head has taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Radiated {
    /// The head.
    pub gateway: GatewayEui,
    /// Hertz.
    pub frequency: u32,
    /// How it is modulated.
    pub modulation: Modulation,
    /// EIRP in dBm, where the head said so.
    pub power: Option<i8>,
}

/// hNS to JS (TS002 12.2).
#[derive(Debug, Clone, PartialEq)]
pub struct JoinReq {
    /// The highest version common to device and NS.
    pub mac_version: MacVersion,
    /// The Join-request.
    pub phy_payload: Vec<u8>,
    /// Equal to the one in the frame.
    pub dev_eui: DevEui,
    /// Chosen by the sNS.
    pub dev_addr: DevAddr,
    /// As on the air.
    pub dl_settings: u8,
    /// 0 to 15 s.
    pub rx_delay: u8,
    /// As on the air.
    pub cf_list: Option<[u8; 16]>,
}

/// JS to hNS.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinAns {
    /// The Join-accept.
    pub phy_payload: Vec<u8>,
    /// Seconds that the session may live; 0: no limit.
    pub lifetime: u32,
    /// For the sNS.
    pub keys: NwkKeys,
    /// For the AS.
    pub app_s_key: Option<KeyEnvelope>,
    /// For an AS that asks the JS itself.
    pub session_key_id: Option<Vec<u8>>,
}

/// hNS to JS: the same for a Rejoin-request (TS002 12.7 step 7, 12.11). The answer is that of a JoinReq.
#[derive(Debug, Clone, PartialEq)]
pub struct RejoinReq(pub JoinReq);

/// AS to JS: the AppSKey of a session (TS002 12.3).
#[derive(Debug, Clone, PartialEq)]
pub struct AppSKeyReq {
    /// The device.
    pub dev_eui: DevEui,
    /// Which of its sessions, as the JS named it in JoinAns. 1 to 32 bytes.
    pub session_key_id: Vec<u8>,
}

/// JS to AS. DevEUI and SessionKeyID are those of the question.
#[derive(Debug, Clone, PartialEq)]
pub struct AppSKeyAns {
    /// Under the key-encryption key of the two.
    pub app_s_key: KeyEnvelope,
}

/// vNS to hNS: how may this device roam with us (TS002 12.12)?
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileReq {
    /// The device.
    pub dev_eui: DevEui,
}

/// hNS to vNS.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileAns {
    /// What would be granted.
    pub activation: RoamingActivation,
    /// With `Handover`.
    pub profile: Option<ProfileAt>,
}

/// Either way between hNS and sNS: the handover of a device ends (TS002 12.8.3).
#[derive(Debug, Clone, PartialEq)]
pub struct HrStopReq {
    /// The device.
    pub dev_eui: DevEui,
    /// From the hNS, seconds: no HRStartReq for the device so long; 0 cancels such a hold-off, `None`: none.
    pub lifetime: Option<u32>,
    /// Addresses of the sessions that end. Inside the house only: TS002 means all of them.
    pub of: Vec<DevAddr>,
}

/// The handover is over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HrStopAns;

/// HRStartReq without PHYPayload, hNS to sNS: the home wants its device back (TS002 12.8.4).
#[derive(Debug, Clone, PartialEq)]
pub struct HrRegainReq {
    /// The device.
    pub dev_eui: DevEui,
}

/// The device will be told to rejoin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HrRegainAns;

/// sNS to hNS: a device wants to join or to rejoin (TS002 12.7 step 6, 12.9 step 7; at home too).
#[derive(Debug, Clone, PartialEq)]
pub struct HrStartReq {
    /// The sNS's highest version.
    pub mac_version: MacVersion,
    /// The Join-request or Rejoin-request.
    pub phy_payload: Vec<u8>,
    /// Of the frame.
    pub dev_eui: DevEui,
    /// From the sNS's range.
    pub dev_addr: DevAddr,
    /// As on the air.
    pub dl_settings: u8,
    /// 0 to 15 s.
    pub rx_delay: u8,
    /// As on the air.
    pub cf_list: Option<[u8; 16]>,
    /// How it was heard.
    pub ul: UlMeta,
    /// Through whom it was heard, where that is not us: the hNS's policy may refuse a visit. Inside the house only.
    pub visited: Option<NetId>,
    /// DeviceProfileTimestamp: what the sNS knows of the device. `None` inside the house, where nobody is behind.
    pub profile_time: Option<Timestamp>,
}

/// hNS to sNS.
#[derive(Debug, Clone, PartialEq)]
pub struct HrStartAns {
    /// The Join-accept.
    pub phy_payload: Vec<u8>,
    /// Seconds; 0: no limit.
    pub lifetime: u32,
    /// For the sNS.
    pub keys: NwkKeys,
    /// The device may talk through other networks. A foreign sNS reads it in `service`.
    pub roaming: bool,
    /// For a foreign sNS.
    pub service: Option<ServiceProfile>,
    /// For a foreign sNS, which controls the radio and need not look at it.
    pub dl: Option<DlMeta>,
    /// Class C from its first uplink on (1.0.x). Inside the house only, for the same reason.
    pub class: ClassMode,
    /// LoRaWAN version of the session. Inside the house only, likewise.
    pub mac_version: MacVersion,
}

/// A request that knows its answer.
pub trait Ask: Into<Request> + Send {
    /// The answer on success.
    type Ans: Send;
    /// Take the right answer out of any.
    fn ans(answer: Answer) -> Option<Self::Ans>;
}

macro_rules! messages {
    ($($variant:ident($req:ident), $name:literal => $answer:ident($ans:ident);)*) => {
        /// Any request.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Request { $($variant($req),)* }

        impl Request {
            /// MessageType on the wire.
            pub fn message_type(&self) -> &'static str {
                match self { $(Request::$variant(_) => $name,)* }
            }
        }

        $(
            impl From<$req> for Request {
                fn from(req: $req) -> Request { Request::$variant(req) }
            }
            impl Ask for $req {
                type Ans = $ans;
                fn ans(answer: Answer) -> Option<$ans> {
                    // irrefutable for no variant: every pair has an answer of its own kind
                    match answer { Answer::$answer(ans) => Some(ans), _ => None }
                }
            }
        )*
    };
}

messages! {
    HomeNs(HomeNsReq), "HomeNSReq" => HomeNs(HomeNsAns);
    PrStart(PrStartReq), "PRStartReq" => PrStart(PrStartAns);
    PrStop(PrStopReq), "PRStopReq" => PrStop(PrStopAns);
    XmitUp(XmitUp), "XmitDataReq" => Xmit(XmitAns);
    XmitDown(XmitDown), "XmitDataReq" => Xmit(XmitAns);
    XmitAppUp(XmitAppUp), "XmitDataReq" => Xmit(XmitAns);
    XmitAppDown(XmitAppDown), "XmitDataReq" => Xmit(XmitAns);
    Join(JoinReq), "JoinReq" => Join(JoinAns);
    Rejoin(RejoinReq), "RejoinReq" => Join(JoinAns);
    HrStart(HrStartReq), "HRStartReq" => HrStart(HrStartAns);
    HrRegain(HrRegainReq), "HRStartReq" => HrRegain(HrRegainAns);
    HrStop(HrStopReq), "HRStopReq" => HrStop(HrStopAns);
    Profile(ProfileReq), "ProfileReq" => Profile(ProfileAns);
    AppSKey(AppSKeyReq), "AppSKeyReq" => AppSKey(AppSKeyAns);
}

/// Any answer.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Answer {
    HomeNs(HomeNsAns),
    PrStart(PrStartAns),
    PrStop(PrStopAns),
    Xmit(XmitAns),
    Join(JoinAns),
    HrStart(HrStartAns),
    HrRegain(HrRegainAns),
    HrStop(HrStopAns),
    Profile(ProfileAns),
    AppSKey(AppSKeyAns),
}
