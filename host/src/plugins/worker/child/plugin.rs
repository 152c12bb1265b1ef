//! The plugin in a worker: its library, its provider, the tools it has listed, and what the host asks of them.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use jackfield_plugin_abi::{
    AbiCallInfo, AbiError, PluginPanicked, ProviderObj, RErr, ROk, RResult, ToolObj, cancel_object, host_object, kind,
};
use jackfield_plugin_api::wire::ToolSpec;
use tokio::sync::{Notify, Semaphore};

use super::{START, failed, jobs::Jobs, proxy::ProxyHost};
use crate::{
    config::Limits,
    ids::PluginId,
    plugins::{
        confinement::Confinement,
        foreign::InPlugin,
        load,
        private::PrivateCopy,
        runtime::PluginRuntime,
        worker::{
            frames::{ToWorker, ToolList},
            outbox::Outbox,
            setup::{Setup, WorkerLimits},
        },
    },
};

/// The plugin that this process serves.
pub(super) struct Served {
    runtime: Arc<PluginRuntime>,
    jobs: Jobs,
    host: ProxyHost,
    shared: Arc<Shared>,
    /// One permit a notice that waits for the plugin.
    notices: Arc<Semaphore>,
}

/// What the jobs share.
struct Shared {
    limits: WorkerLimits,
    /// Empty before the plugin has started and once it has been dropped.
    provider: Mutex<Option<Arc<InPlugin<ProviderObj>>>>,
    lists: Mutex<Lists>,
    shut_down: Notify,
}

#[derive(Default)]
struct Lists {
    last: u64,
    /// The tools of each list that the host still uses.
    tools: HashMap<u64, Arc<[InPlugin<ToolObj>]>>,
}

impl Served {
    /// Starts the plugin's threads.
    pub(super) fn start(id: PluginId, setup: &Setup, outbox: Arc<Outbox>) -> io::Result<Self> {
        let runtime = Arc::new(PluginRuntime::start(&id, &Limits::default(), |_| ())?);
        let shared = Shared {
            limits: setup.limits.clone(),
            provider: Mutex::default(),
            lists: Mutex::default(),
            shut_down: Notify::new(),
        };
        Ok(Self {
            jobs: Jobs::new(Arc::clone(&runtime), Arc::clone(&outbox)),
            host: ProxyHost::new(outbox, setup.limits.clone(), setup.log_level),
            notices: Arc::new(Semaphore::new(setup.limits.requests)),
            runtime,
            shared: Arc::new(shared),
        })
    }

    /// Opens the library and makes the provider. The answer is what confines this process.
    pub(super) fn create(&self, setup: Setup, confinement: &Confinement) {
        let report = serde_json::to_vec(confinement);
        let (shared, runtime, host) = (Arc::clone(&self.shared), Arc::clone(&self.runtime), self.host.clone());
        self.jobs.start(START, |_| async move {
            let checked = match load::open(&PrivateCopy::of_host(setup.library)) {
                Ok(checked) => checked,
                Err(error) => return failed(kind::FAILED, error.to_string()),
            };
            let created = checked.module.create()(host_object(host), setup.config.as_str().into()).await;
            match created {
                Ok(ROk(provider)) => {
                    *lock(&shared.provider) = Some(Arc::new(InPlugin::new(provider, runtime)));
                    report.map_or_else(|error| failed(kind::FAILED, error.to_string()), |report| Ok(report.into()))
                }
                Ok(RErr(error)) => Err(AbiError { kind: kind::DENIED, ..error }),
                Err(panic) => failed(kind::PANICKED, panic.message),
            }
        });
    }

    /// Does what the host says. Never blocks and runs none of the plugin's code itself.
    pub(super) fn handle(&self, id: u64, message: ToWorker) {
        match message {
            ToWorker::Hello(_) => self.host.warn("the host said hello twice"),
            ToWorker::ToolsFor(context) => self.list_tools(id, context),
            ToWorker::Execute { list, tool, call_id, deadline_unix_ms, info, arguments } => {
                let numbers = AbiCallInfo { call_id, deadline_unix_ms };
                self.execute(id, (list, tool), numbers, info, arguments);
            }
            ToWorker::Effect { list, tool, arguments } => self.effect(id, (list, tool), arguments),
            ToWorker::Request { service, body } => self.request(id, service, body),
            ToWorker::Reply(answer) => self.host.answered(id, answer),
            ToWorker::Cancel => self.jobs.cancel(id),
            ToWorker::Drop => self.jobs.drop_job(id),
            ToWorker::Notify(event) => self.notify(event),
            ToWorker::Forget { list } => drop(lock(&self.shared.lists).tools.remove(&list)),
            ToWorker::Shutdown { deadline_ms } => self.begin_shutdown(id, deadline_ms),
        }
    }

