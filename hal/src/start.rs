//! The bring-up, in its order. Each function is one block of it; inside a block the order does not matter, except where a
//! comment says so.

use crate::bus::Bus;
use crate::chip::Chip;
use crate::config::{Bandwidth, Chain, Config, RadioKind, Service, SpreadingFactor};
use crate::error::Cause;
use crate::firmware::{Firmware, Image};
use crate::mcu;
use crate::registers::*;
use crate::sensor::{Sensor, dac};
use crate::sequence::{self, Step, run, run_side_by_side};
use crate::sx125x::{self, Calibrated};
use crate::{sx1250, sx1261};

use Step::{Set, Wait};

/// What the start found out.
#[derive(Debug)]
pub struct Started {
    /// VERSION register: 0x10 on an SX1302, 0x12 on an SX1303.
    pub version: u8,
    /// The temperature sensor, where there is one.
    pub sensor: Option<Sensor>,
    /// Calibration of SX125x radios.
    pub calibrated: [Calibrated; 2],
}

/// From a chip that was reset to a chip that receives.
pub fn start<B: Bus>(chip: &mut Chip<B>, config: &Config, firmware: &Firmware) -> Result<Started, Cause> {
    config.check()?;
    let agc = required(config, firmware)?;
    let version = identify(chip)?;
    chip.set(GPIO_GPIO_OUT_L_OUT_VALUE, 0)?;
    let calibrated = calibrate_radios(chip, config, firmware)?;
    radios_for_rx(chip, config)?;
    clock_select(chip, config.clock)?;
    // From here the AGC drives the radios, and the host must not speak to them.
    chip.set(COMMON_CTRL0_HOST_RADIO_CTRL, 0)?;
    time_stamps(chip, config)?;
    for block in [
        gpio(),
        amplifiers(config),
        front_ends(),
        channelizer(config),
        correlators(config),
        multi_sf_modems(config),
        service_modem(config),
        fsk_modem(config),
        sync_words(config),
        // The processors start into a chip whose modems are on; the order is the chip's.
        vec![
            Set(COMMON_GEN_CONCENTRATOR_MODEM_ENABLE, 1),
            Set(COMMON_GEN_MBWSSF_MODEM_ENABLE, 1),
            Set(COMMON_GEN_FSK_MODEM_ENABLE, 1),
            Set(COMMON_GEN_GLOBAL_EN, 1),
        ],
    ] {
        run(chip, &block)?;
    }
    mcu::load(chip, firmware, agc)?;
    mcu::start_agc(chip, config)?;
    mcu::load(chip, firmware, Image::Arbiter)?;
    mcu::start_arb(chip, config)?;
    run(chip, &transmitters(config))?;
    // Latching on PPS costs nothing where no receiver is connected.
    run(chip, &[Set(TIMESTAMP_GPS_CTRL_GPS_EN, 1), Set(TIMESTAMP_GPS_CTRL_GPS_POL, 1)])?;
    let sensor = Sensor::find(chip);
    if config.full_duplex {
        dac::start(chip)?;
    }
    if config.sx1261().is_some() {
        let patch = firmware.patch.as_ref().ok_or(crate::firmware::FirmwareError::NoPatch)?;
        sx1261::start(chip, config, patch)?;
    }
    // CONFIG_DONE
    chip.set(GPIO_GPIO_OUT_L_OUT_VALUE, 1)?;
    Ok(Started { version, sensor, calibrated })
}

/// Nothing is switched on for a start that cannot end well.
fn required(config: &Config, firmware: &Firmware) -> Result<Image, Cause> {
    let old = config.clock_kind().is_sx125x();
    let agc = if old { Image::AgcSx125x } else { Image::AgcSx1250 };
    firmware.program(agc)?;
    firmware.program(Image::Arbiter)?;
    if old {
        firmware.program(Image::Calibration)?;
    }
    if config.sx1261().is_some() && firmware.patch.is_none() {
        return Err(crate::firmware::FirmwareError::NoPatch.into());
    }
    Ok(agc)
}

fn identify<B: Bus>(chip: &mut Chip<B>) -> Result<u8, Cause> {
    match chip.get(COMMON_VERSION_VERSION)? as u8 {
        nobody @ (0x00 | 0xff) => Err(Cause::NoChip(nobody)),
        version => Ok(version),
    }
}

