//! Two hotspots at home, each behind its own NAT, and a front on the Internet: network namespaces, the kernel's NAT, the
//! whole program in processes of its own. Nobody can connect to either hotspot, and both have the same private address.
//! Then the same without the front, with routers that forward a port to who asks (miniupnpd).
//!
//! ```text
//!   this test: the Internet 44.128.113.0/24, the zone, the air
//!     ├── front 44.128.113.10
//!     ├── nat1 44.128.113.21 ── box1 192.168.1.2 ── its radio's own cable to the air
//!     └── nat2 44.128.113.22 ── box2 192.168.1.2 ── and this one's
//! ```
//!
//! The addresses are of a network that was set apart for tests: miniupnpd forwards nothing of those that documentation uses.
//!
//! Each test wants namespaces of its own, so they are told apart:
//! `unshare -Urnm --map-root-user cargo test --test nat -- --ignored NAME`.

#[allow(dead_code)] // nor does it look at what was said on the air
#[path = "support/bridge.rs"]
mod bridge;
#[path = "support/federation.rs"]
mod federation;
#[path = "support/forwarder.rs"]
mod forwarder;
#[allow(dead_code)] // this test types fewer commands than others
#[path = "support/program.rs"]
mod program;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bridge::Bridge;
use federation::{Hotspot, JOIN_EUIS, NET_IDS, ZONE, identity, names};
use program::{Place, Running};
use roamgate::clock::Clock;
use roamgate::demo::device::Device;
use roamgate::demo::zone::{Data, Plan, Zone};
use roamgate::lorawan::{DevEui, GatewayEui, Key};
use roamgate::radio::simulated::{Air, Link};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

const INTERNET: Ipv4Addr = Ipv4Addr::new(44, 128, 113, 1);
const FRONT: Ipv4Addr = Ipv4Addr::new(44, 128, 113, 10);
/// Where nobody may listen without being root: there it is, as in the world.
const PORT: u16 = 443;

struct Member {
    name: &'static str,
    net_id: &'static str,
    join_eui: &'static str,
    /// Of its NAT, as others see it.
    address: Ipv4Addr,
    /// Of its packet forwarder's server.
    cable: SocketAddr,
    gateway: GatewayEui,
}

const HOME: Member = Member {
    name: "box1",
    net_id: "000001",
    join_eui: "0000000000000001",
    address: Ipv4Addr::new(44, 128, 113, 21),
    cable: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2)), 1700),
    gateway: GatewayEui::from_msb([2, 0, 0, 0xFF, 0xFE, 0, 0, 1]),
};

const VISITED: Member = Member {
    name: "box2",
    net_id: "000000",
    join_eui: "0000000000000000",
    address: Ipv4Addr::new(44, 128, 113, 22),
    cable: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)), 1700),
    gateway: GatewayEui::from_msb([2, 0, 0, 0xFF, 0xFE, 0, 0, 0]),
};

/// Cables, routers and their NAT. `/run` and `/etc/hosts` are this namespace's own.
const WIRING: &str = r#"
set -e
mount -t tmpfs none /run && mkdir /run/netns
printf '127.0.0.1 localhost\n44.128.113.10 front.iotroam.example\n' > /run/hosts
mount --bind /run/hosts /etc/hosts
ip link set lo up
ip link add inet type bridge
ip addr add 44.128.113.1/24 dev inet
ip link set inet up
attach() {
  ip netns add "$1"
  ip link add "w-$1" type veth peer name wan netns "$1"
  ip link set "w-$1" master inet up
  ip -n "$1" addr add "$2/24" dev wan
  ip -n "$1" link set lo up
  ip -n "$1" link set wan up
}
attach front 44.128.113.10
for n in 1 2; do
  attach "nat$n" "44.128.113.2$n"
  ip netns exec "nat$n" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
  ip netns exec "nat$n" nft 'table ip nat { chain post { type nat hook postrouting priority 100; oifname "wan" masquerade; }; }'
  ip netns add "box$n"
  ip link add lan netns "nat$n" type veth peer name lan netns "box$n"
  ip -n "nat$n" addr add 192.168.1.1/24 dev lan
  ip -n "nat$n" link set lan up
  ip -n "box$n" addr add 192.168.1.2/24 dev lan
  ip -n "box$n" link set lan up
  ip -n "box$n" link set lo up
  ip -n "box$n" route add default via 192.168.1.1
  ip link add "radio$n" type veth peer name radio netns "box$n"
  ip addr add "10.0.$n.1/24" dev "radio$n"
  ip link set "radio$n" up
  ip -n "box$n" addr add "10.0.$n.2/24" dev radio
  ip -n "box$n" link set radio up
