//! What helps somebody else to help, in one file, without secrets. Called by `doctor` only.

use std::io::Write;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use toml::Value;

/// Keys of a configuration whose values nobody else is to see, wherever they stand.
const SECRET: [&str; 6] = ["password", "secret", "access_key", "username", "headers", "key"];

/// The configuration as it is understood, with what is secret left out.
pub(super) fn shown(config: &str) -> anyhow::Result<String> {
    let mut value: Value = toml::from_str(config).context("the configuration")?;
    hide(&mut value, false);
    Ok(toml::to_string_pretty(&value)?)
}

fn hide(value: &mut Value, secret: bool) {
    match value {
        Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                // where a secret lies is none
                let is_place = matches!(name.as_str(), "file" | "credential");
                hide(value, !is_place && (secret || SECRET.contains(&name.as_str())));
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| hide(value, secret)),
        Value::String(text) if secret => "(left out)".clone_into(text),
        _ => {}
    }
}

/// Parts, each a file of an archive (tar, gzip).
pub(super) fn pack(parts: &[(&str, String)], to: impl Write, made: u64) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(to, Compression::default()));
    for (name, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(made);
        tar.append_data(&mut header, format!("roamgate-support/{name}"), text.as_bytes())?;
    }
    tar.into_inner()?.finish()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_it_and_places_of_secrets_are() {
        let config = "[store]\nkey = { file = \"/etc/key\" }\n[application.mqtt]\nusername = \"me\"\npassword = \"hush\"\n\
                      [application.http]\nurl = \"https://h\"\nheaders = { Authorization = \"Bearer hush\" }\n\
                      [[roaming.partner]]\nnet_id = \"C00ABC\"\nkek = { label = \"a\", key = \"00112233445566778899aabbccddeeff\" }\n\
                      [backend]\nidentity = { chain = \"c.pem\", key = \"/k.pem\" }\n[backup.s3]\nsecret_file = \"/s\"\naccess_key = \"AK\"\n";
        let text = shown(config).unwrap();
        for secret in ["hush", "0011", "\"me\"", "AK"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for shown in ["/etc/key", "https://h", "C00ABC", "c.pem", "/s", "label = \"a\""] {
            assert!(text.contains(shown), "no {shown} in {text}");
        }
    }
}
