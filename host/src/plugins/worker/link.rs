//! The host's side of a plugin that runs in a worker: starts it, starts it again when it died, asks it, stops it.
//!
//! ```text
//!   Starting ──▶ Running ──died──▶ Restarting ──pause, 0.1 s doubling to 5 s──▶ Running
//!      │            └──stop, drop──▶ Stopped ◀──stop, drop──┘
//!      └── failed: the plugin did not start
//! ```
//!
//! What never happens: a call is made twice. One that was under way when the worker died fails and says so; one that
//! comes while the worker is being started again waits for a moment.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use jackfield_plugin_abi::{AbiError, RErr, ROk, ServiceReply, kind};
use jackfield_plugin_api::{Tool, ToolProviderContext};
use serde_json::Value;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    backoff::Backoff,
    frames::ToWorker,
    runtime::LinkRuntime,
    session::{Died, NotAsked, Session, Surroundings},
    setup::{Setup, WorkerLimits},
    spawn::{library_for_child, spawn},
    tools,
};
use crate::{
    config::Limits,
    ids::PluginId,
    plugins::{
        calls::CallTable,
        confinement::Confinement,
        health::{Health, Misdeed},
        host_link::{FfiHost, log_level},
        permissions::Decision,
        private::PrivateCopy,
        provider::{Carrier, PluginFault},
        runtime::PluginRuntime,
        start::Launch,
    },
};

/// A plugin that runs in a process of its own. Dropping it ends the process without waiting.
pub(crate) struct WorkerLink {
    shared: Arc<Shared>,
    confinement: Confinement,
}

/// What the link, its tools and its supervisor share.
pub(super) struct Shared {
    pub(super) id: PluginId,
    pub(super) limits: Arc<Limits>,
    pub(super) calls: Arc<CallTable>,
    pub(super) health: Arc<Health>,
    runtime: Arc<LinkRuntime>,
    recipe: Recipe,
    current: watch::Sender<Current>,
}

/// How a worker is started, the first time and every other.
struct Recipe {
    program: PathBuf,
    host: FfiHost,
    setup: Bytes,
    environment: Vec<(String, String)>,
    /// Kept, because its file goes with the last handle to it.
    _copy: PrivateCopy,
}

#[derive(Clone)]
enum Current {
    Starting,
    Running(Arc<Session>),
    Restarting(Died),
    Stopped,
}

/// Why there is no worker to ask.
pub(super) enum NoSession {
    /// It died and is not back yet.
    Restarting(Died),
    /// It has been stopped.
    Stopped,
}

/// Starts a worker for the plugin and waits until the plugin has started in it, before the deadline.
///
/// # Errors
///
/// Why it did not start.
///
/// # Cancel safety
///
/// Dropping the future ends the worker.
pub(crate) async fn create(launch: &Launch, decision: &Decision, deadline: Instant) -> Result<WorkerLink, String> {
    let Some(program) = launch.worker_program.clone() else {
        return Err(format!(
            "it is to run isolated (isolation = \"process\"), but this program has no worker: call \
             jackfield::worker::run_if_requested() first thing in `main`, name the jackfield program with \
             .worker_program(PATH), or set [plugins.{}] isolation = \"in-process\"",
            launch.id
        ));
    };
    let no_thread = |error| format!("the threads for its worker cannot be started: {error}");
    let runtime = Arc::new(LinkRuntime::start(&launch.id).map_err(no_thread)?);
    // Where the host answers the plugin's requests; nothing of the plugin's runs there.
    let answers = PluginRuntime::start(&launch.id, &launch.limits, |_| ()).map_err(no_thread)?;
    let calls = Arc::<CallTable>::default();
    let host = FfiHost::new(
        launch.id.clone(),
        Arc::new(answers),
        Arc::clone(&calls),
        Weak::clone(&launch.peers),
        Arc::clone(&launch.limits),
    );
    let shared = Arc::new(Shared {
        id: launch.id.clone(),
        limits: Arc::clone(&launch.limits),
        calls,
        health: Arc::clone(&launch.health),
        recipe: Recipe {
            _copy: launch.copy.clone(),
            program,
            host,
            setup: setup(launch, decision)?,
            environment: environment(launch, decision),
        },
        current: watch::Sender::new(Current::Starting),
        runtime,
    });
    let (started, start) = oneshot::channel();
    let supervised = Arc::clone(&shared);
    drop(shared.runtime.spawn(async move { supervised.supervise(started).await }));
    // Made at once, so that the worker ends when this future is dropped.
    let mut link = WorkerLink { shared, confinement: Confinement::default() };
    let Ok(started) = timeout_at(deadline, start).await else {
        let budget = launch.limits.plugin_create;
        return Err(format!(
            "it did not start within {budget:?} (limit plugin_create); make its `init` quicker or raise the limit"
        ));
    };
    link.confinement = started.unwrap_or_else(|_| Err("it was stopped while it started".to_owned()))?;
    report(&launch.id, &link, decision);
    Ok(link)
}

