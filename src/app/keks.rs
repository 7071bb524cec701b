//! The key-encryption keys that partner entries name, loaded at the start for both ends of TS002.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::backend::client::JoinServer;
use crate::backend::keywrap::{Kek, Keks};
use crate::backend::message::Party;
use crate::js;
use crate::js::config::{Application, Elsewhere};
use crate::partners::{self, KekKey};

/// For each partner that has one. A key that cannot be read is an error, never a partner without.
pub fn keks(partners: &partners::Config) -> anyhow::Result<BTreeMap<Party, Keks>> {
    let mut keks = BTreeMap::new();
    for partner in &partners.partner {
        let Some(agreed) = &partner.kek else { continue };
        let kek = kek(agreed, || format!("kek of [[roaming.partner]] {}", partner.net_id))?;
        let both = Keks { send: Some(kek.clone()), open: vec![kek], allow_clear: false };
        keks.insert(Party::Ns(partner.net_id), both);
    }
    Ok(keks)
}

/// Application servers outside this house, each with its key.
pub fn applications(join_server: &js::config::Config) -> anyhow::Result<Vec<(Application, Kek)>> {
    let with_key = |application: &Application| {
        let why = || format!("kek of [[join_server.application]] {}", application.as_id);
        Ok((application.clone(), kek(&application.kek, why)?))
    };
    join_server.application.iter().map(with_key).collect()
}

/// Join servers of others, as our client asks them.
pub fn join_servers(config: &js::config::Config) -> anyhow::Result<Vec<JoinServer>> {
    let with_key = |elsewhere: &Elsewhere| {
        let kek = kek(&elsewhere.kek, || format!("kek of [[join_server.elsewhere]] {}", list(elsewhere)))?;
        Ok(JoinServer {
            join_euis: elsewhere.join_euis.clone(),
            server: elsewhere.server.clone(),
            identity: elsewhere.identity.clone(),
            keks: Keks { send: None, open: vec![kek], allow_clear: false },
            as_id: elsewhere.as_id.clone(),
        })
    };
    config.elsewhere.iter().map(with_key).collect()
}

/// The keys under which they give AppSKeys to our application server.
pub fn app_s_keys(config: &js::config::Config) -> anyhow::Result<Vec<Kek>> {
    let of = |elsewhere: &Elsewhere| {
        kek(&elsewhere.as_kek, || format!("as_kek of [[join_server.elsewhere]] {}", list(elsewhere)))
    };
    config.elsewhere.iter().map(of).collect()
}

fn list(elsewhere: &Elsewhere) -> String {
    elsewhere.join_euis.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn kek(of: &partners::Kek, why: impl Fn() -> String) -> anyhow::Result<Kek> {
    load(&of.key).and_then(|key| Ok(Kek::new(&*of.label, &*key)?)).with_context(why)
}

fn load(key: &KekKey) -> anyhow::Result<zeroize::Zeroizing<Vec<u8>>> {
    let path: PathBuf = match key {
        KekKey::Here(key) => return Ok(key.clone()),
        KekKey::File(path) => path.clone(),
        KekKey::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
            let why = "no credentials: systemd gives them where the unit has LoadCredential=";
            Path::new(&folder.context(why)?).join(name)
        }
    };
    let content =
        zeroize::Zeroizing::new(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    KekKey::read(&content).with_context(|| {
        format!("{} is no key: 16, 24 or 32 bytes, or twice as many hexadecimal digits", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lorawan::Key;

    #[test]
    fn each_partner_has_its_own_key_or_none() {
        let entry = |net_id: &str, kek: &str| format!("[[partner]]\nnet_id = \"{net_id}\"\n{kek}\n");
        let kek = |label: &str, digit: &str| {
            format!("kek = {{ label = \"{label}\", key = \"{}\" }}", digit.repeat(32))
        };
        let text = entry("000002", &kek("a", "1")) + &entry("000003", &kek("b", "2")) + &entry("000004", "");
        let keks = keks(&toml::from_str(&text).unwrap()).unwrap();
        let of = |net_id: &str| keks.get(&Party::Ns(net_id.parse().unwrap()));
        let envelope = of("000002").unwrap().seal(&Key::new([7; 16])).unwrap();
        assert_eq!(of("000002").unwrap().open(&envelope), Ok(Key::new([7; 16])));
        assert!(of("000003").unwrap().open(&envelope).is_err() && of("000004").is_none());
    }

    #[test]
    fn a_file_that_holds_no_key_stops_the_start() {
        let text =
            "[[partner]]\nnet_id = \"000002\"\nkek = { label = \"a\", key = { file = \"/dev/null\" } }";
        let error = keks(&toml::from_str(text).unwrap()).unwrap_err();
        assert!(format!("{error:#}").contains("000002"), "{error:#}");
    }
}
