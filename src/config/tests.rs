//! What a person sees when the configuration is wrong, and that a right one is read as it is written.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::lorawan::JoinEuiRange;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    parse(Some("r.toml".into()), text.into(), variables)
}

fn error(text: &str, variables: &[(&str, &str)]) -> String {
    let refused = |loaded: Loaded| match loaded.problems(loaded.config.check()) {
        none if none.is_empty() => panic!("{text} was taken"),
        some => ConfigError::Wrong(some),
    };
    read(text, variables).map_or_else(|error| error, refused).to_string()
}

#[test]
fn a_wrong_file_is_refused_with_line_column_key_and_reason() {
    let table = [
        ("[network\n", "r.toml:1:9: ", "unclosed table"),
        ("[network]\nregion = \"EU86\"\n", "r.toml:2:10: network.region: ", "no region of RP002"),
        ("[network]\nlorawan = \"1.2\"\n", "r.toml:2:11: network.lorawan: ", "is no LoRaWAN version"),
        ("[network]\n\nnet_id = [\"C00ABC\"]\n", "r.toml:3:1: network.net_id: ", "unknown field `net_id`"),
        (
            "[network]\nnet_ids = [\"C00ABC\", \"C00AB\"]\n",
            "r.toml:2:22: network.net_ids[1]: ",
            "6 hexadecimal digits",
        ),
        ("[network]\nnet_ids = []\n", "r.toml:2:11: network.net_ids: ", "at least one NetID"),
        ("[network]\nroles = [\"gns\"]\n", "r.toml:2:10: network.roles[0]: ", "unknown variant `gns`"),
        ("[netwrok]\n", "r.toml:1:2: netwrok: ", "unknown field `netwrok`"),
        (
            "\n[roaming.default]\npassive = { start = 1 }\n",
            "r.toml:3:21: roaming.default.passive.start: ",
            "invalid type",
        ),
        ("[join_server]\nauthorise = \"all\"\n", "r.toml:2:13: join_server.authorise: ", "not \"all\""),
        (
            "[join_server]\njoin_euis = [\"70B3D57ED0000001/40\"]\n",
            "r.toml:2:14: join_server.join_euis[0]: ",
            "digits behind its first 40 bits",
        ),
        (
            "[backend]\nlisten = \"[::]:443\"\nidentity = { chain = \"c.pem\" }\n",
            "r.toml:3:12: backend.identity: ",
            "missing field `key`",
        ),
        (
            "[[radio]]\nkind = \"semtech-udp\"\n[[radio]]\nkind = \"semtech-udp\"\nlissten = \"[::]:1701\"\n",
            "r.toml:5:11: radio[1].lissten: ",
            "unknown field `lissten`",
        ),
        (
            "[[radio]]\nkind = \"semtech-udp\"\nlisten = \"[::]\"\n",
            "r.toml:3:10: radio[0].listen: ",
            "address",
        ),
        ("[[radio]]\nlisten = \"[::]:1700\"\n", "r.toml:1:1: radio[0]: ", "missing field `kind`"),
        ("[application]\nid = \"7\"\n", "r.toml:2:6: application.id: ", "no UUID"),
        (
            "[application.mqtt]\nserver = \"wss://b.example\"\n",
            "r.toml:2:10: application.mqtt.server: ",
            "no way to a broker",
        ),
        (
            "[application.mqtt]\nserver = \"mqtts://b\"\nca = \"c\"\nidentity = { chain = \"c\" }\n",
            "r.toml:4:12: application.mqtt.identity: ",
            "missing field `key`",
        ),
        ("[application.http]\nurl = \"b.example/x\"\n", "r.toml:2:7: application.http.url: ", "no address"),
    ];
    for (text, place, reason) in table {
        let error = error(text, &[]);
        assert!(error.starts_with(place) && error.contains(reason), "{text}: {error}");
        assert!(error.contains("\n  remedy: "), "{error}");
    }
}

#[test]
fn what_the_package_brings_is_right_and_keeps_its_data_where_the_unit_lets_it() {
    let text = include_str!("../../systemd/roamgate.toml");
    let config = read(text, &[]).unwrap().checked().unwrap().config;
    let unit = include_str!("../../systemd/roamgate.service");
    assert!(
        config.store.url.path().starts_with("/var/lib/roamgate")
            && unit.contains("StateDirectory=roamgate\n")
    );
    assert!(
        config.control_socket().starts_with("/run/roamgate") && unit.contains("RuntimeDirectory=roamgate\n")
    );
}

