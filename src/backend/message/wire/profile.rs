//! Device and Service Profile as JSON objects (TS002 section 9, tables 17 and 18).

use super::json::{Fields, Members};
use super::*;
use crate::limits::{RateLimit, RatePolicy};

/// What a home says of a device, and since when it is so.
pub(super) fn profile(fields: &Fields) -> Result<Option<ProfileAt>, Refusal> {
    let (Some(inside), Some(since)) =
        (fields.object("DeviceProfile")?, fields.time("DeviceProfileTimestamp")?)
    else {
        return Ok(None);
    };
    let mac_version = inside.need("MACVersion", inside.text("MACVersion")?)?;
    let text = |name| inside.text(name).map(|text| text.unwrap_or_default().to_owned());
    let max_eirp = inside.number("MaxEIRP")?.unwrap_or(16.0).round().clamp(-128.0, 127.0);
    let profile = DeviceProfile {
        id: text("DeviceProfileID")?,
        mac_version: mac_version
            .parse()
            .map_err(|error| inside.wrong("MACVersion", format_args!("is wrong: {error}")))?,
        reg_params_revision: text("RegParamsRevision")?,
        class: if inside.flag("SupportsClassC")? == Some(true) { ClassMode::C } else { ClassMode::A },
        supports_join: inside.flag("SupportsJoin")?.unwrap_or(true),
        max_eirp: max_eirp as i8,
        rf_region: text("RFRegion")?,
    };
    Ok(Some(ProfileAt { profile, since }))
}

pub(super) fn put_profile(to: &mut Members, at: &ProfileAt) {
    let ProfileAt { profile, since } = at;
    let class_c = profile.class == ClassMode::C;
    let mut object = Members::default();
    object.put("DeviceProfileID", profile.id.as_str());
    object.put("SupportsClassB", false);
    object.put("SupportsClassC", class_c);
    // the longest time for it to answer, seconds
    object.some("ClassCTimeout", class_c.then_some(5));
    object.put("MACVersion", profile.mac_version.to_string());
    object.put("RegParamsRevision", profile.reg_params_revision.as_str());
    object.put("MaxEIRP", profile.max_eirp);
    object.put("SupportsJoin", profile.supports_join);
    object.put("RFRegion", profile.rf_region.as_str());
    object.put("Supports32bitFCnt", true);
    to.put("DeviceProfile", object.object());
    to.time("DeviceProfileTimestamp", *since);
}

/// What is missing is without limits and not allowed, but for what the answer that carries it allows itself.
pub(super) fn service_profile(fields: &Fields) -> Result<Option<ServiceProfile>, Refusal> {
    let Some(inside) = fields.object("ServiceProfile")? else { return Ok(None) };
    let limit = |rate: &str, bucket: &str, policy: &str| {
        Ok::<_, Refusal>(RateLimit {
            rate: inside.u32(rate)?.unwrap_or(RateLimit::NONE.rate),
            bucket: inside.u32(bucket)?.unwrap_or(RateLimit::NONE.bucket),
            policy: match inside.text(policy)? {
                Some("Drop") => RatePolicy::Drop,
                Some("Mark") | None => RatePolicy::Mark,
                Some(_) => return Err(inside.wrong(policy, "is neither Drop nor Mark")),
            },
        })
    };
    // two widely deployed peers call the identifier as the object around it
    let id = match inside.text("ServiceProfileID")? {
        None => inside.text("ServiceProfile")?,
        id => id,
    };
    Ok(Some(ServiceProfile {
        terms: Terms::new(
            id.unwrap_or_default(),
            limit("ULRate", "ULBucketSize", "ULRatePolicy")?,
            limit("DLRate", "DLBucketSize", "DLRatePolicy")?,
        ),
        dr_max: inside.u8("DRMax", 0..=15)?.unwrap_or(15),
        passive: inside.flag("PRAllowed")?.unwrap_or(true),
        handover: inside.flag("HRAllowed")?.unwrap_or(false),
        activation: inside.flag("RAAllowed")?.unwrap_or(false),
    }))
}

pub(super) fn put_service_profile(to: &mut Members, profile: &ServiceProfile) {
    let word = |policy| match policy {
        RatePolicy::Drop => "Drop",
        RatePolicy::Mark => "Mark",
    };
    let Terms { profile: id, ul, dl } = &profile.terms;
    let mut object = Members::default();
    object.put("ServiceProfileID", id.as_str());
    object.put("ServiceProfile", id.as_str());
    object.put("ULRate", ul.rate);
    object.put("ULBucketSize", ul.bucket);
    object.put("ULRatePolicy", word(ul.policy));
    object.put("DLRate", dl.rate);
    object.put("DLBucketSize", dl.bucket);
    object.put("DLRatePolicy", word(dl.policy));
    object.put("AddGWMetadata", true);
    object.put("DevStatusReqFreq", 0);
    object.put("ReportDevStatusBatery", false);
    object.put("ReportDevStatusMargin", false);
    object.put("DRMin", 0);
    object.put("DRMax", profile.dr_max);
    object.put("ChannelMask", "FFFF");
    object.put("PRAllowed", profile.passive);
    object.put("HRAllowed", profile.handover);
    object.put("RAAllowed", profile.activation);
    object.put("NwkGeoLoc", false);
    object.put("TargetPER", 0.1);
    object.put("MinGWDiversity", 1);
    to.put("ServiceProfile", object.object());
}
