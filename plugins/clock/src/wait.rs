//! The tool that takes its time.

use std::time::Duration;

use jackfield_plugin_api::prelude::*;
use tokio::time::{Instant, sleep_until};

/// Time between two progress reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Waits, and says how far it is.
pub(crate) struct Wait {
    pub(crate) seconds_max: u32,
}

/// Arguments of `wait`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct WaitArgs {
    /// How long, in seconds.
    seconds: f64,
}

impl TypedTool for Wait {
    type Args = WaitArgs;
    type Output = String;
    const NAME: &'static str = "wait";
    const DESCRIPTION: &'static str = "Waits for some seconds before the conversation goes on.";
    const EFFECT: Effect = Effect::ReadOnly;

    async fn call(&self, args: WaitArgs, call: CallContext) -> Result<String, ToolError> {
        let max = f64::from(self.seconds_max);
        if !(0.0..=max).contains(&args.seconds) {
            let text = format!("seconds must be from 0 to {max}, it is {}", args.seconds);
            return Err(ToolError::InvalidArguments(text));
        }
        let (start, whole) = (Instant::now(), Duration::from_secs_f64(args.seconds));
        while start.elapsed() < whole {
            let next = (start.elapsed() + REPORT_INTERVAL).min(whole);
            tokio::select! {
                () = sleep_until(start + next) => {}
                () = call.cancelled() => return Err(ToolError::Cancelled("stopped waiting".to_owned())),
            }
            let (done, left) = (start.elapsed().as_secs_f64(), whole.saturating_sub(start.elapsed()));
            call.progress((done / args.seconds) as f32, format!("{:.1} s left", left.as_secs_f64()));
        }
        Ok(format!("waited {} s", args.seconds))
    }

    fn options(&self) -> ToolOptions {
        // Waiting again for the same time is how it is used, and it may take as long as it was asked to.
        let longest = Duration::from_secs(u64::from(self.seconds_max) + 10);
        ToolOptions::default().absolute_timeout(longest).polling()
    }
}
