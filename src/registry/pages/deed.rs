//! What a form means to the API. Pure. Called by `pages` only.

use axum::http::Method;
use serde_json::{Value, json};

use super::Fields;

/// A request to the API, and what is said when it is done.
pub(super) struct Deed {
    pub method: Method,
    pub path: String,
    pub body: Value,
    pub done: &'static str,
}

/// What a form asks for. An error says what is missing.
pub(super) fn read(name: &str, fields: &Fields) -> Result<Deed, String> {
    let said = |name: &str| fields.get(name).map_or("", |text| text.trim());
    let id = |path: &str, tail: &str| format!("/v1/{path}/{}{tail}", part(said("id")));
    let at = || match said("under") {
        "" => format!("/v1/{}", path(said("path"))),
        under => format!("/v1/{}?under={}", path(said("path")), part(under)),
    };
    let deed = |method, path: String, body, done| Ok(Deed { method, path, body, done });
    let nothing = Value::Null;
    match name {
        "put" => {
            deed(Method::PUT, at(), json!({ "records": records(said("records"))? }), "It is in the zone.")
        }
        "clear" => deed(Method::DELETE, at(), nothing, "It is gone from the zone."),
        "move" => {
            let path = format!("/v1/join-euis/{}/devices", part(said("join_eui")));
            let dev_euis: Vec<&str> = said("dev_euis").split_whitespace().collect();
            let body = json!({ "dev_euis": dev_euis, "records": records(said("records"))? });
            deed(Method::POST, path, body, "The devices have names of their own.")
        }
        "hand-out" => deed(Method::POST, "/v1/net-ids".into(), nothing, "You have a NetID."),
        "wish" => {
            let mut body = thing(said("what"));
            body["domain"] = said("domain").into();
            let done = "Put the TXT record of the list below into your domain, then look for it.";
            deed(Method::POST, "/v1/claims/waiting".into(), body, done)
        }
        "prove" => deed(Method::POST, id("claims/waiting", "/prove"), nothing, "The record is there."),
        "fulfil" => deed(Method::POST, id("claims/waiting", "/fulfil"), nothing, "It is granted."),
        "withdraw" => deed(Method::DELETE, id("claims/waiting", ""), nothing, "It is withdrawn."),
        "give-back" => deed(Method::DELETE, id("claims", ""), nothing, "It is given back."),
        "grant" => {
            let mut body = thing(said("what"));
            body["member"] = number(said("member"), "member")?;
            deed(Method::POST, "/v1/claims".into(), body, "It is granted.")
        }
        "member" => deed(
            Method::POST,
            "/v1/members".into(),
            json!({ "name": said("name") }),
            "There is a new member. Hand this key over: it is shown once.",
        ),
        "revoke-member" => deed(Method::DELETE, id("members", ""), nothing, "The member is revoked."),
        "key" => deed(
            Method::POST,
            "/v1/keys".into(),
            json!({ "label": said("label"), "scope": said("scope") }),
            "There is a new key. Keep it: it is shown once.",
        ),
        "revoke-key" => deed(Method::DELETE, id("keys", ""), nothing, "The key opens nothing any more."),
        "user" => {
            // blanks at its ends belong to a password
            let password = fields.get("password").map_or("", String::as_str);
            let body = json!({ "name": said("name"), "password": password, "scope": said("scope") });
            deed(Method::POST, "/v1/users".into(), body, "There is somebody more who can sign in.")
        }
        "remove-user" => deed(Method::DELETE, id("users", ""), nothing, "He signs in no more."),
        "certificate" => {
            let body =
                json!({ "request": fields.get("request").map_or("", String::as_str).replace('\r', "") });
            deed(Method::POST, "/v1/certificates".into(), body, "It is asked for.")
        }
        "approve" => deed(Method::POST, id("certificates", "/approve"), nothing, "It is signed."),
        "strike-off" => deed(Method::POST, id("certificates", "/revoke"), nothing, "It is struck off."),
        "zone-key" => deed(Method::POST, "/v1/zone/keys".into(), nothing, "There is another key."),
        "sign" => deed(Method::POST, id("zone/keys", "/sign"), nothing, "It signs from now on."),
        "remove-zone-key" => deed(Method::DELETE, id("zone/keys", ""), nothing, "The key is removed."),
        _ => Err("there is no such form".into()),
    }
}

