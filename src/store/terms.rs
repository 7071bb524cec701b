//! What a home wants of the frames of a device, as the text of a column: NULL where it wants nothing.

use serde::{Deserialize, Serialize};

use super::writer::Fault;
use crate::backend::message::Terms;
use crate::limits::RateLimit;

/// The column's text, by version.
#[derive(Serialize, Deserialize)]
#[serde(tag = "v")]
enum Kept {
    #[serde(rename = "1")]
    V1(Written),
}

#[derive(Serialize, Deserialize)]
struct Written {
    profile: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ul: Option<RateLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dl: Option<RateLimit>,
}

pub(super) fn to_text(terms: &Terms) -> Result<Option<String>, Fault> {
    if *terms == Terms::default() {
        return Ok(None);
    }
    let limit = |limit: RateLimit| (!limit.is_none()).then_some(limit);
    let written = Written { profile: terms.profile.clone(), ul: limit(terms.ul), dl: limit(terms.dl) };
    serde_json::to_string(&Kept::V1(written)).map(Some).map_err(|error| Fault::Wrong(error.to_string()))
}

pub(super) fn from_text(text: Option<&str>) -> Result<Terms, Fault> {
    let Some(text) = text else { return Ok(Terms::default()) };
    let Kept::V1(Written { profile, ul, dl }) =
        serde_json::from_str(text).map_err(|error| Fault::Wrong(format!("terms: {error}")))?;
    Ok(Terms::new(&profile, ul.unwrap_or(RateLimit::NONE), dl.unwrap_or(RateLimit::NONE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RatePolicy;

    #[test]
    fn terms_read_as_they_were_written() {
        let drop = RateLimit { rate: 60, bucket: 10, policy: RatePolicy::Drop };
        let mark = RateLimit { policy: RatePolicy::Mark, ..drop };
        for (ul, dl) in [(None, None), (Some(drop), None), (None, Some(mark)), (Some(mark), Some(drop))] {
            let terms = Terms::ours(ul, dl);
            let text = to_text(&terms).unwrap().unwrap();
            assert_eq!(from_text(Some(&text)).unwrap(), terms, "{text}");
        }
        assert_eq!(to_text(&Terms::default()).unwrap(), None);
        assert_eq!(from_text(None).unwrap(), Terms::default());
        let text = r#"{"v":"1","profile":"a","ul":{"rate":60,"bucket":10,"policy":"drop"}}"#;
        assert_eq!(from_text(Some(text)).unwrap(), Terms::new("a", drop, RateLimit::NONE));
        for text in ["", "{}", r#"{"v":"2","profile":"a"}"#] {
            assert!(from_text(Some(text)).is_err(), "{text}");
        }
    }
}
