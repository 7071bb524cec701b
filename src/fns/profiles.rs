//! Rates of Service Profiles (TS002 tables 7 and 18, section 15.2): what a home wants to pay for of what its devices send and
//! are sent here. Its context says it; without one nothing is limited.
//!
//! The buckets are in memory: after a start they are full.

use crate::backend::message::{Account, Refusal, ResultCode};
use crate::limits::{Profiled, RateLimit, RatePolicy, Standing};
use crate::lorawan::{DevAddr, NetId};
use crate::usage::Way;

use super::contexts::{Context, ContextId};
use super::{Fns, lock};

/// Devices with a limit whose buckets are remembered, each way.
const BUCKETS: usize = 20_000;

/// The buckets of both ways.
#[derive(Debug)]
pub(super) struct Rates(Profiled<(ContextId, Way)>);

impl Default for Rates {
    fn default() -> Rates {
        Rates(Profiled::new(BUCKETS))
    }
}

fn limit(context: &Context, way: Way) -> RateLimit {
    match way {
        Way::Up => context.terms.ul,
        Way::Down => context.terms.dl,
    }
}

impl Fns {
    /// Whether the next frame of a device is one that its home wants dropped; then why.
    pub(super) fn is_above(&self, context: &Context, way: Way) -> Option<String> {
        let limit = limit(context, way);
        let standing = lock(&self.rates).0.standing(&(context.id, way), limit, self.clock.now());
        if standing != Standing::Above(RatePolicy::Drop) {
            return None;
        }
        let (rate, bucket) = match way {
            Way::Up => ("ULRate", "ULBucketSize"),
            Way::Down => ("DLRate", "DLBucketSize"),
        };
        let (net_id, profile) = (context.id.net_id, &context.terms.profile);
        self.count.above_rate.add();
        Some(format!(
            "more than {rate} {} an hour and {bucket} {} of ServiceProfile {profile:?}, above which NetID {net_id} wants frames of {} dropped",
            limit.rate, limit.bucket, context.id.dev_eui
        ))
    }

    /// A frame of a device goes its way: on whose account.
    pub(super) fn charge(&self, context: &Context, way: Way) -> Account {
        let standing = lock(&self.rates).0.spend(&(context.id, way), limit(context, way), self.clock.now());
        Account {
            net_id: context.id.net_id,
            profile: context.terms.profile.clone(),
            out_of_profile: standing != Standing::Within,
        }
    }

    /// Whether a network may send this device a frame, by the context that it has granted.
    pub(super) async fn may_go_down(
        &self,
        net_id: NetId,
        addr: Option<DevAddr>,
    ) -> Result<Option<Context>, Refusal> {
        let Some(addr) = addr.filter(|_| net_id != self.me) else { return Ok(None) };
        let all = self.contexts.with_addr(addr).await?;
        // of two devices with one address nobody knows which it is for
        let mut its = all.into_iter().filter(|context| context.id.net_id == net_id);
        let context = its.next().filter(|_| its.next().is_none());
        match context.as_ref().and_then(|context| self.is_above(context, Way::Down)) {
            Some(why) => Err(Refusal::new(ResultCode::XmitFailed, why)),
            None => Ok(context),
        }
    }

    /// A head has taken a frame for a device: on whose account; `None`: it is our own.
    pub(super) fn charge_down(&self, net_id: NetId, context: Option<&Context>) -> Option<Account> {
        let unnamed = || (net_id != self.me).then(|| Account::of(net_id));
        context.map(|context| self.charge(context, Way::Down)).or_else(unnamed)
    }
}
