//! SenderTokens of partners (TS002 4.5): what a server wants to see again with everything about a device. In memory: a partner
//! that misses one works without it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::message::{Party, Request};
use crate::lorawan::{DevAddr, DevEui};

/// A longer one is not kept.
const LONGEST: usize = 255;
/// Tokens kept.
const MOST: usize = 10_000;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Device {
    Eui(DevEui),
    Addr(DevAddr),
}

/// The latest token of each server and device.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<BTreeMap<(Party, Device), Vec<u8>>>);

impl Tokens {
    /// A server sent one with a request or with its answer to one.
    pub fn note(&self, server: &Party, about: &Request, token: &[u8]) {
        if token.len() > LONGEST {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for device in devices(about) {
            if all.len() >= MOST {
                // whichever it is: its server does without
                all.pop_first();
            }
            all.insert((server.clone(), device), token.to_vec());
        }
    }

    /// What goes back to a server with a message.
    pub fn for_it(&self, server: &Party, about: &Request) -> Option<Vec<u8>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        devices(about).find_map(|device| all.get(&(server.clone(), device)).cloned())
    }
}

fn devices(about: &Request) -> impl Iterator<Item = Device> {
    let (dev_eui, dev_addr) = match about {
        Request::HomeNs(req) => (Some(req.dev_eui), None),
        Request::Profile(req) => (Some(req.dev_eui), None),
        Request::AppSKey(req) => (Some(req.dev_eui), None),
        Request::PrStart(req) => (req.ul.dev_eui, req.ul.dev_addr),
        Request::PrStop(req) => (Some(req.dev_eui), req.dev_addr),
        Request::XmitUp(req) => (req.ul.dev_eui, req.ul.dev_addr),
        Request::XmitAppUp(req) => (req.ul.dev_eui, None),
        Request::XmitDown(req) => (req.dl.dev_eui, None),
        Request::XmitAppDown(req) => (req.dl.dev_eui, None),
        Request::Join(req) => (Some(req.dev_eui), None),
        Request::Rejoin(req) => (Some(req.0.dev_eui), None),
        Request::HrStart(req) => (Some(req.dev_eui), None),
        Request::HrRegain(req) => (Some(req.dev_eui), None),
        Request::HrStop(req) => (Some(req.dev_eui), None),
    };
    dev_eui.map(Device::Eui).into_iter().chain(dev_addr.map(Device::Addr))
}

#[cfg(test)]
mod tests {
    use super::super::message::{HomeNsReq, PrStopReq, ProfileReq};
    use super::*;

    #[test]
    fn the_latest_token_goes_back_to_its_server_with_what_is_about_its_device() {
        let tokens = Tokens::default();
        let (server, other) = (Party::As("a".into()), Party::As("b".into()));
        let (one, two) = (DevEui::from_msb([1; 8]), DevEui::from_msb([2; 8]));
        let home = |dev_eui| Request::from(HomeNsReq { dev_eui });
        tokens.note(&server, &home(one), &[1]);
        tokens.note(&server, &home(one), &[2]);
        tokens.note(&server, &home(two), &[0; LONGEST + 1]);
        assert_eq!(tokens.for_it(&server, &ProfileReq { dev_eui: one }.into()), Some(vec![2]));
        assert_eq!(tokens.for_it(&other, &home(one)), None);
        assert_eq!(tokens.for_it(&server, &home(two)), None);
        // by the address where the identity is not known
        let addr = DevAddr::new(7);
        let stop = |dev_eui| PrStopReq { dev_eui, dev_addr: Some(addr), lifetime: None };
        tokens.note(&server, &stop(two).into(), &[3]);
        assert_eq!(tokens.for_it(&server, &stop(DevEui::from_msb([3; 8])).into()), Some(vec![3]));
    }

    #[test]
    fn a_flood_of_tokens_takes_bounded_memory() {
        let tokens = Tokens::default();
        for n in 0..MOST as u64 + 10 {
            let dev_eui = DevEui::from_msb(n.to_be_bytes());
            tokens.note(&Party::As("a".into()), &HomeNsReq { dev_eui }.into(), &[1]);
        }
        assert_eq!(tokens.0.lock().unwrap().len(), MOST);
    }
}
