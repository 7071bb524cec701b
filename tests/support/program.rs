//! The program itself, in processes of its own: a folder in which its commands are typed, and a
//! daemon that runs there.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Nothing that is waited for takes longer, on a slow machine under load.
pub const WAIT: Duration = Duration::from_secs(30);

/// A folder, perhaps with a configuration, in which commands are typed.
pub struct Place {
    /// The folder; it goes with this.
    pub folder: tempfile::TempDir,
    config: Option<PathBuf>,
    variables: Vec<(String, String)>,
    /// The network namespace in which commands are typed.
    namespace: Option<String>,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Done {
    /// Exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Place {
    /// An empty folder, no configuration.
    pub fn empty() -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Place { folder, config: None, variables: Vec::new(), namespace: None }
    }

    /// With a configuration; `@` stands for the folder.
    pub fn with_config(text: &str) -> Place {
        let mut place = Place::empty();
        place.configure(text);
        place
    }

    /// Write `roamgate.toml` anew; `@` stands for the folder.
    pub fn configure(&mut self, text: &str) {
        let path = self.at("roamgate.toml");
        std::fs::write(&path, text.replace('@', &self.folder.path().display().to_string()))
            .expect("write the configuration");
        self.config = Some(path);
    }

    /// Set a variable for all commands.
    pub fn set(&mut self, name: &str, value: String) {
        self.variables.push((name.into(), value));
    }

    /// Type all commands in a network namespace (`ip netns`).
    #[allow(dead_code)] // one test binary does
    pub fn enter(&mut self, namespace: &str) {
        self.namespace = Some(namespace.into());
    }

    /// A path in the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_roamgate");
        let mut command = match &self.namespace {
            // it becomes the program, so signals reach that
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, program]);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments);
        if let Some(config) = self.config.as_ref().filter(|_| !matches!(arguments.first(), Some(&"pki"))) {
            command.arg("-c").arg(config);
        }
        let inherited = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("ROAMGATE__"));
        for name in inherited.chain(["RUST_LOG".into(), "JOURNAL_STREAM".into()]) {
            command.env_remove(name);
        }
        command.envs(self.variables.clone()).current_dir(self.folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Type a command and wait for its end.
    pub async fn types(&self, arguments: &[&str]) -> Done {
        self.types_into(arguments, None).await
    }

    /// The same with something on standard input.
    pub async fn types_into(&self, arguments: &[&str], input: Option<&str>) -> Done {
        let mut command = self.command(arguments);
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().expect("the program starts");
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).await.expect("write to the program");
        }
        let output = timeout(WAIT, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).expect("its output");
        Done {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Type a command that must succeed; what it printed.
    pub async fn does(&self, arguments: &[&str]) -> String {
        let done = self.types(arguments).await;
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:#?}");
        done.out
    }

    /// Type a command that must print JSON.
    pub async fn tells(&self, arguments: &[&str]) -> Value {
        let out = self.does(arguments).await;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{out}"))
    }

    /// Start something that runs on.
    pub fn starts(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(arguments).spawn().expect("the program starts"))
    }

    /// `roamgate run`, until it says that it is up.
    pub async fn runs(&self) -> Running {
        let daemon = self.starts(&["run"]);
        daemon.out.wait(0, &["is up"]).await;
        daemon
    }
}

/// A program that runs. It is killed when dropped.
pub struct Running {
    child: Child,
    /// Standard output.
    pub out: Lines,
    /// Standard error: the log.
    pub log: Lines,
    readers: [JoinHandle<()>; 2],
}

impl Running {
    fn new(mut child: Child) -> Running {
        let (out, log) = (Lines::default(), Lines::default());
        let readers = [
            tokio::spawn(out.clone().read(child.stdout.take().expect("standard output"))),
            tokio::spawn(log.clone().read(child.stderr.take().expect("standard error"))),
        ];
        Running { child, out, log, readers }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Send a signal by name.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().await;
        assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// SIGTERM, and how it ended.
    pub async fn stops(self) -> ExitStatus {
        self.signal("TERM").await;
        self.ended().await
    }

    /// SIGKILL. Everything that it had written is read.
    pub async fn dies(mut self) {
        self.child.start_kill().expect("kill");
        let status = self.ended().await;
        assert_eq!(status.code(), None, "it ended by itself");
    }

    /// Wait for its end.
    pub async fn ended(mut self) -> ExitStatus {
        let ended = timeout(WAIT, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it does not end:\n{}", self.log.text())).expect("wait");
        for reader in self.readers {
            let _ = timeout(WAIT, reader).await;
        }
        status
    }
}

/// Lines that a program wrote. Clones are the same lines.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    async fn read(self, from: impl AsyncRead + Unpin) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // a line that a kill cut off has no end, and was not said
        while from.read_until(b'\n', &mut line).await.is_ok_and(|_| line.ends_with(b"\n")) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            line.clear();
        }
    }

    /// All so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All so far, as one text.
    pub fn text(&self) -> String {
        self.all().join("\n")
    }

    /// How many so far.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// The first line from number `from` on that has all these words in it; waits for it.
    pub async fn wait(&self, from: usize, words: &[&str]) -> String {
        for _ in 0..WAIT.as_millis() / 20 {
            let found =
                self.all().into_iter().skip(from).find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = found {
                return line;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody said {words:?}:\n{}", self.text());
    }
}

/// A loopback UDP port that nobody has now, and that the system gives to nobody who asks for any:
/// a daemon that is restarted finds it free.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // below the range that systems usually choose from; two test runs at once begin at two places
    let first = 10_000 + (std::process::id() % 200) as u16 * 100;
    for _ in 0..2000 {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no UDP port is free")
}

/// One request to the control socket, in HTTP as anybody might write it: status and JSON body.
pub async fn request(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("the control socket");
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: roamgate\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("ask");
    let mut answer = String::new();
    timeout(WAIT, stream.read_to_string(&mut answer)).await.expect("an answer in time").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or_default())
}
