//! Builds every room and its doors; the only one who knows everybody.

pub mod backups;
pub mod credentials;
mod deliver;
pub mod house;
mod keks;
mod names;
pub mod operator;
pub mod partners;
mod personalised;
#[cfg(test)]
mod walk;
pub mod wall;
pub mod way;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::application::{App, Delivery, Elsewhere};
use crate::backend::door::{Peers, StoreError};
use crate::backend::keywrap::{Kek, Keks};
use crate::backend::message::ClassMode;
use crate::backend::server::Server;
use crate::backup::shelf::Bring;
use crate::clock::Clock;
use crate::config::Config;
use crate::discovery::Resolver;
use crate::fns::{Air, Fns, Heard, Parts, Seal};
use crate::hns::{Abroad, Devices, Hns};
use crate::js::Js;
use crate::radio::{Radio, Radios};
use crate::sns::Sns;
use crate::store::Store;

use house::{Doors, House, Ours};
use operator::Operator;
use way::{Reach, Way};

/// Frames dealt with at the same time. A flood beyond it waits in the radios' queues, which drop.
const FRAMES_AT_ONCE: u32 = 256;
/// What waits for its home is tried again so often.
const RESEND: Duration = Duration::from_secs(60);
/// So long, at most, the radios wait at the start for what the last run left.
const BACKLOG: Duration = Duration::from_secs(10);
/// Frames under way may finish for so long when the node stops: the longest of their windows that
/// is worth waiting for.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running hotspot.
pub struct Node {
    house: Arc<House>,
    store: Store,
    operator: Arc<Operator>,
    server: Option<Server>,
    reach: Arc<Reach>,
    resolver: Option<Resolver>,
    tasks: JoinSet<()>,
    /// A place for every frame that is being dealt with.
    places: Arc<Semaphore>,
}

impl Node {
    /// Open the store, build the rooms, listen to the radios and to partners.
    pub async fn start(config: Config, clock: Clock, radios: Vec<Radio>) -> anyhow::Result<Node> {
        let net_id = config.network.net_ids.first();
        let span = tracing::info_span!("node", net_id = %net_id);
        Node::start_inside(config, clock, radios).instrument(span).await
    }

