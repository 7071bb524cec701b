//! Usage records (TS002 section 15), and what networks tell each other of them: statements, month chained to month, and what differs
//! between two.
//!
//! Pure. Who signs a statement and whom to believe is the business of `tls`.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::backend::message::Account;
use crate::lorawan::{DevEui, NetId};

/// Where a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To its home.
    Up,
    /// To the device.
    Down,
}

/// RoamingType (TS002 table 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The visited network forwards for the one that serves the device.
    Passive,
    /// The visited network serves the device for its home.
    Handover,
}

/// A frame of a user that was carried for its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Whose, and how it stands to what is agreed.
    pub account: Account,
    /// How it roams.
    pub kind: Kind,
    /// Up or down.
    pub way: Way,
    /// FRMPayload, bytes.
    pub bytes: usize,
    /// Seconds since 1970: in which month.
    pub unix: u64,
}

/// Network Traffic Record (TS002 table 10). What is out of profile is part of the totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TrafficRecord {
    /// The other network: the home of the visitors, or who carried ours.
    #[serde(rename = "NetID")]
    pub net_id: NetId,
    /// Empty: nobody has named a profile.
    #[serde(rename = "ServiceProfileID")]
    pub service_profile_id: String,
    /// Passive or Handover.
    pub roaming_type: Kind,
    /// Uplinks with something of a user.
    #[serde(rename = "TotalULPackets")]
    pub total_ul_packets: u64,
    /// Downlinks.
    #[serde(rename = "TotalDLPackets")]
    pub total_dl_packets: u64,
    /// Out of profile, uplinks.
    #[serde(rename = "TotalOutProfileULPackets")]
    pub total_out_profile_ul_packets: u64,
    /// Out of profile, downlinks.
    #[serde(rename = "TotalOutProfileDLPackets")]
    pub total_out_profile_dl_packets: u64,
    /// FRMPayload of the uplinks, bytes.
    #[serde(rename = "TotalULBytes")]
    pub total_ul_bytes: u64,
    /// FRMPayload of the downlinks.
    #[serde(rename = "TotalDLBytes")]
    pub total_dl_bytes: u64,
    /// Out of profile, bytes of uplinks.
    #[serde(rename = "TotalOutProfileULBytes")]
    pub total_out_profile_ul_bytes: u64,
    /// Out of profile, bytes of downlinks.
    #[serde(rename = "TotalOutProfileDLBytes")]
    pub total_out_profile_dl_bytes: u64,
}

impl TrafficRecord {
    /// Of uplinks and their bytes, downlinks and their bytes; of no profile.
    pub fn new(
        net_id: NetId,
        roaming_type: Kind,
        [up, up_bytes, down, down_bytes]: [u64; 4],
    ) -> TrafficRecord {
        TrafficRecord {
            net_id,
            service_profile_id: String::new(),
            roaming_type,
            total_ul_packets: up,
            total_dl_packets: down,
            total_out_profile_ul_packets: 0,
            total_out_profile_dl_packets: 0,
            total_ul_bytes: up_bytes,
            total_dl_bytes: down_bytes,
            total_out_profile_ul_bytes: 0,
            total_out_profile_dl_bytes: 0,
        }
    }

    /// Uplinks and their bytes, downlinks and their bytes.
    pub fn numbers(&self) -> [u64; 4] {
        [self.total_ul_packets, self.total_ul_bytes, self.total_dl_packets, self.total_dl_bytes]
    }
}

/// Network Activation Record (TS002 table 9): of one device, or of all that were active from the first to the last instant of a
/// month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ActivationRecord {
    /// The home of the devices.
    #[serde(rename = "NetID")]
    pub net_id: NetId,
    /// Empty: nobody has named a profile.
    #[serde(rename = "ServiceProfileID")]
    pub service_profile_id: String,
    /// True: it is of one device.
    pub individual_record: bool,
    /// Of all: how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_active_devices: Option<u64>,
    /// Of one: which.
    #[serde(rename = "DevEUI", default, skip_serializing_if = "Option::is_none")]
    pub dev_eui: Option<DevEui>,
    /// When it began, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_time: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivation_time: Option<String>,
}

/// What a statement is signed for.
pub const PURPOSE: &str = "usage statement";

/// One network tells another what it carried of its devices in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Of this format: 1.
    pub version: u32,
    /// Who carried.
    pub issuer: NetId,
    /// Whose devices.
    pub partner: NetId,
    /// YYYY-MM, UTC.
    pub month: String,
    /// SHA-256 of the text of the statement before, in hexadecimal: none can be changed or left out later. `None`: this is the
    /// first.
    pub previous: Option<String>,
    /// One for each kind of roaming and Service Profile.
    pub traffic: Vec<TrafficRecord>,
    /// One for each beginning and end, and one of the devices that were active all the month.
    pub activations: Vec<ActivationRecord>,
}

/// The format that is written.
const VERSION: u32 = 1;

/// A text that is no statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoStatement {
    /// Theirs is newer.
    #[error("a statement of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// Damaged, or something else.
    #[error("no usage statement: {0}")]
    Form(String),
}