done
"#;

/// The provider gives a router another address.
const MOVE: &str =
    "ip -n nat1 addr del 44.128.113.21/24 dev wan && ip -n nat1 addr add 44.128.113.31/24 dev wan";

async fn shell(script: &str) {
    let done = Command::new("sh").args(["-c", script]).output().await.expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{said}\n(this test wants a network and a mount namespace of its own, and nftables: see the top of tests/nat.rs)"
    );
}

/// The federation's root, and everybody's certificate, as their operators type them.
async fn certificates(desk: &Place) {
    desk.does(&["pki", "root", "--out", "federation", "--name", "A federation"]).await;
    let suffixes = ["--net-id-suffix", NET_IDS, "--join-eui-suffix", JOIN_EUIS];
    for Member { name, net_id, join_eui, .. } in [HOME, VISITED] {
        let names = ["--net-id", net_id, "--join-eui", join_eui];
        certificate(desk, name, &[&names[..], &suffixes].concat(), &names).await;
    }
    let host = ["--host", "front.iotroam.example"];
    certificate(desk, "front", &[&host[..], &suffixes].concat(), &host).await;
}

async fn certificate(desk: &Place, name: &str, may: &[&str], names: &[&str]) {
    let (authority, node) = (format!("{name}-ca"), format!("{name}-pki"));
    let sign = ["pki", "intermediate", "--root", "federation", "--out", &authority];
    desk.does(&[&sign[..], may].concat()).await;
    desk.does(&[&["pki", "issue", "--intermediate", &authority, "--out", &node][..], names].concat()).await;
}

fn front(desk: &Place) -> Place {
    let mut place = Place::with_config(&format!(
        "[network]\nroles = [\"front\"]\n[store]\nurl = \"sqlite:@/data/roamgate.db\"\n[backend]\n{}\n\
         [front]\nlisten = \"0.0.0.0:{PORT}\"\nanyone = true\n",
        identity(desk, "front")
    ));
    place.enter("front");
    place
}

fn relayed() -> String {
    format!("reachability = {{ relay = [{{ server = \"front.iotroam.example:{PORT}\" }}] }}")
}

fn mapped() -> String {
    format!("listen = \"0.0.0.0:{PORT}\"\nreachability = {{ mapped = {{}} }}")
}

/// Downlinks never ride in answers here: each network must be reached.
fn hotspot(member: &Member, desk: &Place, zone: &Zone, reached: &str) -> Place {
    let &Member { name, net_id, join_eui, cable: radio, .. } = member;
    let reached = format!("{reached}\ndownlink_in_answer = false");
    let hotspot = Hotspot { name, net_id, join_eui, radio, reached: &reached, port: PORT };
    let mut place = Place::with_config(&hotspot.config(desk, zone));
    place.enter(name);
    place
}

/// Everything that was delivered at home, in order.
async fn delivered(home: &Running, payloads: &[&str]) {
    let mut last = 0;
    for payload in payloads {
        let line = home.log.wait(0, &["payload delivered", &hex::encode(payload)]).await;
        let place = home.log.all().iter().position(|other| *other == line).unwrap();
        assert!(place >= last, "{payload} overtook another:\n{}", home.log.text());
        last = place;
    }
}

async fn talks(device: &mut Device, payload: &str) -> Vec<(u8, Vec<u8>)> {
    for _ in 0..12 {
        let report = device.send(payload.as_bytes(), 10, true).await.expect("a session");
        if report.acked {
            return report.downlinks;
        }
    }
    panic!("{payload} is not acknowledged");
}

/// The names of both hotspots lead there.
async fn zone(desk: &Place, clock: &Clock, addresses: [Ipv4Addr; 2]) -> Zone {
    let mut records = Vec::new();
    for (Member { net_id, join_eui, .. }, address) in [HOME, VISITED].into_iter().zip(addresses) {
        for name in names(desk, net_id, join_eui).await {
            records.push((name, Data::Address(IpAddr::V4(address))));
        }
    }
    let plan = Plan { listen: INTERNET, ..Plan::new(ZONE, records) };
    let zone = Zone::start(plan, clock).await.unwrap();
    std::fs::write(desk.at("trust-anchor.key"), &zone.trust_anchor).unwrap();
    zone
}

