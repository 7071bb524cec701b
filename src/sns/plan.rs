//! What the device of a session was told of the channel plan, and what it must still be told. Pure.
//!
//! A device begins with every channel of its region. Where gateways listen to some sub-bands only, devices
//! of LoRaWAN 1.0.3 and later learn it from the Join-accept; older ones, and any that gave up what they had
//! learnt, from LinkADRReq in their next downlinks (TS001 5.2, RP002 on US902-928). TxParamSetupReq lifts the
//! dwell time (TS001 5.8).

use crate::backend::message::MacVersion;
use crate::lorawan::Region;
use crate::lorawan::mac::UplinkCommand;
use crate::lorawan::region::SubBands;

/// So many downlinks tell it. Each is answered in the next uplink, which may be lost; and there are device
/// stacks that never answer.
const TRIES: u8 = 6;
/// So many where the device knew it and may have given it up.
const REMINDERS: u8 = 2;
/// ChannelMaskACK, DataRateACK and PowerACK of LinkADRAns.
const ACCEPTED: u8 = 0b111;

/// The channel plan of a session.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The region that the session was made in; `None`: ours, in sessions of older versions of this program.
    pub region: Option<Region>,
    /// The sub-bands that the device uses, or shall use.
    pub sub_bands: SubBands,
    /// What the device knows of that.
    pub told: Told,
}

/// What a device knows of its session's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Told {
    /// Everything, as far as we know.
    #[default]
    Agreed,
    /// It shall be told in so many downlinks more; 0: they have gone, and the answer is awaited.
    Left(u8),
    /// It refused or never answered. Nobody bothers it until it joins again.
    GivenUp,
}

/// How an uplink was heard.
#[derive(Debug)]
pub(super) struct HeardAt<'a> {
    /// With what is configured here, or as its name alone says where a partner heard it.
    pub region: &'a Region,
    pub visited: bool,
    /// Hertz.
    pub frequency: Option<u32>,
    pub adr_ack_req: bool,
    pub commands: &'a [UplinkCommand],
}

/// What became of telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum News {
    #[error("the device has taken the channel plan")]
    Accepted,
    #[error("the device refuses the channel plan; it is told once more")]
    Refused,
    #[error(
        "the device has not taken the channel plan and goes on with its own channels: some of its uplinks stay \
         unheard; see that its region and LoRaWAN version are right"
    )]
    GivenUp,
}

impl Plan {
    /// Of a session that a join begins. `region` has the sub-bands that the device shall use.
    pub fn of_join(region: &Region, version: MacVersion) -> Plan {
        // in the CFList, if it reads that there
        let told = region.is_whole() || version >= MacVersion::V1_0_3;
        Plan::beginning(region, told)
    }

    /// Of a device that nobody has told anything: it was personalised, or lost its state.
    pub fn untold(region: &Region) -> Plan {
        Plan::beginning(region, region.is_whole())
    }

    fn beginning(region: &Region, told: bool) -> Plan {
        let told = if told && !lifts_dwell(region) { Told::Agreed } else { Told::Left(TRIES) };
        Plan { region: Some(region.clone()), sub_bands: region.sub_bands(), told }
    }

    /// Whether an uplink was heard in the region that the session was made in.
    pub fn is_of(&self, region: &Region) -> bool {
        self.region.as_ref().is_none_or(|ours| ours == region)
    }

    /// The commands that the next downlink must carry.
    pub(super) fn commands(&self, region: &Region, data_rate: Option<u8>) -> Vec<u8> {
        let (Told::Left(1..), true) = (self.told, self.is_of(region)) else { return Vec::new() };
        let target = region.clone().with_sub_bands(self.sub_bands);
        let mut commands = Vec::new();
        if !target.is_whole() {
            commands.extend(target.link_adr_block(data_rate.unwrap_or(0)));
        }
        if lifts_dwell(&target) {
            commands.extend(target.tx_param_setup().into_iter().flatten());
        }
        commands
    }

