//! What the gateway says about its models: reply ceilings and prices. Asked for once and kept for the process's
//! lifetime; a failure is kept for a while. It never delays a turn: a turn uses what is known when it needs it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use super::ModelInfo;

/// Models by id.
pub(super) type Models = Arc<BTreeMap<String, ModelInfo>>;

/// The answer, or where the question stands.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Held for a look only, never across an await.
    state: Mutex<State>,
    /// Told whenever a fetch ends.
    settled: Notify,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unknown,
    Fetching,
    Failed {
        until: Instant,
    },
    Known(Models),
}

impl Catalog {
    /// What is known now.
    pub(super) fn peek(&self) -> Option<Models> {
        match &*self.state() {
            State::Known(models) => Some(Arc::clone(models)),
            _ => None,
        }
    }

    /// Claims the next fetch. Whoever gets `true` must fetch and [`settle`](Self::settle).
    pub(super) fn claim(&self) -> bool {
        let mut state = self.state();
        let is_due = match &*state {
            State::Unknown => true,
            State::Failed { until } => Instant::now() >= *until,
            State::Fetching | State::Known(_) => false,
        };
        if is_due {
            *state = State::Fetching;
        }
        is_due
    }

    /// Ends a fetch.
    pub(super) fn settle(&self, models: Option<BTreeMap<String, ModelInfo>>, retry_after: Duration) {
        *self.state() = match models {
            Some(models) => State::Known(Arc::new(models)),
            None => State::Failed { until: Instant::now() + retry_after },
        };
        self.settled.notify_waiters();
    }

    /// Waits while a fetch is under way.
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing.
    pub(super) async fn wait(&self) -> Models {
        loop {
            let settled = self.settled.notified();
            match &*self.state() {
                State::Fetching => {}
                State::Known(models) => return Arc::clone(models),
                State::Unknown | State::Failed { .. } => return Models::default(),
            }
            settled.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the answer of `/model/info`. Entries without a name are skipped, odd values count as absent; `None` when the
/// answer is no list of models at all.
pub(super) fn parse(body: &[u8]) -> Option<BTreeMap<String, ModelInfo>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let entries = answer.get("data")?.as_array()?;
    let models = entries.iter().filter_map(|entry| {
        let name = entry.get("model_name")?.as_str()?;
        let info = entry.get("model_info").unwrap_or(&Value::Null);
        let price = |key: &str| info.get(key).and_then(Value::as_f64).filter(|price| *price >= 0.0);
        let ceiling = info.get("max_output_tokens").and_then(Value::as_f64).filter(|tokens| *tokens >= 1.0);
        let use_cases = info.get("use_cases").and_then(Value::as_array).into_iter().flatten();
        let info = ModelInfo {
            max_output_tokens: ceiling.map(|tokens| tokens as u32),
            input_cost_per_token: price("input_cost_per_token"),
            output_cost_per_token: price("output_cost_per_token"),
            tier: info.get("model_tier").and_then(Value::as_str).map(str::to_owned),
            use_cases: use_cases.filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        Some((name.to_owned(), info))
    });
    Some(models.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_skips_what_is_odd() {
        let models = parse(
            br#"{"data":[
                {"model_name":"a","model_info":{"max_output_tokens":4096,"input_cost_per_token":1e-6,"output_cost_per_token":2e-6,
                    "model_tier":"small","use_cases":["titles",7]}},
                {"model_name":"b","model_info":{"max_output_tokens":null,"input_cost_per_token":"free"}},
                {"model_name":"c"},
                {"id":"nameless"}
            ]}"#,
        )
        .unwrap();
        assert_eq!(models.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((models["a"].max_output_tokens, models["a"].output_cost_per_token), (Some(4096), Some(2e-6)));
        assert_eq!((models["a"].tier.as_deref(), &*models["a"].use_cases), (Some("small"), &["titles".to_owned()][..]));
        assert_eq!(models["b"], ModelInfo::default());
        assert!(parse(b"{\"detail\":\"not found\"}").is_none() && parse(b"<html>").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_kept_for_a_while_and_success_for_ever() {
        let catalog = Catalog::default();
        assert!(catalog.claim() && !catalog.claim());
        catalog.settle(None, Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!catalog.claim());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(catalog.claim());
        catalog.settle(Some(BTreeMap::from([("m".to_owned(), ModelInfo::default())])), Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!catalog.claim());
        assert!(catalog.peek().unwrap().contains_key("m"));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_fetch() {
        let catalog = Arc::new(Catalog::default());
        assert!(catalog.claim());
        let waiter = Arc::clone(&catalog);
        let waiting = tokio::spawn(async move { waiter.wait().await.len() });
        tokio::task::yield_now().await;
        catalog.settle(Some(BTreeMap::from([("m".to_owned(), ModelInfo::default())])), Duration::ZERO);
        assert_eq!(waiting.await.unwrap(), 1);
    }
}