/// A byte of the one-time programmable memory.
pub fn otp<B: Bus>(chip: &mut Chip<B>, address: u8) -> Result<u8, Cause> {
    chip.set(OTP_BYTE_ADDR_ADDR, address.into())?;
    Ok(chip.get(OTP_RD_DATA_RD_DATA)? as u8)
}

/// Model identifier: 3 is an SX1303, 0 and 2 are SX1302.
pub fn model<B: Bus>(chip: &mut Chip<B>) -> Result<u8, Cause> {
    otp(chip, 0xd0)
}

/// An SX1250 runs with its reset line at 1, an SX1255/SX1257 at 0.
fn reset_radio(chain: Chain, kind: RadioKind) -> Vec<Step> {
    let (enable, reset) = match chain {
        Chain::A => (AGC_MCU_RF_EN_A_RADIO_EN, AGC_MCU_RF_EN_A_RADIO_RST),
        Chain::B => (AGC_MCU_RF_EN_B_RADIO_EN, AGC_MCU_RF_EN_B_RADIO_RST),
    };
    let mut steps = vec![Set(enable, 1), Set(reset, 1), Wait(500_000), Set(reset, 0), Wait(10_000)];
    if kind == RadioKind::Sx1250 {
        steps.extend([Set(reset, 1), Wait(10_000)]);
    }
    steps
}

fn radio_mode(chain: Chain, kind: RadioKind) -> Step {
    let field = match chain {
        Chain::A => COMMON_CTRL0_SX1261_MODE_RADIO_A,
        Chain::B => COMMON_CTRL0_SX1261_MODE_RADIO_B,
    };
    Set(field, i32::from(kind == RadioKind::Sx1250))
}

/// The order of the three bits is that of a clock being switched.
fn clock_select<B: Bus>(chip: &mut Chip<B>, clock: Chain) -> Result<(), Cause> {
    run(
        chip,
        &[
            Set(CLK_CTRL_CLK_SEL_CLK_RADIO_A_SEL, i32::from(clock == Chain::A)),
            Set(CLK_CTRL_CLK_SEL_CLK_RADIO_B_SEL, i32::from(clock == Chain::B)),
            Set(CLK_CTRL_CLK_SEL_CLKDIV_EN, 1),
            Set(COMMON_CTRL0_CLK32_RIF_CTRL, 1),
        ],
    )
}

/// Runs a sequence for each enabled radio, side by side: nothing couples them.
fn side_by_side<B: Bus>(
    chip: &mut Chip<B>,
    config: &Config,
    lane: impl Fn(Chain) -> Result<Vec<Step>, Cause>,
) -> Result<(), Cause> {
    let lanes: Vec<Vec<Step>> = config.enabled().map(lane).collect::<Result<_, Cause>>()?;
    let lanes: Vec<&[Step]> = lanes.iter().map(Vec::as_slice).collect();
    run_side_by_side(chip, &lanes)
}

fn calibrate_radios<B: Bus>(
    chip: &mut Chip<B>,
    config: &Config,
    firmware: &Firmware,
) -> Result<[Calibrated; 2], Cause> {
    chip.set(COMMON_CTRL0_CLK32_RIF_CTRL, 0)?;
    side_by_side(chip, config, |chain| {
        let kind = config.radio(chain).kind;
        let mut steps = reset_radio(chain, kind);
        steps.push(radio_mode(chain, kind));
        Ok(steps)
    })?;
    clock_select(chip, config.clock)?;
    run(
        chip,
        &[
            Set(AGC_MCU_CTRL_FORCE_HOST_FE_CTRL, 1),
            Set(AGC_MCU_RF_EN_A_PA_EN, 0),
            Set(AGC_MCU_RF_EN_A_LNA_EN, 0),
        ],
    )?;
    let mut calibrated = Default::default();
    if config.clock_kind().is_sx125x() {
        calibrated = sx125x::calibrate(chip, config, firmware)?;
    } else {
        // One after the other: where one is refused, nothing more is done.
        for chain in config.enabled() {
            run(chip, &sx1250::calibrate_image(chain, config.radio(chain))?)?;
        }
    }
    chip.set(AGC_MCU_CTRL_FORCE_HOST_FE_CTRL, 0)?;
    Ok(calibrated)
}

