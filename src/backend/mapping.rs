//! A port of the router that is forwarded to us because we ask for it: PCP (RFC 6887), NAT-PMP (RFC 6886), and UPnP IGD where
//! the router speaks neither.
//!
//! A router that was restarted has forgotten us, and says so to nobody: it is asked again every ten minutes, and the
//! forwarding ends by itself an hour after we are gone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crab_nat::{InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions, aio};
use jiff::Timestamp;
use tokio::net::UdpSocket;

use crate::clock::Clock;

use super::Mapped;

/// So long, in seconds, the router forwards without hearing from us.
const LIFETIME: u32 = 3600;
/// It is asked again after this, or half of what it granted.
const AGAIN: Duration = Duration::from_secs(600);
/// And after these where it refused or said nothing: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Half a second, one, two, two.
const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(500),
    max_retries: 3,
    max_retry_timeout: Some(Duration::from_secs(2)),
};
/// For an answer to a search for UPnP.
const SEARCH: Duration = Duration::from_secs(5);
/// Where the kernel says through whom the world is reached.
const ROUTES: &str = "/proc/net/route";
/// What the router's own page calls it.
const NAME: &str = "Roamgate";

/// What the router forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Where partners reach us.
    pub external: SocketAddr,
    /// Who forwards.
    pub router: IpAddr,
    /// How it was asked.
    pub by: Protocol,
    /// For how long, where it said so.
    lifetime: Option<Duration>,
}

/// How a router is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// Internet Gateway Device.
    Upnp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Protocol::Pcp => "PCP",
            Protocol::NatPmp => "NAT-PMP",
            Protocol::Upnp => "UPnP",
        })
    }
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing is forwarded, for this reason.
    Down(String),
    /// It is.
    Up {
        /// Since when.
        since: Timestamp,
        /// What.
        held: Held,
    },
}

/// Why nothing is forwarded.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{ROUTES} names no router that leads to the Internet, and [backend] reachability no gateway")]
    NoRouter,
    #[error("the router {0} cannot be spoken to: {1}")]
    Socket(IpAddr, std::io::Error),
    #[error("the router {router} forwards nothing when asked: {pcp}, {natpmp}, UPnP ({upnp})")]
    All { router: IpAddr, pcp: String, natpmp: String, upnp: String },
    #[error(
        "the router {router} forwards a port of {external}, which is no address of the Internet: it is behind a NAT itself, so a front is the way"
    )]
    Inside { router: IpAddr, external: SocketAddr },
}

/// The port of the router that is kept.
pub struct Mapping {
    config: Mapped,
    /// Where we listen.
    listen: SocketAddr,
    clock: Clock,
    state: Mutex<State>,
}

impl Mapping {
    /// Nothing is asked yet. `listen`: where what the router forwards must go.
    pub fn new(config: Mapped, listen: SocketAddr, clock: Clock) -> Arc<Mapping> {
        let state = Mutex::new(State::Down("the router is being asked".into()));
        Arc::new(Mapping { config, listen, clock, state })
    }

    /// How it stands.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The port that partners look for.
    pub fn wanted(&self) -> u16 {
        self.config.port.map_or(self.listen.port(), NonZeroU16::get)
    }

    /// Ask, and ask again. Never ends.
    pub async fn keep(self: Arc<Self>) {
        let mut pcp = None;
        let mut pause = PAUSES.0;
        loop {
            let held = self.ask(&mut pcp).await;
            let wait = match &held {
                Ok(Held { lifetime, .. }) => {
                    pause = PAUSES.0;
                    lifetime.map_or(AGAIN, |lifetime| AGAIN.min(lifetime / 2)).max(PAUSES.0)
                }
                Err(_) => {
                    let now = pause;
                    pause = (pause * 2).min(PAUSES.1);
                    now
                }
            };
            self.note(held);
            self.clock.sleep(wait).await;
        }
    }