const BACKEND: &str = "[backend]\nlisten = \"[::]:443\"\nidentity = { chain = \"c.pem\", key = \"k.pem\" }\nroots = [\"r.pem\"]\n";
const DISCOVERY: &str = "[discovery]\njoin_eui_suffix = \"j.example\"\nnet_id_suffix = \"n.example\"\n";
const ROAMING: &str = "[roaming.default]\npassive = { start = true, activation = true }\n";

const ELSEWHERE: &str = "[[join_server.elsewhere]]\njoin_euis = [\"0000000000000000/60\"]\nserver = \"https://j\"\n\
    kek = { label = \"a\", key = { credential = \"k\" } }\nas_kek = { label = \"b\", key = { credential = \"k\" } }\n";

/// A [backup] that is right.
const BACKUP: &str = "[backup]\nrecipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]\ndirectory = \"/mnt\"\n";
const FRONT: &str = "[front]\nlisten = \"[::]:443\"\nanyone = true\n";

const APPLICATION: &str =
    "[[join_server.application]]\nas_id = \"as\"\nkek = { label = \"a\", key = { credential = \"k\" } }\n";

#[test]
fn what_cannot_be_together_is_refused_at_its_line() {
    let ours = "[network]\nnet_ids = [\"C00ABC\"]\n[join_server]\njoin_euis = [\"0000000000000001\"]\n";
    let whole = [ours, BACKEND, DISCOVERY, ROAMING].concat();
    assert_eq!(read(&whole, &[]).unwrap().config.check(), []);
    let partner = "[[roaming.partner]]\nnet_id = \"60050A\"\npassive = { start = true }\n";
    let table = [
        (whole.replace("C00ABC", "000001"), "r.toml:2:12: network.net_ids[0]: ", "belongs to nobody"),
        (whole.replace("\"C00ABC\"", "\"C00ABC\", \"C00ABC\""), "r.toml:2:22: network.net_ids[1]: ", "twice"),
        (
            whole.replace("[discovery]\n", "[discovery]\nresolvers = [\"tls://192.0.2.53#dns.example\"]\n"),
            "discovery.resolvers: ",
            "nobody is named who may vouch",
        ),
        (
            whole.replace("[discovery]\n", "[discovery]\ndnssec = \"off\"\ndane = \"require\"\n"),
            "discovery.dane: ",
            "nobody asks for signatures",
        ),
        (
            whole.replace("[discovery]\n", "[discovery]\ndnssec = \"off\"\n")
                + partner
                + "trust = \"pkix-or-dane\"\n",
            "roaming.partner[0].trust: ",
            "nobody asks for signatures",
        ),
        ([ours, DISCOVERY, ROAMING].concat(), "r.toml:8:2: roaming: ", "no [backend]"),
        ([ours, BACKEND, ROAMING].concat(), "r.toml:9:1: roaming.default: ", "no [discovery]"),
        ([ours, BACKEND, partner].concat(), "r.toml:10:10: roaming.partner[0].net_id: ", "no way to find"),
        (whole.clone() + partner + partner, "r.toml:18:10: roaming.partner[1].net_id: ", "two entries"),
        (whole.clone() + &partner.replace("60050A", "C00ABC"), "r.toml:15:10: ", "is our own"),
        (whole.clone() + partner + "server = \"http://x\"\n", "r.toml:17:10: ", "no https:// address"),
        (
            whole.replace("activation = true }", "activation = true, mic_check = true }"),
            "roaming.default.passive.mic_check: ",
            "none is agreed with everybody",
        ),
        (
            whole.clone() + &partner.replace("start = true", "start = true, mic_check = true"),
            "roaming.partner[0].passive.mic_check: ",
            "never travel in the clear",
        ),
        (
            whole.clone() + "handover = { start = true }\n",
            "roaming.default.handover: ",
            "no key-encryption key is agreed with everybody",
        ),
        (
            whole.clone() + "ul = { rate = 0, bucket = 1, policy = \"drop\" }\n",
            "r.toml:14:6: roaming.default.ul: ",
            "1 to 999999 packets",
        ),
        (
            whole.clone() + partner + "dl = { rate = 5, bucket = 0, policy = \"mark\" }\n",
            "roaming.partner[0].dl: ",
            "bucket at least 1",
        ),
        (whole.clone() + "[[roaming.devices]]\n", "roaming.devices[0]: ", "names no device"),
        (
            whole.clone() + &partner.replace("passive", "handover"),
            "roaming.partner[0].handover: ",
            "keys of the session travel",
        ),
        (whole.clone() + APPLICATION + APPLICATION, "join_server.application[1].as_id: ", "two entries"),
        (whole.clone() + partner + "pin = \"sha256/AAAA\"\n", "r.toml:17:7: ", "32 bytes"),
        (whole.clone() + partner + "version = \"1.1\"\n", "r.toml:17:11: ", "carries the NSID"),
        (
            whole.replace("listen = \"[::]:443\"\n", "reachability = { mapped = {} }\n"),
            "backend.reachability.mapped: ",
            "we listen on none",
        ),
        (
            whole.replace("roots", "reachability = { relay = [] }\nroots"),
            "backend.reachability.relay: ",
            "through no front",
        ),
        (
            whole.replace("roots", "reachability = { relay = [{ server = \"front.example\" }] }\nroots"),
            "backend.reachability.relay[0].server: ",
            "no HOST:PORT",
        ),
        (
            whole.replace("roots", "reachability = { relay = [{ server = \"f:1\", pin = \"x\" }] }\nroots"),
            "backend.reachability.relay[0].pin: ",
            "32 bytes",
        ),
        (whole.clone() + ELSEWHERE, "join_server.elsewhere[0].join_euis: ", "in common"),
        (
            whole.clone() + &ELSEWHERE.replace("00/60", "00/64").replace("https", "http"),
            "join_server.elsewhere[0].server: ",
            "mutual TLS only",
        ),
        (
            ELSEWHERE.replace("server = \"https://j\"\n", ""),
            "join_server.elsewhere[0].join_euis: ",
            "no way to find it",
        ),
        (ELSEWHERE.into(), "join_server.elsewhere[0].join_euis: ", "no [backend]"),
        (
            "[[join_server.authorised]]\nnet_ids = [\"60050A\"]\n".into(),
            "join_server.authorised[0].dev_euis: ",
            "no device",
        ),
        (
            "[backend]\nidentity = { folder = \"f\" }\nroots = [\"r\"]\ncrls = [\"https://iot.example/crl.pem\"]\n".into(),
            "backend.crls[0]: ",
            "by http:// alone",
        ),
        (
            "[enrol]\nregistry = \"http://registry.example\"\nkey_file = \"k\"\n".into(),
            "enrol.registry: ",
            "not sent in the clear",
        ),
        (
            "[registry]\nzone = \"iot.example\"\nservers = []\n".into(),
            "registry.servers: ",
            "without a name server",
        ),
        (
            "[registry]\nzone = \"iot.example\"\nservers = [\"ns.iot.example\"]\nnet_id_suffix = \"netids.example\"\n".into(),
            "registry.zone: ",
            "not within the zone",
        ),
        (
            "[backup]\nrecipients = []\ndirectory = \"/mnt\"\n".into(),
            "backup.recipients: ",
            "nobody could open them",
        ),
        ("[update]\nurl = \"http://x.example\"\nroots = [\"r.pem\"]\n".into(), "update.url: ", "not an address"),
        ("[update]\nurl = \"https://x.example/n\"\nroots = []\n".into(), "update.roots: ", "nobody vouches"),
        (BACKUP.replace("directory = \"/mnt\"", ""), "backup.directory: ", "no place"),
        (format!("{BACKUP}every = \"10m\"\n"), "backup.every: ", "wears out"),
        (format!("{BACKUP}keep = 0\n"), "backup.keep: ", "removed as soon"),
        (
            format!("{BACKUP}s3 = {{ endpoint = \"https://s3.example\", bucket = \"b\", access_key = \"a\", secret_file = \"s\" }}\n"),
            "backup.s3.ca: ",
            "nobody vouches",
        ),
        (
            format!("{BACKUP}s3 = {{ endpoint = \"http://s3.example\", bucket = \"b\", access_key = \"a\", secret_file = \"s\" }}\n"),
            "backup.s3.endpoint: ",
            "not an address",
        ),
        (
            "[[join_server.authorised]]\ndev_euis = [\"0102030405060708\"]\n".into(),
            "join_server.authorised[0].net_ids: ",
            "could not roam",
        ),
        (whole.clone() + FRONT, "r.toml:14:2: front: ", "this node is none"),
        ("[network]\nroles = [\"front\"]\n".into(), "r.toml:2:9: network.roles: ", "no [front] says where"),
        (["[network]\nroles = [\"front\"]\n", FRONT].concat(), "front: ", "no identity to show to hotspots"),
        (
            ["[network]\nroles = [\"front\"]\n", BACKEND, &FRONT.replace("anyone = true", "")].concat(),
            "front.hotspot: ",
            "nobody may come",
        ),
        (whole.replace("roots = [\"r.pem\"]", "roots = []"), "r.toml:8:9: backend.roots: ", "no roots"),
        (whole.replace("[\"0000000000000001\"]", "[]"), "r.toml:4:13: join_server.join_euis: ", "visitor"),
        (
            whole.replace("\"0000000000000001\"", "\"0000000000000001\", \"0000000000000000/8\""),
            "r.toml:4:34: join_server.join_euis[1]: ",
            "in common",
        ),
        ("[application]\noutbox = 0\n".into(), "r.toml:2:10: application.outbox: ", "no event"),
        (
            "[application.mqtt]\nserver = \"mqtt://b\"\npassword_file = \"p\"\n".into(),
            "r.toml:3:17: application.mqtt.password_file: ",
            "without a username",
        ),
        (
            "[application.mqtt]\nserver = \"mqtts://b\"\nidentity = { chain = \"c\", key = \"k\" }\n".into(),
            "r.toml:2:10: application.mqtt.server: ",
            "the system's roots are never used",
        ),
        (
            "[application.mqtt]\nserver = \"mqtt://b\"\nca = \"c\"\n".into(),
            "r.toml:3:6: application.mqtt.ca: ",
            "in the clear",
        ),
        (
            "[application.mqtt]\nserver = \"mqtt://b\"\nidentity = { chain = \"c\", key = \"k\" }\n".into(),
            "r.toml:3:12: application.mqtt.identity: ",
            "in the clear",
        ),
        (
            "[application.http]\nurl = \"http://b\"\nheaders = { \"a b\" = \"c\" }\n".into(),
            "r.toml:3:11: application.http.headers: ",
            "no name of an HTTP header",
        ),
        ("[network]\nroles = [\"fns\"]\n".into(), "r.toml:2:9: network.roles: ", "single frame"),
        (
            "[[radio]]\nkind = \"semtech-udp\"\nlisten = \"0.0.0.0:1700\"\n".repeat(2),
            "r.toml:6:10: radio[1].listen: ",
            "same address",
        ),
    ];
    for (text, place, reason) in table {
        let error = error(&text, &[]);
        assert!(error.contains(place) && error.contains(reason), "{text}: {error}");
    }
    let experiment = whole.replace("[\"C00ABC\"]", "[\"000001\"]\nexperimental = true");
    assert_eq!(read(&experiment, &[]).unwrap().config.check(), []);
}

