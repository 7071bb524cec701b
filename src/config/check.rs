//! What cannot be, although every value by itself can: combinations, and files that are not there.

use std::path::PathBuf;

use super::{Config, Network, Role};
use crate::backend::tunnel;
use crate::limits::RateLimit;
use crate::lorawan::{JoinEuiRange, NetId};
use crate::partners::{KekKey, Version};
use crate::pki::dane::Evidence;
use crate::pki::enrol;
use crate::{application, backend, discovery, radio, update};

/// A combination of values that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the key: `network.net_ids[1]`.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Config {
    /// What cannot be, although every value by itself can.
    pub fn check(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let mut refuse = |key: String, reason: String, remedy: &str| {
            refusals.push(Refusal { key, reason, remedy: remedy.into() });
        };
        let roams = self.roaming.roams();
        let net_ids = self.network.net_ids.all();
        for (i, net_id) in net_ids.iter().enumerate() {
            let key = format!("network.net_ids[{i}]");
            if net_ids.iter().take(i).any(|earlier| earlier == net_id) {
                refuse(key.clone(), format!("NetID {net_id} is listed twice"), "list it once");
            }
            if roams && !self.network.experimental && is_nobodys(*net_id) {
                refuse(
                    key,
                    format!("NetID {net_id} belongs to nobody, and roaming is on"),
                    "use the NetID that the LoRa Alliance or your federation gave you; for an experiment set network.experimental = true",
                );
            }
        }
        for (i, partner) in self.roaming.partner.iter().enumerate() {
            let at = |field: &str| format!("roaming.partner[{i}].{field}");
            let name = partner.net_id;
            if self.roaming.partner.iter().take(i).any(|earlier| earlier.net_id == name) {
                refuse(at("net_id"), format!("NetID {name} has two entries"), "make them one");
            }
            if self.network.net_ids.contains(name) {
                refuse(
                    at("net_id"),
                    format!("NetID {name} is our own, and nobody roams at home"),
                    "remove the entry, or the NetID from network.net_ids",
                );
            }
            if !self.network.experimental && is_nobodys(name) {
                refuse(
                    at("net_id"),
                    format!("NetID {name} belongs to nobody"),
                    "use the partner's own NetID; for an experiment set network.experimental = true",
                );
            }
            if let Some(server) = &partner.server
                && !server.starts_with("https://")
            {
                refuse(
                    at("server"),
                    format!("{server:?} is no https:// address: partners are reached over mutual TLS only"),
                    "write https://HOST:PORT",
                );
            }
            if let Some(pin) = &partner.pin
                && !is_pin(pin)
            {
                refuse(
                    at("pin"),
                    "a pin is sha256/ and the base64 form of 32 bytes".into(),
                    "`roamgate pki inspect CERTIFICATE` prints it",
                );
            }
            if partner.passive.mic_check && partner.kek.is_none() {
                refuse(
                    at("passive.mic_check"),
                    "MIC checks at the forwarding network need a key, and keys never travel in the clear"
                        .into(),
                    "agree on a key with the partner: kek = { label = \"...\", key = { file = \"...\" } }",
                );
            }
            if partner.handover.any() && partner.kek.is_none() {
                refuse(
                    at("handover"),
                    "with handover roaming the keys of the session travel, and never in the clear".into(),
                    "agree on a key with the partner: kek = { label = \"...\", key = { file = \"...\" } }",
                );
            }
            if partner.version == Version::V1_1 && self.network.ns_id.is_none() {
                refuse(
                    at("version"),
                    "a request of TS002 1.1 carries the NSID of its sender, and there is none".into(),
                    "set ns_id in [network] to an EUI-64 of yours, or leave version out",
                );
            }
            let on = partner.passive.any() || partner.handover.any();
            if on && partner.server.is_none() && self.discovery.is_none() {
                refuse(
                    at("net_id"),
                    format!("there is no way to find NetID {name}: no server, and no [discovery]"),
                    "add server = \"https://...\" to the entry, or a section [discovery]",
                );
            }
        }
        let of_default =
            self.roaming.default.iter().map(|rules| ("roaming.default".to_owned(), rules.ul, rules.dl));
        let partners = self.roaming.partner.iter().enumerate();
        let of_partners = partners.map(|(i, entry)| (format!("roaming.partner[{i}]"), entry.ul, entry.dl));
        for (at, ul, dl) in of_default.chain(of_partners) {
            for (name, limit) in [("ul", ul), ("dl", dl)] {
                let most = RateLimit::NONE.rate;
                if limit.is_some_and(|limit| !(1..most).contains(&limit.rate) || limit.bucket == 0) {
                    refuse(
                        format!("{at}.{name}"),
                        format!("rate is 1 to {} packets an hour, and bucket at least 1", most - 1),
                        "leave the key out for no limit",
                    );
                }
            }
        }
        for (i, devices) in self.roaming.devices.iter().enumerate() {
            if devices.join_euis.is_empty() && devices.dev_euis.is_empty() {
                refuse(
                    format!("roaming.devices[{i}]"),
                    "it names no device, so it decides nothing".into(),
                    "list join_euis or dev_euis; 0000000000000000/0 is every JoinEUI",
                );
            }
        }
        let default = self.roaming.default.as_ref().map(|rules| &rules.passive);
        if default.is_some_and(|passive| passive.mic_check) {
            refuse(
                "roaming.default.passive.mic_check".into(),
                "MIC checks need a key-encryption key, and none is agreed with everybody".into(),
                "set it in the [[roaming.partner]] entries that have a kek",
            );
        }
        if self.roaming.default.as_ref().is_some_and(|rules| rules.handover.any()) {
            refuse(
                "roaming.default.handover".into(),
                "with handover roaming the keys of the session travel, and no key-encryption key is agreed with everybody"
                    .into(),
                "set it in the [[roaming.partner]] entries that have a kek",
            );
        }
        if default.is_some_and(|passive| passive.any()) && self.discovery.is_none() {
            refuse(
                "roaming.default".into(),
                "strangers may roam, but there is no [discovery] to find their homes with".into(),
                "add a section [discovery] with the suffixes of your federation, or remove [roaming.default]",
            );
        }
        let over_tls = |discovery: &&discovery::Config| {
            discovery.resolvers.iter().any(|server| matches!(server, discovery::Server::Tls { .. }))
        };
        if self.discovery.as_ref().filter(over_tls).is_some_and(|discovery| discovery.tls_roots.is_empty()) {
            refuse(
                "discovery.resolvers".into(),
                "a resolver is asked over TLS, and nobody is named who may vouch for it".into(),
                "add tls_roots = [\"...\"] with the PEM files of its roots",
            );
        }
        let proves =
            self.discovery.as_ref().is_some_and(|discovery| discovery.dnssec != discovery::Dnssec::Off);
        let wants = self.roaming.partner.iter().enumerate().filter(|(_, partner)| {
            partner.trust.is_some_and(|trust| trust.asks() && trust != Evidence::PkixAndDaneIfAny)
        });
        let wants = wants.map(|(i, _)| format!("roaming.partner[{i}].trust"));
        let required = self.discovery.as_ref().filter(|discovery| discovery.dane == discovery::Dane::Require);
        for key in wants.chain(required.map(|_| "discovery.dane".to_owned())).filter(|_| !proves) {
            refuse(
                key,
                "a TLSA record counts only where DNSSEC proves it, and nobody asks for signatures".into(),
                "add a section [discovery], with dnssec = \"require\" or \"prefer\"",
            );
        }
        if roams && self.backend.is_none() {
            refuse(
                "roaming".into(),
                "roaming is on, but there is no [backend] with an identity to show to partners".into(),
                "add a section [backend] with identity = { chain, key } and roots, or remove [roaming]; `roamgate pki` makes certificates",
            );
        }
        if let Some(backend) = &self.backend
            && backend.roots.is_empty()
            && self.roaming.partner.iter().all(|partner| partner.roots.is_empty())
        {
            refuse(
                "backend.roots".into(),
                "no roots: no partner's certificate could ever be trusted, and the system's roots are never used".into(),
                "list the root certificate of your federation: roots = [\"/etc/roamgate/pki/root.pem\"]",
            );
        }
        self.check_federation(&mut refuse);
        self.check_backup(&mut refuse);
        if let Some(Err(error)) = self.update.as_ref().map(update::Config::address) {
            refuse(
                "update.url".into(),
                error.to_string(),
                "the address that whoever makes the program publishes",
            );
        }
        if self.update.as_ref().is_some_and(|update| update.roots.is_empty()) {
            let reason = "nobody vouches for the server, and the system's roots are never used";
            refuse("update.roots".into(), reason.into(), "name a PEM file of the roots that may");
        }
        let ranges = &self.join_server.join_euis;
        for (i, range) in ranges.iter().enumerate() {
            if let Some(earlier) = ranges.iter().take(i).find(|earlier| overlap(**earlier, *range)) {
                refuse(
                    format!("join_server.join_euis[{i}]"),
                    format!("{range} and {earlier} have JoinEUIs in common"),
                    "keep the wider one",
                );
            }
        }
        let servers = &self.join_server.application;
        for (i, server) in servers.iter().enumerate() {
            if servers.iter().take(i).any(|earlier| earlier.as_id == server.as_id) {
                refuse(
                    format!("join_server.application[{i}].as_id"),
                    format!("two entries for application server {:?}", server.as_id),
                    "keep one: it may list any number of devices",
                );
            }
        }
        for (i, authorised) in self.join_server.authorised.iter().enumerate() {
            let at = |field: &str| format!("join_server.authorised[{i}].{field}");
            if authorised.join_euis.is_empty() && authorised.dev_euis.is_empty() {
                refuse(at("dev_euis"), "an entry for no device".into(), "list join_euis or dev_euis");
            }
            if authorised.net_ids.is_empty() {
                let reason = "an entry for no network: its devices could not roam at all".into();
                refuse(
                    at("net_ids"),
                    reason,
                    "list the networks that may ask for them; yours alone: they stay at home",
                );
            }
        }
        for (i, elsewhere) in self.join_server.elsewhere.iter().enumerate() {
            let at = |field: &str| format!("join_server.elsewhere[{i}].{field}");
            for range in &elsewhere.join_euis {
                let before = self.join_server.elsewhere.iter().take(i).flat_map(|other| &other.join_euis);
                if let Some(other) = ranges.iter().chain(before).find(|other| overlap(**other, *range)) {
                    let reason = format!(
                        "{range} and {other}, which is another join server's, have JoinEUIs in common"
                    );
                    refuse(at("join_euis"), reason, "each JoinEUI has one join server");
                }
            }
            if elsewhere.join_euis.is_empty() {
                refuse(at("join_euis"), "a join server for no JoinEUI".into(), "list those of your devices");
            }
            if elsewhere.version == Version::V1_1 && self.network.ns_id.is_none() {
                refuse(
                    at("version"),
                    "a request of TS002 1.1 carries the NSID of its sender, and there is none".into(),
                    "set ns_id in [network] to an EUI-64 of yours, or leave version out",
                );
            }
            if let Some(server) = elsewhere.server.as_ref().filter(|server| !server.starts_with("https://")) {
                let reason = format!(
                    "{server:?} is no https:// address: join servers are reached over mutual TLS only"
                );
                refuse(at("server"), reason, "write https://HOST:PORT");
            }
            if elsewhere.server.is_none() && self.discovery.is_none() {
                let reason = "there is no way to find it: no server, and no [discovery]".into();
                refuse(at("join_euis"), reason, "add server = \"https://...\", or a section [discovery]");
            }
            if self.backend.is_none() {
                let reason =
                    "a join server elsewhere, and no [backend] with an identity to show to it".into();
                let remedy = "add a section [backend] with identity = { chain, key } and roots";
                refuse(at("join_euis"), reason, remedy);
            }
        }
        if roams && self.network.roles.has(Role::Js) && ranges.is_empty() {
            refuse(
                "join_server.join_euis".into(),
                "roaming is on, and no JoinEUI is listed: our join server would take every visitor for its own".into(),
                "list the JoinEUIs of your devices, or remove \"js\" from network.roles",
            );
        }
        let is_front = self.network.roles.has(Role::Front);
        if !roams && !self.network.roles.has(Role::Sns) && !is_front {
            refuse(
                "network.roles".into(),
                "without \"sns\" and without roaming nobody would serve a single frame".into(),
                "add \"sns\", or turn roaming on",
            );
        }
        self.check_reachability(&mut refuse);
        self.check_region(&mut refuse);
        self.check_radios(&mut refuse);
        self.check_application(&mut refuse);
        refusals
    }

    fn check_reachability(&self, refuse: &mut impl FnMut(String, String, &str)) {
        let pin_remedy = "`roamgate pki inspect CERTIFICATE` prints it";
        let fronts = self.backend.iter().flat_map(|backend| backend.reachability.fronts());
        for (i, front) in fronts.enumerate() {
            let at = |field: &str| format!("backend.reachability.relay[{i}].{field}");
            if tunnel::host_of(&front.server).is_none() {
                let reason = format!("{:?} is no HOST:PORT", front.server);
                refuse(at("server"), reason, "write for example \"front.example.org:443\"");
            }
            if front.pin.as_ref().is_some_and(|pin| !is_pin(pin)) {
                let reason = "a pin is sha256/ and the base64 form of 32 bytes".into();
                refuse(at("pin"), reason, pin_remedy);
            }
        }
        if self.backend.as_ref().is_some_and(|backend| {
            matches!(backend.reachability, backend::Reachability::Mapped(_))
                && backend.listen.is_none_or(|listen| listen.port() == 0)
        }) {
            let reason = "the router is asked to forward a port to us, and we listen on none".into();
            refuse(
                "backend.reachability.mapped".into(),
                reason,
                "set backend.listen, for example to \"[::]:443\"",
            );
        }
        if self.backend.as_ref().is_some_and(
            |backend| matches!(&backend.reachability, backend::Reachability::Relay(fronts) if fronts.is_empty()),
        ) {
            let reason = "a relay through no front: nobody could reach us".into();
            let remedy = "name one: { relay = [{ server = \"front.example.org:443\" }] }, or write \"direct\"";
            refuse("backend.reachability.relay".into(), reason, remedy);
        }
        match (&self.front, self.network.roles.has(Role::Front)) {
            (Some(_), false) => refuse(
                "front".into(),
                "there is a [front], and this node is none".into(),
                "add \"front\" to network.roles, or remove the section",
            ),
            (None, true) => refuse(
                "network.roles".into(),
                "\"front\" is among them, and no [front] says where it listens".into(),
                "add a section [front] with listen = \"[::]:443\"",
            ),
            (Some(front), true) => {
                if self.backend.is_none() {
                    refuse(
                        "front".into(),
                        "a front without [backend] has no identity to show to hotspots, and no roots to know them by"
                            .into(),
                        "add a section [backend] with identity = { chain, key } and roots",
                    );
                }
                if !front.anyone && front.hotspot.is_empty() {
                    refuse(
                        "front.hotspot".into(),
                        "nobody may come to this front".into(),
                        "list hotspots: [[front.hotspot]] identity = \"c00abc.netids.iotroam.example\", or set anyone = true",
                    );
                }
            }
            (None, false) => {}
        }
    }

    /// Our account at the federation's registry, and the registry itself.
    fn check_federation(&self, refuse: &mut impl FnMut(String, String, &str)) {
        if let Some(Err(why)) = self.enrol.as_ref().map(enrol::Config::url) {
            let remedy =
                "write https://HOST as the registry's operator says; plain http for this machine only";
            refuse("enrol.registry".into(), why.into(), remedy);
        }
        if self.enrol.is_some() && self.backend.is_none() {
            refuse(
                "enrol".into(),
                "there is no [backend] whose certificate could be renewed".into(),
                "add a section [backend] with identity = { folder = ... } and roots",
            );
        }
        let lists = self.backend.iter().flat_map(|backend| &backend.crls).enumerate();
        for (i, _) in lists.filter(|(_, list)| list.contains("://") && !list.starts_with("http://")) {
            let reason = "a list is signed by its authority and is fetched by http:// alone; the system's roots are never used";
            refuse(format!("backend.crls[{i}]"), reason.into(), "write http://, or name a file");
        }
        let Some(registry) = &self.registry else { return };
        if registry.servers.is_empty() {
            let remedy = "name the zone's name servers, this one first: servers = [\"ns1.iotroam.example\"]";
            refuse(
                "registry.servers".into(),
                "a zone without a name server is found by nobody".into(),
                remedy,
            );
        }
        if let Err(error) = registry.suffixes() {
            let remedy = "names of NetIDs and JoinEUIs stand within the zone that is served";
            refuse("registry.zone".into(), error.to_string(), remedy);
        }
    }

    /// A backup now and then.
    fn check_backup(&self, refuse: &mut impl FnMut(String, String, &str)) {
        let Some(backup) = &self.backup else { return };
        let mut at =
            |key: &str, reason: &str, remedy: &str| refuse(format!("backup.{key}"), reason.into(), remedy);
        if backup.recipients.is_empty() {
            at(
                "recipients",
                "nobody could open them",
                "`roamgate backup key FILE` makes a key and says its recipient",
            );
        }
        if backup.directory.is_none() && backup.s3.is_none() && backup.partner.is_none() {
            at("directory", "there is no place for them", "name a directory, an s3 bucket or a partner");
        }
        match backup.partner {
            Some(partner) if self.network.net_ids.all().contains(&partner) => {
                at("partner", "that is ourselves", "name the NetID of somebody else's network");
            }
            Some(_) if self.backend.is_none() => at(
                "partner",
                "nobody can be reached without a certificate",
                "set up [backend]: `roamgate certificate` helps",
            ),
            _ => {}
        }
        if backup.every.seconds() < 3600 {
            at("every", "more than one an hour wears out what it is kept on", "write 1h or longer");
        }
        if backup.keep == 0 {
            at("keep", "each would be removed as soon as it is made", "keep one at least");
        }
        if let Some(bucket) = &backup.s3 {
            let url = bucket.endpoint.parse::<url::Url>().ok();
            let here = url.as_ref().and_then(url::Url::host_str).is_some_and(|host| {
                host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            });
            match url.as_ref().map(url::Url::scheme) {
                Some("https") if bucket.ca.is_none() => at(
                    "s3.ca",
                    "nobody vouches for the server, and the system's roots are never used",
                    "name a PEM file of the roots that may, such as that of its provider",
                ),
                Some("https") => {}
                Some("http") if here => {}
                _ => at("s3.endpoint", "not an address: https://HOST", "plain http for this machine only"),
            }
        }
    }

    fn check_region(&self, refuse: &mut impl FnMut(String, String, &str)) {
        let Network { region, sub_bands, dwell_time, .. } = &self.network;
        let count = region.sub_band_count();
        if region.to_string() == "ISM2400" {
            refuse(
                "network.region".into(),
                "ISM2400 is modulated with a coding rate that no radio here speaks".into(),
                "choose the region of your gateways below 1 GHz",
            );
        }
        for (i, number) in sub_bands.iter().enumerate() {
            let key = format!("network.sub_bands[{i}]");
            if count == 0 {
                let reason = format!("{region} has no sub-bands: its devices learn single channels");
                refuse(
                    "network.sub_bands".into(),
                    reason,
                    "remove it; US915, AU915 and CN470 have sub-bands",
                );
                break;
            } else if !(1..=count).contains(number) {
                let reason = format!("{region} has no sub-band {number}");
                refuse(
                    key,
                    reason,
                    &format!("1 to {count}, each for eight channels that your gateways listen to"),
                );
            } else if sub_bands.iter().take(i).any(|earlier| earlier == number) {
                refuse(key, format!("sub-band {number} is listed twice"), "list it once");
            }
        }
        if dwell_time.is_some() && !region.negotiates_dwell() {
            let reason = match region.uplink_dwell() {
                Some(_) => format!("the dwell time of {region} is law and fixed"),
                None => format!("{region} has no dwell time"),
            };
            refuse("network.dwell_time".into(), reason, "remove it; AS923 and AU915 let the network choose");
        }
    }

    fn check_radios(&self, refuse: &mut impl FnMut(String, String, &str)) {
        let region = self.network.plan();
        for (i, radio) in self.radio.iter().enumerate() {
            if let radio::Config::Sx1302(radio) = radio
                && let Err(error) = radio.check(&region)
            {
                refuse(format!("radio[{i}]"), error.to_string(), error.remedy());
            }
        }
        let listens: Vec<_> = self
            .radio
            .iter()
            .map(|radio| match radio {
                radio::Config::SemtechUdp(radio) => Some(radio.listen),
                radio::Config::Sx1302(_) => None,
            })
            .collect();
        for (i, listen) in listens.iter().enumerate().filter(|(_, listen)| listen.is_some()) {
            if listens.iter().take(i).any(|earlier| earlier == listen) {
                refuse(
                    format!("radio[{i}].listen"),
                    "two radios listen on the same address and port".into(),
                    "one entry serves any number of packet forwarders: remove the other",
                );
            }
        }
    }

    fn check_application(&self, refuse: &mut impl FnMut(String, String, &str)) {
        let application = &self.application;
        if application.outbox == 0 {
            let reason = "an outbox for no event: nothing could be delivered".into();
            refuse("application.outbox".into(), reason, "1 or more; 10000 is the default");
        }
        if let Some(mqtt) = &application.mqtt
            && mqtt.password_file.is_some()
            && mqtt.username.is_none()
        {
            let reason = "a password without a username: MQTT knows none".into();
            refuse("application.mqtt.password_file".into(), reason, "add username = \"...\"");
        }
        if let Some(mqtt) = &application.mqtt {
            if mqtt.server.is_tls() && mqtt.ca.is_none() {
                refuse(
                    "application.mqtt.server".into(),
                    "mqtts without a root that vouches for the broker; the system's roots are never used"
                        .into(),
                    "add ca = \"FILE\" with the root certificate of the broker's authority",
                );
            }
            let named = [("ca", mqtt.ca.is_some()), ("identity", mqtt.identity.is_some())];
            for (field, _) in named.iter().filter(|(_, is_named)| *is_named && !mqtt.server.is_tls()) {
                refuse(
                    format!("application.mqtt.{field}"),
                    format!(
                        "{field} is for TLS, and the connection to {} would be in the clear",
                        mqtt.server
                    ),
                    "write server = \"mqtts://HOST:PORT\", or remove it",
                );
            }
        }
        if let Some(client_id) = application.mqtt.as_ref().and_then(|mqtt| mqtt.client_id.as_deref())
            && (client_id.is_empty() || client_id.starts_with(' '))
        {
            let reason = "a client id that is empty or begins with a space".into();
            refuse(
                "application.mqtt.client_id".into(),
                reason,
                "remove it: this installation has one of its own",
            );
        }
        if let Some(Err(reason)) = application.http.as_ref().map(application::http::Config::header_map) {
            refuse("application.http.headers".into(), reason, "names and values are printable ASCII");
        }
    }

    /// Files that the configuration names, by key.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        if let Some(backend) = &self.backend {
            files.push(("backend.identity.chain".into(), backend.identity.chain()));
            files.push(("backend.identity.key".into(), backend.identity.key()));
            files.extend(self.enrol.iter().map(|enrol| ("enrol.key_file".into(), enrol.key_file.clone())));
            let lists = backend.crls.iter().filter(|list| !list.contains("://")).enumerate();
            files.extend(lists.map(|(i, list)| (format!("backend.crls[{i}]"), PathBuf::from(list))));
            let roots = backend.roots.iter().enumerate();
            files.extend(roots.map(|(i, root)| (format!("backend.roots[{i}]"), root.clone())));
        }
        for (i, partner) in self.roaming.partner.iter().enumerate() {
            let roots = partner.roots.iter().enumerate();
            files.extend(roots.map(|(n, root)| (format!("roaming.partner[{i}].roots[{n}]"), root.clone())));
            if let Some(KekKey::File(path)) = partner.kek.as_ref().map(|kek| &kek.key) {
                files.push((format!("roaming.partner[{i}].kek.key"), path.clone()));
            }
        }
        for (i, application) in self.join_server.application.iter().enumerate() {
            if let KekKey::File(path) = &application.kek.key {
                files.push((format!("join_server.application[{i}].kek.key"), path.clone()));
            }
        }
        for (i, elsewhere) in self.join_server.elsewhere.iter().enumerate() {
            for (name, kek) in [("kek", &elsewhere.kek), ("as_kek", &elsewhere.as_kek)] {
                if let KekKey::File(path) = &kek.key {
                    files.push((format!("join_server.elsewhere[{i}].{name}.key"), path.clone()));
                }
            }
        }
        if let Some(discovery) = &self.discovery {
            files.extend(
                discovery.trust_anchor.iter().map(|path| ("discovery.trust_anchor".into(), path.clone())),
            );
            files.extend(discovery.tls_roots.iter().map(|path| ("discovery.tls_roots".into(), path.clone())));
        }
        let primary = self.registry.as_ref().and_then(|registry| registry.primary.as_ref());
        files.extend(
            primary.map(|primary| ("registry.primary.secret_file".into(), primary.secret_file.clone())),
        );
        if let Some(authority) = self.registry.as_ref().and_then(|registry| registry.authority.as_ref()) {
            for name in ["intermediate.pem", "intermediate-key.pem"] {
                files.push(("registry.authority".into(), authority.join(name)));
            }
        }
        let roots = self.update.iter().flat_map(|update| &update.roots);
        files.extend(roots.map(|path| ("update.roots".into(), path.clone())));
        let bucket = self.backup.as_ref().and_then(|backup| backup.s3.as_ref());
        files.extend(bucket.map(|bucket| ("backup.s3.secret_file".into(), bucket.secret_file.clone())));
        if let Some(path) = self.application.mqtt.as_ref().and_then(|mqtt| mqtt.password_file.clone()) {
            files.push(("application.mqtt.password_file".into(), path));
        }
        if let Some(path) = self.application.http.as_ref().and_then(|http| http.ca.clone()) {
            files.push(("application.http.ca".into(), path));
        }
        if let Some(mqtt) = &self.application.mqtt {
            files.extend(mqtt.ca.iter().map(|ca| ("application.mqtt.ca".into(), ca.clone())));
            if let Some(identity) = &mqtt.identity {
                files.push(("application.mqtt.identity.chain".into(), identity.chain.clone()));
                files.push(("application.mqtt.identity.key".into(), identity.key.clone()));
            }
        }
        files
    }

    /// Those of them that cannot be read.
    pub fn check_files(&self) -> Vec<Refusal> {
        let files = self.files();
        let unreadable = |(key, path): (String, PathBuf)| {
            let error = std::fs::File::open(&path).err()?;
            let remedy = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "let the user that runs roamgate read it",
                _ => "correct the path, or put the file there",
            };
            let reason = format!("cannot read {}: {error}", path.display());
            Some(Refusal { key, reason, remedy: remedy.into() })
        };
        let mut refusals: Vec<Refusal> = files.into_iter().filter_map(unreadable).collect();
        let mqtt = self.application.mqtt.as_ref().filter(|mqtt| mqtt.ca.is_some());
        if refusals.is_empty()
            && let Some(Err(error)) = mqtt.map(application::mqtt::Config::credentials)
        {
            refusals.push(Refusal {
                key: "application.mqtt".into(),
                reason: error.to_string(),
                remedy: "correct the file, or name another".into(),
            });
        }
        refusals
    }
}

/// 000000 and 000001 are for experiments and private networks (TS002 table 2).
fn is_nobodys(net_id: NetId) -> bool {
    matches!(net_id.to_msb(), [0, 0, 0 | 1])
}

fn overlap(a: JoinEuiRange, b: JoinEuiRange) -> bool {
    a.contains(b.prefix()) || b.contains(a.prefix())
}

fn is_pin(pin: &str) -> bool {
    use base64::Engine;
    let digest =
        pin.strip_prefix("sha256/").map(|text| base64::engine::general_purpose::STANDARD.decode(text));
    matches!(digest, Some(Ok(bytes)) if bytes.len() == 32)
}