fn setup(launch: &Launch, decision: &Decision) -> Result<Bytes, String> {
    let setup = Setup {
        plugin: launch.id.to_string(),
        library: library_for_child(&launch.copy.path),
        config: launch.config.to_string(),
        permitted: decision.permitted.clone(),
        log_level: log_level(),
        limits: WorkerLimits::of(&launch.limits),
    };
    let setup = serde_json::to_vec(&setup).map_err(|error| format!("its worker cannot be told what to do: {error}"))?;
    Ok(setup.into())
}

/// Only what was granted and is set.
fn environment(launch: &Launch, decision: &Decision) -> Vec<(String, String)> {
    let granted = launch.permissions.env.iter().filter(|(name, _)| decision.permitted.env.contains(*name));
    granted.filter_map(|(name, value)| Some((name.clone(), value.as_ref()?.reveal().to_owned()))).collect()
}

/// Says what confines the plugin, and what it asked for in vain.
fn report(id: &PluginId, link: &WorkerLink, decision: &Decision) {
    let confinement = &link.confinement;
    tracing::info!(plugin = %id, %confinement, "the plugin runs in a process of its own");
    if !decision.missing.is_empty() {
        let missing = decision.missing.join(", ");
        tracing::warn!(plugin = %id, missing, "the plugin asks for permissions that are not granted ([plugins.{id}] permissions)");
    }
    if !decision.idle.is_empty() {
        let idle = decision.idle.join(", ");
        tracing::warn!(plugin = %id, idle, "permissions are granted that the plugin does not ask for; they have no effect");
    }
    if !confinement.own_sandbox && !confinement.is_enforced() {
        tracing::warn!(plugin = %id, "what the plugin may touch is not enforced here, so the effects its tools declare are not believed");
    }
}

impl Shared {
    /// The worker that runs, waiting a moment for one that is being started again.
    pub(super) async fn session(&self) -> Result<Arc<Session>, NoSession> {
        let mut current = self.current.subscribe();
        // One that died a moment ago may still stand there.
        let is_settled = |current: &Current| match current {
            Current::Running(session) => !session.is_dead(),
            Current::Stopped => true,
            Current::Starting | Current::Restarting(_) => false,
        };
        let settled = timeout(self.limits.plugin_worker_restart_wait, current.wait_for(is_settled)).await;
        let now = match settled {
            Ok(Ok(settled)) => settled.clone(),
            _ => self.current.borrow().clone(),
        };
        match now {
            Current::Running(session) => Ok(session),
            Current::Stopped => Err(NoSession::Stopped),
            Current::Restarting(died) => Err(NoSession::Restarting(died)),
            Current::Starting => Err(NoSession::Restarting(Died("has not started yet".to_owned()))),
        }
    }