#[test]
fn no_file_is_a_standalone_hotspot() {
    let config = parse(None, String::new(), std::iter::empty()).unwrap().config;
    assert_eq!(config.check(), []);
    assert!(!config.roaming.roams() && config.backend.is_none());
    assert_eq!(config.network.net_ids.first().to_string(), "000000");
    assert_eq!(config.control_socket(), PathBuf::from("./roamgate-data/control.sock"));
    assert_eq!(config.radio.len(), 1);
    assert_eq!(config.to_toml().unwrap(), Config::default().to_toml().unwrap());
}

#[test]
fn a_variable_overrides_a_key_and_takes_its_type() {
    let text = "[network]\nnet_ids = [\"C00ABC\"]\n[[roaming.partner]]\nnet_id = \"60050A\"\n";
    let loaded = read(
        text,
        &[
            ("ROAMGATE__NETWORK__NET_IDS", "[\"000013\", \"C00ABC\"]"),
            ("ROAMGATE__NETWORK__EXPERIMENTAL", "true"),
            ("ROAMGATE__CONTROL__SOCKET", "/run/x.sock"),
            // an integer to TOML, text to us
            ("ROAMGATE__ROAMING__PARTNER__0__NET_ID", "600511"),
            ("ROAMGATE__BACKEND__LISTEN", "127.0.0.1:443"),
            ("ROAMGATE__BACKEND__IDENTITY__CHAIN", "c.pem"),
            ("ROAMGATE__BACKEND__IDENTITY__KEY", "k.pem"),
            ("ROAMGATE_OTHER", "no"),
            ("PATH", "no"),
        ],
    );
    let config = loaded.unwrap().config;
    assert_eq!(config.network.net_ids.first().to_string(), "000013");
    assert!(config.network.experimental);
    assert_eq!(config.control_socket(), PathBuf::from("/run/x.sock"));
    assert_eq!(config.roaming.partner[0].net_id.to_string(), "600511");
    assert_eq!(config.backend.unwrap().identity.key(), PathBuf::from("k.pem"));
}

