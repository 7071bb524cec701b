//! From a personalised device (ABP), as an operator writes it, to what the rooms keep of it, and back.

use crate::backend::keywrap::{Kek, KekError};
use crate::backend::message::ClassMode;
use crate::control::{Counters, GivenSession, NewPersonalised, OperatorError};
use crate::hns::{Activation, Device};
use crate::lorawan::{DevAddr, DevEui, Key, NetId, Region};
use crate::sns::Session;
use crate::sns::plan::Plan;
use crate::store::Addition;

use super::house::Ours;

/// RECEIVE_DELAY1 of a device that no Join-accept told another, seconds (RP002).
const RX_DELAY: u8 = 1;

/// Its address must lead to us, or its frames would go to another network.
pub(super) fn check(device: &NewPersonalised, ours: &Ours) -> Result<(), OperatorError> {
    if network(device.dev_addr, ours).is_some() {
        return Ok(());
    }
    let of = match device.dev_addr.net_id() {
        Some(net_id) => format!("of NetID {net_id}"),
        None => "of no NetID".to_string(),
    };
    let nets: Vec<String> = ours.net_ids.iter().map(|net_id| net_id.to_string()).collect();
    let first = ours.net_ids.first().map(|net_id| net_id.dev_addr(0).to_string()).unwrap_or_default();
    Err(OperatorError::Invalid {
        reason: format!("DevAddr {} is {of}, and ours is {}", device.dev_addr, nets.join(", ")),
        remedy: format!("give the device an address of ours: the first is {first}"),
    })
}

/// Somebody has the same address and the same keys.
pub(super) fn twin(dev_eui: DevEui) -> OperatorError {
    OperatorError::Invalid {
        reason: format!("device {dev_eui} has this DevAddr with the same network session keys"),
        remedy: "two devices with one session cannot be told apart: give this one keys of its own".into(),
    }
}

fn network(dev_addr: DevAddr, ours: &Ours) -> Option<NetId> {
    ours.net_ids.iter().copied().find(|net_id| net_id.covers(dev_addr))
}

/// What the hNS and the sNS keep of it.
pub(super) fn records(
    new: NewPersonalised,
    enabled: bool,
    class: ClassMode,
    ours: &Ours,
    region: &Region,
    kek: &Kek,
) -> Addition {
    let Counters { fcnt_up, fcnt_down, a_fcnt_down } = new.counters;
    let activation = Activation {
        dev_addr: new.dev_addr,
        session_key_id: None,
        app_s_key: Some(kek.wrap(&new.app_s_key)),
        fcnt_up,
        sns: None,
        fcnt_down: None,
        created: 0,
    };
    let device = Device {
        dev_eui: new.dev_eui,
        join_eui: new.join_eui,
        name: new.name,
        mac_version: new.mac_version,
        enabled,
        roaming: new.roaming,
        personalised: true,
        class,
        activations: vec![activation],
        queue: Vec::new(),
        last_seen: None,
        last_via: None,
        profile_since: 0,
        home: None,
    };
    let (rx2_frequency, rx2_data_rate) = region.rx2();
    let is_1_0 = matches!(new.keys, crate::backend::message::NwkKeys::V10 { .. });
    let session = Session {
        id: 0,
        dev_eui: new.dev_eui,
        dev_addr: new.dev_addr,
        // checked before
        net_id: network(new.dev_addr, ours).unwrap_or(NetId::from_msb([0, 0, 0])),
        keys: new.keys,
        fcnt_up,
        fcnt_down,
        a_fcnt_down,
        confirmed_down: None,
        // a 1.1 device says itself what class it is in
        class: if is_1_0 { class } else { ClassMode::A },
        personalised: true,
        pending: false,
        rx_delay: RX_DELAY,
        rx1_dr_offset: 0,
        rx2_frequency,
        rx2_data_rate,
        plan: Plan::untold(region),
        roaming: new.roaming,
        home: None,
        terms: Default::default(),
        rj_count0: None,
        path: None,
        created: 0,
        // one that is switched off is void until it is switched on
        expires: (!enabled).then_some(0),
    };
    Addition::Personalised { device: Box::new(device), session: Box::new(session) }
}

/// A device as an import takes it, its counters as they stand.
pub(super) fn given(
    device: &Device,
    session: &Session,
    kek: &Kek,
    with_keys: bool,
) -> Result<GivenSession, OperatorError> {
    let failed = |error: KekError| OperatorError::Failed(format!("AppSKey of {}: {error}", device.dev_eui));
    let envelope = device.activation(session.dev_addr).and_then(|activation| activation.app_s_key.as_ref());
    let app_s_key = match envelope {
        Some(envelope) if with_keys => kek.unwrap(envelope).map_err(failed)?,
        _ => Key::new([0; 16]),
    };
    let device = NewPersonalised {
        dev_eui: device.dev_eui,
        join_eui: device.join_eui,
        name: device.name.clone(),
        mac_version: device.mac_version,
        roaming: device.roaming,
        dev_addr: session.dev_addr,
        keys: session.keys.clone(),
        app_s_key,
        counters: Counters {
            fcnt_up: session.fcnt_up,
            fcnt_down: session.fcnt_down,
            a_fcnt_down: session.a_fcnt_down,
        },
    };
    Ok(GivenSession::of(&device, with_keys))
}
