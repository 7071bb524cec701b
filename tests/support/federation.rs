//! What every member of a test's federation has in its configuration, and the names of all members.

use std::net::SocketAddr;

use roamgate::demo::zone::Zone;

use crate::program::Place;

pub const ZONE: &str = "iotroam.example";
pub const NET_IDS: &str = "netids.iotroam.example";
pub const JOIN_EUIS: &str = "joineuis.iotroam.example";

/// A hotspot as its configuration says it.
pub struct Hotspot<'a> {
    pub name: &'a str,
    pub net_id: &'a str,
    pub join_eui: &'a str,
    /// Where its packet forwarder comes.
    pub radio: SocketAddr,
    /// How partners reach it: lines of `[backend]`.
    pub reached: &'a str,
    /// The port at which it finds the others.
    pub port: u16,
}

impl Hotspot<'_> {
    /// Its certificates and the zone's trust anchor are on the desk.
    pub fn config(&self, desk: &Place, zone: &Zone) -> String {
        let Hotspot { name, net_id, join_eui, radio, reached, port } = self;
        format!(
            r#"
[network]
net_ids = ["{net_id}"]
experimental = true

[store]
url = "sqlite:@/data/roamgate.db"

[[radio]]
kind = "semtech-udp"
listen = "{radio}"

[backend]
{identity}
{reached}

[discovery]
join_eui_suffix = "{JOIN_EUIS}"
net_id_suffix = "{NET_IDS}"
port = {port}
resolvers = ["{zone}"]
dnssec = "require"
trust_anchor = "{anchor}"

[roaming.default]
passive = {{ start = true, activation = true }}

[join_server]
join_euis = ["{join_eui}"]
"#,
            identity = identity(desk, name),
            zone = zone.addr,
            anchor = desk.at("trust-anchor.key").display(),
        )
    }
}

/// Lines of `[backend]`: who a node is, and whom it believes.
pub fn identity(desk: &Place, name: &str) -> String {
    let pki = desk.at(&format!("{name}-pki"));
    let pki = pki.display();
    format!(
        "identity = {{ chain = \"{pki}/chain.pem\", key = \"{pki}/key.pem\" }}\nroots = [\"{pki}/root.pem\"]\n"
    )
}

/// The names that a member has in the DNS.
pub async fn names(desk: &Place, net_id: &str, join_eui: &str) -> Vec<String> {
    let mut names = Vec::new();
    for question in
        [["--net-id", net_id, "--suffix", NET_IDS], ["--join-eui", join_eui, "--suffix", JOIN_EUIS]]
    {
        let name = desk.does(&[&["dns", "name"][..], &question].concat()).await;
        names.push(name.trim().to_owned());
    }
    names
}
