//! Serving network server: sessions, MIC and counters, DevAddr allocation, windows, MAC commands.

use crate::backend::door::{Boxed, Commit, StoreError};
use crate::backend::message::XmitAppUp;
use crate::lorawan::{DevAddr, DevEui, Key, NetId};

/// A session of a 1.0.x device, as the sNS needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Ours, random, never reused.
    pub id: u64,
    /// The device.
    pub dev_eui: DevEui,
    /// Its address in this session.
    pub dev_addr: DevAddr,
    /// Our NetID that the address was allocated from (and that is in the Join-accept).
    pub net_id: NetId,
    /// The network session key.
    pub nwk_s_key: Key,
    /// Last accepted FCntUp; `None` before the first uplink.
    pub fcnt_up: Option<u32>,
    /// Next FCntDown; never given out twice.
    pub fcnt_down: u32,
    /// `true` until the first uplink: the device may not have heard the Join-accept.
    pub pending: bool,
    /// RxDelay of the Join-accept, seconds (0 means 1).
    pub rx_delay: u8,
    /// RX1DROffset.
    pub rx1_dr_offset: u8,
    /// RX2 frequency, hertz.
    pub rx2_frequency: u32,
    /// RX2 data rate index.
    pub rx2_data_rate: u8,
    /// Seconds since 1970 when it was made.
    pub created: u64,
    /// Seconds since 1970 after which it is void; `None`: no limit.
    pub expires: Option<u64>,
}

/// What one decision over sessions wants written.
#[derive(Debug)]
pub struct Write {
    /// How durably the changed sessions must be written.
    pub commit: Commit,
    /// The message that must reach the next room, written by the same commit: it goes when the hNS
    /// has answered ([`Sessions::forwarded`]) and is sent again after a restart.
    pub forward: Option<(ForwardKey, XmitAppUp)>,
}

/// Which uplink a forward row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardKey {
    /// Session.
    pub session: u64,
    /// Full counter.
    pub fcnt_up: u32,
}

/// A decision over the sessions found: changes them in place. May run twice.
pub type Decide = Box<dyn Fn(&mut Vec<Session>) -> Write + Send + Sync>;

/// Sessions at rest. One method per way to find them; each reads, decides, writes as
/// [`Write::commit`] says, and only then returns. Sessions removed from the vector are deleted, new
/// ones inserted, changed ones written.
pub trait Sessions: Send + Sync {
    /// Over all sessions with this address.
    fn with_dev_addr(&self, addr: DevAddr, decide: Decide) -> Boxed<'_, Result<(), StoreError>>;
    /// Over all sessions of this device.
    fn with_device(&self, dev_eui: DevEui, decide: Decide) -> Boxed<'_, Result<(), StoreError>>;
    /// The hNS has answered for this uplink: its row may go.
    fn forwarded(&self, key: ForwardKey) -> Boxed<'_, Result<(), StoreError>>;
    /// Rows that wait, oldest first: for the start and for retries.
    fn waiting(&self) -> Boxed<'_, Result<Vec<(ForwardKey, XmitAppUp)>, StoreError>>;
}
