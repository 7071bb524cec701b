//! The federation's list of networks that share a range of addresses (types 3 to 7 of TS002 3.2). Called by `resolve` only.

use hickory_proto::rr::{RData, RecordType};

use super::{Inner, Instant, LONGEST_QUESTION, Resolver, Trouble, cell, timer, ways};
use crate::backend::door::Deadline;
use crate::discovery::name::nwk_id_name;
use crate::lorawan::{DevAddr, NetId};

/// Networks of one list that are read at most: no NwkID has more.
const MOST: usize = 1024;

/// Networks, and until when that may be believed.
pub(super) type List = (Vec<NetId>, Instant);

impl Resolver {
    /// Every network that may have given this address, as its federation lists them. Nobody where there is no list, or none that may be
    /// believed, and for types 0 to 2, whose addresses name the network themselves.
    pub async fn networks(&self, addr: DevAddr, by: Deadline) -> Vec<NetId> {
        let (Some(kind), None) = (addr.kind(), addr.net_id()) else { return Vec::new() };
        let Some(nwk_id) = addr.nwk_id() else { return Vec::new() };
        let name = nwk_id_name(kind, nwk_id, &self.0.config.net_id_suffix);
        let now = self.0.clock.now();
        let cell = cell(&mut self.0.names().lists, &name, |(_, until)| *until <= now);
        let inner = self.0.clone();
        // A task of its own: a caller who gives up ends the waiting, not the question.
        let question = tokio::spawn(async move { cell.get_or_init(|| inner.list(&name)).await.clone() });
        match tokio::time::timeout_at(self.budget(by), question).await {
            Ok(Ok((all, _))) => all.into_iter().filter(|net_id| net_id.covers(addr)).collect(),
            // late, or a task that panicked
            _ => Vec::new(),
        }
    }
}

impl Inner {
    async fn list(&self, name: &str) -> List {
        let question = async { self.asker.records(ways::absolute(name)?, RecordType::TXT).await };
        let question = timer::at(self.clock.clone(), question);
        let end = self.clock.now() + LONGEST_QUESTION;
        let (all, worth) = match tokio::time::timeout_at(end, question).await.unwrap_or(Err(Trouble::Timeout))
        {
            Ok(found) if self.config.dnssec.takes(found.worth.security) => {
                let read = |data: &RData| match data {
                    RData::TXT(text) => str::from_utf8(&text.txt_data.concat()).ok()?.parse().ok(),
                    _ => None,
                };
                (found.data.iter().filter_map(read).take(MOST).collect(), Some(found.worth))
            }
            Ok(found) => (Vec::new(), Some(found.worth)),
            Err(Trouble::Missing(worth)) => (Vec::new(), Some(worth)),
            Err(_) => (Vec::new(), None),
        };
        let until = self.until(!Vec::is_empty(&all), worth);
        (all, until)
    }
}
