//! One run of a worker, from its start to its end: what is asked of it, what it says, how it died.
//!
//! ```text
//!   ask ──▶ waiting ──answer──▶ the asker
//!              ├──── the asker goes away ──▶ given up ──answer──▶ gone
//!              │                                └── no answer within the limit ──▶ the worker is killed
//!              └──── the worker dies ──▶ the asker hears how
//! ```

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use bytes::Bytes;
use jackfield_plugin_abi::{AbiError, HostAbi, RErr, ROk, kind};
use tokio::{
    io::AsyncReadExt,
    net::{UnixStream, unix::pipe},
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    VERSION,
    budget::PerSecond,
    frames::{Decoder, FrameError, PROTOCOL, ToHost, ToWorker},
    lines::Lines,
    outbox::{NotTaken, Outbox},
    runtime::LinkRuntime,
    setup::frame_bytes,
    spawn::{Process, Spawned, ending},
};
use crate::{config::Limits, plugins::host_link::FfiHost};

/// What an asker hears: the plugin's answer, or that the worker died before it came.
pub(super) type Outcome = Result<Result<Bytes, AbiError>, Died>;

/// The worker is gone; how it went, for a sentence that begins with "its worker".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Died(pub(super) String);

/// Why something was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAsked {
    /// The worker is gone.
    Died(Died),
    /// Too much waits for it.
    Busy(String),
}

/// A running worker.
pub(super) struct Session {
    /// Which run it is; tools know which one listed them.
    pub(super) number: u64,
    outbox: Arc<Outbox>,
    stream: Arc<UnixStream>,
    process: Arc<Process>,
    host: FfiHost,
    runtime: Arc<LinkRuntime>,
    limits: Arc<Limits>,
    /// The first frame, sent once the worker has said that it understands it.
    setup: Bytes,
    /// Held for a few lines only.
    state: Mutex<State>,
    /// Requests of the plugin's that are being answered. Held for a few lines only.
    asked_of_us: Arc<Mutex<HashMap<u64, Option<AbortHandle>>>>,
    /// How it ended, once it has.
    over: watch::Sender<Option<Died>>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    questions: HashMap<u64, Asker>,
    /// What is not right with it, when it is ended for that.
    verdict: Option<String>,
    /// It has said hello.
    greeted: bool,
    dead: Option<Died>,
}

/// Who waits for an answer.
enum Asker {
    Task(oneshot::Sender<Outcome>),
    Thread(mpsc::SyncSender<Outcome>),
    /// Nobody any more; the worker still has to let go of it.
    GivenUp,
}

/// The question that is asked by starting the worker.
const START: u64 = super::child::START;
/// How long a worker that hung up may take to end.
const HUNG_UP: Duration = Duration::from_millis(500);
/// How long the last words of a dead worker are waited for; what it has started may still hold its pipe.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Bytes read from a worker's output at a time.
const OUTPUT_BYTES: usize = 4096;

/// What a session needs.
pub(super) struct Surroundings {
    pub(super) host: FfiHost,
    pub(super) runtime: Arc<LinkRuntime>,
    pub(super) limits: Arc<Limits>,
    pub(super) setup: Bytes,
}