    /// They went out.
    pub(super) fn note_told(&mut self) {
        if let Told::Left(left) = self.told {
            self.told = Told::Left(left.saturating_sub(1));
        }
    }

    /// Learn from a new uplink.
    pub(super) fn note_uplink(&mut self, heard: &HeardAt<'_>) -> Option<News> {
        if !self.is_of(heard.region) {
            return None;
        }
        let target = heard.region.clone().with_sub_bands(self.sub_bands);
        match self.told {
            Told::GivenUp => None,
            Told::Agreed => {
                let number = heard.frequency.and_then(|frequency| heard.region.sub_band(frequency));
                if let Some(number) = number.filter(|number| !self.sub_bands.contains(*number)) {
                    // it uses channels that it should not: it forgot, or the gateways are others now
                    self.sub_bands = match heard.visited {
                        true => SubBands::only(number),
                        false => heard.region.sub_bands(),
                    };
                    let whole = heard.region.clone().with_sub_bands(self.sub_bands).is_whole();
                    self.told = if whole { Told::Agreed } else { Told::Left(TRIES) };
                } else if heard.adr_ack_req && !target.is_whole() {
                    // who hears nothing for long goes back to all channels (TS001 4.3.1.1)
                    self.told = Told::Left(REMINDERS);
                }
                None
            }
            Told::Left(left) => {
                let mut masks = heard.commands.iter().filter_map(|command| match command {
                    UplinkCommand::LinkAdrAns { status } => Some(*status),
                    _ => None,
                });
                let answered = masks.clone().next().is_some();
                let masked = answered && masks.all(|status| status & ACCEPTED == ACCEPTED);
                let set = heard.commands.contains(&UplinkCommand::TxParamSetupAns);
                let agreed = (target.is_whole() || masked) && (!lifts_dwell(&target) || set);
                if agreed {
                    self.told = Told::Agreed;
                    return Some(News::Accepted);
                }
                if left == 0 {
                    self.told = Told::GivenUp;
                    return Some(News::GivenUp);
                }
                if answered && !masked {
                    // once more, with the data rate that it uses by then
                    self.told = Told::Left(left.min(1));
                    return Some(News::Refused);
                }
                None
            }
        }
    }
}