fn radios_for_rx<B: Bus>(chip: &mut Chip<B>, config: &Config) -> Result<(), Cause> {
    chip.set(COMMON_CTRL0_CLK32_RIF_CTRL, 0)?;
    side_by_side(chip, config, |chain| {
        let radio = config.radio(chain);
        let mut steps = reset_radio(chain, radio.kind);
        if radio.kind == RadioKind::Sx1250 {
            steps.extend(sx1250::set_up(chain, radio));
            steps.push(radio_mode(chain, radio.kind));
        }
        Ok(steps)
    })?;
    for chain in config.enabled() {
        let radio = config.radio(chain);
        if radio.kind.is_sx125x() {
            sx125x::set_up(chip, chain, radio, chain == config.clock)?;
            run(chip, &[radio_mode(chain, radio.kind)])?;
        }
    }
    Ok(())
}

fn time_stamps<B: Bus>(chip: &mut Chip<B>, config: &Config) -> Result<(), Cause> {
    if config.fine_stamps.is_none() {
        return run(chip, &[Set(RX_TOP_RX_BUFFER_LEGACY_TIMESTAMP, 1)]);
    }
    match model(chip)? {
        3 => {}
        other => return Err(Cause::NotAnSx1303(other)),
    }
    run(
        chip,
        &[
            Set(RX_TOP_RX_BUFFER_LEGACY_TIMESTAMP, 0),
            Set(RX_TOP_RX_BUFFER_TIMESTAMP_CFG_MAX_TS_METRICS, 32),
            Set(RX_TOP_TIMESTAMP_ENABLE, 1),
            Set(RX_TOP_TIMESTAMP_NB_SYMB, 0),
        ],
    )
}

/// GPIO2 shows "TX on", GPIO4 "packet received", GPIO7 is the input for listen before talk.
fn gpio() -> Vec<Step> {
    let selections = [
        (GPIO_GPIO_SEL_0_SELECTION, 0),
        (GPIO_GPIO_SEL_1_SELECTION, 0),
        (GPIO_GPIO_SEL_2_SELECTION, 9),
        (GPIO_GPIO_SEL_3_SELECTION, 0),
        (GPIO_GPIO_SEL_4_SELECTION, 9),
        (GPIO_GPIO_SEL_5_SELECTION, 0),
        (GPIO_GPIO_SEL_6_SELECTION, 0),
        (GPIO_GPIO_SEL_7_SELECTION, 1),
        (GPIO_GPIO_DIR_L_DIRECTION, 0x7f),
    ];
    selections.map(|(field, value)| Set(field, value)).to_vec()
}

fn amplifiers(config: &Config) -> Vec<Step> {
    let (pa, lna) = if config.full_duplex { (0xc, 0xf) } else { (4, 2) };
    vec![
        Set(AGC_MCU_LUT_TABLE_A_PA_LUT, pa),
        Set(AGC_MCU_LUT_TABLE_A_LNA_LUT, lna),
        Set(AGC_MCU_LUT_TABLE_B_PA_LUT, 4),
        Set(AGC_MCU_LUT_TABLE_B_LNA_LUT, 2),
    ]
}

fn front_ends() -> Vec<Step> {
    [
        (RADIO_FE_RSSI_BB_FILTER_ALPHA_RADIO_A_RSSI_BB_FILTER_ALPHA, 3),
        (RADIO_FE_RSSI_BB_FILTER_ALPHA_RADIO_B_RSSI_BB_FILTER_ALPHA, 3),
        (RADIO_FE_RSSI_DEC_FILTER_ALPHA_RADIO_A_RSSI_DEC_FILTER_ALPHA, 7),
        (RADIO_FE_RSSI_DEC_FILTER_ALPHA_RADIO_B_RSSI_DEC_FILTER_ALPHA, 7),
        (RADIO_FE_RSSI_DB_DEF_RADIO_A_RSSI_DB_DEFAULT_VALUE, 23),
        (RADIO_FE_RSSI_DB_DEF_RADIO_B_RSSI_DB_DEFAULT_VALUE, 23),
        (RADIO_FE_RSSI_DEC_DEF_RADIO_A_RSSI_DEC_DEFAULT_VALUE, 66),
        (RADIO_FE_RSSI_DEC_DEF_RADIO_B_RSSI_DEC_DEFAULT_VALUE, 66),
        (RADIO_FE_CTRL0_RADIO_A_DC_NOTCH_EN, 1),
        (RADIO_FE_CTRL0_RADIO_B_DC_NOTCH_EN, 1),
        (RADIO_FE_CTRL0_RADIO_A_HOST_FILTER_GAIN, 0xb),
        (RADIO_FE_CTRL0_RADIO_B_HOST_FILTER_GAIN, 0xb),
    ]
    .map(|(field, value)| Set(field, value))
    .to_vec()
}

