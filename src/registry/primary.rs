//! Tells another server, which is the zone's primary, every change: dynamic updates (RFC 2136), signed with a shared key (TSIG, RFC 8945).
//!
//! What changed is written down with the change itself, and struck out when the primary has said yes to it; so it misses nothing while it
//! is away. It signs the zone itself. It knows the DNS's wildcards only (RFC 4592), so it is told what comes to the same as a block.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::absolute;
use super::zone::name;
use crate::clock::Clock;
use crate::discovery::Suffix;
use crate::store::Store;
use crate::store::registry::Entry;

/// Changed places that are told at once.
const AT_ONCE: u32 = 100;
/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_millis(250);
/// After something went wrong: so long, then twice as long, up to the last.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// An update and its answer take so long at most.
const ANSWER: Duration = Duration::from_secs(20);
/// How far the two clocks may be apart, seconds.
const FUDGE: u16 = 300;

/// `[registry] primary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it takes updates, over TCP.
    pub server: SocketAddr,
    /// Name of the shared key.
    pub key: Suffix,
    /// Its algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// File with its secret, in Base64.
    pub secret_file: PathBuf,
}

/// How updates are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC-SHA-256.
    #[default]
    HmacSha256,
    /// HMAC-SHA-384.
    HmacSha384,
    /// HMAC-SHA-512.
    HmacSha512,
}

/// Whether changes are written down for a primary.
pub(super) async fn prepare(store: &Store, drives: bool) -> anyhow::Result<()> {
    let done = store.registry(move |book| {
        book.drives(drives)?;
        Ok(((), true))
    });
    done.await.context("[registry] primary")
}

/// The way to the primary.
pub struct Link {
    server: SocketAddr,
    origin: Name,
    signer: TSigner,
    clock: Clock,
}

impl Link {
    /// Reads the secret; asks nobody yet.
    pub fn new(config: &Config, origin: Name, clock: Clock) -> anyhow::Result<Link> {
        let file = config.secret_file.display();
        let text = std::fs::read_to_string(&config.secret_file).with_context(|| format!("read {file}"))?;
        let secret = BASE64_STANDARD.decode(text.trim()).with_context(|| format!("{file} is not Base64"))?;
        let algorithm = match config.algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        let signer = TSigner::new(secret, algorithm, absolute(config.key.as_str())?, FUDGE)?;
        Ok(Link { server: config.server, origin, signer, clock })
    }

    /// Tell it whatever changes, until dropped.
    pub async fn run(self, store: Store) {
        let mut wait = PATIENCE.0;
        loop {
            match self.tell(&store).await {
                Ok(0) => self.clock.sleep(LOOK).await,
                Ok(_) => wait = PATIENCE.0,
                Err(error) => {
                    let untold = store.registry(|book| Ok((book.untold()?, false))).await.unwrap_or_default();
                    tracing::warn!(
                        server = %self.server,
                        waiting = untold,
                        seconds = wait.as_secs(),
                        "the zone's primary did not take changes ({error:#}); they are kept and told again"
                    );
                    self.clock.sleep(wait).await;
                    wait = (wait * 2).min(PATIENCE.1);
                }
            }
        }
    }

    /// Tell it some of what has changed; how many places.
    async fn tell(&self, store: &Store) -> anyhow::Result<usize> {
        let found = store.registry(|book| {
            let changed = book.to_tell(AT_ONCE)?;
            let mut all = BTreeMap::new();
            for (place, _) in &changed {
                all.extend(book.as_wildcards(place)?);
            }
            Ok(((changed, all), false))
        });
        let (changed, all) = found.await?;
        if changed.is_empty() {
            return Ok(0);
        }
        let mut begun = self.message();
        for (place, entries) in &all {
            let mut next = self.records(place, entries)?;
            // one update is done whole or not at all, so a name is never torn
            if size(&begun) + next.iter().map(|record| 64 + record.data.to_string().len()).sum::<usize>()
                > 40_000
            {
                self.send(std::mem::replace(&mut begun, self.message())).await?;
            }
            begun.authorities.append(&mut next);
        }
        self.send(begun).await?;
        let count = changed.len();
        let told = store.registry(move |book| {
            book.told(&changed)?;
            Ok(((), true))
        });
        told.await?;
        Ok(count)
    }

    fn message(&self) -> Message {
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        let mut zone = Query::new();
        zone.set_name(self.origin.clone()).set_query_class(DNSClass::IN).set_query_type(RecordType::SOA);
        message.add_query(zone);
        message
    }

    /// Whatever stood at a place is replaced by this.
    fn records(&self, place: &[u8], entries: &[Entry]) -> anyhow::Result<Vec<Record>> {
        let owner = name(place, &self.origin)?;
        let mut none = Record::update0(owner.clone(), 0, RecordType::ANY).into_record_of_rdata();
        none.dns_class = DNSClass::ANY;
        let mut records = vec![none];
        for entry in entries {
            let data = RData::try_from_str(entry.kind.into(), &entry.data)
                .map_err(|error| anyhow::anyhow!("record {} of {owner}: {error}", entry.data))?;
            records.push(Record::from_rdata(owner.clone(), entry.ttl, data));
        }
        Ok(records)
    }

    async fn send(&self, mut message: Message) -> anyhow::Result<()> {
        if message.authorities.is_empty() {
            return Ok(());
        }
        let id = u16::from_be_bytes(self.clock.random());
        message.metadata.id = id;
        let verifier = message.finalize(&self.signer, self.clock.unix())?;
        let mut verifier = verifier.context("an update is not signed")?;
        let bytes = message.to_vec()?;
        let exchange = async {
            let mut stream = TcpStream::connect(self.server).await.context("connect")?;
            stream.write_u16(u16::try_from(bytes.len()).context("an update is too long")?).await?;
            stream.write_all(&bytes).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout_at(self.clock.now() + ANSWER, exchange).await;
        let answer = answer.context("no answer in time")??;
        // what it says counts if it is signed; a refusal for a wrong key cannot be
        let plain = Message::from_vec(&answer).context("its answer is no message")?;
        let code = plain.metadata.response_code;
        anyhow::ensure!(code == ResponseCode::NoError, "it answered {code}");
        let response = verifier.verify(&answer).context("its answer is not signed as it must be")?;
        let of_it = response.metadata.id == id && response.metadata.message_type == MessageType::Response;
        anyhow::ensure!(of_it, "it answered something else");
        Ok(())
    }
}

/// About how many bytes a message will have.
fn size(message: &Message) -> usize {
    message.authorities.iter().map(|record| 64 + record.data.to_string().len()).sum()
}