impl Statement {
    /// Of a month, after another or as the first.
    pub fn new(issuer: NetId, partner: NetId, month: String, before: Option<&str>) -> Statement {
        let (previous, traffic, activations) = (before.map(hash), Vec::new(), Vec::new());
        Statement { version: VERSION, issuer, partner, month, previous, traffic, activations }
    }

    /// As it is signed.
    pub fn text(&self) -> String {
        // a structure of texts and numbers has no way to fail
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of a text.
    pub fn read(text: &str) -> Result<Statement, NoStatement> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let form = |error: serde_json::Error| NoStatement::Form(error.to_string());
        let Versioned { version } = serde_json::from_str(text).map_err(form)?;
        if version != VERSION {
            return Err(NoStatement::Version(version));
        }
        serde_json::from_str(text).map_err(form)
    }
}

/// What the next statement calls this one.
pub fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// One line of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// RoamingType.
    pub roaming_type: Kind,
    /// The element of the record.
    pub element: String,
    /// In their statement.
    pub theirs: u64,
    /// On our record.
    pub ours: u64,
}

/// Every element of both sides' traffic records, line by line. `ours`: what the issuer carried for us, as we saw it.
pub fn compare(theirs: &Statement, ours: &[TrafficRecord]) -> Vec<Line> {
    let mut lines = Vec::new();
    for kind in [Kind::Passive, Kind::Handover] {
        let of = |records: &[TrafficRecord]| {
            let mut sums = [0_u64; 4];
            for record in records.iter().filter(|record| record.roaming_type == kind) {
                sums.iter_mut()
                    .zip(record.numbers())
                    .for_each(|(sum, element)| *sum = element.saturating_add(*sum));
            }
            sums
        };
        let ours: Vec<TrafficRecord> =
            ours.iter().filter(|record| record.net_id == theirs.issuer).cloned().collect();
        let (theirs, ours) = (of(&theirs.traffic), of(&ours));
        if theirs == [0; 4] && ours == [0; 4] {
            continue;
        }
        let names = ["TotalULPackets", "TotalULBytes", "TotalDLPackets", "TotalDLBytes"];
        lines.extend(names.into_iter().zip(theirs.into_iter().zip(ours)).map(|(element, (theirs, ours))| {
            Line { roaming_type: kind, element: element.into(), theirs, ours }
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOME: NetId = NetId::from_msb([0, 0, 1]);
    const AWAY: NetId = NetId::from_msb([0, 0, 2]);

    #[test]
    fn a_statement_reads_as_it_was_written_and_names_the_one_before() {
        let first = Statement::new(AWAY, HOME, "2026-10".into(), None);
        let mut second = Statement::new(AWAY, HOME, "2026-11".into(), Some(&first.text()));
        second.traffic.push(TrafficRecord::new(HOME, Kind::Handover, [1, 2, 3, 4]));
        assert_eq!(Statement::read(&second.text()), Ok(second.clone()));
        assert_eq!(
            (first.previous, second.previous.clone()),
            (None, Some(hash(&Statement::new(AWAY, HOME, "2026-10".into(), None).text())))
        );
        let newer = second.text().replacen("\"version\":1", "\"version\":2", 1);
        assert_eq!(Statement::read(&newer), Err(NoStatement::Version(2)));
        let strange = second.text().replacen("\"version\"", "\"more\":1,\"version\"", 1);
        assert!(matches!(Statement::read(&strange), Err(NoStatement::Form(_))));
    }

    #[test]
    fn the_records_have_the_names_of_the_examples() {
        for name in ["traffic", "network-activation-individual", "network-deactivation-individual"] {
            let name = if name == "traffic" { "network-traffic" } else { name };
            let path = format!("{}/tests/fixtures/examples/record-{name}.json", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let again = match name {
                "network-traffic" => {
                    serde_json::to_value(serde_json::from_str::<TrafficRecord>(&text).unwrap())
                }
                _ => serde_json::to_value(serde_json::from_str::<ActivationRecord>(&text).unwrap()),
            };
            assert_eq!(again.unwrap(), value, "{name}");
        }
    }

    #[test]
    fn what_differs_is_seen_line_by_line_and_other_networks_are_not_meant() {
        let mut theirs = Statement::new(AWAY, HOME, "2026-11".into(), None);
        theirs.traffic.push(TrafficRecord::new(HOME, Kind::Passive, [10, 100, 2, 20]));
        let ours = [
            TrafficRecord::new(AWAY, Kind::Passive, [9, 90, 2, 20]),
            TrafficRecord::new(NetId::from_msb([0, 0, 3]), Kind::Passive, [1, 10, 0, 0]),
        ];
        let lines = compare(&theirs, &ours);
        let numbers: Vec<_> = lines.iter().map(|line| (&*line.element, line.theirs, line.ours)).collect();
        let expected = [
            ("TotalULPackets", 10, 9),
            ("TotalULBytes", 100, 90),
            ("TotalDLPackets", 2, 2),
            ("TotalDLBytes", 20, 20),
        ];
        assert_eq!(numbers, expected);
        assert!(compare(&Statement::new(AWAY, HOME, "2026-11".into(), None), &[]).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = Statement::read(&text);
        }
    }
}
