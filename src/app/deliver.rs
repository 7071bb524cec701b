//! Brings the application server together with the store that keeps its outbox, and with the queues of devices.

use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinSet;

use crate::application::{Commands, Delivery, NotQueued};
use crate::backend::door::{Boxed, StoreError};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Operator as _, OperatorError};
use crate::hns::{Device, QueueItem};
use crate::lorawan::DevEui;
use crate::store::Store;

use super::operator::Operator;

/// Where events go, if the configuration says so.
pub(super) fn delivery(config: &Config, store: &Store, clock: &Clock) -> Option<Arc<Delivery>> {
    let (net_id, region) = (config.network.net_ids.first(), config.network.region.clone());
    let outbox = Arc::new(store.clone());
    Delivery::of(&config.application, net_id, region, outbox, clock.clone()).map(Arc::new)
}

/// Begin to deliver what waits and what comes.
pub(super) async fn start(
    delivery: &Arc<Delivery>,
    store: &Store,
    operator: Arc<Operator>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    // the same at every start, since the broker keeps commands for it; another one on every machine
    let secret = store.secret("MQTT client id").await?;
    let name = hex::encode(secret.get(..6).unwrap_or_default());
    let commands = Arc::new(Hands(operator));
    delivery.start(format!("roamgate-{name}"), commands, tasks).context("start the delivery of events")
}

/// An application's hands are the operator's, for less.
struct Hands(Arc<Operator>);

impl Commands for Hands {
    fn device(&self, dev_eui: DevEui) -> Boxed<'_, Result<Option<Device>, StoreError>> {
        Box::pin(async move {
            match self.0.device(dev_eui).await {
                Ok(device) => Ok(Some(device)),
                Err(OperatorError::Failed(why)) => Err(StoreError(why)),
                Err(_) => Ok(None),
            }
        })
    }

    fn enqueue(&self, dev_eui: DevEui, item: QueueItem) -> Boxed<'_, Result<(), NotQueued>> {
        Box::pin(async move {
            self.0.enqueue(dev_eui, item).await.map_err(|error| match error {
                OperatorError::Failed(why) => NotQueued::Later(StoreError(why)),
                other => NotQueued::Never(other.to_string()),
            })
        })
    }
}
