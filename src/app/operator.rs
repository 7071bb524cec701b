//! What an operator may do, done on the store: by the running node, or by the command line alone
//! while no daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use crate::backend::door::{self, Boxed};
use crate::backend::keywrap::Kek;
use crate::backend::message::{ClassMode, MacVersion, Refusal};
use crate::backup::archive::Lock;
use crate::clock::{Clock, Instant};
use crate::config::{Config, Role};
use crate::control::{
    self, ChangeDevice, DeviceRecord, DeviceView, Health, Import, New, NewDevice, OperatorError, PartnerView,
    PartnersView, Status, UsageView, Wrong,
};
use crate::discovery::Resolver;
use crate::discovery::cache::{Cache, Line};
use crate::fns::{Air, Fns, Learned};
use crate::hns::{Device, Devices, Hns, QueueItem};
use crate::lorawan::{DevEui, Key, NetId};
use crate::radio::Radios;
use crate::radio::sx1302::model::Modelled;
use crate::sns::Sns;
use crate::store::{self, Addition, Store, Taken};
use crate::tls::signed::Signed;
use crate::tls::{Identity, TlsError};
use crate::usage;

use super::credentials::Credentials;
use super::house::{House, Ours};
use super::way::Reach;
use super::{align_roaming, as_kek, backups, partners, personalised};

/// So long another network is asked to let a device go.
const REGAIN: Duration = Duration::from_secs(5);
/// Who is well answers within so long.
const PROMPT: Duration = Duration::from_secs(5);

/// The operator's hands.
pub struct Operator {
    store: Store,
    config: Config,
    ours: Ours,
    home: NetId,
    is_js: bool,
    status: Status,
    clock: Clock,
    /// Of a running node.
    running: Option<Running>,
    /// Of a running node that asks the DNS.
    resolver: Option<Resolver>,
    /// Of a running node that partners know.
    credentials: Option<Arc<Credentials>>,
}

struct Running {
    since: Instant,
    radios: Arc<Radios>,
    fns: Arc<Fns>,
    hns: Arc<Hns>,
    sns: Arc<Sns>,
    reach: Arc<Reach>,
    /// What the node does at the operator's word is told as the node's.
    span: tracing::Span,
}

