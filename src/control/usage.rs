//! Usage records as JSON, with the element names of TS002 tables 9 and 10.

use serde::{Deserialize, Serialize};

use crate::store::usage::Month;
use crate::usage::{ActivationRecord, TrafficRecord};

/// Answer to `GET /v1/usage/{month}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// YYYY-MM, UTC.
    pub month: String,
    /// One for each network whose devices were served, and kind of roaming.
    pub traffic: Vec<TrafficRecord>,
    /// One for each beginning and each end, and one for each network that had a device here all the month.
    pub activations: Vec<ActivationRecord>,
    /// The other way round: what other networks carried of our devices, as we saw it.
    #[serde(default)]
    pub for_us: Vec<TrafficRecord>,
}

impl UsageView {
    /// From what is on record of a month.
    pub fn new(month: String, records: Month) -> UsageView {
        let Month { traffic, activations, for_us } = records;
        UsageView { month, traffic, activations, for_us }
    }
}