/// An intermediate frequency as 13 bits, two's complement, steps of 488.28 Hz: five bits and eight.
pub fn if_word(if_hz: i32) -> (i32, i32) {
    let word = i64::from(if_hz) * 32 / 15_625;
    ((word >> 8 & 0x1f) as i32, (word & 0xff) as i32)
}

fn channelizer(config: &Config) -> Vec<Step> {
    let chain = |number: u8| config.if_chain(number).map_or(Chain::A, |(chain, _)| chain);
    let select = (0..8u8).map(|number| (chain(number) as i32) << number).sum();
    let mut steps = vec![
        Set(RX_TOP_RADIO_SELECT_RADIO_SELECT, select),
        Set(RX_TOP_LORA_SERVICE_FSK_LORA_SERVICE_RADIO_SEL_RADIO_SELECT, chain(8) as i32),
        Set(RX_TOP_LORA_SERVICE_FSK_FSK_CFG_3_RADIO_SELECT, chain(9) as i32),
    ];
    for number in 0..10u8 {
        let (high, low) = match number {
            8 => (
                RX_TOP_LORA_SERVICE_FSK_LORA_SERVICE_FREQ_MSB_IF_FREQ_0,
                RX_TOP_LORA_SERVICE_FSK_LORA_SERVICE_FREQ_LSB_IF_FREQ_0,
            ),
            9 => (
                RX_TOP_LORA_SERVICE_FSK_FSK_FREQ_MSB_IF_FREQ_0,
                RX_TOP_LORA_SERVICE_FSK_FSK_FREQ_LSB_IF_FREQ_0,
            ),
            _ => {
                let step = 2 * u16::from(number);
                (RX_TOP_FREQ_0_MSB_IF_FREQ_0.moved(step), RX_TOP_FREQ_0_LSB_IF_FREQ_0.moved(step))
            }
        };
        let (msb, lsb) = if_word(config.if_chain(number).map_or(0, |(_, if_hz)| if_hz));
        steps.extend([Set(high, msb), Set(low, lsb)]);
    }
    steps.extend([
        Set(RX_TOP_RSSI_CONTROL_RSSI_FILTER_ALPHA, 5),
        Set(RX_TOP_RSSI_DEF_VALUE_CHAN_RSSI_DEF_VALUE, 85),
        Set(RX_TOP_CHANN_DAGC_CFG5_CHAN_DAGC_MODE, 1),
        Set(RX_TOP_CHANN_DAGC_CFG1_CHAN_DAGC_THRESHOLD_HIGH, 255),
        Set(RX_TOP_CHANN_DAGC_CFG2_CHAN_DAGC_THRESHOLD_LOW, 0),
        Set(RX_TOP_CHANN_DAGC_CFG3_CHAN_DAGC_MAX_ATTEN, 15),
        Set(RX_TOP_CHANN_DAGC_CFG3_CHAN_DAGC_MIN_ATTEN, 0),
    ]);
    steps
}

fn correlators(config: &Config) -> Vec<Step> {
    let mut steps = Vec::new();
    for block in 0..8 {
        let at = block * CORRELATOR_STEP;
        steps.extend([
            Set(RX_TOP_SF5_CFG2_ACC_PNR.moved(at), 52),
            Set(RX_TOP_SF5_CFG4_MSP_PNR.moved(at), 24),
            Set(RX_TOP_SF5_CFG6_MSP_PEAK_NB.moved(at), 7),
            Set(RX_TOP_SF5_CFG7_MSP2_PEAK_NB.moved(at), 5),
        ]);
    }
    let used = (0..8).filter(|number| config.multi_sf()[*number].is_some()).map(|number| 1 << number).sum();
    steps.extend([
        Set(RX_TOP_CORRELATOR_ENABLE_ONLY_FIRST_DET_EDGE_ENABLE_ONLY_FIRST_DET_EDGE, 0xff),
        Set(RX_TOP_CORRELATOR_ENABLE_ACC_CLEAR_ENABLE_CORR_ACC_CLEAR, 0xff),
        Set(RX_TOP_CORRELATOR_SF_EN_CORR_SF_EN, config.multi_sf_mask.into()),
        Set(RX_TOP_CORR_CLOCK_ENABLE_CLK_EN, used),
        Set(RX_TOP_CORRELATOR_EN_CORR_EN, used),
    ]);
    steps
}