impl Operator {
    /// On a store alone: no daemon runs.
    pub fn alone(config: &Config, store: Store, clock: Clock) -> Operator {
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            net_ids: config.network.net_ids.all().to_vec(),
            region: config.network.region.to_string(),
            roles: config.network.roles.iter().map(|role| role.to_string()).collect(),
            roaming: config.roaming.roams(),
            ..Status::default()
        };
        let home = config.network.net_ids.first();
        let is_js = config.network.roles.has(Role::Js);
        let (running, resolver, credentials) = (None, None, None);
        let (ours, config) = (Ours::of(config), config.clone());
        Operator { store, config, ours, home, is_js, status, clock, running, resolver, credentials }
    }

    /// On a running node.
    pub fn running(
        config: &Config,
        store: Store,
        clock: Clock,
        radios: Arc<Radios>,
        house: &House,
        reach: Arc<Reach>,
    ) -> Operator {
        let (fns, hns, sns) = (house.fns.clone(), house.hns.clone(), house.sns.clone());
        let span = tracing::Span::current();
        let running = Running { since: clock.now(), radios, fns, hns, sns, reach, span };
        Operator { running: Some(running), ..Operator::alone(config, store, clock) }
    }

    /// One that asks the DNS.
    pub fn asking(self, resolver: Option<Resolver>) -> Operator {
        Operator { resolver, ..self }
    }

    /// One that partners know.
    pub fn showing(self, credentials: Option<Arc<Credentials>>) -> Operator {
        Operator { credentials, ..self }
    }

    /// Read certificate, key, roots and lists again, as this configuration says from now on.
    pub fn reload(&self, config: Option<&Config>) -> Result<String, OperatorError> {
        let invalid = |reason: String, remedy: &str| OperatorError::Invalid { reason, remedy: remedy.into() };
        let credentials = self.credentials.as_ref().ok_or_else(|| {
            invalid("this node has no [backend], so it shows no certificate".into(), "docs/certificates.md")
        })?;
        let leaf = credentials.reload(config).map_err(|error| {
            invalid(
                format!("{error:#}; what was in use still is"),
                "`roamgate pki inspect` says what is wrong",
            )
        })?;
        credentials.hurry();
        let (names, until) = (leaf.dns_names.join(" "), leaf.not_after);
        tracing::info!(serial = leaf.serial, %until, "new connections show the certificate of {names}");
        Ok(format!("{names}, serial {}, valid until {until}", leaf.serial))
    }

    /// What names have led to: as the running node knows it, else as it was kept.
    async fn lines(&self) -> Result<Vec<Line>, OperatorError> {
        if let Some(resolver) = &self.resolver {
            return Ok(resolver.cached());
        }
        let limits = self.config.discovery.as_ref().map(|discovery| discovery.cache).unwrap_or_default();
        let kept = self.store.names().await?;
        let (now, wall) = (self.clock.now(), self.clock.unix());
        let mut cache = Cache::new(limits, kept.len());
        cache.restore(kept, now, wall);
        Ok(cache.list(now, wall))
    }

    async fn is_at_home(&self, dev_eui: DevEui) -> Result<(), OperatorError> {
        match self.store.device(dev_eui).await? {
            None => Err(OperatorError::NoDevice(dev_eui)),
            Some(Device { home: Some(net_id), .. }) => Err(OperatorError::Invalid {
                reason: format!("device {dev_eui} is of NetID {net_id}, and this is its join server only"),
                remedy: "its home network can talk to it".into(),
            }),
            Some(_) => Ok(()),
        }
    }

    /// A device of class C is sent to at once.
    fn reach(&self, dev_eui: DevEui) {
        if let Some(running) = &self.running {
            running.hns.reach(dev_eui);
        }
    }

    async fn kek(&self) -> Result<Kek, OperatorError> {
        as_kek(&self.store).await.map_err(|error| OperatorError::Failed(error.to_string()))
    }

    fn addition(&self, new: Import, kek: &Kek) -> Addition {
        let (enabled, class) = (new.enabled, new.class);
        match new.device {
            New::Joins(device) => Addition::Joins { device: self.new_device(device), enabled, class },
            New::Personalised(device) => {
                personalised::records(*device, enabled, class, &self.ours, &self.config.network.region, kek)
            }
        }
    }

    fn new_device(&self, device: NewDevice) -> store::NewDevice {
        store::NewDevice {
            dev_eui: device.dev_eui,
            join_eui: device.join_eui,
            name: device.name,
            mac_version: device.mac_version,
            app_key: device.app_key,
            nwk_key: device.nwk_key,
            home: device.home.filter(|net_id| !self.ours.net_ids.contains(net_id)),
            roaming: device.roaming,
        }
    }

    /// Networks that forward a device by a context hear at once that they have to stop; the operator does not wait for it.
    fn stop_ended(&self) {
        let Some(Running { sns, span, .. }) = &self.running else { return };
        let sns = sns.clone();
        let work = async move {
            if let Err(error) = sns.stop_ended().await {
                tracing::warn!("{error}");
            }
        };
        tokio::spawn(work.instrument(span.clone()));
    }

    fn check(&self, device: &New) -> Result<(), OperatorError> {
        let device = match device {
            New::Joins(device) => device,
            New::Personalised(device) => return personalised::check(device, &self.ours),
        };
        let invalid =
            |reason: String, remedy: &str| Err(OperatorError::Invalid { reason, remedy: remedy.into() });
        if self.config.join_server.elsewhere(device.join_eui).is_some() {
            return match (&device.app_key, device.home) {
                (None, None) => Ok(()),
                (Some(_), _) => {
                    let reason = format!(
                        "JoinEUI {} is of [[join_server.elsewhere]]: that join server has the keys",
                        device.join_eui
                    );
                    invalid(reason, "leave them out")
                }
                (None, Some(net_id)) => {
                    let reason = format!("neither its home, {net_id}, nor its join server is here");
                    invalid(reason, "add it there")
                }
            };
        }
        // without the role, the device's join server is elsewhere and its JoinEUI not ours to judge
        if self.is_js && !self.ours.serves(device.join_eui) {
            let reason = format!("JoinEUI {} is not of [join_server] join_euis", device.join_eui);
            return invalid(
                reason,
                "add it there, or to [[join_server.elsewhere]], or give the device a JoinEUI that is ours",
            );
        }
        if device.app_key.is_none() {
            let remedy = "the maker of the device gives it along with the DevEUI";
            return invalid("app_key is missing".into(), remedy);
        }
        let version = device.mac_version;
        match (version >= MacVersion::V1_1, &device.nwk_key) {
            (true, None) => {
                let reason =
                    format!("a device of LoRaWAN {version} has two root keys, and NwkKey is missing");
                invalid(reason, "give both, as the maker of the device gave them")?;
            }
            (false, Some(_)) => {
                let reason = format!("a device of LoRaWAN {version} has one root key, AppKey, and no NwkKey");
                invalid(reason, "leave NwkKey out; where the data sheet says 1.1, say so")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// By name; what several radios count is added up.
fn summed<'a>(counters: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in counters {
        *sums.entry(name.to_string()).or_default() += count;
    }
    sums
}

fn record(device: &store::DeviceSummary) -> DeviceRecord {
    DeviceRecord {
        dev_eui: device.dev_eui,
        join_eui: Some(device.join_eui)
            .filter(|join_eui| !device.personalised || join_eui.to_msb() != [0; 8]),
        app_key: None,
        nwk_key: None,
        name: device.name.clone(),
        mac_version: device.mac_version.to_string(),
        roaming: device.roaming,
        enabled: device.enabled,
        class: (device.class != ClassMode::A).then(|| device.class.into()),
        home: device.home,
        session: None,
    }
}

impl control::Operator for Operator {
    fn status(&self) -> Boxed<'_, Result<Status, OperatorError>> {
        Box::pin(async move {
            let mut status = self.status.clone();
            status.backup = self.store.last_backup().await?;
            status.clock_unset = !self.clock.is_trusted();
            let devices = self.store.devices().await?;
            status.devices = devices.iter().filter(|device| device.home.is_none()).count();
            if let Some(Running { since, radios, fns, reach, .. }) = &self.running {
                status.uptime = Some(self.clock.now().duration_since(*since).as_secs());
                status.heads = radios.heads();
                status.radios = radios.status().iter().map(ToString::to_string).collect();
                status.reached = reach.status();
                status.certificate =
                    self.credentials.as_ref().map(|credentials| credentials.status()).unwrap_or_default();
                let radio = radios.0.iter().flat_map(|radio| radio.counters());
                status.counters = BTreeMap::from([
                    ("radio".into(), summed(radio)),
                    ("fns".into(), summed(fns.counters().named())),
                    ("store".into(), summed(self.store.stats().named())),
                ]);
            }
            Ok(status)
        })
    }

    fn health(&self) -> Boxed<'_, Result<Health, OperatorError>> {
        Box::pin(async move {
            let by = self.clock.now() + PROMPT;
            let store = tokio::time::timeout_at(by, self.store.vouch()).await;
            let mut radios: BTreeMap<String, bool> = BTreeMap::new();
            let running = self.running.iter().flat_map(|running| &running.radios.0);
            for radio in running {
                let lives = tokio::time::timeout_at(by, radio.vouch()).await.is_ok();
                for head in radio.status() {
                    *radios.entry(head.name).or_default() |= lives && head.online;
                }
            }
            Ok(Health { store: matches!(store, Ok(Ok(()))), radios })
        })
    }

    fn model(&self) -> Option<Modelled> {
        self.running.as_ref()?.radios.0.iter().find_map(|radio| radio.model())
    }

    fn add_device(&self, device: NewDevice) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            let new = Import { device: New::Joins(device), enabled: true, class: ClassMode::A };
            match self.add_devices(vec![new], false).await?.pop() {
                Some((_, error)) => Err(error),
                None => Ok(()),
            }
        })
    }

    fn add_devices(&self, devices: Vec<Import>, dry_run: bool) -> Boxed<'_, Result<Wrong, OperatorError>> {
        Box::pin(async move {
            let mut wrong = Wrong::new();
            for (place, new) in devices.iter().enumerate() {
                wrong.extend(self.check(&new.device).err().map(|error| (place, error)));
            }
            let dry = dry_run || !wrong.is_empty();
            let mut seen = BTreeSet::new();
            let names: Vec<(DevEui, bool)> = devices
                .iter()
                .map(|new| new.device.dev_eui())
                .map(|name| (name, !seen.insert(name)))
                .collect();
            let kek = self.kek().await?;
            let new = devices.into_iter().map(|new| self.addition(new, &kek)).collect();
            for (place, taken) in self.store.add_devices(new, dry).await? {
                let error = match (names.get(place), taken) {
                    (None, _) => continue,
                    (Some(_), Taken::Session(twin)) => personalised::twin(twin),
                    (Some((dev_eui, true)), Taken::DevEui) => {
                        let reason = format!("DevEUI {dev_eui} stands in the list before");
                        OperatorError::Invalid { reason, remedy: "leave one of them out".into() }
                    }
                    (Some((dev_eui, false)), Taken::DevEui) => OperatorError::Exists(*dev_eui),
                };
                wrong.push((place, error));
            }
            // a personalised device brings its session along
            if !dry {
                align_roaming(&self.config, &self.store).await?;
            }
            Ok(wrong)
        })
    }

    fn export_devices(&self, keys: bool) -> Boxed<'_, Result<Vec<DeviceRecord>, OperatorError>> {
        Box::pin(async move {
            let kek = self.kek().await?;
            let mut sessions = BTreeMap::new();
            for (device, session) in self.store.personalised().await? {
                sessions.insert(device.dev_eui, personalised::given(&device, &session, &kek, keys)?);
            }
            let with_session =
                |record: DeviceRecord| DeviceRecord { session: sessions.remove(&record.dev_eui), ..record };
            if !keys {
                return Ok(self.store.devices().await?.iter().map(record).map(with_session).collect());
            }
            let devices = self.store.devices_with_keys().await?;
            tracing::warn!(devices = devices.len(), "keys were given out: an operator exported all devices");
            let text = |key: &Option<Key>| key.as_ref().map(|key| hex::encode_upper(key.expose()));
            let with_keys = |(summary, app_key, nwk_key): &_| DeviceRecord {
                app_key: text(app_key),
                nwk_key: text(nwk_key),
                ..record(summary)
            };
            Ok(devices.iter().map(with_keys).map(with_session).collect())
        })
    }

    fn change_device(&self, dev_eui: DevEui, change: ChangeDevice) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            let ChangeDevice { name, roaming, enabled, class, forget_nonces } = change;
            if forget_nonces && !self.store.clear_dev_nonces(dev_eui).await? {
                return Err(OperatorError::NoDevice(dev_eui));
            }
            if forget_nonces {
                tracing::info!(DevEUI = %dev_eui, "its DevNonces are forgotten: it may begin anew");
            }
            let class = class.map(ClassMode::from);
            match self.store.change_device(dev_eui, store::Change { name, roaming, enabled, class }).await? {
                true => {
                    align_roaming(&self.config, &self.store).await?;
                    self.reach(dev_eui);
                    self.stop_ended();
                    Ok(())
                }
                false => Err(OperatorError::NoDevice(dev_eui)),
            }
        })
    }

    fn reset_counter(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            if self.store.reset_counter(dev_eui).await? {
                if let Some(running) = &self.running {
                    running.hns.began_anew(dev_eui);
                }
                tracing::warn!(DevEUI = %dev_eui, "an operator reset its uplink counter: its next uplink counts anew");
                return Ok(());
            }
            match self.store.device(dev_eui).await? {
                None => Err(OperatorError::NoDevice(dev_eui)),
                Some(_) => Err(OperatorError::Invalid {
                    reason: format!("device {dev_eui} joins: each join begins its counters anew"),
                    remedy: "let it join again".into(),
                }),
            }
        })
    }

    fn rejoin(&self, dev_eui: DevEui, kind: u8) -> Boxed<'_, Result<Option<NetId>, OperatorError>> {
        Box::pin(async move {
            self.is_at_home(dev_eui).await?;
            let Some(running) = &self.running else {
                let reason = "no daemon runs, and only one can speak to a device".into();
                return Err(OperatorError::Invalid { reason, remedy: "start it: `roamgate run`".into() });
            };
            let refused = |refusal: Refusal| OperatorError::Invalid {
                reason: refusal.description,
                remedy: "a device of LoRaWAN 1.0.x joins again when it is restarted".into(),
            };
            let by = door::Deadline(self.clock.now() + REGAIN);
            let asked = async {
                match running.hns.regain(dev_eui, by).await? {
                    Some(net_id) => Ok(Some(net_id)),
                    None => running.sns.force_rejoin(dev_eui, kind, None).await.map(|()| None),
                }
            };
            let served_by = asked.instrument(running.span.clone()).await.map_err(refused)?;
            tracing::info!(DevEUI = %dev_eui, kind, ?served_by, "an operator wants this device to rejoin");
            Ok(served_by)
        })
    }

    fn partners(&self) -> Boxed<'_, Result<PartnersView, OperatorError>> {
        Box::pin(async move {
            let learnt = self.running.is_some().then(|| self.store.net_ids());
            let mut view = partners::all(&self.config, learnt.as_deref());
            let lines = self.lines().await?;
            view.partners.iter_mut().for_each(|partner| partner.found(&lines));
            Ok(view)
        })
    }

    fn reload(&self) -> Boxed<'_, Result<String, OperatorError>> {
        Box::pin(async move { Operator::reload(self, None) })
    }

    fn backup(&self, lock: Lock) -> Boxed<'_, Result<Vec<u8>, OperatorError>> {
        Box::pin(async move {
            let packed = backups::packed(&self.config, &self.store, &self.clock, lock).await;
            let packed = packed.map_err(|error| OperatorError::Failed(format!("{error:#}")))?;
            self.store.note_backup().await?;
            Ok(packed)
        })
    }

    fn names(&self) -> Boxed<'_, Result<Vec<Line>, OperatorError>> {
        Box::pin(self.lines())
    }

    fn forget_names(&self, name: Option<String>) -> Boxed<'_, Result<usize, OperatorError>> {
        Box::pin(async move {
            let mut kept = self.store.names().await?;
            let before = kept.len();
            kept.retain(|kept| name.as_ref().is_some_and(|name| kept.name != *name));
            let forgotten = before - kept.len();
            self.store.keep_names(kept).await?;
            Ok(self.resolver.as_ref().map_or(forgotten, |resolver| resolver.flush(name.as_deref())))
        })
    }

    fn usage(&self, month: String) -> Boxed<'_, Result<UsageView, OperatorError>> {
        Box::pin(async move { Ok(UsageView::new(month.clone(), self.store.usage(month).await?)) })
    }

    fn statement(&self, month: String, net_id: NetId) -> Boxed<'_, Result<Signed, OperatorError>> {
        Box::pin(async move {
            let Some(backend) = &self.config.backend else {
                let reason = "there is no [backend] with an identity to sign with".into();
                let remedy = "`roamgate pki` makes one; partners know this node by it".into();
                return Err(OperatorError::Invalid { reason, remedy });
            };
            let wrong = |error: TlsError| OperatorError::Invalid {
                reason: error.to_string(),
                remedy: "`roamgate pki inspect` says what is wrong with a certificate".into(),
            };
            let identity =
                Identity::load(&backend.identity.chain(), &backend.identity.key()).map_err(wrong)?;
            let text = self.store.statement(self.home, net_id, month).await?;
            identity.sign(usage::PURPOSE, text).map_err(wrong)
        })
    }

    fn partner(&self, net_id: NetId) -> Boxed<'_, Result<PartnerView, OperatorError>> {
        Box::pin(async move {
            let learnt = self.running.is_some().then(|| self.store.net_ids());
            let mut view = partners::one(&self.config, net_id, learnt.as_deref());
            view.found(&self.lines().await?);
            Ok(view)
        })
    }

    fn devices(&self) -> Boxed<'_, Result<Vec<DeviceView>, OperatorError>> {
        Box::pin(async move {
            let mut devices = Vec::new();
            for summary in self.store.devices().await? {
                let device = self.store.device(summary.dev_eui).await?;
                devices.extend(device.as_ref().map(DeviceView::from));
            }
            Ok(devices)
        })
    }

    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<Device, OperatorError>> {
        Box::pin(async move {
            let device = self.store.device(dev_eui).await?;
            device.ok_or(OperatorError::NoDevice(dev_eui))
        })
    }

    fn remove_device(&self, dev_eui: DevEui) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            match self.store.remove_device(dev_eui).await? {
                true => {
                    self.stop_ended();
                    Ok(())
                }
                false => Err(OperatorError::NoDevice(dev_eui)),
            }
        })
    }

    fn enqueue(&self, dev_eui: DevEui, item: QueueItem) -> Boxed<'_, Result<(), OperatorError>> {
        Box::pin(async move {
            self.is_at_home(dev_eui).await?;
            let (decide, slot) =
                door::decided(move |device: &mut Option<Device>| control::enqueue(dev_eui, device, &item));
            self.store.with_device(dev_eui, Box::new(decide)).await?;
            door::outcome(&slot)??;
            self.reach(dev_eui);
            Ok(())
        })
    }
}
