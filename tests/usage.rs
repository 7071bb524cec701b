//! Two operators settle: one's statement, by the program itself, and what the other's program says to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use roamgate::backend::message::{Account, MacVersion};
use roamgate::clock::Clock;
use roamgate::fns::usage::Usage;
use roamgate::hns::Carriers;
use roamgate::lorawan::{DevEui, Key, NetId};
use roamgate::store::{Config, NewDevice, Store, Url};
use roamgate::usage::{Carried, Kind, Way};
use serde_json::Value;
use tempfile::TempDir;

const US: &str = "C00ABC";
const THEM: &str = "C0002F";
const DEVICE: DevEui = DevEui::from_msb([1; 8]);
/// In November 2020 and in the month after.
const NOVEMBER: u64 = 1_605_000_000;
const DECEMBER: u64 = 1_607_500_000;

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roamgate"));
    command.current_dir(folder).args(arguments).env_remove("RUST_LOG").env_remove("JOURNAL_STREAM");
    command.output().expect("the program starts")
}

fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A federation of two, with certificates made by the program.
struct Federation(TempDir);

impl Federation {
    fn new() -> Federation {
        let federation = Federation(TempDir::new().unwrap());
        let folder = federation.0.path();
        good(folder, &["pki", "root", "--out", "federation"]);
        for net_id in [US, THEM] {
            federation.member(net_id, "federation");
        }
        federation
    }

    /// A member's folder: certificates below this root, and a configuration.
    fn member(&self, net_id: &str, root: &str) {
        let folder = self.0.path();
        let (middle, out) = (format!("{net_id}/intermediate"), format!("{net_id}/pki"));
        let suffixes = ["--net-id-suffix", "netids.example", "--join-eui-suffix", "joineuis.example"];
        let intermediate =
            ["pki", "intermediate", "--root", root, "--net-id", net_id, "--force", "--out", &middle];
        good(folder, &[&intermediate[..], &suffixes].concat());
        good(
            folder,
            &["pki", "issue", "--intermediate", &middle, "--net-id", net_id, "--force", "--out", &out],
        );
        let config = format!(
            "[network]\nnet_ids = [\"{net_id}\"]\n[store]\nurl = \"sqlite:r.db\"\n[backend]\n\
             identity = {{ chain = \"pki/chain.pem\", key = \"pki/key.pem\" }}\nroots = [\"../federation/root.pem\"]\n\
             [discovery]\nnet_id_suffix = \"netids.example\"\njoin_eui_suffix = \"joineuis.example\"\n"
        );
        std::fs::write(self.of(net_id).join("r.toml"), config).unwrap();
    }

    fn of(&self, net_id: &str) -> PathBuf {
        self.0.path().join(net_id)
    }

    fn store(&self, net_id: &str) -> Store {
        let config = Config { url: Url::sqlite(self.of(net_id).join("r.db")), ..Config::default() };
        Store::open(&config, Clock::system()).unwrap()
    }

    /// What the visited network carried for the home, and what the home saw of it.
    async fn carry(&self, at: u64, theirs: usize, ours: usize) {
        let (us, them): (NetId, NetId) = (US.parse().unwrap(), THEM.parse().unwrap());
        let visited = self.store(THEM);
        for _ in 0..theirs {
            visited
                .carried(Carried {
                    account: Account::of(us),
                    kind: Kind::Passive,
                    way: Way::Up,
                    bytes: 12,
                    unix: at,
                })
                .await
                .unwrap();
        }
        visited.roams(us, DEVICE, Some(String::new()), at).await.unwrap();
        visited.close().await.unwrap();
        let home = self.store(US);
        for _ in 0..ours {
            home.carried_for_us(Carried {
                account: Account::of(them),
                kind: Kind::Passive,
                way: Way::Up,
                bytes: 12,
                unix: at,
            })
            .await
            .unwrap();
        }
        home.close().await.unwrap();
    }

    /// Their statement of a month, as a file of ours.
    fn statement(&self, month: &str) -> String {
        let text = good(&self.of(THEM), &["usage", "statement", US, "--month", month, "-c", "r.toml"]);
        let name = format!("{month}.json");
        std::fs::write(self.of(US).join(&name), text).unwrap();
        name
    }

