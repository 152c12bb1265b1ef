//! What is typed, line by line, one line at a time: between two of them the keyboard belongs to whoever asks a question.

use tokio::sync::mpsc;

use crate::cli::terminal::Terminal;

/// The keyboard, if somebody sits there.
pub(super) struct Keyboard {
    reader: Option<Reader>,
    /// A line is being read, and nobody has taken it yet.
    is_waiting: bool,
}

struct Reader {
    wishes: mpsc::Sender<()>,
    lines: mpsc::Receiver<String>,
}

impl Keyboard {
    pub(super) fn new(terminal: &Terminal) -> Self {
        Self { reader: terminal.can_ask().then(Reader::start), is_waiting: false }
    }

    /// The next line that says something; never, where nobody types.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no line.
    pub(super) async fn line(&mut self) -> String {
        let Some(reader) = &mut self.reader else { return std::future::pending().await };
        loop {
            if !self.is_waiting {
                if reader.wishes.send(()).await.is_err() {
                    // The keyboard is gone (Ctrl-D); the loop goes on without it.
                    return std::future::pending().await;
                }
                self.is_waiting = true;
            }
            let Some(line) = reader.lines.recv().await else { return std::future::pending().await };
            self.is_waiting = false;
            let line = line.trim();
            if !line.is_empty() {
                return line.to_owned();
            }
        }
    }
}

impl Reader {
    /// A thread of its own: reading the keyboard cannot be stopped, and must not hold up the end of the process.
    fn start() -> Self {
        let (wishes, mut wished) = mpsc::channel(1);
        let (sender, lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            while wished.blocking_recv().is_some() {
                let mut line = String::new();
                let is_there = std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0);
                if !is_there || sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { wishes, lines }
    }
}
