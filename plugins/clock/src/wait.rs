//! Lets time pass: the example of a tool that takes long, says how far it is, and stops when it is told to.

use std::time::Duration;

use jackfield_plugin_api::{prelude::*, tokio::time};

/// The longest wait.
const WAIT_MAX_SECONDS: f64 = 300.0;
/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Wait;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitArgs {
    /// How many seconds to wait, at most 300
    #[schemars(range(min = 0, max = 300))]
    seconds: f64,
}

impl TypedTool for Wait {
    type Args = WaitArgs;
    type Output = String;
    const NAME: &'static str = "wait";
    const DESCRIPTION: &'static str = "Waits for some seconds before going on, for example until something that was \
        started has had time to finish. At most 300 seconds.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: WaitArgs, call: CallContext) -> Result<String, ToolError> {
        let seconds = args.seconds;
        if !(0.0..=WAIT_MAX_SECONDS).contains(&seconds) {
            return Err(ToolError::InvalidArguments(format!(
                "invalid argument at /seconds: expected 0 to {WAIT_MAX_SECONDS}, found {seconds}"
            )));
        }
        let started = time::Instant::now();
        let end = started + Duration::from_secs_f64(seconds);
        let mut reports = time::interval(REPORT_EVERY);
        let mut cancelled = call.cancelled();
        loop {
            let passed = started.elapsed().as_secs_f64();
            tokio::select! {
                biased;
                () = &mut cancelled => {
                    return Err(ToolError::Cancelled(format!("stopped waiting after {passed:.1} of {seconds} seconds")));
                }
                () = time::sleep_until(end) => return Ok(format!("waited {seconds} seconds")),
                _ = reports.tick() => {
                    let fraction = (started.elapsed().as_secs_f64() / seconds).min(1.0) as f32;
                    call.progress(fraction, format!("waited {passed:.1} of {seconds} seconds"));
                }
            }
        }
    }

    fn options(&self) -> ToolOptions {
        // Progress keeps the call alive; what is left is a margin over the longest wait.
        ToolOptions::default()
            .idle_timeout(Duration::from_secs(10))
            .absolute_timeout(Duration::from_secs_f64(WAIT_MAX_SECONDS + 10.0))
            .polling()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jackfield_plugin_api::testing::TestHost;

    use super::*;

    fn wait() -> Arc<dyn Tool> {
        Arc::new(Wait)
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_that_long_and_says_how_far_it_is() {
        let host = TestHost::new();
        let before = time::Instant::now();
        let output = host.call(&wait(), json!({"seconds": 2})).await.unwrap();
        assert_eq!(output.to_text(), "waited 2 seconds");
        assert_eq!(before.elapsed().as_millis(), 2000);
        let progress = host.progress();
        assert!((19..=21).contains(&progress.len()), "one report each 100 ms, found {}", progress.len());
        assert!(progress.windows(2).all(|pair| pair[0].fraction <= pair[1].fraction));
        assert!(progress.iter().all(|report| (0.0..=1.0).contains(&report.fraction)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_when_it_is_told_to() {
        let call = TestHost::new().call(&wait(), json!({"seconds": 60}));
        let canceller = call.canceller();
        let before = time::Instant::now();
        let (result, ()) = tokio::join!(call, async {
            time::sleep(Duration::from_secs(1)).await;
            canceller.cancel();
        });
        assert!(matches!(result, Err(ToolError::Cancelled(_))), "{result:?}");
        assert_eq!(before.elapsed().as_secs(), 1);
    }

    #[tokio::test]
    async fn it_refuses_to_wait_too_long() {
        let host = TestHost::new();
        for seconds in [json!(301), json!(-1)] {
            let error = host.call(&wait(), json!({ "seconds": seconds })).await.unwrap_err();
            assert!(
                matches!(&error, ToolError::InvalidArguments(text) if text.contains("expected 0 to 300")),
                "{error:?}"
            );
        }
        assert!(host.call(&wait(), json!({"seconds": 0})).await.is_ok());
    }
}
