//! The pure paths that every frame takes, timed: `cargo bench --bench hot`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use roamgate::backend::message::wire::{self, Incoming};
use roamgate::backend::message::{ClassMode, NwkKeys, Party, UlMeta};
use roamgate::clock::{Clock, Instant};
use roamgate::fns::dedup::{Dedup, Seen};
use roamgate::fns::{Count, Heard, Hearing, Seal};
use roamgate::jit::{Jit, airtime};
use roamgate::lorawan::crypto::{self, Direction};
use roamgate::lorawan::frame::{DataFrame, Uplink};
use roamgate::lorawan::{DevAddr, DevEui, GatewayEui, Key, Modulation, NetId, Region};
use roamgate::sns::{Session, uplink};
use sx1302::Concentrator;
use sx1302::config::Config;
use sx1302::firmware::Firmware;
use sx1302::model::Model;
use sx1302::rx::{self, RawPacket};

const GATEWAY: GatewayEui = GatewayEui::from_msb([2, 0, 0, 0xFF, 0xFE, 0, 0, 1]);
const ADDR: DevAddr = DevAddr::new(0x0200_0001);
const FCNT: u32 = 77;
const SF7: Modulation = Modulation::Lora { sf: 7, bandwidth: 125_000 };

fn key() -> Key {
    Key::new([7; 16])
}

/// A confirmed frame with 20 bytes on port 5.
fn phy() -> Vec<u8> {
    let mut phy = [&[0x80][..], &ADDR.to_air(), &[0], &FCNT.to_le_bytes()[..2], &[5], &[0xA5; 20]].concat();
    let mic = crypto::data_mic(&key(), Direction::Up, ADDR, FCNT, &phy);
    phy.extend(mic);
    phy
}

