//! What members send to the registry, and names that anybody asks its name server for: judged, never a panic. The first line is
//! a name, the rest the records of a request (JSON).

use hickory_proto::rr::Name;
use roamgate::registry::rules::{self, Wish};
use roamgate::registry::zone;

pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let origin = Name::from_ascii("iotroam.example.").unwrap();
    if let Ok(name) = Name::from_utf8(name)
        && let Some(place) = zone::place(&name, &origin)
    {
        // where it stands, it is found again
        let again = zone::name(&place, &origin).unwrap();
        assert_eq!(zone::place(&again, &origin), Some(place));
    }
    let _ = rules::under(name);
    if let Ok(wishes) = serde_json::from_str::<Vec<Wish>>(rest)
        && let Ok(granted) = rules::records(&wishes)
    {
        // what was granted can be read again, and says the same
        for record in granted {
            let kind = hickory_proto::rr::RecordType::from(record.kind).to_string();
            let again = Wish { kind, data: record.data.clone(), ttl: Some(record.ttl) };
            if let Ok(again) = rules::records(&[again]) {
                assert_eq!(again[0].data, record.data);
            }
        }
    }
}