#[test]
fn a_wrong_variable_is_named_and_the_file_keeps_its_lines() {
    let text = "[network]\nregion = \"EU868\"\n";
    let table = [
        (
            "ROAMGATE__NETWORK__REGION",
            "XX",
            "environment variable ROAMGATE__NETWORK__REGION: network.region: ",
        ),
        ("ROAMGATE__NETWRK__REGION", "XX", "environment variable ROAMGATE__NETWRK__REGION: netwrk: "),
        ("ROAMGATE__NETWORK__REGION__X", "1", "environment variable ROAMGATE__NETWORK__REGION__X: "),
        ("ROAMGATE__", "1", "environment variable ROAMGATE__: "),
        (
            "ROAMGATE__NETWORK__EXPERIMENTAL",
            "5",
            "environment variable ROAMGATE__NETWORK__EXPERIMENTAL: network.experimental: invalid type: integer",
        ),
        (
            "ROAMGATE__NETWORK__ROLES",
            "[\"gns\"]",
            "environment variable ROAMGATE__NETWORK__ROLES: network.roles[0]: unknown variant",
        ),
    ];
    for (name, value, begin) in table {
        let error = error(text, &[(name, value)]);
        assert!(error.starts_with(begin), "{error}");
    }
    let error = error("[network]\n\nregion = \"XX\"\n", &[("ROAMGATE__NETWORK__EXPERIMENTAL", "true")]);
    assert!(error.starts_with("r.toml:3:10: network.region: "), "{error}");
}