/// A device of the home that the visited network hears, and its DevEUI.
async fn visitor(home: &Place, air: &Air, clock: &Clock) -> (Device, String) {
    let dev_eui = DevEui::from_msb([0x58, 0x17, 0xB1, 0xC3, 0xEB, 0x89, 0, 7]);
    let app_key = Key::new([0xA5; 16]);
    let (eui, key) = (dev_eui.to_string(), hex::encode(app_key.expose()));
    let add = ["device", "add", "--dev-eui", &eui, "--join-eui", HOME.join_eui, "--app-key", &key];
    home.does(&[&add[..], &["--mac-version", "1.0.3"]].concat()).await;
    let join_eui = HOME.join_eui.parse().unwrap();
    let mut device = Device::new(air, clock.clone(), dev_eui, join_eui, &app_key, 5);
    device.move_to(&[(VISITED.gateway, Link::NEAR)]);
    (device, eui)
}

async fn joins(device: &mut Device, visited: &Running) {
    let mut joined = device.join().await.ok;
    for _ in 0..3 {
        joined = joined || device.join().await.ok;
    }
    assert!(joined, "{}", visited.log.text());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants network namespaces: unshare -Urnm --map-root-user cargo test --test nat -- --ignored through_a_front"]
async fn two_hotspots_behind_nat_reach_each_other_through_a_front() {
    shell(WIRING).await;
    let (clock, desk) = (Clock::system(), Place::empty());
    certificates(&desk).await;
    let zone = zone(&desk, &clock, [FRONT, FRONT]).await;

    let (front, home, visited) =
        (front(&desk), hotspot(&HOME, &desk, &zone, &relayed()), hotspot(&VISITED, &desk, &zone, &relayed()));
    let front_daemon = front.runs().await;
    let (home_daemon, visited_daemon) = (home.runs().await, visited.runs().await);
    for (daemon, member) in [(&home_daemon, HOME), (&visited_daemon, VISITED)] {
        daemon.log.wait(0, &["partners reach us through this front", member.net_id]).await;
        front_daemon.log.wait(0, &["a hotspot's tunnel is up", member.net_id]).await;
        // and nobody reaches it otherwise
        let direct = timeout(Duration::from_secs(1), TcpStream::connect((member.address, PORT))).await;
        assert!(!matches!(direct, Ok(Ok(_))), "{} is open to everybody", member.name);
    }
    let status = front.does(&["status"]).await;
    assert!(status.contains("2 hotspots") && status.contains("44.128.113.21"), "{status}");

    let air = Air::new(clock.clone(), 3);
    let _at_home = Bridge::start(&air, &clock, HOME.gateway, HOME.cable).await.unwrap();
    let _away = Bridge::start(&air, &clock, VISITED.gateway, VISITED.cable).await.unwrap();
    visited_daemon.log.wait(0, &["radio head online"]).await;
    let (mut device, eui) = visitor(&home, &air, &clock).await;

    // joins, and data both ways
    joins(&mut device, &visited_daemon).await;
    talks(&mut device, "one").await;
    home.does(&["device", "send", &eui, "--port", "12", "--text", "down"]).await;
    assert_eq!(talks(&mut device, "two").await, [(12, b"down".to_vec())]);

    // the front dies and comes back: what was sent meanwhile comes late, and in order
    front_daemon.dies().await;
    visited_daemon.log.wait(0, &["no tunnel"]).await;
    for payload in ["three", "four"] {
        device.send(payload.as_bytes(), 10, false).await.expect("a session");
    }
    let (at_home, at_visited) = (home_daemon.log.count(), visited_daemon.log.count());
    let front_daemon = front.runs().await;
    home_daemon.log.wait(at_home, &["partners reach us through this front"]).await;
    visited_daemon.log.wait(at_visited, &["partners reach us through this front"]).await;
    talks(&mut device, "five").await;
    delivered(&home_daemon, &["one", "two", "three", "four", "five"]).await;

    // the home's provider gives it another address, in the middle of it
    let at_front = front_daemon.log.count();
    shell(MOVE).await;
    for payload in ["six", "seven", "eight"] {
        device.send(payload.as_bytes(), 10, false).await.expect("a session");
    }
    front_daemon.log.wait(at_front, &["a hotspot's tunnel is up", "44.128.113.31", HOME.net_id]).await;
    home.does(&["device", "send", &eui, "--port", "12", "--text", "moved"]).await;
    let mut downlinks = talks(&mut device, "nine").await;
    downlinks.extend(talks(&mut device, "ten").await);
    assert_eq!(downlinks, [(12, b"moved".to_vec())]);
    delivered(&home_daemon, &["five", "six", "seven", "eight", "nine", "ten"]).await;

    // class C: the home speaks first, through the front, to a hotspot that nobody can reach
    home.does(&["device", "set", &eui, "--class", "C"]).await;
    device.become_class_c();
    joins(&mut device, &visited_daemon).await;
    talks(&mut device, "eleven").await;
    home.does(&["device", "send", &eui, "--port", "12", "--text", "at once"]).await;
    assert_eq!(device.listen(Duration::from_secs(5)).await, [(12, b"at once".to_vec())]);

    // what the front sees of it is TLS between the two hotspots
    for words in ["one", "down", "moved"] {
        assert!(!front_daemon.log.text().contains(&hex::encode(words)));
    }
    for daemon in [visited_daemon, home_daemon, front_daemon] {
        assert_eq!(daemon.stops().await.code(), Some(0));
    }
}

/// Routers that forward a port to the box that asks: the first speaks PCP, the second UPnP only.
const FORWARDING: &str = r#"
set -e
for n in 1 2; do
  ip netns exec "nat$n" nft '
    table inet filter {
      chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; };
      chain miniupnpd { };
      chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; };
      chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; };
      chain prerouting_miniupnpd { };
      chain postrouting_miniupnpd { };
    }'
  cat > "/run/router$n" <<ROUTER
