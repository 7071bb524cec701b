//! What the log says, for one test on one thread.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines of level INFO and above, as the operator sees them, while this lives.
pub struct Log {
    text: Text,
    _listening: DefaultGuard,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Text {
    type Writer = Text;
    fn make_writer(&'a self) -> Text {
        self.clone()
    }
}

impl Log {
    pub fn listen() -> Log {
        let text = Text::default();
        let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_ansi(false);
        let lines = lines.with_writer(text.clone()).finish();
        Log { text, _listening: tracing::subscriber::set_default(lines) }
    }

    /// The lines with all these words.
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.text.0.lock().unwrap()).into_owned();
        text.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
    }

    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        assert!(!self.lines(words).is_empty(), "no line with {words:?} in\n{}", self.lines(&[]).join("\n"));
    }
}