/// Drift of time with frequency, as mantissa and exponent.
pub fn drift(bandwidth_hz: u32, radio_hz: u32) -> (u32, u32) {
    if radio_hz == 0 || bandwidth_hz == 0 {
        return (0, 0);
    }
    let mut mantissa = (u64::from(bandwidth_hz) << 20) / u64::from(radio_hz);
    let mut exponent = 0;
    while mantissa < 2048 && mantissa > 0 {
        mantissa *= 2;
        exponent += 1;
    }
    (mantissa as u32, exponent)
}

/// Four registers, for either modem.
fn drift_steps(fields: [Field; 3], bandwidth: Bandwidth, config: &Config) -> Vec<Step> {
    // Both modems count from the centre of radio A.
    let (mantissa, exponent) = drift(bandwidth.hz(), config.radio(Chain::A).freq_hz);
    let values = [(mantissa >> 8) as i32, (mantissa & 0xff) as i32, exponent as i32];
    fields.into_iter().zip(values).map(|(field, value)| Set(field, value)).collect()
}

fn multi_sf_modems(config: &Config) -> Vec<Step> {
    let mut steps: Vec<Step> = [
        (RX_TOP_DC_NOTCH_CFG1_ENABLE, 0),
        (RX_TOP_RX_DFE_AGC1_FORCE_DEFAULT_FIR, 1),
        (RX_TOP_DAGC_CFG_GAIN_DROP_COMP, 1),
        (RX_TOP_DAGC_CFG_TARGET_LVL, 1),
        (OTP_MODEM_EN_0_MODEM_EN, 0xff),
        (OTP_MODEM_EN_1_MODEM_EN, 0xff),
        (RX_TOP_MODEM_SYNC_DELTA_MSB_MODEM_SYNC_DELTA, 0),
        (RX_TOP_MODEM_SYNC_DELTA_LSB_MODEM_SYNC_DELTA, 126),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_01_CHANNEL_0_OFFSET, 1),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_01_CHANNEL_1_OFFSET, 5),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_23_CHANNEL_2_OFFSET, 9),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_23_CHANNEL_3_OFFSET, 13),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_45_CHANNEL_4_OFFSET, 1),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_45_CHANNEL_5_OFFSET, 5),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_67_CHANNEL_6_OFFSET, 9),
        (ARB_MCU_CHANNEL_SYNC_OFFSET_67_CHANNEL_7_OFFSET, 13),
        (RX_TOP_MODEM_PPM_OFFSET1_PPM_OFFSET_SF5, 0),
        (RX_TOP_MODEM_PPM_OFFSET1_PPM_OFFSET_SF6, 0),
        (RX_TOP_MODEM_PPM_OFFSET1_PPM_OFFSET_SF7, 0),
        (RX_TOP_MODEM_PPM_OFFSET1_PPM_OFFSET_SF8, 0),
        (RX_TOP_MODEM_PPM_OFFSET2_PPM_OFFSET_SF9, 0),
        (RX_TOP_MODEM_PPM_OFFSET2_PPM_OFFSET_SF10, 0),
        (RX_TOP_MODEM_PPM_OFFSET2_PPM_OFFSET_SF11, 1),
        (RX_TOP_MODEM_PPM_OFFSET2_PPM_OFFSET_SF12, 1),
        (RX_TOP_FINE_TIMING_A_1_GAIN_P_AUTO, 3),
        (RX_TOP_FINE_TIMING_A_1_GAIN_P_PAYLOAD, 3),
        (RX_TOP_FINE_TIMING_A_5_GAIN_I_EN_SF11, 1),
        (RX_TOP_FINE_TIMING_A_5_GAIN_I_EN_SF12, 1),
        (RX_TOP_FREQ_TRACK4_FREQ_SYNCH_THR, 15),
        (RX_TOP_FREQ_TRACK_A_0_FREQ_TRACK_EN_SF5, 3),
        (RX_TOP_FREQ_TRACK_A_0_FREQ_TRACK_EN_SF6, 3),
        (RX_TOP_FREQ_TRACK_A_0_FREQ_TRACK_EN_SF7, 3),
        (RX_TOP_FREQ_TRACK_A_0_FREQ_TRACK_EN_SF8, 3),
        (RX_TOP_FREQ_TRACK_A_1_FREQ_TRACK_EN_SF9, 3),
        (RX_TOP_FREQ_TRACK_A_1_FREQ_TRACK_EN_SF10, 3),
        (RX_TOP_FREQ_TRACK_A_1_FREQ_TRACK_EN_SF11, 3),
        (RX_TOP_FREQ_TRACK_A_1_FREQ_TRACK_EN_SF12, 3),
        (RX_TOP_FREQ_TRACK_B_0_FREQ_TRACK_EN_SF5, 0),
        (RX_TOP_FREQ_TRACK_B_0_FREQ_TRACK_EN_SF6, 0),
        (RX_TOP_FREQ_TRACK_B_0_FREQ_TRACK_EN_SF7, 0),
        (RX_TOP_FREQ_TRACK_B_0_FREQ_TRACK_EN_SF8, 0),
        (RX_TOP_FREQ_TRACK_B_1_FREQ_TRACK_EN_SF9, 0),
        (RX_TOP_FREQ_TRACK_B_1_FREQ_TRACK_EN_SF10, 0),
        (RX_TOP_FREQ_TRACK_B_1_FREQ_TRACK_EN_SF11, 0),
        (RX_TOP_FREQ_TRACK_B_1_FREQ_TRACK_EN_SF12, 0),
        (RX_TOP_FINE_TIMING_B_5_GAIN_I_EN_SF11, 0),
        (RX_TOP_FINE_TIMING_B_5_GAIN_I_EN_SF12, 0),
        (RX_TOP_FINE_TIMING_B_0_ROUNDING, 1),
        (RX_TOP_FINE_TIMING_B_0_MODE, 2),
        (RX_TOP_FINE_TIMING_B_1_GAIN_P_AUTO, 0),
        (RX_TOP_FINE_TIMING_B_1_GAIN_P_PREAMB, 6),
        (RX_TOP_FINE_TIMING_B_1_GAIN_P_PAYLOAD, 2),
        (RX_TOP_FINE_TIMING_B_2_GAIN_I_AUTO, 0),
        (RX_TOP_FINE_TIMING_B_2_GAIN_I_PREAMB, 1),
        (RX_TOP_FINE_TIMING_B_2_GAIN_I_PAYLOAD, 0),
        (RX_TOP_TXRX_CFG7_PREAMBLE_SYMB_NB, 0),
        (RX_TOP_TXRX_CFG6_PREAMBLE_SYMB_NB, 10),
        (RX_TOP_FREQ_TO_TIME3_FREQ_TO_TIME_INVERT_TIME_SYMB, 1),
        (RX_TOP_RX_CFG0_DFT_PEAK_EN, 3),
    ]
    .map(|(field, value)| Set(field, value))
    .to_vec();
    let fields = [
        RX_TOP_FREQ_TO_TIME0_FREQ_TO_TIME_DRIFT_MANT,
        RX_TOP_FREQ_TO_TIME1_FREQ_TO_TIME_DRIFT_MANT,
        RX_TOP_FREQ_TO_TIME2_FREQ_TO_TIME_DRIFT_EXP,
    ];
    steps.extend(drift_steps(fields, Bandwidth::Khz125, config));
    steps
}