    /// What has come of it, told where it is news.
    fn note(&self, held: Result<Held, Refused>) {
        let before = self.state();
        let state = match held {
            Ok(held) => match &before {
                State::Up { since, held: was } if was.external == held.external => {
                    State::Up { since: *since, held }
                }
                _ => {
                    let Held { external, router, by, .. } = held;
                    tracing::info!(%external, %router, %by, "the router forwards a port to us");
                    if let State::Up { held: was, .. } = &before {
                        tracing::warn!(before = %was.external, now = %external,
                            "the router's address has changed: our names in the DNS must lead to the new one");
                    }
                    let wanted = self.wanted();
                    if external.port() != wanted {
                        tracing::warn!(%external, wanted,
                            "the router forwards another port than partners look for: remove what has {wanted} there, or use a front");
                    }
                    State::Up { since: self.clock.wall(), held }
                }
            },
            Err(why) => {
                let why = why.to_string();
                if before != State::Down(why.clone()) {
                    tracing::warn!("no router forwards to us: {why}");
                }
                State::Down(why)
            }
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// `before`: what PCP or NAT-PMP gave us last, which is renewed.
    async fn ask(&self, before: &mut Option<PortMapping>) -> Result<Held, Refused> {
        let router = match self.config.gateway {
            Some(gateway) => gateway,
            // a machine without this file has no router either
            None => {
                let routes = tokio::fs::read_to_string(ROUTES).await.unwrap_or_default();
                default_router(&routes).ok_or(Refused::NoRouter)?
            }
        };
        // the address that the router knows us by; it may change with every lease
        let own = async {
            let socket = UdpSocket::bind(any(router)).await?;
            socket.connect((router, crab_nat::GATEWAY_PORT)).await?;
            socket.local_addr()
        };
        let own = own.await.map_err(|why| Refused::Socket(router, why))?.ip();
        let held = match self.ask_pcp(router, own, before).await {
            Ok(held) => held,
            Err((pcp, natpmp)) => match self.ask_upnp(router, own).await {
                Ok(held) => held,
                Err(upnp) => return Err(Refused::All { router, pcp, natpmp, upnp }),
            },
        };
        match is_inside(held.external.ip()) {
            true => Err(Refused::Inside { router, external: held.external }),
            false => Ok(held),
        }
    }

    async fn ask_pcp(
        &self,
        router: IpAddr,
        own: IpAddr,
        before: &mut Option<PortMapping>,
    ) -> Result<Held, (String, String)> {
        let renewed = match before.take() {
            Some(mut mapping) if self.is_of(&mapping, router, own) => {
                mapping.renew().await.is_ok().then_some(mapping)
            }
            _ => None,
        };
        let mapping = match renewed {
            Some(mapping) => mapping,
            None => self.begin(router, own).await?,
        };
        let (by, external) = match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => (Protocol::Pcp, external_ip),
            PortMappingType::NatPmp => {
                let external = natpmp::external_address(router.into(), Some(PATIENCE)).await;
                let external = external.map_err(|why| ("NAT-PMP".into(), why.to_string()))?;
                (Protocol::NatPmp, external.into())
            }
        };
        let external = SocketAddr::new(external.to_canonical(), mapping.external_port().get());
        let lifetime = Some(Duration::from_secs(mapping.lifetime().into()));
        *before = Some(mapping);
        Ok(Held { external, router, by, lifetime })
    }

    /// Whether a mapping is of this router, and leads to where we are now.
    fn is_of(&self, mapping: &PortMapping, router: IpAddr, own: IpAddr) -> bool {
        let to_us = match mapping.mapping_type() {
            PortMappingType::Pcp { client, .. } => client == own,
            PortMappingType::NatPmp => true,
        };
        to_us && mapping.gateway() == router.into() && mapping.internal_port().get() == self.listen.port()
    }

    async fn begin(&self, router: IpAddr, own: IpAddr) -> Result<PortMapping, (String, String)> {
        let Some(port) = NonZeroU16::new(self.listen.port()) else {
            return Err(("the port that we listen on is not known".into(), "nor to NAT-PMP".into()));
        };
        let options = PortMappingOptions {
            external_port: NonZeroU16::new(self.wanted()),
            lifetime_seconds: Some(LIFETIME),
            timeout_config: Some(PATIENCE),
        };
        let tcp = InternetProtocol::Tcp;
        let pcp = match PortMapping::new(router.into(), own, tcp, port, options).await {
            Ok(mapping) => return Ok(mapping),
            Err(why) => why.to_string(),
        };
        // routers of before PCP say nothing at all to it
        let natpmp = natpmp::port_mapping(router.into(), tcp, port, options).await;
        natpmp.map_err(|why| (pcp, format!("NAT-PMP({why})")))
    }

    async fn ask_upnp(&self, router: IpAddr, own: IpAddr) -> Result<Held, String> {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new(own, 0);
        (options.timeout, options.single_search_timeout) = (Some(SEARCH), Some(SEARCH));
        let found = aio::tokio::search_gateway(options).await.map_err(|why| why.to_string())?;
        if found.addr.ip() != router {
            return Err(format!("{} answers, and that is not the router", found.addr));
        }
        let (port, to) = (self.wanted(), SocketAddr::new(own, self.listen.port()));
        let tcp = PortMappingProtocol::TCP;
        let mut lifetime = LIFETIME;
        let mut added = found.add_port(tcp, port, to, lifetime, NAME).await;
        if matches!(added, Err(AddPortError::OnlyPermanentLeasesSupported)) {
            lifetime = 0;
            added = found.add_port(tcp, port, to, lifetime, NAME).await;
        }
        added.map_err(|why| why.to_string())?;
        let external = found.get_external_ip().await.map_err(|why| why.to_string())?;
        let lifetime = (lifetime > 0).then(|| Duration::from_secs(lifetime.into()));
        Ok(Held { external: SocketAddr::new(external, port), router, by: Protocol::Upnp, lifetime })
    }
}

fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether nobody on the Internet reaches this address: private, link-local, or a provider's own (RFC 6598).
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let shared = first == 100 && (64..128).contains(&second);
            shared
                || address.is_private()
                || address.is_link_local()
                || address.is_loopback()
                || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_loopback()
                || address.is_unspecified()
        }
    }
}

