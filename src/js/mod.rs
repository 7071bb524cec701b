//! Join server: root keys, nonces, session keys.

pub mod config;
mod join;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backend::door::{self, Boxed, Caller, Commit, StoreError};
use crate::backend::keywrap::Keks;
use crate::backend::message::{
    HomeNsAns, HomeNsReq, JoinAns, JoinReq, MacVersion, Party, Refusal, RejoinReq, ResultCode,
};
use crate::lorawan::{DevEui, JoinEui, Key, NetId};

pub use join::{accept_join, accept_rejoin};

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
    /// Its home network: HNetID.
    pub home: NetId,
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
    /// As LoRaWAN 1.1 derives them.
    pub v1_1: bool,
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
    authorise: Authorise,
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

type Rule = fn(&mut Option<Device>, &JoinReq, NetId, &Keks) -> (Result<JoinAns, Refusal>, Commit);

impl Js {
    /// `as_keks` wrap AppSKeys for the application server of this house.
    pub fn new(root_keys: Arc<dyn RootKeys>, as_keks: Keks, authorise: Authorise) -> Js {
        Js { root_keys, as_keks, authorise }
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
        let (dev_eui, keks) = (req.dev_eui, self.as_keks.clone());
        let (decide, slot) = door::decided(move |device| {
            let (answer, commit) = rule(device, &req, sender, &keks);
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
            (device.as_ref().map(|device| (device.home, device.enabled)), Commit::Nothing)
        });
        self.root_keys.with_device(req.dev_eui, Box::new(decide)).await?;
        match door::outcome(&slot)? {
            None => Err(Refusal::new(ResultCode::UnknownDevEui, format!("no device {} here", req.dev_eui))),
            Some((_, false)) => {
                let why = format!("device {} is disabled", req.dev_eui);
                Err(Refusal::new(ResultCode::ActivationDisallowed, why))
            }
            Some((h_net_id, true)) => Ok(HomeNsAns { h_net_id }),
        }
    }
}