fn service_modem(config: &Config) -> Vec<Step> {
    use crate::registers as r;
    let Some(service) = config.service() else { return Vec::new() };
    let Service { sf, bandwidth, .. } = *service;
    let (preamble_gain, integral) = service_gains(sf, bandwidth);
    let mut steps: Vec<Step> = [
        (r::RX_TOP_LORA_SERVICE_FSK_DETECT_MSP2_MSP_PEAK_NB, 7),
        (r::RX_TOP_LORA_SERVICE_FSK_DETECT_MSP2_MSP2_PEAK_NB, 5),
        (r::RX_TOP_LORA_SERVICE_FSK_DETECT_ACC1_USE_GAIN_SYMB, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG2_FINE_SYNCH_EN, i32::from(sf.is_short())),
        (r::RX_TOP_LORA_SERVICE_FSK_DETECT_ACC1_ACC_PNR, 52),
        (r::RX_TOP_LORA_SERVICE_FSK_DC_NOTCH_CFG1_ENABLE, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_RX_DFE_AGC1_FORCE_DEFAULT_FIR, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_DAGC_CFG_GAIN_DROP_COMP, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_DAGC_CFG_TARGET_LVL, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_FINE_TIMING1_GAIN_P_AUTO, 3),
        (r::RX_TOP_LORA_SERVICE_FSK_FINE_TIMING2_GAIN_I_PAYLOAD, 3),
        (r::RX_TOP_LORA_SERVICE_FSK_FINE_TIMING1_GAIN_P_PREAMB, preamble_gain),
        (r::RX_TOP_LORA_SERVICE_FSK_FINE_TIMING2_GAIN_I_EN, integral),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG2_IMPLICIT_HEADER, i32::from(service.implicit_header)),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG2_CRC_EN, i32::from(service.crc)),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG1_CODING_RATE, service.coding_rate.into()),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG3_PAYLOAD_LENGTH, service.payload_length.into()),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG0_MODEM_SF, sf.get().into()),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG0_MODEM_BW, bandwidth.code().into()),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG1_PPM_OFFSET, i32::from(sf.is_slow(bandwidth))),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG7_PREAMBLE_SYMB_NB, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG6_PREAMBLE_SYMB_NB, if sf.is_short() { 12 } else { 8 }),
        (r::RX_TOP_LORA_SERVICE_FSK_FREQ_TO_TIME3_FREQ_TO_TIME_INVERT_TIME_SYMB, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_RX_DFE_AGC2_DAGC_IN_COMP, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG1_MODEM_EN, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG2_CADRXTX, 1),
    ]
    .map(|(field, value)| Set(field, value))
    .to_vec();
    let fields = [
        r::RX_TOP_LORA_SERVICE_FSK_FREQ_TO_TIME0_FREQ_TO_TIME_DRIFT_MANT,
        r::RX_TOP_LORA_SERVICE_FSK_FREQ_TO_TIME1_FREQ_TO_TIME_DRIFT_MANT,
        r::RX_TOP_LORA_SERVICE_FSK_FREQ_TO_TIME2_FREQ_TO_TIME_DRIFT_EXP,
    ];
    steps.extend(drift_steps(fields, bandwidth, config));
    // It starts when everything else stands.
    steps.extend([
        Set(r::RX_TOP_LORA_SERVICE_FSK_TXRX_CFG2_MODEM_START, 1),
        Set(r::RX_TOP_LORA_SERVICE_FSK_RX_CFG0_DFT_PEAK_EN, 3),
    ]);
    steps
}