    /// The worker that runs at this instant.
    pub(super) fn session_now(&self) -> Option<Arc<Session>> {
        match &*self.current.borrow() {
            Current::Running(session) => Some(Arc::clone(session)),
            _ => None,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(*self.current.borrow(), Current::Stopped)
    }

    /// Starts the worker, and again whenever it dies, until the link is stopped.
    async fn supervise(self: Arc<Self>, started: oneshot::Sender<Result<Confinement, String>>) {
        let mut number = 1;
        let first = tokio::select! {
            first = self.start(number) => first,
            () = self.stopped() => Err("it was stopped while it started".to_owned()),
        };
        match first {
            Ok((session, confinement)) => {
                self.publish(Current::Running(Arc::clone(&session)));
                // Whoever started it may have gone away; then the link is stopped.
                let _ = started.send(Ok(confinement));
                let mut backoff =
                    Backoff::new(self.limits.plugin_worker_restart_base, self.limits.plugin_worker_restart_max);
                let mut session = Some(session);
                while let Some(running) = session {
                    let began = Instant::now();
                    let died = running.over().await;
                    drop(running);
                    if began.elapsed() >= self.limits.plugin_worker_steady {
                        backoff.reset();
                    }
                    session = self.restart(died, &mut number, &mut backoff).await;
                }
            }
            Err(reason) => {
                let _ = started.send(Err(reason));
            }
        }
        self.runtime.stop();
    }

    /// The next worker; `None` when the link has been stopped.
    async fn restart(&self, mut died: Died, number: &mut u64, backoff: &mut Backoff) -> Option<Arc<Session>> {
        loop {
            if !self.publish(Current::Restarting(died.clone())) {
                return None;
            }
            self.health.note(&Misdeed::Crashed(died.0.clone()));
            let (id, pause) = (&self.id, backoff.pause());
            tracing::warn!(plugin = %id, ?pause, "the plugin's worker {}; it is started again", died.0);
            *number += 1;
            let next = async {
                sleep(pause).await;
                self.start(*number).await
            };
            let next = tokio::select! {
                next = next => next,
                () = self.stopped() => return None,
            };
            match next {
                Ok((session, _)) if self.publish(Current::Running(Arc::clone(&session))) => {
                    tracing::info!(plugin = %id, pid = session.pid(), "the plugin's worker runs again");
                    return Some(session);
                }
                Ok((session, _)) => {
                    session.hang_up();
                    session.over().await;
                    return None;
                }
                Err(reason) => died = Died(format!("cannot be started again: {reason}")),
            }
        }
    }

    /// Sets the state unless the link has been stopped; whether it was set.
    fn publish(&self, next: Current) -> bool {
        self.current.send_if_modified(|current| {
            let goes_on = !matches!(current, Current::Stopped);
            if goes_on {
                *current = next;
            }
            goes_on
        })
    }

    async fn stopped(&self) {
        let mut current = self.current.subscribe();
        // The sender is in here, so there is always a next value.
        let _ = current.wait_for(|current| matches!(current, Current::Stopped)).await;
    }

    /// Starts a worker and waits until the plugin has started in it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the worker.
    async fn start(&self, number: u64) -> Result<(Arc<Session>, Confinement), String> {
        let Recipe { program, host, setup, environment, .. } = &self.recipe;
        let spawned = spawn(program, self.id.as_str(), environment)
            .map_err(|error| format!("its worker, the program {}, cannot be started: {error}", program.display()))?;
        let around = Surroundings {
            host: host.clone(),
            runtime: Arc::clone(&self.runtime),
            limits: Arc::clone(&self.limits),
            setup: setup.clone(),
        };
        let begun = Session::begin(number, spawned, around);
        let (session, mut start) = begun.map_err(|error| format!("its worker cannot be talked to: {error}"))?;
        let unfinished = KilledOnDrop(Some(Arc::clone(&session)));
        let answer = timeout(self.limits.plugin_create, start.answer()).await;
        let confinement = match answer {
            Ok(Ok(Ok(report))) => serde_json::from_slice(&report)
                .map_err(|error| format!("its worker's report is not understood: {error}")),
            Ok(Ok(Err(AbiError { kind: kind::PANICKED, message, .. }))) => {
                Err(format!("it did not start: {}", PluginFault::Panicked(message.into())))
            }
            Ok(Ok(Err(AbiError { kind: kind::DENIED, message, .. }))) => {
                Err(format!("it refused to start: {message}; check its configuration, [plugins.{}.config]", self.id))
            }
            Ok(Ok(Err(error))) => Err(error.message.into()),
            Ok(Err(died)) if !session.has_greeted() => Err(format!(
                "its worker, the program {}, {} before it said what it is; it has to be the jackfield program, or one \
                 that calls jackfield::worker::run_if_requested() first thing in `main`",
                program.display(),
                died.0
            )),
            Ok(Err(died)) => Err(format!("its worker {} while the plugin started", died.0)),
            Err(_) => {
                Err(format!("it did not start again within {:?} (limit plugin_create)", self.limits.plugin_create))
            }
        }?;
        unfinished.disarm();
        Ok((session, confinement))
    }
}

/// A worker that nobody waits for any more is ended.
struct KilledOnDrop(Option<Arc<Session>>);

impl KilledOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.kill("was ended while it started");
        }
    }
}