#[test]
fn a_refusal_names_the_variable_that_caused_it() {
    let text = ["[join_server]\njoin_euis = [\"0000000000000001\"]\n", BACKEND, DISCOVERY, ROAMING].concat();
    let error = error(&text, &[("ROAMGATE__NETWORK__NET_IDS", "[\"000001\"]")]);
    assert!(
        error.starts_with("environment variable ROAMGATE__NETWORK__NET_IDS: network.net_ids[0]: "),
        "{error}"
    );
}

#[test]
fn files_that_are_not_there_are_named_with_their_line() {
    let loaded = read(BACKEND, &[]).unwrap();
    let error = loaded.checked().unwrap_err().to_string();
    assert!(error.contains("r.toml:3:22: backend.identity.chain: cannot read c.pem"), "{error}");
    assert!(error.contains("r.toml:4:10: backend.roots[0]: cannot read r.pem"), "{error}");
}

#[test]
fn what_show_prints_of_a_hotspot_without_a_radio_is_read_the_same() {
    let text =
        read("radio = []\n[network]\nnet_ids = [\"000001\"]\n", &[]).unwrap().config.to_toml().unwrap();
    assert!(text.starts_with("radio = []\n"), "{text}");
    assert_eq!(read(&text, &[]).unwrap().config.to_toml().unwrap(), text);
}

proptest! {
    #[test]
    fn what_show_prints_is_read_the_same(
        net_ids in prop::collection::vec(0_u32..0x100_0000, 1..4),
        partner in 0_u32..0x100_0000,
        flags in any::<[bool; 5]>(),
        join_eui: u64,
        socket in "[a-z\"\\\\ #]{1,12}",
    ) {
        let [experimental, start, activation, backend, default] = flags;
        let passive = partners::Passive { start, activation, ..Default::default() };
        let mut config = Config::default();
        config.network.net_ids = NetIds(net_ids.into_iter().filter_map(NetId::new).collect());
        config.network.experimental = experimental;
        config.roaming.default = default.then(|| partners::Rules { passive: passive.clone(), ..Default::default() });
        let entry = format!("net_id = \"{partner:06X}\"\npin = \"x\"");
        let mut entry: partners::Partner = toml::from_str(&entry).unwrap();
        entry.passive = passive;
        config.roaming.partner.push(entry);
        config.backend = backend.then(|| toml::from_str::<Config>(BACKEND).unwrap().backend.unwrap());
        let range = JoinEuiRange::from(crate::lorawan::JoinEui::from_msb(join_eui.to_be_bytes()));
        config.join_server.join_euis.push(range);
        config.control.socket = Some(socket.into());
        config.application.id = Some(config.application.id(config.network.net_ids.first()));
        config.application.name = "the \"attic\"".into();
        config.application.mqtt = start.then(|| toml::from_str("server = \"mqtt://b\"\nusername = \"u\"").unwrap());
        config.application.http = default.then(|| toml::from_str("url = \"http://b/\"\nheaders = { a = \"b\" }").unwrap());
        let text = config.to_toml().unwrap();
        let again = Config { file: None, ..read(&text, &[]).unwrap().config };
        prop_assert_eq!(again.to_toml().unwrap(), text);
        prop_assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }

    #[test]
    fn any_text_is_a_configuration_or_an_error(text in "[\\[\\]a-z=\"{}., \n0-9_#]{0,80}", value: String) {
        let _ = read(&text, &[]);
        let _ = read(&text, &[("ROAMGATE__NETWORK__REGION", &value)]);
    }
}

