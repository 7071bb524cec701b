//! Join server: root keys, nonces, session keys.

pub mod config;
mod join;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backend::door::{self, Boxed, Caller, Commit, StoreError};
use crate::backend::keywrap::{self, Keks};
use crate::backend::message::{
    AppSKeyAns, AppSKeyReq, HomeNsAns, HomeNsReq, JoinAns, JoinReq, MacVersion, Party, Refusal, RejoinReq,
    ResultCode,
};
use crate::lorawan::{DevEui, JoinEui, Key, NetId, NsId};

use config::{Application, Authorised, is_authorised};
pub use join::{Asking, accept_join, accept_rejoin};

/// A device whose root keys we hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Identity.
    pub dev_eui: DevEui,
    /// The JoinEUI it joins with.
    pub join_eui: JoinEui,
    /// LoRaWAN version of the device: decides the DevNonce rule (TS002 11.6).
    pub mac_version: MacVersion,
    /// AppKey (1.0.x: for everything).
    pub app_key: Key,
    /// NwkKey (1.1 only).
    pub nwk_key: Option<Key>,
    /// Its home network (HNetID), where that is not ours.
    pub home: Option<NetId>,
    /// May join.
    pub enabled: bool,
    /// DevNonces used with this JoinEUI: all of them up to 1.0.3, the highest one from 1.0.4 on.
    pub dev_nonces: BTreeSet<u16>,
    /// Last JoinNonce given out; the first is 1, 24 bits.
    pub join_nonce: u32,
    /// Last RJcount1 that was accepted, of this JoinEUI.
    pub rj_count1: Option<u16>,
    /// What the keys of its last sessions were derived from, newest last.
    pub derivations: Vec<Derivation>,
}

/// What session keys come from, beside the root keys (TS002 11.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derivation {
    /// JoinNonce of the Join-accept; its bytes are the SessionKeyID.
    pub join_nonce: u32,
    /// DevNonce, or RJcount of a Rejoin-request.
    pub nonce: u16,
    /// NetID of the Join-accept.
    pub net_id: NetId,
    /// As LoRaWAN 1.1 derives them.
    pub v1_1: bool,
    /// Last RJcount0 that was accepted under its keys.
    pub rj_count0: Option<u16>,
}

/// A decision over one device, `None` where there is none; changes it in place. May run twice.
pub type Decide = Box<dyn Fn(&mut Option<Device>) -> Commit + Send + Sync>;

/// Root keys and nonces at rest, root keys encrypted.
pub trait RootKeys: Send + Sync {
    /// Read, decide, write, return.
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>>;
}

/// The join server.
pub struct Js {
    root_keys: Arc<dyn RootKeys>,
    as_keks: Keks,
    us: NetId,
    authorise: Authorise,
    applications: Arc<[(Application, keywrap::Kek)]>,
    nsid: Option<NsId>,
    authorised: Vec<Authorised>,
}

/// Who may ask for a device's home (`[join_server] authorise`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authorise {
    /// Everybody whom `[roaming]` admits.
    #[default]
    Default,
    /// These networks.
    Only(Vec<NetId>),
}

