//! What single peers write differently, and want to read so (TS002 18).

use serde_json::{Map, Value};

/// How a message is written. The default is the specification's form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Hexadecimal digits in small letters.
    pub lower_hex: bool,
    /// RFRegion by the names of TS002 1.0: `US902` and not `US915`.
    pub old_regions: bool,
    /// CFList with its last byte first.
    pub reversed_cf_list: bool,
}

/// Members whose text is hexadecimal, at any depth.
const HEX: [&str; 24] = [
    "AESKey",
    "CFList",
    "DLSettings",
    "DevAddr",
    "DevEUI",
    "FNSULToken",
    "FRMPayload",
    "HNSID",
    "HNetID",
    "ID",
    "JoinEUI",
    "PHYPayload",
    "ReceiverID",
    "ReceiverNSID",
    "ReceiverToken",
    "SenderID",
    "SenderNSID",
    "SenderToken",
    "SessionKeyID",
    "ULToken",
    "VendorID",
    "ChMask",
    "NetID",
    "DeviceProfileID",
];

/// The modern name and the old one.
const REGIONS: [(&str, &str); 4] =
    [("US915", "US902"), ("CN779", "China779"), ("AU915", "Australia915"), ("CN470", "China470")];

impl Dialect {
    /// Write a message so.
    pub(super) fn speak(self, message: &mut Map<String, Value>) {
        if self == Dialect::default() {
            return;
        }
        for (name, value) in message {
            match value {
                Value::Object(inside) => self.speak(inside),
                Value::Array(list) => {
                    list.iter_mut().filter_map(Value::as_object_mut).for_each(|inside| self.speak(inside));
                }
                Value::String(text) if self.reversed_cf_list && name == "CFList" && is_hex(text) => {
                    let bytes: Vec<&[u8]> = text.as_bytes().chunks(2).rev().collect();
                    // digits are text, whatever their order
                    *text = String::from_utf8_lossy(&bytes.concat()).into_owned();
                    self.speak_hex(text);
                }
                // an AS-ID is a name and stays as it is
                Value::String(text) if HEX.contains(&name.as_str()) && is_hex(text) => self.speak_hex(text),
                Value::String(text) if self.old_regions && name == "RFRegion" => {
                    if let Some((_, old)) = REGIONS.iter().find(|(modern, _)| modern == text) {
                        *text = (*old).into();
                    }
                }
                _ => {}
            }
        }
    }

    fn speak_hex(self, text: &mut str) {
        if self.lower_hex {
            text.make_ascii_lowercase();
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn digits_and_regions_are_written_as_the_peer_reads_them_and_nothing_else_is_touched() {
        let said = json!({
            "SenderID": "60050A", "ReceiverID": "AS.Example", "MessageType": "PRStartReq",
            "PHYPayload": "00AB", "ULMetaData": { "RFRegion": "US915", "GWInfo": [{ "ID": "0A0B", "RFRegion": "AU915" }] },
            "Result": { "ResultCode": "MICFailed", "Description": "ABC" }
        });
        let spoken = |dialect: Dialect| {
            let mut said = said.as_object().unwrap().clone();
            dialect.speak(&mut said);
            Value::Object(said)
        };
        assert_eq!(spoken(Dialect::default()), said);
        let lower = spoken(Dialect { lower_hex: true, ..Dialect::default() });
        assert_eq!(
            (&lower["SenderID"], &lower["ReceiverID"], &lower["PHYPayload"], &lower["Result"]),
            (&json!("60050a"), &json!("AS.Example"), &json!("00ab"), &said["Result"])
        );
        assert_eq!(lower["ULMetaData"]["GWInfo"][0], json!({ "ID": "0a0b", "RFRegion": "AU915" }));
        let asks = json!({ "CFList": "184F84E85684B85E84886684586E8400" });
        let mut turned = asks.as_object().unwrap().clone();
        Dialect { reversed_cf_list: true, ..Dialect::default() }.speak(&mut turned);
        assert_eq!(turned["CFList"], "00846E58846688845EB88456E8844F18");
        Dialect { reversed_cf_list: true, lower_hex: true, ..Dialect::default() }.speak(&mut turned);
        assert_eq!(turned["CFList"], "184f84e85684b85e84886684586e8400");
        let old = spoken(Dialect { old_regions: true, ..Dialect::default() });
        assert_eq!(old["ULMetaData"]["RFRegion"], "US902");
        assert_eq!(old["ULMetaData"]["GWInfo"][0], json!({ "ID": "0A0B", "RFRegion": "Australia915" }));
    }
}
