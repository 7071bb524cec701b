//! Profiles (TS002 section 9): what a device can do, and what its home lets others do for it.

use super::{ClassMode, MacVersion};
use crate::limits::RateLimit;
use crate::lorawan::NetId;

/// Which kind of roaming a home grants to a device that activates abroad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoamingActivation {
    /// The home stays in charge of the radio.
    Passive,
    /// The visited network takes over.
    Handover,
}

/// Device Profile (TS002 tables 6, 17), as far as a serving network needs it. What else peers send is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProfile {
    /// DeviceProfileID: the home's word for it.
    pub id: String,
    /// LoRaWAN version of the device.
    pub mac_version: MacVersion,
    /// Revision of its regional parameters.
    pub reg_params_revision: String,
    /// C: SupportsClassC.
    pub class: ClassMode,
    /// It joins; else it was given its session.
    pub supports_join: bool,
    /// dBm.
    pub max_eirp: i8,
    /// RFRegion; parsed by whoever needs the plan.
    pub rf_region: String,
}

/// Longest ServiceProfileID that is kept, characters.
const ID: usize = 64;

/// What a home wants of the frames of a device: its Service Profile, as far as whoever carries them keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// ServiceProfileID; empty: nobody has named a profile.
    pub profile: String,
    /// ULRate, ULBucketSize, ULRatePolicy.
    pub ul: RateLimit,
    /// DLRate, DLBucketSize, DLRatePolicy.
    pub dl: RateLimit,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { profile: String::new(), ul: RateLimit::NONE, dl: RateLimit::NONE }
    }
}

impl Terms {
    /// Of a profile's name and rates.
    pub fn new(profile: &str, ul: RateLimit, dl: RateLimit) -> Terms {
        // it comes from elsewhere and is shown on terminals
        let shown = profile.chars().filter(|c| !c.is_control());
        Terms { profile: shown.take(ID).collect(), ul, dl }
    }

    /// Those of this house, with a name that tells them from others.
    pub fn ours(ul: Option<RateLimit>, dl: Option<RateLimit>) -> Terms {
        let word = |way: &str, limit: Option<RateLimit>| {
            let RateLimit { rate, bucket, policy } = limit?;
            Some(format!("-{way}{rate}/{bucket}{policy:?}"))
        };
        let words = [word("ul", ul), word("dl", dl)].into_iter().flatten().collect::<String>();
        let profile = format!("roamgate{words}");
        Terms::new(&profile, ul.unwrap_or(RateLimit::NONE), dl.unwrap_or(RateLimit::NONE))
    }
}

/// On whose account a frame is carried (TS002 section 15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The other network: the home of a visitor, or who carries one of ours.
    pub net_id: NetId,
    /// ServiceProfileID; empty: nobody has named a profile.
    pub profile: String,
    /// It is above the profile's rate, which marks it.
    pub out_of_profile: bool,
}

impl Account {
    /// Of a network, without a profile.
    pub fn of(net_id: NetId) -> Account {
        Account { net_id, profile: String::new(), out_of_profile: false }
    }
}

/// Service Profile (TS002 tables 7, 18). All its elements are sent, because deployed peers cannot read it otherwise; of a
/// received one only this is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceProfile {
    /// Its name and its rates.
    pub terms: Terms,
    /// Highest data rate index that ADR may use.
    pub dr_max: u8,
    /// PRAllowed.
    pub passive: bool,
    /// HRAllowed.
    pub handover: bool,
    /// RAAllowed.
    pub activation: bool,
}

impl ServiceProfile {
    /// `passive`, `handover`: what its network may let a device do.
    pub fn new(terms: Terms, passive: bool, handover: bool) -> ServiceProfile {
        ServiceProfile { terms, dr_max: 15, passive, handover, activation: passive || handover }
    }
}