#[async_trait]
impl Carrier for WorkerLink {
    async fn list_tools(&self, context: &ToolProviderContext) -> Result<Vec<Arc<dyn Tool>>, PluginFault> {
        let context = serde_json::to_vec(context).map_err(|error| PluginFault::Failed(error.to_string()))?;
        tools::list(&self.shared, context.into(), self.confinement.least_effect()).await
    }

    async fn request(&self, service: String, body: Vec<u8>) -> Result<ServiceReply, PluginFault> {
        let session = self.shared.session().await?;
        let mut question = session.ask(&ToWorker::Request { service, body: body.into() })?;
        Ok(match question.answer().await? {
            Ok(bytes) => ROk(Vec::from(bytes).into()),
            Err(AbiError { kind: kind::PANICKED, message, .. }) => return Err(PluginFault::Panicked(message.into())),
            Err(error) => RErr(error),
        })
    }

    fn notify(&self, event: &Value) {
        let Some(session) = self.shared.session_now() else { return };
        if session.say(&ToWorker::Notify(event.to_string().into_bytes().into())).is_err() {
            tracing::warn!(plugin = %self.shared.id, "the plugin is behind with its notices and misses one");
        }
    }

    async fn stop(&self, deadline: Duration) {
        let Shared { id, current, limits, .. } = &*self.shared;
        let Current::Running(session) = current.send_replace(Current::Stopped) else { return };
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        if let Ok(mut question) = session.ask(&ToWorker::Shutdown { deadline_ms }) {
            match timeout(deadline, question.answer()).await {
                Ok(Ok(Ok(finished))) if finished.first() == Some(&0) => {}
                Ok(Ok(Ok(_))) => tracing::warn!(plugin = %id, "the plugin says it could not finish in time"),
                Ok(Ok(Err(error))) => tracing::warn!(plugin = %id, %error, "the plugin failed while it was stopped"),
                Ok(Err(died)) => tracing::warn!(plugin = %id, "the plugin's worker {} while it was stopped", died.0),
                Err(_) => {
                    tracing::warn!(plugin = %id, ?deadline, "the plugin did not stop in time and is ended");
                    session.kill("was ended because the plugin did not stop in time");
                }
            }
        }
        session.hang_up();
        if timeout(limits.plugin_shutdown, session.over()).await.is_err() {
            session.kill("was ended because it did not end by itself");
            session.over().await;
        }
    }

    fn confinement(&self) -> Option<Confinement> {
        Some(self.confinement.clone())
    }
}

impl Drop for WorkerLink {
    fn drop(&mut self) {
        if let Current::Running(session) = self.shared.current.send_replace(Current::Stopped) {
            session.hang_up();
        }
    }
}

impl From<NoSession> for PluginFault {
    fn from(reason: NoSession) -> Self {
        match reason {
            NoSession::Restarting(died) => PluginFault::Died(died.0),
            NoSession::Stopped => PluginFault::Stopped,
        }
    }
}

impl From<Died> for PluginFault {
    fn from(died: Died) -> Self {
        PluginFault::Died(died.0)
    }
}

impl From<NotAsked> for PluginFault {
    fn from(reason: NotAsked) -> Self {
        match reason {
            NotAsked::Died(died) => died.into(),
            NotAsked::Busy(reason) => PluginFault::Failed(reason),
        }
    }
}