#[test]
fn a_concentrator_that_cannot_hear_the_region_is_refused_before_it_is_started() {
    let us = "[network]\nregion = \"US915\"\n[[radio]]\nkind = \"sx1302\"\nmodel = true\n";
    let refused = error(us, &[]);
    assert!(refused.contains("r.toml:3:1: radio[0]: US915 has 72 channels"), "{refused}");
    assert!(refused.contains("network.sub_bands"), "{refused}");
    let one = us.replace("[[radio]]", "sub_bands = [2]\n[[radio]]");
    assert_eq!(read(&one, &[]).unwrap().config.check(), []);
    let refused = error(&(one + "beacon = true\n"), &[]);
    assert!(refused.contains("radio[0]: beacons want the time") && refused.contains("`gps`"), "{refused}");
}

#[test]
fn sub_bands_and_dwell_time_are_taken_where_the_region_has_them() {
    let table = [
        ("region = \"US915\"\nsub_bands = [0]", "network.sub_bands[0]: US915 has no sub-band 0", "1 to 8"),
        ("region = \"AU915\"\nsub_bands = [2, 9]", "network.sub_bands[1]: AU915 has no sub-band 9", "1 to 8"),
        ("region = \"US915\"\nsub_bands = [2, 2]", "sub-band 2 is listed twice", "once"),
        ("region = \"EU868\"\nsub_bands = [2]", "EU868 has no sub-bands", "remove it"),
        ("sub_bands = [1]", "network.sub_bands: EU868 has no sub-bands", "remove it"),
        ("region = \"CN470\"\nsub_bands = [13]", "CN470 has no sub-band 13", "1 to 12"),
        ("region = \"US915\"\nsub_bands = [300]", "network.sub_bands[0]: ", "u8"),
        (
            "region = \"US915\"\ndwell_time = \"none\"",
            "the dwell time of US915 is law and fixed",
            "remove it",
        ),
        ("region = \"IN865\"\ndwell_time = \"400ms\"", "IN865 has no dwell time", "remove it"),
        ("region = \"AS923\"\ndwell_time = \"1s\"", "unknown variant `1s`", "400ms"),
        ("region = \"ISM2400\"", "no radio here speaks", "below 1 GHz"),
    ];
    for (text, reason, remedy) in table {
        let error = error(&format!("[network]\n{text}\n"), &[]);
        assert!(error.contains(reason) && error.contains(remedy), "{text}: {error}");
    }
    let taken = |text: &str| {
        let loaded = read(&format!("[network]\n{text}\n"), &[]).unwrap();
        assert_eq!(loaded.config.check(), []);
        let again = read(&loaded.config.to_toml().unwrap(), &[]).unwrap().config.network.plan();
        let plan = loaded.config.network.plan();
        assert_eq!((again.sub_bands(), again.uplink_dwell()), (plan.sub_bands(), plan.uplink_dwell()));
        plan
    };
    let us = taken("region = \"US902\"\nsub_bands = [2]");
    assert_eq!((us.to_string(), us.sub_bands().to_string()), ("US915".into(), "2".into()));
    assert!(taken("region = \"US915\"").is_whole());
    assert_eq!(taken("region = \"AS923\"\ndwell_time = \"none\"").uplink_dwell(), None);
    assert!(taken("region = \"AS923\"").uplink_dwell().is_some());
}