impl Session {
    /// Takes over a started worker. The question that comes with it is answered when the plugin has started.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(super) fn begin(number: u64, spawned: Spawned, around: Surroundings) -> io::Result<(Arc<Self>, Question)> {
        let Spawned { process, socket, output } = spawned;
        let Surroundings { host, runtime, limits, setup } = around;
        socket.set_nonblocking(true)?;
        let stream = Arc::new(UnixStream::from_std(socket)?);
        let output = pipe::Receiver::from_owned_fd(output)?;
        let outbox = Arc::new(Outbox::new(Arc::clone(&stream), limits.plugin_worker_queue_bytes));
        let (sender, answer) = oneshot::channel();
        let state = State { questions: HashMap::from([(START, Asker::Task(sender))]), ..State::default() };
        let session = Arc::new(Self {
            number,
            outbox,
            stream,
            process: Arc::new(process),
            host,
            runtime,
            limits,
            setup,
            state: Mutex::new(state),
            asked_of_us: Arc::default(),
            over: watch::Sender::new(None),
        });
        let running = Arc::clone(&session);
        drop(session.runtime.spawn(async move { running.run(output).await }));
        let start = Question { session: Arc::clone(&session), id: START, answer };
        Ok((session, start))
    }

    /// The number of its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead.is_some()
    }

    /// Whether it ever said that it is a worker.
    pub(super) fn has_greeted(&self) -> bool {
        self.state().greeted
    }

    /// Asks something whose answer a task waits for.
    pub(super) fn ask(self: &Arc<Self>, message: &ToWorker) -> Result<Question, NotAsked> {
        let (sender, answer) = oneshot::channel();
        let id = self.put(message, Asker::Task(sender))?;
        Ok(Question { session: Arc::clone(self), id, answer })
    }

    /// Asks something and blocks the calling thread, for a short time only.
    pub(super) fn ask_blocking(self: &Arc<Self>, message: &ToWorker, longest: Duration) -> Option<Bytes> {
        let (sender, answer) = mpsc::sync_channel(1);
        let id = self.put(message, Asker::Thread(sender)).ok()?;
        let answer = answer.recv_timeout(longest);
        self.give_up(id);
        answer.ok()?.ok()?.ok()
    }

    /// Says something that needs no answer; lost when too much waits already.
    pub(super) fn say(&self, message: &ToWorker) -> Result<(), NotTaken> {
        self.outbox.offer(message.encode(0))
    }

    /// Says that a list is not used any more.
    pub(super) fn forget(&self, list: u64) {
        self.outbox.insist(ToWorker::Forget { list }.encode(0));
    }

    /// Ends the worker for a reason that is told as the way it died.
    pub(super) fn kill(&self, reason: impl Into<String>) {
        self.state().verdict.get_or_insert_with(|| reason.into());
        self.process.kill();
    }

    /// Lets the worker end by itself.
    pub(super) fn hang_up(&self) {
        self.outbox.close();
        // Fails when the other side has hung up already.
        let _ = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Both);
    }

    /// Waits until the worker is gone, and gives how it went.
    pub(super) async fn over(&self) -> Died {
        let mut over = self.over.subscribe();
        let ended = over.wait_for(Option::is_some).await;
        ended.ok().and_then(|died| died.clone()).unwrap_or_else(|| Died("ended".to_owned()))
    }

    fn put(&self, message: &ToWorker, asker: Asker) -> Result<u64, NotAsked> {
        let mut state = self.state();
        if let Some(died) = &state.dead {
            return Err(NotAsked::Died(died.clone()));
        }
        let max = self.limits.plugin_worker_calls;
        if state.questions.len() >= max {
            return Err(NotAsked::Busy(format!("{max} questions wait for its worker already")));
        }
        state.last_id += 1;
        let id = state.last_id;
        state.questions.insert(id, asker);
        drop(state);
        self.outbox.offer(message.encode(id)).map_err(|reason| {
            self.state().questions.remove(&id);
            match reason {
                NotTaken::Full => NotAsked::Busy("its worker does not read what it is sent".to_owned()),
                NotTaken::Closed => NotAsked::Died(Died("has hung up".to_owned())),
            }
        })?;
        Ok(id)
    }

    /// Nobody waits for this answer any more. The worker has a moment to drop what it is doing for it.
    fn give_up(self: &Arc<Self>, id: u64) {
        let mut state = self.state();
        let Some(asker) = state.questions.get_mut(&id) else { return };
        *asker = Asker::GivenUp;
        drop(state);
        self.outbox.insist(ToWorker::Drop.encode(id));
        let (session, limit) = (Arc::clone(self), self.limits.plugin_worker_let_go);
        drop(self.runtime.spawn(async move {
            tokio::time::sleep(limit).await;
            if session.state().questions.contains_key(&id) {
                session.kill(format!("was killed because it did not let go of a call within {limit:?}"));
            }
        }));
    }

    /// Reads until the worker is gone; then everybody who waits hears how it went.
    async fn run(self: Arc<Self>, output: pipe::Receiver) {
        let last_words = Arc::new(Mutex::new(String::new()));
        let printing = self.runtime.spawn(log_output(
            output,
            self.host.clone(),
            Arc::clone(&self.limits),
            Arc::clone(&last_words),
        ));
        let writing = self.runtime.spawn({
            let outbox = Arc::clone(&self.outbox);
            async move { outbox.run().await }
        });
        let exited = {
            let process = Arc::clone(&self.process);
            self.runtime.spawn_blocking(move || process.wait())
        };
        tokio::pin!(exited);
        let mut decoder = Decoder::new(frame_bytes(&self.limits));
        let status = tokio::select! {
            reason = self.read(&mut decoder) => {
                if let Some(reason) = reason {
                    self.kill(reason);
                }
                match timeout(HUNG_UP.max(self.time_to_end()), &mut exited).await {
                    Ok(status) => status,
                    Err(_) => {
                        self.kill("was killed because it hung up and went on");
                        exited.await
                    }
                }
            }
            status = &mut exited => {
                // What it said before it went still counts.
                self.read_rest(&mut decoder);
                status
            }
        };
        writing.abort();
        self.outbox.close();
        if timeout(LAST_WORDS, printing).await.is_err() {
            tracing::debug!("a worker's output is still held by something that it started");
        }
        let how = match status {
            Ok(Ok(status)) => ending(status),
            _ => "ended".to_owned(),
        };
        let last_words = std::mem::take(&mut *last_words.lock().unwrap_or_else(PoisonError::into_inner));
        self.bury(&how, &last_words);
    }

    /// A worker that was told to end may take its time.
    fn time_to_end(&self) -> Duration {
        if self.outbox.is_closed() { self.limits.plugin_shutdown + HUNG_UP } else { Duration::ZERO }
    }

    fn bury(&self, how: &str, last_words: &str) {
        let mut state = self.state();
        let mut text = state.verdict.take().unwrap_or_else(|| how.to_owned());
        if !last_words.is_empty() {
            text = format!("{text} (it said: {last_words})");
        }
        let died = Died(text);
        state.dead = Some(died.clone());
        let questions = std::mem::take(&mut state.questions);
        drop(state);
        let asked_of_us = std::mem::take(&mut *lock(&self.asked_of_us));
        asked_of_us.into_values().flatten().for_each(|task| task.abort());
        for asker in questions.into_values() {
            asker.hears(Err(died.clone()));
        }
        self.over.send_replace(Some(died));
    }

    /// Handles frames until the worker hangs up (`None`) or says something it must not (why it is killed).
    async fn read(self: &Arc<Self>, decoder: &mut Decoder) -> Option<String> {
        let mut unasked = PerSecond::default();
        loop {
            match self.stream.readable().await.and_then(|()| self.stream.try_read_buf(&mut decoder.buffer)) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return None,
            }
            if let Err(reason) = self.handle_all(decoder, &mut unasked) {
                return Some(format!("was killed because it {reason}"));
            }
        }
    }

    fn read_rest(self: &Arc<Self>, decoder: &mut Decoder) {
        let mut unasked = PerSecond::default();
        while let Ok(1..) = self.stream.try_read_buf(&mut decoder.buffer) {
            if self.handle_all(decoder, &mut unasked).is_err() {
                return;
            }
        }
    }

    fn handle_all(self: &Arc<Self>, decoder: &mut Decoder, unasked: &mut PerSecond) -> Result<(), String> {
        let max = self.limits.plugin_worker_frames;
        while let Some((id, message)) = decoder.next::<ToHost>().map_err(|error| garbage(&error))? {
            if !matches!(message, ToHost::Answer(_)) && unasked.take(Instant::now(), max).is_none() {
                return Err(format!("sent more than {max} frames in a second"));
            }
            self.handle(id, message)?;
        }
        Ok(())
    }

    fn handle(self: &Arc<Self>, id: u64, message: ToHost) -> Result<(), String> {
        match message {
            ToHost::Hello { protocol, version } => self.greet(protocol, &version)?,
            ToHost::Answer(answer) => {
                let asker = self.state().questions.remove(&id);
                asker.ok_or_else(|| format!("answered question {id}, which was not asked"))?.hears(Ok(answer));
            }
            ToHost::Request { service, body } => self.answer_request(id, &service, &body),
            ToHost::Cancel => {
                let task = lock(&self.asked_of_us).remove(&id).flatten();
                task.inspect(AbortHandle::abort);
            }
            ToHost::Log { level, call_id, target, message, fields } => {
                let (target, message, fields) = (target.as_str(), message.as_str(), fields.as_str());
                self.host.log(level, target.into(), message.into(), fields.into(), call_id);
            }
            ToHost::Progress { call_id, fraction, message } => {
                self.host.progress(call_id, fraction, message.as_str().into());
            }
            ToHost::Notify(event) => match std::str::from_utf8(&event) {
                Ok(event) => self.host.notify(event.into()),
                Err(_) => return Err("sent a notice that is not text".to_owned()),
            },
        }
        Ok(())
    }

    /// Hands over the setup to a worker of the host's own version.
    fn greet(&self, protocol: u32, version: &str) -> Result<(), String> {
        let mut state = self.state();
        if (protocol, version) != (PROTOCOL, VERSION) {
            let version: String = version.chars().take(40).collect();
            return Err(format!(
                "is of version {version} and speaks protocol {protocol}, and this host is of version {VERSION} and \
                 speaks {PROTOCOL}; name a worker program of this host's version"
            ));
        }
        if std::mem::replace(&mut state.greeted, true) {
            return Err("said hello twice".to_owned());
        }
        drop(state);
        self.outbox.insist(ToWorker::Hello(self.setup.clone()).encode(START));
        Ok(())
    }

    /// Lets the host answer a request of the plugin's. How many may wait is the host's own limit.
    fn answer_request(self: &Arc<Self>, id: u64, service: &str, body: &[u8]) {
        let reply = self.host.request(service.into(), body.into());
        let (outbox, asked_of_us) = (Arc::clone(&self.outbox), Arc::clone(&self.asked_of_us));
        lock(&asked_of_us).insert(id, None);
        let task = self.runtime.spawn(async move {
            let answer = match reply.await {
                Ok(ROk(bytes)) => Ok(bytes.into_vec().into()),
                Ok(RErr(error)) => Err(error),
                Err(panic) => Err(AbiError::new(kind::UNAVAILABLE, format!("the service {panic}"))),
            };
            // Out of the table first: an answer on its way is not stopped half-way.
            if lock(&asked_of_us).remove(&id).is_some() {
                let _ = outbox.send(ToWorker::Reply(answer).encode(id)).await;
            }
        });
        if let Some(place) = lock(&self.asked_of_us).get_mut(&id) {
            *place = Some(task.abort_handle());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn garbage(error: &FrameError) -> String {
    format!("sent {error}")
}

/// A question under way. Dropping it gives the question up, which drops what the plugin does for it.
pub(super) struct Question {
    session: Arc<Session>,
    id: u64,
    answer: oneshot::Receiver<Outcome>,
}

impl Question {
    /// Waits for the answer.
    ///
    /// # Cancel safety
    ///
    /// The wait can be dropped and begun again until there is an answer.
    pub(super) async fn answer(&mut self) -> Outcome {
        (&mut self.answer).await.unwrap_or_else(|_| Err(Died("ended".to_owned())))
    }

    /// Tells the plugin that the call has been cancelled; the answer may still come.
    pub(super) fn cancel(&self) {
        self.session.outbox.insist(ToWorker::Cancel.encode(self.id));
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.session.give_up(self.id);
    }
}

impl Asker {
    /// An asker that went away just then hears nothing.
    fn hears(self, outcome: Outcome) {
        match self {
            Asker::Task(sender) => drop(sender.send(outcome)),
            Asker::Thread(sender) => drop(sender.send(outcome)),
            Asker::GivenUp => {}
        }
    }
}

/// Logs what the worker prints, line by line, and keeps the last one.
async fn log_output(mut output: pipe::Receiver, host: FfiHost, limits: Arc<Limits>, last_words: Arc<Mutex<String>>) {
    const WARN: u8 = 2;
    let mut lines = Lines::new(limits.plugin_log_bytes);
    let mut piece = [0; OUTPUT_BYTES];
    loop {
        let (count, ended) = match output.read(&mut piece).await {
            Ok(count @ 1..) => (count, false),
            Ok(0) | Err(_) => (0, true),
        };
        for line in lines.cut(&piece[..count], ended) {
            host.log(WARN, "output".into(), line.as_str().into(), "".into(), 0);
            // How to get a back-trace is not what went wrong.
            if !line.starts_with("note: ") {
                *lock(&last_words) = line;
            }
        }
        if ended {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
