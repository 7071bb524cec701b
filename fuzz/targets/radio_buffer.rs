//! Whatever stands in a concentrator's receive buffer: what is read as packets is what a chip would write for them, and
//! a packet means something or is refused.

use sx1302::config::Config;
use sx1302::counter::Counters;
use sx1302::packet::{interpret, merge_copies};
use sx1302::rx::{Damage, encode, parse};

pub fn fuzz(bytes: &[u8]) {
    let batch = parse(bytes);
    let written: Vec<u8> = batch.packets.iter().flat_map(encode).collect();
    let again = parse(&written);
    assert_eq!(again.packets, batch.packets);
    assert_eq!(again.damage, Damage::default());
    let (config, counters) = (Config::example_eu868(), Counters::new());
    let packets = batch.packets.iter().filter_map(|raw| interpret(raw, &config, &counters, [0.0; 2]).ok());
    assert!(merge_copies(packets.collect()).len() <= batch.packets.len());
}
