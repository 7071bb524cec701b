//! Profiles (TS002 section 9): what a device can do, and what its home lets others do for it.

use super::{ClassMode, MacVersion};

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

/// What to do with packets above a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RatePolicy {
    /// They go no further.
    Drop,
    /// They go on, and count as out of profile.
    Mark,
}

/// A token bucket of the Service Profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Packets an hour.
    pub rate: u32,
    /// Packets at once.
    pub bucket: u32,
    /// For those above.
    pub policy: RatePolicy,
}

impl RateLimit {
    /// More than any device may send. The table has no word for "no limit", and peers want all its elements.
    pub const NONE: RateLimit = RateLimit { rate: 1_000_000, bucket: 1_000, policy: RatePolicy::Mark };
}

/// Service Profile (TS002 tables 7, 18). All its elements are sent, because deployed peers cannot read it otherwise; of a
/// received one only this is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceProfile {
    /// ServiceProfileID.
    pub id: String,
    /// ULRate, ULBucketSize, ULRatePolicy.
    pub ul: RateLimit,
    /// DLRate, DLBucketSize, DLRatePolicy.
    pub dl: RateLimit,
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
    /// A device without limits. `passive`, `handover`: what its network may let it do.
    pub fn free(passive: bool, handover: bool) -> ServiceProfile {
        ServiceProfile {
            id: "roamgate".into(),
            ul: RateLimit::NONE,
            dl: RateLimit::NONE,
            dr_max: 15,
            passive,
            handover,
            activation: passive || handover,
        }
    }
}