/// Whether the network lifts the dwell time that devices of the region begin with.
fn lifts_dwell(region: &Region) -> bool {
    region.negotiates_dwell() && region.uplink_dwell().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(numbers: &[u8]) -> Region {
        "US915".parse::<Region>().unwrap().with_sub_bands(SubBands::of(numbers))
    }

    fn hears<'a>(region: &'a Region, frequency: u32, commands: &'a [UplinkCommand]) -> HeardAt<'a> {
        HeardAt { region, visited: false, frequency: Some(frequency), adr_ack_req: false, commands }
    }

    const IN_2: u32 = 903_900_000;
    const IN_3: u32 = 905_500_000;
    const YES: UplinkCommand = UplinkCommand::LinkAdrAns { status: 7 };

    #[test]
    fn an_old_device_is_told_until_it_accepts_and_then_no_more() {
        let region = us(&[2]);
        let mut plan = Plan::of_join(&region, MacVersion::V1_0_2);
        for _ in 0..3 {
            assert_eq!(plan.note_uplink(&hears(&region, IN_2, &[])), None);
            assert_eq!(plan.commands(&region, Some(3)), region.link_adr_block(3));
            plan.note_told();
        }
        assert_eq!(plan.note_uplink(&hears(&region, IN_2, &[YES, YES])), Some(News::Accepted));
        assert!(plan.commands(&region, Some(3)).is_empty());
        assert_eq!(plan.note_uplink(&hears(&region, IN_2, &[])), None);
        assert_eq!(plan.told, Told::Agreed);
    }

    #[test]
    fn newer_devices_and_whole_regions_need_no_command() {
        for (region, version) in [
            (us(&[2]), MacVersion::V1_0_3),
            (us(&[2]), MacVersion::V1_1),
            (us(&[]), MacVersion::V1_0_2),
            (Region::eu868(), MacVersion::V1_0_2),
            ("AS923".parse().unwrap(), MacVersion::V1_0_2),
        ] {
            let plan = Plan::of_join(&region, version);
            assert_eq!((plan.told, plan.commands(&region, Some(0))), (Told::Agreed, vec![]), "{region}");
        }
        assert_eq!(Plan::untold(&us(&[2])).told, Told::Left(TRIES));
    }

    #[test]
    fn a_device_that_never_answers_is_left_alone_after_a_while() {
        let region = us(&[2]);
        let mut plan = Plan::of_join(&region, MacVersion::V1_0_2);
        let mut told = 0;
        for _ in 0..20 {
            plan.note_uplink(&hears(&region, IN_2, &[]));
            if !plan.commands(&region, Some(0)).is_empty() {
                told += 1;
                plan.note_told();
            }
        }
        assert_eq!((told, plan.told), (TRIES, Told::GivenUp));
        // not even where it is heard elsewhere
        assert_eq!(plan.note_uplink(&hears(&region, IN_3, &[])), None);
        assert_eq!(plan.told, Told::GivenUp);
    }

    #[test]
    fn a_refusal_is_tried_once_more() {
        let region = us(&[2]);
        let mut plan = Plan::of_join(&region, MacVersion::V1_0_2);
        plan.note_told();
        let no = [UplinkCommand::LinkAdrAns { status: 0b101 }, YES];
        assert_eq!(plan.note_uplink(&hears(&region, IN_2, &no)), Some(News::Refused));
        assert!(!plan.commands(&region, Some(0)).is_empty());
        plan.note_told();
        assert_eq!(plan.note_uplink(&hears(&region, IN_2, &no)), Some(News::GivenUp));
    }

    #[test]
    fn a_device_that_uses_other_channels_is_told_ours_or_those_where_it_is() {
        let region = us(&[2]);
        let agreed = Plan::of_join(&region, MacVersion::V1_0_4);
        let mut here = agreed.clone();
        here.note_uplink(&hears(&region, IN_3, &[]));
        assert_eq!((here.sub_bands, here.told), (SubBands::only(2), Told::Left(TRIES)));
        let mut abroad = agreed.clone();
        let theirs = us(&[]);
        abroad.note_uplink(&HeardAt { visited: true, ..hears(&theirs, IN_3, &[]) });
        assert_eq!(abroad.commands(&theirs, Some(1)), us(&[3]).link_adr_block(1));
        // in another region nothing can be said
        let mut lost = agreed.clone();
        lost.note_uplink(&HeardAt { visited: true, ..hears(&Region::eu868(), 868_100_000, &[YES]) });
        assert_eq!(lost, agreed);
    }

    #[test]
    fn a_device_that_asks_for_a_sign_of_life_is_reminded() {
        let region = us(&[2]);
        let mut plan = Plan::of_join(&region, MacVersion::V1_0_4);
        plan.note_uplink(&HeardAt { adr_ack_req: true, ..hears(&region, IN_2, &[]) });
        assert!(!plan.commands(&region, Some(0)).is_empty());
        let mut whole = Plan::of_join(&us(&[]), MacVersion::V1_0_4);
        whole.note_uplink(&HeardAt { adr_ack_req: true, ..hears(&us(&[]), IN_2, &[]) });
        assert_eq!(whole.told, Told::Agreed);
    }

    #[test]
    fn a_lifted_dwell_time_is_told_and_answered_by_its_own_command() {
        let region = "AU915".parse::<Region>().unwrap().with_dwell(false).with_sub_bands(SubBands::only(2));
        let mut plan = Plan::of_join(&region, MacVersion::V1_0_4);
        let both = plan.commands(&region, Some(2));
        assert_eq!(both, [region.link_adr_block(2), vec![0x09, 13]].concat());
        plan.note_told();
        assert_eq!(plan.note_uplink(&hears(&region, 916_800_000, &[YES, YES])), None);
        let all = [YES, UplinkCommand::TxParamSetupAns];
        assert_eq!(plan.note_uplink(&hears(&region, 916_800_000, &all)), Some(News::Accepted));
    }
}
