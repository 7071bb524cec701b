//! Whatever stands as a name in a certificate or an answer: it names an identifier or not, and an identifier is named
//! in one way only. The suffix is the text behind the first space.

use roamgate::discovery::Suffix;
use roamgate::discovery::name::{
    join_eui_name, join_eui_subtree, net_id_name, parse_join_eui_name, parse_net_id_name,
};
use roamgate::lorawan::JoinEuiRange;
use roamgate::pki::check::is_within;

pub fn fuzz(bytes: &[u8]) {
    let text = super::text(bytes);
    let (name, suffix) = text.split_once(' ').unwrap_or((text, "x"));
    let Ok(suffix) = suffix.parse::<Suffix>() else { return };
    assert_eq!(suffix.as_str().parse(), Ok(suffix.clone()));
    let plain = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if let Some(join_eui) = parse_join_eui_name(name, &suffix) {
        assert_eq!(join_eui_name(join_eui, &suffix), plain);
        let subtree = join_eui_subtree(JoinEuiRange::from(join_eui), &suffix);
        assert!(is_within(name, &[subtree]));
    }
    if let Some(net_id) = parse_net_id_name(name, &suffix) {
        assert_eq!(net_id_name(net_id, &suffix), plain);
    }
    let _ = is_within(name, &[suffix.to_string(), name.to_owned()]);
}