fn frame(phy: &[u8]) -> DataFrame<'_> {
    match Uplink::parse(phy) {
        Ok(Uplink::Data(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

fn session(nwk_s_key: Key) -> Session {
    Session {
        id: 1,
        dev_eui: DevEui::from_msb([1; 8]),
        dev_addr: ADDR,
        net_id: NetId::from_msb([0, 0, 1]),
        keys: NwkKeys::V10 { nwk_s_key },
        fcnt_up: Some(FCNT - 1),
        fcnt_down: 3,
        a_fcnt_down: 0,
        confirmed_down: None,
        class: ClassMode::A,
        personalised: false,
        pending: false,
        roaming: true,
        home: None,
        terms: Default::default(),
        rj_count0: None,
        path: None,
        rx_delay: 1,
        rx1_dr_offset: 0,
        rx2_frequency: 869_525_000,
        rx2_data_rate: 0,
        plan: Default::default(),
        created: 0,
        expires: None,
    }
}

fn heard(phy: Vec<u8>, at: Instant, clock: &Clock) -> Heard {
    Heard {
        phy,
        gateway: GATEWAY,
        session: 9,
        frequency: 868_100_000,
        modulation: SF7,
        rssi: -57,
        snr: 7.5,
        tmst: Count(1),
        at,
        time: clock.wall(),
        location: None,
        fine_time: None,
    }
}

fn frames(c: &mut Criterion) {
    let (phy, key) = (phy(), key());
    c.bench_function("data MIC checked", |b| {
        b.iter(|| frame(black_box(&phy)).up_mic_matches(black_box(&key), FCNT));
    });
    let (ul, region) = (UlMeta::at(Clock::system().wall()), Region::eu868());
    for others in [0, 9] {
        // the address is shared: the MIC tells whose frame it is, and the right key comes last
        let strangers = (0..others).map(|n| session(Key::new([n; 16])));
        let sessions: Vec<Session> = strangers.chain([session(key.clone())]).collect();
        c.bench_function(&format!("uplink accepted, {} sessions of the address", others + 1), |b| {
            b.iter_batched(
                || sessions.clone(),
                |mut sessions| uplink::accept(&mut sessions, frame(&phy), &ul, &region, None, 1000).0.is_ok(),
                BatchSize::SmallInput,
            );
        });
    }
}

fn hearings(c: &mut Criterion) {
    let clock = Clock::system();
    let start = clock.now();
    for busy in [1, 100] {
        let mut dedup = Dedup::default();
        let mut number = 0_u32;
        c.bench_function(&format!("first hearing told from a copy, {busy} frames a second"), |b| {
            b.iter(|| {
                number += 1;
                let phy = [&number.to_be_bytes()[..], &[0xA5; 24]].concat();
                let now = start + Duration::from_secs(1) / busy * number;
                let heard = heard(phy, now, &clock);
                assert!(matches!(dedup.first(&heard, now), Seen::First(_)));
                dedup.first(&heard, now)
            });
        });
    }
    let mut jit = Jit::new("EU868".parse().unwrap());
    let mut number = 0_u32;
    c.bench_function("downlink reserved", |b| {
        b.iter(|| {
            number += 1;
            // one every 5 s on the band with 10 %: the hour's ledger is full of them, and never over
            let now = start + Duration::from_secs(5) * number;
            let time = airtime(SF7, 33, Direction::Down);
            jit.reserve(GATEWAY, now + Duration::from_secs(1), time, 869_525_000, 14, now).unwrap()
        });
    });
}

fn messages(c: &mut Criterion) {
    let body = include_bytes!("../tests/fixtures/examples/prstart-req.json");
    let read = |body: &[u8]| match wire::open(body) {
        Ok(Incoming::Request(request)) => (request.header().unwrap(), request.body().unwrap()),
        other => panic!("{other:?}"),
    };
    c.bench_function("PRStartReq decoded", |b| b.iter(|| read(black_box(body))));
    let (header, request) = read(body);
    c.bench_function("PRStartReq encoded", |b| b.iter(|| wire::encode_request(&header, black_box(&request))));
}

fn tokens(c: &mut Criterion) {
    let clock = Clock::system();
    let seal = Seal::new(&clock.random(), clock.now());
    let to = Party::Ns(NetId::from_msb([0, 0, 1]));
    let hearing = Hearing {
        gateway: GATEWAY,
        session: 9,
        tmst: Count(123_456),
        at: clock.now(),
        time: 0,
        dev_addr: Some(ADDR),
        number: 5,
    };
    c.bench_function("token sealed", |b| b.iter(|| seal.make(&to, black_box(&hearing), [3; 12])));
    let token = seal.make(&to, &hearing, [3; 12]);
    c.bench_function("token opened", |b| b.iter(|| seal.open(&to, black_box(&token)).unwrap()));
}

/// What the concentrator's thread does: a whole receive buffer of 23-byte frames, and a look that finds nothing, with
/// what the model of the chip does for it.
fn radio(c: &mut Criterion) {
    let packet = RawPacket::example(phy());
    let encoded = rx::encode(&packet);
    let buffer = encoded.repeat(4096 / encoded.len());
    let packets = rx::parse(&buffer).packets.len();
    c.bench_function(&format!("receive buffer of {packets} packets parsed"), |b| {
        b.iter(|| rx::parse(black_box(&buffer)))
    });
    let chip = Concentrator::new(Model::new(), Config::example_eu868(), Firmware::synthetic());
    let mut chip = chip.expect("a configuration");
    chip.start().expect("a model starts");
    c.bench_function("a look that finds nothing, on the model", |b| {
        b.iter(|| chip.waiting().expect("a model answers"))
    });
    c.bench_function("a buffer of packets received, on the model", |b| {
        b.iter_batched(
            || buffer.clone(),
            |bytes| {
                chip.bus_mut().push_fifo(&bytes);
                chip.receive(255).expect("a model answers")
            },
            BatchSize::SmallInput,
        )
    });
}

criterion_group!(hot, frames, hearings, messages, tokens, radio);
criterion_main!(hot);
