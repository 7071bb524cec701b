//! Several ways to one server: which is tried, what its certificate may carry, and what it is asked.

use roamgate::discovery::{Security, Way};
use tokio::net::TcpSocket;

use super::*;

/// Everybody is reached in these ways, under one name.
struct Ways(&'static str, Vec<Way>);

impl Discover for Ways {
    fn find<'a>(
        &'a self,
        _: &'a Party,
        _: Option<DevEui>,
        _: Deadline,
    ) -> Boxed<'a, Result<Endpoint, String>> {
        let address = "127.0.0.1:1".parse().unwrap();
        let found = Endpoint { ways: self.1.clone(), ..Endpoint::at(self.0, address) };
        Box::pin(std::future::ready(Ok(found)))
    }
}

fn way(at: SocketAddr) -> Way {
    let (by, path, security) = (Vec::new(), "/".into(), Security::Secure);
    Way { by, addresses: vec![at.ip()], port: at.port(), path, security }
}

/// A port where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Takes connections and closes them without a word.
async fn closing() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    (address, count)
}

#[tokio::test]
async fn the_next_way_is_tried_where_no_connection_comes_about_and_the_broken_one_rests() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let (broken, tried) = closing().await;
    let stranger = Federation::named("Another").home(OPEN, Arc::new(Known::default())).await;
    let ways = [nobody().await, broken, stranger.address().unwrap(), server.address().unwrap()].map(way);
    let client = federation.client(OPEN, Arc::new(Ways(HOME_NAME, ways.to_vec())));
    for _ in 0..3 {
        client.send(js(), home_ns_req(), soon(&federation.clock)).await.unwrap();
    }
    assert_eq!(tried.load(Ordering::Relaxed), 1, "tried once, then left alone");
    // where the others are gone too, even those that rest are tried again, and all are named
    server.stop().await;
    let error = client.send(js(), home_ns_req(), soon(&federation.clock)).await.unwrap_err().to_string();
    assert!(ways.iter().all(|way| error.contains(&format!("port {}", way.port))), "{error}");
    assert_eq!(tried.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_partner_in_use_finds_its_connection_open_again_after_it_was_closed() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let (front, connections) = counting_front(server.address().unwrap()).await;
    let client = federation.client(OPEN, Arc::new(At(front, HOME_NAME)));
    client.send(js(), home_ns_req(), soon(&federation.clock)).await.unwrap();
    let hour = Duration::from_secs(3600);
    client.touch(hour, hour).await;
    client.touch(Duration::ZERO, Duration::ZERO).await;
    client.touch(hour, Duration::ZERO).await;
    assert_eq!(connections.load(Ordering::Relaxed), 1, "the connection that is there was used");
    // it was restarted, and nobody sent a frame meanwhile
    let address = server.address().unwrap();
    server.stop().await;
    let _again = federation.home_at(address, OPEN, Arc::new(Known::default())).await;
    client.touch(hour, Duration::ZERO).await;
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    client.send(js(), home_ns_req(), soon(&federation.clock)).await.unwrap();
    assert_eq!(connections.load(Ordering::Relaxed), 2, "no handshake for the frame");
}

#[tokio::test]
async fn an_answer_of_http_ends_the_search_whatever_it_says() {
    let federation = Federation::new();
    let (refusing, _) = canned(&federation, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let (silent, _) = canned(&federation, "").await;
    let (other, seen) = canned(&federation, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    for first in [refusing, silent] {
        let ways = vec![way(first), way(other)];
        let client = federation.client(OPEN, Arc::new(Ways(HOME_NAME, ways)));
        assert!(client.send(js(), home_ns_req(), soon(&federation.clock)).await.is_err());
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_certificate_for_the_target_will_do_where_dnssec_proves_the_way() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.joineuis.example";
    for (security, fits) in [(Security::Secure, true), (Security::Insecure, false), (Security::Off, false)] {
        let by = vec!["_lwns._j2h.example".into(), HOME_NAME.to_owned()];
        let ways = vec![Way { by, security, ..way(server.address().unwrap()) }];
        let client = federation.client(OPEN, Arc::new(Ways(name, ways)));
        let answer = client.send(js(), home_ns_req(), soon(&federation.clock)).await;
        assert_eq!(answer.is_ok(), fits, "{security}: {answer:?}");
    }
}

#[tokio::test]
async fn a_uri_gives_the_path_and_the_name_that_was_asked_stays_unless_the_partner_wants_its_own() {
    let federation = Federation::new();
    let (address, requests) = canned(&federation, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let name = "000003.netids.example";
    let quirk = "[[partner]]\nnet_id = \"000001\"\nquirks = [\"target-name\"]";
    for config in [OPEN, quirk] {
        let by = vec![HOME_NAME.to_owned()];
        let ways = vec![Way { by, path: "/in/1?a=b".into(), ..way(address) }];
        let client = federation.client(config, Arc::new(Ways(name, ways)));
        assert!(client.send(Party::Ns(HOME), pr_start(), soon(&federation.clock)).await.is_err());
    }
    let requests = requests.lock().unwrap();
    for (request, host) in requests.iter().zip([name, HOME_NAME]) {
        assert!(request.starts_with("POST /in/1?a=b HTTP/1.1\r\n"), "{request}");
        assert!(
            request.to_lowercase().contains(&format!("host: {host}:{}\r\n", address.port())),
            "{request}"
        );
    }
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn an_ipv6_address_that_does_not_answer_keeps_nobody_from_the_ipv4_one() {
    let federation = Federation::new();
    let server = federation.home(OPEN, Arc::new(Known::default())).await;
    let port = server.address().unwrap().port();
    // a listener whose queue is full drops who knocks, as a router that has lost its way does
    let deaf = TcpSocket::new_v6().unwrap();
    deaf.bind(format!("[::1]:{port}").parse().unwrap()).unwrap();
    let deaf = deaf.listen(1).unwrap();
    let mut queue = Vec::new();
    for _ in 0..8 {
        let knock = TcpStream::connect(deaf.local_addr().unwrap());
        match tokio::time::timeout(Duration::from_millis(100), knock).await {
            Ok(stream) => queue.push(stream.unwrap()),
            Err(_) => break,
        }
    }
    assert!(queue.len() < 8, "the queue never filled");
    let both = Way {
        addresses: vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()],
        ..way(server.address().unwrap())
    };
    let client = federation.client(OPEN, Arc::new(Ways(HOME_NAME, vec![both])));
    // a data frame's time
    let by = Deadline(federation.clock.now() + Duration::from_secs(2));
    client.send(js(), home_ns_req(), by).await.unwrap();
}