type Rule = fn(&mut Option<Device>, &JoinReq, Asking<'_>) -> (Result<JoinAns, Refusal>, Commit);

impl Js {
    /// `as_keks` wrap AppSKeys for the application server of this house; `us` is the home network of devices that have no other.
    pub fn new(root_keys: Arc<dyn RootKeys>, as_keks: Keks, us: NetId, authorise: Authorise) -> Js {
        Js {
            root_keys,
            as_keks,
            us,
            authorise,
            applications: Arc::default(),
            nsid: None,
            authorised: Vec::new(),
        }
    }

    /// Application servers outside this house, each with its key-encryption key.
    pub fn serving(self, applications: Vec<(Application, keywrap::Kek)>) -> Js {
        Js { applications: applications.into(), ..self }
    }

    /// With devices that only some networks may ask for.
    pub fn authorising(self, authorised: Vec<Authorised>) -> Js {
        Js { authorised, ..self }
    }

    /// The NSID of our network server, told to who asks for a home (HNSID).
    pub fn home_at(self, nsid: Option<NsId>) -> Js {
        Js { nsid, ..self }
    }

    /// AppSKeyReq (TS002 12.3).
    pub async fn app_s_key(&self, from: Caller, req: AppSKeyReq) -> Result<AppSKeyAns, Refusal> {
        let of = |(application, _): &&(Application, _)| from.party == Party::As(application.as_id.clone());
        let Some((application, kek)) = self.applications.iter().find(of) else {
            let why = format!("no [[join_server.application]] {}", from.party);
            return Err(Refusal::new(ResultCode::UnknownSender, why));
        };
        let dev_eui = req.dev_eui;
        let (decide, slot) = door::decided(|device: &mut Option<Device>| (device.clone(), Commit::Nothing));
        self.root_keys.with_device(dev_eui, Box::new(decide)).await?;
        let unknown = |why: String| Refusal::new(ResultCode::UnknownDevEui, why);
        let device = door::outcome(&slot)?.filter(|device| from.receiver == Party::Js(device.join_eui));
        let device = device.ok_or_else(|| unknown(format!("no device {dev_eui} with this JoinEUI here")))?;
        if !application.has(dev_eui, device.join_eui) {
            let why = format!("device {dev_eui} is not of application server {}", from.party);
            return Err(Refusal::new(ResultCode::ActivationDisallowed, why));
        }
        let named = |of: &&Derivation| of.join_nonce.to_be_bytes()[..] == req.session_key_id;
        let session = device.derivations.iter().find(named).copied();
        let key = session.and_then(|session| join::app_s_key(&device, session));
        let key = key.ok_or_else(|| unknown(format!("no such session of device {dev_eui}")))?;
        Ok(AppSKeyAns { app_s_key: kek.wrap(&key) })
    }

    /// JoinReq (TS002 12.2 step 6): decided and committed in one transaction. Nonces and keys are on disk before the
    /// Join-accept leaves the house: with this commit, or with that of our own hNS or sNS which follows it.
    pub async fn join(&self, from: Caller, req: JoinReq) -> Result<JoinAns, Refusal> {
        self.accept(from, req, accept_join).await
    }

    /// RejoinReq (TS002 12.7 step 8, 12.11), likewise.
    pub async fn rejoin(&self, from: Caller, req: RejoinReq) -> Result<JoinAns, Refusal> {
        self.accept(from, req.0, accept_rejoin).await
    }

    async fn accept(&self, from: Caller, req: JoinReq, rule: Rule) -> Result<JoinAns, Refusal> {
        let Party::Ns(sender) = from.party.clone() else {
            return Err(Refusal::new(ResultCode::MalformedRequest, "it comes from a network server"));
        };
        let (dev_eui, us, ours) = (req.dev_eui, self.us, self.as_keks.clone());
        let applications = self.applications.clone();
        let (decide, slot) = door::decided(move |device: &mut Option<Device>| {
            // another network can only pass it on to an application server that has a key for it
            let theirs = device.as_ref().filter(|_| !from.ours).and_then(|device| {
                let of =
                    |(application, _): &&(Application, _)| application.has(device.dev_eui, device.join_eui);
                let (_, kek) = applications.iter().find(of)?;
                Some(Keks { send: Some(kek.clone()), ..Keks::default() })
            });
            let as_keks = if from.ours { Some(&ours) } else { theirs.as_ref() };
            let (answer, commit) = rule(device, &req, Asking { sender, us, as_keks });
            (answer, commit.asked_by(&from))
        });
        self.root_keys.with_device(dev_eui, Box::new(decide)).await?;
        door::outcome(&slot)?
    }

    /// HomeNSReq (TS002 12.9 step 4).
    pub async fn home_ns(&self, from: Caller, req: HomeNsReq) -> Result<HomeNsAns, Refusal> {
        let Party::Ns(visited) = from.party else {
            return Err(Refusal::new(
                ResultCode::MalformedRequest,
                "a HomeNSReq comes from a network server",
            ));
        };
        let authorised = match &self.authorise {
            Authorise::Default => true,
            Authorise::Only(net_ids) => from.ours || net_ids.contains(&visited),
        };
        if !authorised {
            let why = format!("[join_server] authorise does not list NetID {visited}");
            return Err(Refusal::new(ResultCode::NoRoamingAgreement, why));
        }
        let (decide, slot) = door::decided(|device: &mut Option<Device>| {
            let told = device.as_ref().map(|device| (device.home, device.enabled, device.join_eui));
            (told, Commit::Nothing)
        });
        self.root_keys.with_device(req.dev_eui, Box::new(decide)).await?;
        match door::outcome(&slot)? {
            None => Err(Refusal::new(ResultCode::UnknownDevEui, format!("no device {} here", req.dev_eui))),
            Some((_, _, join_eui))
                if !from.ours && !is_authorised(&self.authorised, req.dev_eui, join_eui, visited) =>
            {
                let why = format!("[[join_server.authorised]] does not list NetID {visited} for this device");
                Err(Refusal::new(ResultCode::NoRoamingAgreement, why))
            }
            Some((_, false, _)) => {
                let why = format!("device {} is disabled", req.dev_eui);
                Err(Refusal::new(ResultCode::ActivationDisallowed, why))
            }
            Some((home, true, _)) => Ok(HomeNsAns {
                h_net_id: home.unwrap_or(self.us),
                h_nsid: self.nsid.filter(|_| home.is_none()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::backend::door::Deadline;
    use crate::clock::Instant;

    struct One(Mutex<BTreeMap<DevEui, Device>>);

    impl RootKeys for One {
        fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>> {
            let mut all = self.0.lock().unwrap();
            let mut device = all.remove(&dev_eui);
            decide(&mut device);
            all.extend(device.map(|device| (dev_eui, device)));
            Box::pin(std::future::ready(Ok(())))
        }
    }

    /// Step by step of TS002 12.3: each failure by its code, and the key under the key-encryption key of the two.
    #[tokio::test]
    async fn an_application_server_gets_the_keys_of_its_own_devices_only() {
        let (dev_eui, join_eui) = (DevEui::from_msb([1; 8]), JoinEui::from_msb([2; 8]));
        let home = NetId::from_msb([0, 0, 1]);
        let derivations = (3..7)
            .map(|n| Derivation {
                join_nonce: n,
                nonce: n as u16,
                net_id: home,
                v1_1: n > 4,
                rj_count0: None,
            })
            .collect();
        let device = Device {
            dev_eui,
            join_eui,
            mac_version: MacVersion::V1_1,
            app_key: Key::new([5; 16]),
            nwk_key: Some(Key::new([6; 16])),
            home: None,
            enabled: true,
            dev_nonces: BTreeSet::new(),
            join_nonce: 6,
            rj_count1: None,
            derivations,
        };
        let keys = Arc::new(One(Mutex::new([(dev_eui, device)].into())));
        let text = "[[application]]\nas_id = \"as\"\njoin_euis = [\"0202020202020202\"]\n\
            kek = { label = \"as-js\", key = \"000102030405060708090A0B0C0D0E0F\" }\n\
            [[application]]\nas_id = \"other\"\ndev_euis = [\"0101010101010102\"]\n\
            kek = { label = \"o\", key = \"100102030405060708090A0B0C0D0E0F\" }";
        let config: config::Config = toml::from_str(text).unwrap();
        assert_eq!(toml::from_str::<config::Config>(text).unwrap().application[0].identity(), "as");
        let kek = |label: &str, first: u8| {
            let key: Vec<u8> = (0..16).map(|n| if n == 0 { first } else { n }).collect();
            keywrap::Kek::new(label, key).unwrap()
        };
        let keks = [kek("as-js", 0), kek("o", 0x10)];
        let applications = config.application.into_iter().zip(keks.clone()).collect();
        let js = Js::new(keys, Keks::default(), home, Authorise::Default).serving(applications);
        let ask = |who: &str, receiver, dev_eui, id: &[u8]| {
            let by = Deadline(Instant::now());
            let from =
                Caller { party: Party::As(who.into()), receiver: Party::Js(receiver), ours: false, by };
            js.app_s_key(from, AppSKeyReq { dev_eui, session_key_id: id.to_vec() })
        };
        let refused =
            async |who, receiver, dev_eui, id| ask(who, receiver, dev_eui, id).await.unwrap_err().code;
        let latest = [0, 0, 0, 6];
        let stranger = DevEui::from_msb([9; 8]);
        assert_eq!(refused("nobody", join_eui, dev_eui, &latest).await, ResultCode::UnknownSender);
        assert_eq!(refused("as", join_eui, stranger, &latest).await, ResultCode::UnknownDevEui);
        assert_eq!(
            refused("as", JoinEui::from_msb([3; 8]), dev_eui, &latest).await,
            ResultCode::UnknownDevEui
        );
        assert_eq!(refused("other", join_eui, dev_eui, &latest).await, ResultCode::ActivationDisallowed);
        for id in [&[0, 0, 0, 7][..], &[6], &[0, 0, 0, 0, 6]] {
            assert_eq!(refused("as", join_eui, dev_eui, id).await, ResultCode::UnknownDevEui);
        }
        let opener = Keks { open: vec![keks[0].clone()], ..Keks::default() };
        let key = opener.open(&ask("as", join_eui, dev_eui, &latest).await.unwrap().app_s_key).unwrap();
        let (app, nwk) = (Key::new([5; 16]), Key::new([6; 16]));
        assert_eq!(key, crate::lorawan::crypto::session_keys_11(&nwk, &app, 6, join_eui, 6).app_s_key);
        // an older one of 1.0.x comes from the other root
        let key = opener.open(&ask("as", join_eui, dev_eui, &[0, 0, 0, 4]).await.unwrap().app_s_key).unwrap();
        assert_eq!(key, crate::lorawan::crypto::session_keys(&nwk, 4, home, 4).app_s_key);
    }
}