/// Proportional gain in the preamble, and whether the integral one is on.
fn service_gains(sf: SpreadingFactor, bandwidth: Bandwidth) -> (i32, i32) {
    match sf.get() {
        ..=6 => (4, 0),
        7..=10 => (6, 0),
        _ => match bandwidth {
            Bandwidth::Khz125 => (7, 1),
            Bandwidth::Khz250 => (7, 2),
            Bandwidth::Khz500 => (7, 3),
        },
    }
}

fn fsk_modem(config: &Config) -> Vec<Step> {
    use crate::registers as r;
    let Some(fsk) = config.fsk() else { return Vec::new() };
    let rate = 32_000_000 / fsk.bitrate;
    let mut steps: Vec<Step> = [
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_1_PSIZE, i32::from(fsk.sync.size) - 1),
        (r::RX_TOP_LORA_SERVICE_FSK_BIT_RATE_MSB_BIT_RATE, (rate >> 8) as i32 & 0xff),
        (r::RX_TOP_LORA_SERVICE_FSK_BIT_RATE_LSB_BIT_RATE, rate as i32 & 0xff),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_1_CH_BW_EXPO, 3),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_3_RX_INVERT, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_3_MODEM_INVERT_IQ, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_4_RSSI_LENGTH, 4),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_0_PKT_MODE, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_0_CRC_EN, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_0_DCFREE_ENC, 2),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_0_CRC_IBM, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_4_ERROR_OSR_TOL, 10),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_PKT_LENGTH_PKT_LENGTH, 255),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_NODE_ADRS_NODE_ADRS, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_BROADCAST_BROADCAST, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_CFG_3_AUTO_AFC, 1),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_TIMEOUT_MSB_TIMEOUT, 0),
        (r::RX_TOP_LORA_SERVICE_FSK_FSK_TIMEOUT_LSB_TIMEOUT, 128),
    ]
    .map(|(field, value)| Set(field, value))
    .to_vec();
    let first = r::RX_TOP_LORA_SERVICE_FSK_FSK_REF_PATTERN_BYTE7_FSK_REF_PATTERN.address;
    steps.push(Step::Burst(first, fsk.sync.registers().to_vec()));
    steps
}