    async fn start_inside(config: Config, clock: Clock, radios: Vec<Radio>) -> anyhow::Result<Node> {
        let store = Store::open(&config.store, clock.clone())
            .with_context(|| format!("open the store {}", config.store.url.path().display()))?;
        let (air, heard): (Vec<_>, Vec<_>) =
            radios.into_iter().map(|radio| (radio.heads, radio.heard)).unzip();
        let air = Arc::new(Radios(air));
        let ours = Ours::of(&config);
        let way = Way::new(&config, &clock)?;
        let resolver = way.resolver()?;
        if let Some(resolver) = &resolver {
            names::recall(resolver, &store).await.context("read what names have led to")?;
        }
        let out = way.out(resolver.clone())?;
        let outside: Arc<dyn Peers> = match &out {
            Some(client) => Arc::new(client.clone()),
            None => Arc::new(way::Closed),
        };
        let delivery = deliver::delivery(&config, &store, &clock);
        let house = build(&config, &ours, &clock, &store, air.clone(), outside, delivery.clone()).await?;
        // before a session of an earlier configuration is used
        align_roaming(&config, &store)
            .await
            .context("bring the sessions in line with [[roaming.devices]]")?;
        house.fns.recall().await.context("read the roaming contexts of visitors")?;
        let mut tasks = JoinSet::new();
        if let Some(client) = &out {
            tasks.spawn(client.clone().keep_warm().in_current_span());
        }
        let bring = out.clone().map(|out| Arc::new(out) as Arc<dyn Bring>);
        let keeping = backups::keeping(&config, &store);
        let (server, reach) =
            way.open(&ours, house.clone(), out, resolver.clone(), keeping, &mut tasks).await?;
        let reach = Arc::new(reach);
        let operator = Operator::running(&config, store.clone(), clock.clone(), air, &house, reach.clone())
            .asking(resolver.clone())
            .showing(way.credentials().cloned());
        let operator = Arc::new(operator);
        if let Some(delivery) = &delivery {
            deliver::start(delivery, &store, operator.clone(), &mut tasks).await?;
        }
        // What the last run accepted goes home before anything new does, so nothing overtakes it.
        if let Ok(Err(error)) = tokio::time::timeout(BACKLOG, house.sns.resend_waiting()).await {
            tracing::warn!("{error}");
        }
        let places = Arc::new(Semaphore::new(FRAMES_AT_ONCE as usize));
        for radio in heard {
            tasks.spawn(listen(radio, house.fns.clone(), places.clone()).in_current_span());
        }
        tasks.spawn(resend(house.sns.clone(), clock.clone()).in_current_span());
        tasks.spawn(tend(house.clone(), clock.clone()).in_current_span());
        if let Some(resolver) = &resolver {
            tasks.spawn(names::keep(resolver.clone(), store.clone(), clock.clone()).in_current_span());
        }
        tasks.spawn(backups::keep(config.clone(), store.clone(), bring, clock.clone()).in_current_span());
        tasks.spawn(backups::keep_good(config.clone(), store.clone(), clock.clone()).in_current_span());
        let restored = store.restored_sessions().await?;
        if restored > 0 {
            tracing::warn!(
                sessions = restored,
                "sessions came back with a backup: an uplink of theirs from before may be accepted once more; `restore --rejoin` ends them"
            );
        }
        tasks.spawn(send_parked(house.fns.clone(), clock).in_current_span());
        for device in store.devices().await? {
            // what waited for it when the last run ended
            if device.class == ClassMode::C && device.queued > 0 {
                house.hns.reach(device.dev_eui);
            }
        }
        tasks.spawn(house.hns.clone().reach_all(config.network.net_ids.first()).in_current_span());
        Ok(Node { house, store, operator, server, reach, resolver, tasks, places })
    }

    /// What an operator may do with this node.
    pub fn operator(&self) -> Arc<Operator> {
        self.operator.clone()
    }

    /// The state at rest.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The rooms.
    pub fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// Where partners reach this node, if it listens.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.server.as_ref().and_then(Server::address)
    }

    /// Where hotspots and their partners come, if this is a front.
    pub fn front(&self) -> Option<SocketAddr> {
        self.reach.front()
    }

    /// Stop: hear nothing more, finish what is under way, close the store.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.tasks.shutdown().await;
        // frames that were heard are answered, and what they began is finished
        let _ = tokio::time::timeout(FAREWELL, self.places.acquire_many(FRAMES_AT_ONCE)).await;
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        if let Some(resolver) = &self.resolver {
            names::shelve(resolver, &self.store).await.context("keep what names have led to")?;
        }
        self.store.close().await.context("close the store")
    }
}

/// Every frame in a task of its own, so that a slow home of one device delays no other.
async fn listen(mut radio: mpsc::Receiver<Heard>, fns: Arc<Fns>, places: Arc<Semaphore>) {
    while let Some(heard) = radio.recv().await {
        // never closed, so there is always a place some time
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let fns = fns.clone();
        let work = async move {
            fns.uplink(heard).await;
            drop(place);
        };
        tokio::spawn(work.in_current_span());
    }
}

/// Forward rows that were left, now and then.
async fn resend(sns: Arc<Sns>, clock: Clock) {
    loop {
        match sns.resend_waiting().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "uplinks that waited for their home were sent again"),
            Err(error) => tracing::warn!("{error}"),
        }
        clock.sleep(RESEND).await;
    }
}

/// Frames whose home could not be reached.
async fn send_parked(fns: Arc<Fns>, clock: Clock) {
    loop {
        if let Err(error) = fns.send_parked().await {
            tracing::warn!("{error}");
            clock.sleep(RESEND).await;
        }
        fns.parked_due().await;
    }
}