    fn list_tools(&self, id: u64, context: Bytes) {
        let (shared, runtime, host) = (Arc::clone(&self.shared), Arc::clone(&self.runtime), self.host.clone());
        self.jobs.start(id, |_| async move {
            let provider = shared.provider()?;
            let context = text(&context)?;
            let objects = flat(provider.get().tools_for(context.into()).await)?;
            let max = shared.limits.tools;
            if objects.len() > max {
                host.warn(&format!(
                    "it offers {} tools, more than the {max} a turn takes; the rest is left out",
                    objects.len()
                ));
            }
            let mut specs = Vec::new();
            let mut tools = Vec::new();
            for object in objects.into_iter().take(max) {
                let spec = object.spec();
                let (found, max) = (spec.len(), shared.limits.spec_bytes);
                if found > max {
                    host.warn(&format!("a tool whose description has {found} bytes is left out, the limit is {max}"));
                    continue;
                }
                specs.push(Bytes::copy_from_slice(spec.as_bytes()));
                tools.push(InPlugin::new(object, Arc::clone(&runtime)));
            }
            let mut lists = lock(&shared.lists);
            lists.last += 1;
            let list = lists.last;
            lists.tools.insert(list, tools.into());
            Ok(ToolList { list, specs }.encode().into())
        });
    }

    fn execute(&self, id: u64, at: (u64, u32), numbers: AbiCallInfo, info: Bytes, arguments: Bytes) {
        let shared = Arc::clone(&self.shared);
        self.jobs.start(id, |cancelled| async move {
            let tools = shared.tools(at)?;
            let tool = tools[at.1 as usize].get();
            let cancel = cancel_object(cancelled);
            let answer = tool.execute(arguments.as_ref().into(), numbers, text(&info)?.into(), cancel);
            let bytes = flat(answer.await)?;
            let max = shared.limits.answer_bytes;
            if bytes.len() > max {
                let spec: Option<ToolSpec> = serde_json::from_str(&tool.spec()).ok();
                let name = spec.map(|spec| spec.name).unwrap_or_default();
                let found = bytes.len();
                let text = format!("the tool {name} answered {found} bytes, the limit is {max}; ask it for less");
                return failed(kind::FAILED, text);
            }
            Ok(bytes.into_vec().into())
        });
    }

    fn effect(&self, id: u64, at: (u64, u32), arguments: Bytes) {
        let shared = Arc::clone(&self.shared);
        self.jobs.start(id, |_| async move {
            let tools = shared.tools(at)?;
            let effect = tools[at.1 as usize].get().effect(arguments.as_ref().into());
            Ok(vec![effect].into())
        });
    }

    fn request(&self, id: u64, service: String, body: Bytes) {
        let shared = Arc::clone(&self.shared);
        self.jobs.start(id, |_| async move {
            let provider = shared.provider()?;
            let bytes = flat(provider.get().request(service.as_str().into(), body.as_ref().into()).await)?;
            let (found, max) = (bytes.len(), shared.limits.answer_bytes);
            if found > max {
                return failed(kind::FAILED, format!("service {service} answered {found} bytes, the limit is {max}"));
            }
            Ok(bytes.into_vec().into())
        });
    }

    fn notify(&self, event: Bytes) {
        let Ok(permit) = Arc::clone(&self.notices).try_acquire_owned() else {
            self.host.warn("the plugin is behind with its notices and misses one");
            return;
        };
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            let _permit = permit;
            if let (Ok(provider), Ok(event)) = (shared.provider(), text(&event)) {
                provider.get().notify(event.into());
            }
        });
    }

    fn begin_shutdown(&self, id: u64, deadline_ms: u64) {
        let (shared, done) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        let work = |_| async move {
            let provider = lock(&shared.provider).take();
            let Some(provider) = provider else { return Ok(vec![0].into()) };
            let finished = provider.get().shutdown(deadline_ms).await;
            InPlugin::drop_here(provider);
            finished.map(|finished| vec![finished].into()).map_err(panicked)
        };
        self.jobs.start_then(id, work, move || done.shut_down.notify_one());
    }

    /// Waits until the host has had the plugin shut down.
    pub(super) async fn shut_down(&self) {
        self.shared.shut_down.notified().await;
    }

    /// Drops the plugin on its threads, and waits for that.
    pub(super) async fn drop_plugin(&self) {
        let Some(provider) = lock(&self.shared.provider).take() else { return };
        // The task fails when the plugin's threads are gone, and then nothing can be dropped any more.
        let _ = self.runtime.spawn_owned(async move { InPlugin::drop_here(provider) }).result().await;
    }
}

impl Shared {
    fn provider(&self) -> Result<Arc<InPlugin<ProviderObj>>, AbiError> {
        let provider = lock(&self.provider).clone();
        provider.ok_or_else(|| AbiError::new(kind::UNAVAILABLE, "the plugin has been stopped"))
    }

    /// The list of a tool, which has such a tool.
    fn tools(&self, (list, tool): (u64, u32)) -> Result<Arc<[InPlugin<ToolObj>]>, AbiError> {
        let tools = lock(&self.lists).tools.get(&list).cloned();
        let fitting = tools.filter(|tools| (tool as usize) < tools.len());
        fitting.ok_or_else(|| AbiError::new(kind::UNAVAILABLE, format!("there is no tool {tool} in list {list}")))
    }
}

fn panicked(panic: PluginPanicked) -> AbiError {
    AbiError::new(kind::PANICKED, panic.message)
}

/// The plugin's answer, or why there is none.
fn flat<T>(answer: Result<RResult<T, AbiError>, PluginPanicked>) -> Result<T, AbiError> {
    answer.map_err(panicked)?.into_result()
}

fn text(bytes: &[u8]) -> Result<&str, AbiError> {
    std::str::from_utf8(bytes).map_err(|error| AbiError::new(kind::INVALID_ARGUMENTS, error.to_string()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