/// Positions of the two peaks of a sync word: twice its nibbles.
pub fn sync_peaks(public: bool) -> (i32, i32) {
    if public { (6, 8) } else { (2, 4) }
}

fn sync_words(config: &Config) -> Vec<Step> {
    let (short, long) = (sync_peaks(false), sync_peaks(config.public));
    // A service channel that is off counts as SF7: its registers are written all the same.
    let service = match config.service() {
        Some(service) if service.sf.is_short() => short,
        _ => long,
    };
    vec![
        Set(RX_TOP_FRAME_SYNCH0_SF5_PEAK1_POS_SF5, short.0),
        Set(RX_TOP_FRAME_SYNCH1_SF5_PEAK2_POS_SF5, short.1),
        Set(RX_TOP_FRAME_SYNCH0_SF6_PEAK1_POS_SF6, short.0),
        Set(RX_TOP_FRAME_SYNCH1_SF6_PEAK2_POS_SF6, short.1),
        Set(RX_TOP_FRAME_SYNCH0_SF7TO12_PEAK1_POS_SF7TO12, long.0),
        Set(RX_TOP_FRAME_SYNCH1_SF7TO12_PEAK2_POS_SF7TO12, long.1),
        Set(RX_TOP_LORA_SERVICE_FSK_FRAME_SYNCH0_PEAK1_POS, service.0),
        Set(RX_TOP_LORA_SERVICE_FSK_FRAME_SYNCH1_PEAK2_POS, service.1),
    ]
}

fn transmitters(config: &Config) -> Vec<Step> {
    let new = !config.clock_kind().is_sx125x();
    let mut steps = Vec::new();
    for at in [0, TX_B] {
        if new {
            steps.push(Set(TX_TOP_A_TX_RFFE_IF_CTRL2_PLL_DIV_CTRL_AGC.moved(at), 1));
        }
        steps.extend([
            Set(TX_TOP_A_TX_RFFE_IF_CTRL_TX_IF_DST.moved(at), i32::from(new)),
            Set(TX_TOP_A_TX_RFFE_IF_CTRL_TX_MODE.moved(at), 1),
            Set(TX_TOP_A_TX_RFFE_IF_CTRL_TX_CLK_EDGE.moved(at), 0),
        ]);
    }
    steps
}

/// Aborts what a transmitter does or waits for.
pub fn abort(chain: Chain) -> Vec<Step> {
    let at = chain.index() as u16 * TX_B;
    let limit = sequence::Limit { every_us: 1000, limit_us: 1_000_000, what: "a transmitter did not stop" };
    vec![
        Set(TX_TOP_A_TX_TRIG_TX_TRIG_IMMEDIATE.moved(at), 0),
        Set(TX_TOP_A_TX_TRIG_TX_TRIG_DELAYED.moved(at), 0),
        Set(TX_TOP_A_TX_TRIG_TX_TRIG_GPS.moved(at), 0),
        Step::Until(TX_TOP_A_TX_FSM_STATUS_TX_STATUS.moved(at), 0x80, limit),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_words_are_truncated_toward_zero() {
        assert_eq!(if_word(-400_000), (0x1c, 0xcd));
        assert_eq!(if_word(400_000), (0x03, 0x33));
        assert_eq!(if_word(0), (0, 0));
        assert_eq!(if_word(-488), (0, 0));
    }
}