/// Roaming contexts that have ended, or that are not allowed any more: at once after a start, and now and then.
async fn tend(house: Arc<House>, clock: Clock) {
    loop {
        let tended = [
            house.sns.stop_ended().await,
            house.fns.tend_contexts().await,
            house.sns.end_guests().await,
            house.hns.stop_ended().await,
        ];
        for tended in tended {
            if let Err(error) = tended {
                tracing::warn!("{error}");
            }
        }
        tokio::select! {
            () = clock.sleep(RESEND) => {}
            () = house.hns.handover_ended() => {}
        }
    }
}

async fn build(
    config: &Config,
    ours: &Ours,
    clock: &Clock,
    store: &Store,
    air: Arc<dyn Air>,
    outside: Arc<dyn Peers>,
    delivery: Option<Arc<Delivery>>,
) -> anyhow::Result<Arc<House>> {
    let (net_id, region) = (config.network.net_ids.first(), config.network.plan());
    let shared: Arc<Store> = Arc::new(store.clone());
    let partners = Arc::new(config.roaming.clone());
    let seal = Seal::new(&store.secret("FNSULToken").await?, clock.now());
    let kek = as_kek(store).await?;
    let open = std::iter::once(kek.clone()).chain(keks::app_s_keys(&config.join_server)?).collect();
    let keks = Keks { send: Some(kek), open, allow_clear: false };
    let applications = keks::applications(&config.join_server)?;
    let abroad = Abroad {
        ours: ours.net_ids.clone(),
        region: region.to_string(),
        partners: partners.clone(),
        carriers: shared.clone(),
    };
    let build = |house: &std::sync::Weak<House>| {
        let peers: Arc<dyn Peers> = Arc::new(Doors::new(ours.clone(), house.clone(), outside));
        let fns = Fns::new(Parts {
            me: net_id,
            ours: ours.net_ids.clone(),
            region: region.clone(),
            partners: partners.clone(),
            downlink_in_answer: config.backend.as_ref().is_none_or(|backend| backend.downlink_in_answer),
            seal,
            peers: peers.clone(),
            air,
            learned: shared.clone(),
            limits: shared.clone(),
            contexts: shared.clone(),
            parking: shared.clone(),
            usage: shared.clone(),
            clock: clock.clone(),
        });
        let application = App::delivering(keks.clone(), delivery.clone()).asking(Elsewhere {
            join_euis: ours.elsewhere.clone(),
            peers: peers.clone(),
            devices: shared.clone(),
            clock: clock.clone(),
        });
        let application = Arc::new(application);
        let sns = Sns::new(net_id, region, RX_DELAY, partners, shared.clone(), peers.clone(), clock.clone())
            .speaking(config.network.lorawan);
        let devices: Arc<dyn Devices> = match delivery {
            Some(delivery) => Arc::new(store.telling(delivery)),
            None => shared.clone(),
        };
        House {
            fns: Arc::new(fns),
            sns: Arc::new(sns),
            hns: Arc::new(Hns::new(devices, application, peers, clock.clone()).knowing(abroad)),
            js: Arc::new(
                Js::new(shared, keks, net_id, config.join_server.authorise.clone())
                    .serving(applications)
                    .home_at(config.network.ns_id)
                    .authorising(config.join_server.authorised.clone()),
            ),
        }
    };
    Ok(Arc::new_cyclic(build))
}

/// Sessions follow what `[[roaming.devices]]` says: from the start on, and after whatever an operator changes.
async fn align_roaming(config: &Config, store: &Store) -> Result<(), StoreError> {
    let rules = config.roaming.clone();
    let may = move |dev_eui, join_eui| rules.lets(dev_eui, Some(join_eui)).passive.start;
    store.align_roaming(may).await
}

/// AppSKeys travel wrapped even between two rooms of one house: the network rooms see envelopes.
async fn as_kek(store: &Store) -> anyhow::Result<Kek> {
    Ok(Kek::new("roamgate-as", store.secret("AS-JS key-encryption key").await?)?)
}

/// RxDelay of every Join-accept, seconds: RX1 opens so long after a data uplink.
const RX_DELAY: u8 = 1;