/// Where somebody is led after a form.
pub(super) fn back(name: &str, fields: &Fields) -> String {
    let page = match name {
        "put" | "clear" => {
            return match fields.get("path") {
                Some(at) if !at.is_empty() => format!("/at/{}", path(at)),
                _ => "/pages/names".into(),
            };
        }
        "member" | "revoke-member" | "grant" | "fulfil" => "members",
        "key" | "revoke-key" | "user" | "remove-user" => "people",
        "certificate" | "approve" | "strike-off" => "certificates",
        "zone-key" | "sign" | "remove-zone-key" => "zone",
        _ => "names",
    };
    format!("/pages/{page}")
}

/// What of an answer is shown this once.
pub(super) fn shown_once(answer: &Value) -> String {
    let key = answer["key"].as_str().filter(|key| key.starts_with("rg_"));
    key.unwrap_or_default().to_owned()
}

/// Records as people write them, one a line: a TTL if any, the type, the rest.
fn records(text: &str) -> Result<Value, String> {
    let record = |line: &str| {
        let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (ttl, rest) = match first.parse::<u32>() {
            Ok(ttl) => (Some(ttl), rest.trim()),
            Err(_) => (None, line),
        };
        let (kind, data) = rest.split_once(char::is_whitespace).ok_or_else(|| {
            format!("{line:?}: a line is a type and its data, such as AAAA 2001:db8::1, with a TTL in front if you like")
        })?;
        let mut record = json!({ "type": kind, "data": data.trim() });
        if let Some(ttl) = ttl {
            record["ttl"] = ttl.into();
        }
        Ok(record)
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(record).collect::<Result<Vec<Value>, String>>().map(Value::from)
}

/// A NetID has six digits.
fn thing(text: &str) -> Value {
    match text.len() {
        6 => json!({ "net_id": text }),
        _ => json!({ "join_euis": text }),
    }
}

fn number(text: &str, what: &str) -> Result<Value, String> {
    text.parse::<i64>().map(Value::from).map_err(|_| format!("{what}: its number, not {text:?}"))
}

/// One part of a path, whatever it is.
fn part(text: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let escaped = text.bytes().map(|byte| match fits(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    escaped.collect()
}

/// Several parts, with slashes between.
fn path(text: &str) -> String {
    text.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Fields {
        all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn records_are_read_line_by_line() {
        let form =
            fields(&[("path", "net-ids/C00ABC"), ("records", "AAAA 2001:db8::1\r\n\r\n60 A 192.0.2.1\r\n")]);
        let deed = read("put", &form).ok().unwrap();
        assert_eq!(deed.path, "/v1/net-ids/C00ABC");
        let wanted = json!({ "records": [
            { "type": "AAAA", "data": "2001:db8::1" }, { "type": "A", "data": "192.0.2.1", "ttl": 60 }
        ] });
        assert_eq!(deed.body, wanted);
        assert_eq!(back("put", &form), "/at/net-ids/C00ABC");
        let error = read("put", &fields(&[("records", "AAAA")])).err().unwrap();
        assert!(error.contains("a line is a type and its data"), "{error}");
    }

    #[test]
    fn no_field_leads_elsewhere() {
        let form = fields(&[("id", "../members/1?x#y"), ("path", "//evil.example/../x?y")]);
        assert_eq!(read("revoke-key", &form).ok().unwrap().path, "/v1/keys/..%2Fmembers%2F1%3Fx%23y");
        assert_eq!(back("clear", &form), "/at///evil.example/../x%3Fy");
    }

    proptest::proptest! {
        #[test]
        fn no_form_upsets_it(name in "[a-z-]{0,12}", what: String, records: String) {
            let form = fields(&[("what", &what), ("records", &records), ("path", &what), ("id", &what)]);
            let _ = (read(&name, &form), back(&name, &form));
        }
    }
}
