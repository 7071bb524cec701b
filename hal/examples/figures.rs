//! What the driver moves and how long it sleeps, counted on the model.
//!
//! ```text
//! cargo run --release -p sx1302 --example figures
//! ```

use sx1302::bus::{Event, Recorder};
use sx1302::config::{Bandwidth, Chain, CodingRate, Config, SpreadingFactor};
use sx1302::firmware::Firmware;
use sx1302::model::Model;
use sx1302::rx::RawPacket;
use sx1302::tx::{Modulation, Transmission, When};
use sx1302::{Concentrator, Error};

type Radio = Concentrator<Recorder<Model>>;

/// Runs something and prints what it cost.
fn count<T>(
    radio: &mut Radio,
    what: &str,
    act: impl FnOnce(&mut Radio) -> Result<T, Error>,
) -> Result<T, Error> {
    let from = radio.bus_mut().events().len();
    let done = act(radio)?;
    let (mut transactions, mut bytes, mut slept) = (0, 0, 0);
    for event in &radio.bus_mut().events()[from..] {
        match event {
            Event::Spi { tx, .. } => {
                transactions += 1;
                bytes += tx.len();
            }
            Event::Wait(us) => slept += u64::from(*us),
            _ => {}
        }
    }
    println!("{what:44} {transactions:5} transactions {bytes:7} bytes {:8.1} ms asleep", slept as f64 / 1e3);
    Ok(done)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Recorder::new(Model::new());
    let mut radio = Concentrator::new(bus, Config::example_eu868(), Firmware::synthetic())?;
    count(&mut radio, "start (two SX1250)", Radio::start)?;
    count(&mut radio, "is something there? nothing", Radio::waiting)?;
    count(&mut radio, "receive, nothing there", |radio| radio.receive(16))?;
    let packet = RawPacket::example(vec![0x40; 23]);
    radio.bus_mut().inner_mut().hear(&packet);
    count(&mut radio, "receive, one packet of 23 bytes", |radio| radio.receive(16))?;
    let transmission = Transmission {
        chain: Chain::A,
        freq_hz: 868_100_000,
        power_dbm: 14,
        when: When::Now,
        modulation: Modulation::Lora {
            sf: SpreadingFactor::new(7)?,
            bandwidth: Bandwidth::Khz125,
            coding_rate: CodingRate::new(1)?,
            preamble: 8,
            inverted: true,
            crc: false,
            header: true,
        },
        payload: vec![0x60; 17],
    };
    count(&mut radio, "send, for the first time", |radio| radio.send(&transmission))?;
    count(&mut radio, "abort", |radio| radio.abort(Chain::A))?;
    count(&mut radio, "send, again", |radio| radio.send(&transmission))?;
    count(&mut radio, "stop", Radio::stop)?;
    Ok(())
}
