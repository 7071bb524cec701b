//! Usage records as JSON, with the element names of TS002 tables 9 and 10.

use serde::{Deserialize, Serialize};

use crate::lorawan::{DevEui, NetId};
use crate::store::usage::Month;

/// Answer to `GET /v1/usage/{month}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// YYYY-MM, UTC.
    pub month: String,
    /// One for each network whose devices were served, and kind of roaming.
    pub traffic: Vec<TrafficRecord>,
    /// One for each beginning and each end.
    pub activations: Vec<ActivationRecord>,
}

/// Network Traffic Record (TS002 table 10). Nothing is out of profile: no network has told a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TrafficRecord {
    /// The home of the visitors.
    #[serde(rename = "NetID")]
    pub net_id: NetId,
    /// Empty: nobody has named a profile.
    #[serde(rename = "ServiceProfileID")]
    pub service_profile_id: String,
    /// Passive or Handover.
    pub roaming_type: String,
    /// Uplinks with something of a user.
    #[serde(rename = "TotalULPackets")]
    pub total_ul_packets: u64,
    /// Downlinks.
    #[serde(rename = "TotalDLPackets")]
    pub total_dl_packets: u64,
    /// Out of profile, uplinks: none.
    #[serde(rename = "TotalOutProfileULPackets")]
    pub total_out_profile_ul_packets: u64,
    /// Out of profile, downlinks: none.
    #[serde(rename = "TotalOutProfileDLPackets")]
    pub total_out_profile_dl_packets: u64,
    /// FRMPayload of the uplinks.
    #[serde(rename = "TotalULBytes")]
    pub total_ul_bytes: u64,
    /// FRMPayload of the downlinks.
    #[serde(rename = "TotalDLBytes")]
    pub total_dl_bytes: u64,
    /// Out of profile, bytes of uplinks: none.
    #[serde(rename = "TotalOutProfileULBytes")]
    pub total_out_profile_ul_bytes: u64,
    /// Out of profile, bytes of downlinks: none.
    #[serde(rename = "TotalOutProfileDLBytes")]
    pub total_out_profile_dl_bytes: u64,
}

/// Network Activation Record of one device (TS002 table 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ActivationRecord {
    /// Its home.
    #[serde(rename = "NetID")]
    pub net_id: NetId,
    /// Empty: nobody has named a profile.
    #[serde(rename = "ServiceProfileID")]
    pub service_profile_id: String,
    /// True: it is of one device.
    pub individual_record: bool,
    /// Which.
    #[serde(rename = "DevEUI")]
    pub dev_eui: DevEui,
    /// When it began, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_time: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivation_time: Option<String>,
}

impl UsageView {
    /// From what is on record of a month.
    pub fn new(month: String, records: Month) -> UsageView {
        let traffic = records.traffic.into_iter().map(|traffic| TrafficRecord {
            net_id: traffic.net_id,
            service_profile_id: String::new(),
            roaming_type: traffic.roaming_type,
            total_ul_packets: traffic.ul_packets,
            total_dl_packets: traffic.dl_packets,
            total_out_profile_ul_packets: 0,
            total_out_profile_dl_packets: 0,
            total_ul_bytes: traffic.ul_bytes,
            total_dl_bytes: traffic.dl_bytes,
            total_out_profile_ul_bytes: 0,
            total_out_profile_dl_bytes: 0,
        });
        let activations = records.roaming.into_iter().map(|roaming| {
            let seconds = i64::try_from(roaming.at).unwrap_or(0);
            let time = jiff::Timestamp::from_second(seconds).ok().map(|at| at.to_string());
            let (activation_time, deactivation_time) =
                if roaming.active { (time, None) } else { (None, time) };
            ActivationRecord {
                net_id: roaming.net_id,
                service_profile_id: String::new(),
                individual_record: true,
                dev_eui: roaming.dev_eui,
                activation_time,
                deactivation_time,
            }
        });
        UsageView { month, traffic: traffic.collect(), activations: activations.collect() }
    }
}