ext_ifname=wan
listening_ip=lan
enable_natpmp=$([ "$n" = 1 ] && echo yes || echo no)
enable_upnp=$([ "$n" = 2 ] && echo yes || echo no)
secure_mode=yes
uuid=00000000-0000-0000-0000-00000000000$n
allow 443 192.168.1.2/32 443
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
ROUTER
  ip -n "nat$n" route add 239.0.0.0/8 dev lan
  ip netns exec "nat$n" miniupnpd -f "/run/router$n" -P "/run/router$n.pid"
done
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants network namespaces: unshare -Urnm --map-root-user cargo test --test nat -- --ignored routers"]
async fn two_hotspots_whose_routers_forward_a_port_when_asked_need_no_front() {
    shell(WIRING).await;
    shell(FORWARDING).await;
    let (clock, desk) = (Clock::system(), Place::empty());
    certificates(&desk).await;
    let zone = zone(&desk, &clock, [HOME.address, VISITED.address]).await;
    let (home, visited) =
        (hotspot(&HOME, &desk, &zone, &mapped()), hotspot(&VISITED, &desk, &zone, &mapped()));
    let (home_daemon, visited_daemon) = (home.runs().await, visited.runs().await);
    for (place, daemon, member, by) in
        [(&home, &home_daemon, HOME, "PCP"), (&visited, &visited_daemon, VISITED, "UPnP")]
    {
        daemon.log.wait(0, &["the router forwards a port to us", by]).await;
        let status = place.does(&["status"]).await;
        let reached =
            format!("at {}:{PORT}, which the router 192.168.1.1 forwards ({by}) since", member.address);
        assert!(status.contains(&reached), "{status}");
        TcpStream::connect((member.address, PORT)).await.expect("a way in");
    }

    let air = Air::new(clock.clone(), 3);
    let _at_home = Bridge::start(&air, &clock, HOME.gateway, HOME.cable).await.unwrap();
    let _away = Bridge::start(&air, &clock, VISITED.gateway, VISITED.cable).await.unwrap();
    visited_daemon.log.wait(0, &["radio head online"]).await;
    let (mut device, eui) = visitor(&home, &air, &clock).await;
    joins(&mut device, &visited_daemon).await;
    talks(&mut device, "one").await;
    home.does(&["device", "send", &eui, "--port", "12", "--text", "down"]).await;
    assert_eq!(talks(&mut device, "two").await, [(12, b"down".to_vec())]);
    delivered(&home_daemon, &["one", "two"]).await;
    for daemon in [visited_daemon, home_daemon] {
        assert_eq!(daemon.stops().await.code(), Some(0));
    }
}
