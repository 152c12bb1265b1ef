//! The questions that a worker is working on: each is a task on the plugin's threads and gets exactly one answer, also
//! when it is dropped, panics, or the plugin is stopped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use jackfield_plugin_abi::{AbiError, AbiFuture, CancelAbi};
use tokio::sync::watch;

use super::let_go;
use crate::plugins::{
    runtime::{OwnedTask, PluginRuntime},
    worker::{frames::ToHost, outbox::Outbox},
};

/// All running jobs.
pub(super) struct Jobs {
    runtime: Arc<PluginRuntime>,
    outbox: Arc<Outbox>,
    /// By the question's id. Held for a few lines only.
    running: Arc<Mutex<HashMap<u64, Job>>>,
}

struct Job {
    /// Empty only while the task is being started.
    task: Option<OwnedTask<()>>,
    cancelled: watch::Sender<bool>,
}

impl Jobs {
    pub(super) fn new(runtime: Arc<PluginRuntime>, outbox: Arc<Outbox>) -> Self {
        Self { runtime, outbox, running: Arc::default() }
    }

    /// Starts the job of a question. What `work` makes is polled and dropped on the plugin's threads; the answer says
    /// that it is gone.
    pub(super) fn start<W>(&self, id: u64, work: impl FnOnce(Cancelled) -> W)
    where
        W: Future<Output = Result<Bytes, AbiError>> + Send + 'static,
    {
        self.start_then(id, work, || ());
    }

    /// Like [`start`](Self::start), and does something once the answer is on its way.
    pub(super) fn start_then<W>(
        &self,
        id: u64,
        work: impl FnOnce(Cancelled) -> W,
        afterwards: impl FnOnce() + Send + 'static,
    ) where
        W: Future<Output = Result<Bytes, AbiError>> + Send + 'static,
    {
        let (cancelled, hears) = watch::channel(false);
        // In the table before it runs, because a quick job leaves the table at once.
        self.lock().insert(id, Job { task: None, cancelled });
        let answering =
            Answering { id, outbox: Arc::clone(&self.outbox), running: Arc::clone(&self.running), answered: false };
        let work = work(Cancelled(hears));
        let task = self.runtime.spawn_owned(async move {
            // Dropped last, when the work is gone.
            let answering = answering;
            let answer = work.await;
            answering.answer(answer).await;
            afterwards();
        });
        if let Some(job) = self.lock().get_mut(&id) {
            job.task = Some(task);
        }
    }

    /// Tells a job that nobody wants its answer.
    pub(super) fn cancel(&self, id: u64) {
        if let Some(job) = self.lock().get(&id) {
            job.cancelled.send_replace(true);
        }
    }

    /// Drops a job; it answers when it is gone. One that has answered already is not there any more.
    pub(super) fn drop_job(&self, id: u64) {
        // Ends it on the plugin's threads; it answers and leaves the table there.
        let task = self.lock().get_mut(&id).and_then(|job| job.task.take());
        drop(task);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Job>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to answer a question.
struct Answering {
    id: u64,
    outbox: Arc<Outbox>,
    running: Arc<Mutex<HashMap<u64, Job>>>,
    answered: bool,
}

impl Answering {
    async fn answer(mut self, answer: Result<Bytes, AbiError>) {
        // A host that is gone waits for nothing.
        let _ = self.outbox.send(ToHost::Answer(answer).encode(self.id)).await;
        self.answered = true;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let job = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        drop(job);
        if !self.answered {
            self.outbox.insist(ToHost::Answer(let_go()).encode(self.id));
        }
    }
}

/// The cancellation of one call, as the plugin sees it.
#[derive(Clone)]
pub(super) struct Cancelled(watch::Receiver<bool>);

impl CancelAbi for Cancelled {
    fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    fn cancelled(&self) -> AbiFuture<u8> {
        let mut hears = self.0.clone();
        AbiFuture::new(async move {
            if hears.wait_for(|cancelled| *cancelled).await.is_err() {
                // The call has ended, which is not the same as a cancellation.
                std::future::pending::<()>().await;
            }
            0
        })
    }
}