    fn reconcile(&self, files: &[&str]) -> (i32, String, String) {
        let arguments = [&["usage", "reconcile", "-c", "r.toml"], files].concat();
        let output = run(&self.of(US), &arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[tokio::test]
async fn two_networks_compare_what_one_carried_for_the_other() {
    let federation = Federation::new();
    federation.carry(NOVEMBER, 3, 3).await;
    federation.carry(DECEMBER, 5, 4).await;
    let november = federation.statement("2020-11");
    let december = federation.statement("2020-12");
    // the device is none that its home knows
    let (code, said, _) = federation.reconcile(&[&november]);
    assert_eq!((code, said.contains("0101010101010101 is no device of ours")), (1, true), "{said}");
    let home = federation.store(US);
    let new = NewDevice {
        dev_eui: DEVICE,
        join_eui: "0000000000000001".parse().unwrap(),
        name: String::new(),
        mac_version: MacVersion::V1_0_4,
        app_key: Some(Key::new([1; 16])),
        nwk_key: None,
        home: None,
        roaming: true,
    };
    home.add_device(new).await.unwrap();
    home.close().await.unwrap();
    let (code, said, _) = federation.reconcile(&[&november]);
    assert!(code == 0 && said.starts_with("NetID C0002F on 2020-11: both records agree.\n"), "{said}");
    // one more is said to have been carried than came home
    let (code, said, _) = federation.reconcile(&[&december, &november]);
    assert_eq!(code, 1);
    assert!(said.contains("NetID C0002F on 2020-12: the records differ.\n"), "{said}");
    assert!(said.contains("Passive  TotalULPackets  5       4     +1\n"), "{said}");
    let (_, said, _) = federation.reconcile(&["--json", &november, &december]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (said[1]["lines"][0]["theirs"].as_u64(), &said[1]["chain_broken"]),
        (Some(5), &Value::Bool(false))
    );
}

#[tokio::test]
async fn nobody_else_speaks_for_a_network_and_no_month_is_left_out() {
    let federation = Federation::new();
    for at in [NOVEMBER, NOVEMBER + 2_500_000, NOVEMBER + 5_000_000] {
        federation.carry(at, 1, 1).await;
    }
    let november = federation.statement("2020-11");
    let january = federation.statement("2021-01");
    let (_, said, _) = federation.reconcile(&[&november, &january]);
    assert!(said.contains("does not follow the statement before"), "{said}");
    // a number is changed
    let text = std::fs::read_to_string(federation.of(US).join(&november)).unwrap();
    let changed = text.replacen("\\\"TotalULPackets\\\":1", "\\\"TotalULPackets\\\":9", 1);
    assert_ne!(changed, text);
    std::fs::write(federation.of(US).join("changed.json"), changed).unwrap();
    let (code, _, said) = federation.reconcile(&["changed.json"]);
    assert!(code == 1 && said.contains("the signature is wrong"), "{said}");
    // it is signed by somebody else, or is for somebody else
    let ours = good(&federation.of(US), &["usage", "statement", THEM, "--month", "2020-11", "-c", "r.toml"]);
    std::fs::write(federation.of(US).join("ours.json"), ours).unwrap();
    let (_, _, said) = federation.reconcile(&["ours.json"]);
    assert!(said.contains("which is not ours"), "{said}");
    good(federation.0.path(), &["pki", "root", "--out", "another"]);
    federation.member(THEM, "another");
    federation.statement("2020-11");
    let (_, _, said) = federation.reconcile(&[&november]);
    assert!(said.contains("certificate is not accepted"), "{said}");
    // the present month is not over, and without an identity nobody signs
    let output = run(&federation.of(THEM), &["usage", "statement", US, "--month", "2999-01", "-c", "r.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not over"));
    std::fs::write(federation.of(THEM).join("alone.toml"), "[store]\nurl = \"sqlite:r.db\"\n").unwrap();
    let output =
        run(&federation.of(THEM), &["usage", "statement", US, "--month", "2020-11", "-c", "alone.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no [backend]"));
}