/// The router of the best way to everywhere, of the kernel's table (`/proc/net/route`, proc(5)): interface, destination,
/// router, flags, and the metric in the seventh column; addresses are hexadecimal and in the machine's byte order.
fn default_router(table: &str) -> Option<IpAddr> {
    /// RTF_UP and RTF_GATEWAY.
    const FLAGS: u32 = 3;
    let way = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let &[_, destination, router, flags, _, _, metric, mask, ..] = columns.as_slice() else {
            return None;
        };
        let number = |text| u32::from_str_radix(text, 16).ok();
        let everywhere = number(destination)? == 0 && number(mask)? == 0;
        let router = Ipv4Addr::from(number(router)?.to_ne_bytes());
        let leads = number(flags)? & FLAGS == FLAGS && !router.is_unspecified();
        (everywhere && leads).then_some((metric.parse::<u32>().ok()?, router))
    };
    table.lines().filter_map(way).min_by_key(|(metric, _)| *metric).map(|(_, router)| router.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn the_router_is_that_of_the_best_way_to_everywhere() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let line = |destination: u32, router: [u8; 4], flags: u32, metric: u32, mask: u32| {
            let router = u32::from_ne_bytes(router);
            format!(
                "eth0\t{destination:08X}\t{router:08X}\t{flags:04X}\t0\t0\t{metric}\t{mask:08X}\t0\t0\t0\n"
            )
        };
        let lan = line(0x0001_A8C0, [0; 4], 1, 0, 0x00FF_FFFF);
        let wlan = line(0, [192, 168, 7, 1], 3, 600, 0);
        let cable = line(0, [192, 168, 1, 1], 3, 100, 0);
        let down = line(0, [192, 168, 9, 1], 2, 1, 0);
        let all = [head, &lan, &wlan, &cable, &down].concat();
        assert_eq!(default_router(&all), Some("192.168.1.1".parse().unwrap()));
        assert_eq!(default_router(&[head, &lan, &down].concat()), None);
        assert_eq!(default_router(""), None);
    }

    #[test]
    fn an_address_of_the_inside_is_no_way_in() {
        for inside in
            ["10.0.0.1", "100.64.0.1", "100.127.255.255", "192.168.1.1", "169.254.0.1", "0.0.0.0", "fd00::1"]
        {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["203.0.113.21", "100.63.0.1", "100.128.0.1", "8.8.8.8", "2001:db8::1"] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_left(text in "[0-9A-F \t\n]{0,200}") {
            let _ = default_router(&text);
        }
    }

    #[test]
    fn what_is_told_is_what_is_new() {
        let listen = "0.0.0.0:443".parse().unwrap();
        let mapping = Mapping::new(Mapped::default(), listen, Clock::system());
        let held = |port| Held {
            external: SocketAddr::new("203.0.113.21".parse().unwrap(), port),
            router: "192.168.1.1".parse().unwrap(),
            by: Protocol::Pcp,
            lifetime: None,
        };
        mapping.note(Ok(held(443)));
        let State::Up { since, .. } = mapping.state() else { panic!("{:?}", mapping.state()) };
        mapping.note(Ok(held(443)));
        assert_eq!(mapping.state(), State::Up { since, held: held(443) }, "since the first time");
        mapping.note(Err(Refused::NoRouter));
        assert!(matches!(mapping.state(), State::Down(why) if why.contains("no router")));
    }

    /// A router that speaks PCP, has this address outside, and tells every mapping that it is asked for (RFC 6887 11.1).
    async fn router(at: &str, outside: [u8; 4]) -> (Arc<Mapping>, mpsc::UnboundedReceiver<Vec<u8>>) {
        let router = UdpSocket::bind((at, crab_nat::GATEWAY_PORT)).await.unwrap();
        let (sender, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut request = [0; 1100];
            loop {
                let (size, from) = router.recv_from(&mut request).await.unwrap();
                // MAP: a header of 24 bytes, and 36 more
                assert_eq!((size, request[0], request[1]), (60, 2, 1));
                let _ = sender.send(request[24..60].to_vec());
                let mut answer = request[..60].to_vec();
                answer[1] |= 0x80;
                answer[2..4].fill(0);
                answer[8..24].fill(0);
                answer[44..60].copy_from_slice(&Ipv4Addr::from(outside).to_ipv6_mapped().octets());
                router.send_to(&answer, from).await.unwrap();
            }
        });
        let config = Mapped { gateway: Some(at.parse().unwrap()), port: NonZeroU16::new(443) };
        (Mapping::new(config, "127.0.0.1:7443".parse().unwrap(), Clock::system()), asked)
    }

    #[tokio::test]
    async fn a_mapping_is_renewed_as_the_same_one_while_it_leads_to_us() {
        let (mapping, mut asked) = router("127.83.0.2", [203, 0, 113, 21]).await;
        let mut before = None;
        let held = mapping.ask(&mut before).await.unwrap();
        assert_eq!(held.external, "203.0.113.21:443".parse().unwrap());
        assert_eq!((held.by, held.lifetime), (Protocol::Pcp, Some(Duration::from_secs(3600))));
        assert_eq!(mapping.ask(&mut before).await.unwrap(), held);
        let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
        // nonce, protocol and both ports: for the router it is the one that it has
        assert_eq!(first[..20], second[..20]);
        assert_eq!(first[12..20], [6, 0, 0, 0, 0x1D, 0x13, 0x01, 0xBB]);
        // the lease ends at another address of ours
        let elsewhere = before.as_ref().is_some_and(|mapping_of| {
            mapping.is_of(mapping_of, "127.83.0.2".parse().unwrap(), "127.0.0.9".parse().unwrap())
        });
        assert!(!elsewhere);
    }

    /// A router of the inside of another: what it forwards leads nowhere.
    #[tokio::test]
    async fn a_router_behind_another_is_no_way_in() {
        let (mapping, _asked) = router("127.83.0.1", [100, 64, 0, 9]).await;
        let refused = mapping.ask(&mut None).await.unwrap_err().to_string();
        assert!(refused.contains("100.64.0.9:443, which is no address of the Internet"), "{refused}");
    }
}
