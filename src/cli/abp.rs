//! What `roamgate device add` takes for a device that was given its session (ABP).

use clap::Args;

use super::Fail;
use crate::control::GivenSession;
use crate::lorawan::DevAddr;

/// The session of a personalised device.
#[derive(Debug, Args)]
#[command(next_help_heading = "A device that was given its session (ABP)")]
pub(super) struct AbpArgs {
    /// It does not join: it was given its address and its session keys
    #[arg(long, requires_all = ["dev_addr", "app_s_key"], conflicts_with = "app_key")]
    pub(super) abp: bool,
    /// Its address, which must be of one of our NetIDs
    #[arg(long, value_name = "DEVADDR", requires = "abp")]
    dev_addr: Option<DevAddr>,
    /// NwkSKey (LoRaWAN 1.0.x); of this and the next keys, - reads a line of standard input, in this order
    #[arg(long, value_name = "KEY|-", requires = "abp")]
    nwk_s_key: Option<String>,
    /// FNwkSIntKey (LoRaWAN 1.1)
    #[arg(long, value_name = "KEY|-", requires = "abp")]
    f_nwk_s_int_key: Option<String>,
    /// SNwkSIntKey (LoRaWAN 1.1)
    #[arg(long, value_name = "KEY|-", requires = "abp")]
    s_nwk_s_int_key: Option<String>,
    /// NwkSEncKey (LoRaWAN 1.1)
    #[arg(long, value_name = "KEY|-", requires = "abp")]
    nwk_s_enc_key: Option<String>,
    /// AppSKey
    #[arg(long, value_name = "KEY|-", requires = "abp")]
    app_s_key: Option<String>,
    /// Its last uplink counter, where another network server had it before
    #[arg(long, value_name = "COUNT", requires = "abp")]
    fcnt_up: Option<u32>,
    /// The downlink counter that is next (NFCntDown in 1.1), where another network server had it before
    #[arg(long, value_name = "COUNT", requires = "abp")]
    fcnt_down: Option<u32>,
    /// The same for AFCntDown (1.1)
    #[arg(long, value_name = "COUNT", requires = "abp")]
    a_fcnt_down: Option<u32>,
}

impl AbpArgs {
    /// The session; `None`: the device joins. Keys may come from standard input.
    pub(super) async fn session(self) -> Result<Option<GivenSession>, Fail> {
        let Some(dev_addr) = self.dev_addr.filter(|_| self.abp) else { return Ok(None) };
        Ok(Some(GivenSession {
            dev_addr,
            nwk_s_key: key("NwkSKey", self.nwk_s_key).await?,
            f_nwk_s_int_key: key("FNwkSIntKey", self.f_nwk_s_int_key).await?,
            s_nwk_s_int_key: key("SNwkSIntKey", self.s_nwk_s_int_key).await?,
            nwk_s_enc_key: key("NwkSEncKey", self.nwk_s_enc_key).await?,
            app_s_key: key("AppSKey", self.app_s_key).await?,
            fcnt_up: self.fcnt_up,
            fcnt_down: self.fcnt_down,
            a_fcnt_down: self.a_fcnt_down,
        }))
    }
}

async fn key(name: &'static str, given: Option<String>) -> Result<Option<String>, Fail> {
    match given.as_deref() {
        Some("-") => super::device::read_key(name).await.map(Some),
        _ => Ok(given),
    }
}
