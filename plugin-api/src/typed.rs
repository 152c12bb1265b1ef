//! Tools whose arguments and results are ordinary Rust types.

use std::{any::Any, future::Future, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    BoxFuture, CallContext, Effect, Tool, ToolError, ToolOptions, ToolOutput, ToolSchema,
    schema::{parse, parse_json, schema_of},
};

/// A tool with typed arguments. Every `TypedTool` is a [`Tool`]; offer it with [`tools!`](crate::tools) or as
/// `Arc::new(MyTool)`.
///
/// The schema the model sees is made from [`Args`](TypedTool::Args): doc comments of its fields become descriptions,
/// `Option` and `#[serde(default)]` make a field optional, enums become choices. Arguments that do not fit never reach
/// [`call`](TypedTool::call); the model is told which one is wrong and tries again.
///
/// ```
/// use jackfield_plugin_api::prelude::*;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct GreetArgs {
///     /// Who to greet
///     name: String,
///     /// How often, once if absent
///     times: Option<u8>,
/// }
///
/// struct Greet;
///
/// impl TypedTool for Greet {
///     type Args = GreetArgs;
///     type Output = String;
///     const NAME: &'static str = "greet";
///     const DESCRIPTION: &'static str = "Greets a person by name.";
///     const EFFECT: Effect = Effect::ReadOnly;
///
///     async fn call(&self, args: GreetArgs, _call: CallContext) -> Result<String, ToolError> {
///         Ok(vec![format!("hello {}", args.name); args.times.unwrap_or(1).into()].join(", "))
///     }
/// }
///
/// assert_eq!(Greet.schema().parameters["properties"]["name"]["description"], "Who to greet");
/// ```
pub trait TypedTool: Send + Sync + 'static {
    /// The arguments: a struct, or an enum of structs, whose JSON form is an object.
    type Args: DeserializeOwned + JsonSchema + Send + 'static;
    /// The result: a `String`, a struct, a JSON value, or a whole [`ToolOutput`].
    type Output: Serialize + Send + 'static;
    /// The name the model calls, `[A-Za-z0-9_-]{1,64}`.
    const NAME: &'static str;
    /// What it does and when to use it, in a sentence or two, for the model.
    const DESCRIPTION: &'static str;
    /// What a call can change. Default: [`Effect::Destructive`], so that a human is asked.
    const EFFECT: Effect = Effect::Destructive;
    /// Set this when [`effect`](TypedTool::effect) looks at the arguments. Default: `false`.
    const EFFECT_BY_ARGUMENTS: bool = false;
    /// Whether calls may run at the same time as other calls of the same model reply. Default: `true`.
    const CONCURRENT_SAFE: bool = true;

    /// Runs one call. Called on a thread of the host, with the plugin's tokio at hand; may wait, must not block.
    /// A panic fails this call only. See [`Tool::execute`] for what happens on cancellation.
    fn call(&self, args: Self::Args, call: CallContext)
    -> impl Future<Output = Result<Self::Output, ToolError>> + Send;

    /// What a call with these arguments can change, never less cautious than the truth. Quick, without I/O. Default:
    /// [`EFFECT`](TypedTool::EFFECT).
    fn effect(&self, args: &Self::Args) -> Effect {
        let _ = args;
        Self::EFFECT
    }

    /// Time limits and other wishes. Default: the host's.
    fn options(&self) -> ToolOptions {
        ToolOptions::default()
    }
}

#[async_trait]
impl<T: TypedTool> Tool for T {
    fn schema(&self) -> ToolSchema {
        ToolSchema::new(T::NAME, T::DESCRIPTION, schema_of::<T::Args>())
    }

    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        let args = parse(arguments)?;
        into_output(self.call(args, call).await?)
    }

    fn execute_json(self: Arc<Self>, arguments: &[u8], call: CallContext) -> BoxFuture<Result<ToolOutput, ToolError>> {
        match parse_json(arguments) {
            Ok(args) => Box::pin(async move { into_output(self.call(args, call).await?) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn is_read_only(&self) -> bool {
        self.declared_effect() == Some(Effect::ReadOnly)
    }

    fn is_concurrent_safe(&self) -> bool {
        T::CONCURRENT_SAFE
    }

    fn effect(&self, arguments: &Value) -> Effect {
        if !T::EFFECT_BY_ARGUMENTS {
            return T::EFFECT;
        }
        // Arguments that do not fit are never run, so the declared effect is as good as any.
        parse(arguments.clone()).map_or(T::EFFECT, |args| TypedTool::effect(self, &args))
    }

    fn declared_effect(&self) -> Option<Effect> {
        (!T::EFFECT_BY_ARGUMENTS).then_some(T::EFFECT)
    }

    fn options(&self) -> ToolOptions {
        TypedTool::options(self)
    }
}

/// The tools of a list of values: `tools![Greet, Farewell::new(config)]` is a `Vec<Arc<dyn Tool>>`.
#[macro_export]
macro_rules! tools {
    ($($tool:expr),* $(,)?) => {
        ::std::vec![$(::std::sync::Arc::new($tool) as ::std::sync::Arc<dyn $crate::Tool>),*]
    };
}

/// Makes a tool of one asynchronous function.
///
/// ```
/// use jackfield_plugin_api::prelude::*;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Sum {
///     left: f64,
///     right: f64,
/// }
///
/// async fn add(sum: Sum, _: CallContext) -> Result<f64, ToolError> {
///     Ok(sum.left + sum.right)
/// }
///
/// let add: Arc<dyn Tool> = tool("add", "Adds two numbers.", Effect::ReadOnly, add);
/// assert!(add.is_read_only());
/// ```
pub fn tool<A, O, E, F, R>(
    name: impl Into<String>,
    description: impl Into<String>,
    effect: Effect,
    run: F,
) -> Arc<dyn Tool>
where
    A: DeserializeOwned + JsonSchema + Send + 'static,
    O: Serialize + Send + 'static,
    E: Into<ToolError> + 'static,
    F: Fn(A, CallContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, E>> + Send + 'static,
{
    Arc::new(FunctionTool { name: name.into(), description: description.into(), effect, run, types: PhantomData })
}

struct FunctionTool<A, O, E, F> {
    name: String,
    description: String,
    effect: Effect,
    run: F,
    types: PhantomData<fn(A) -> Result<O, E>>,
}

#[async_trait]
impl<A, O, E, F, R> Tool for FunctionTool<A, O, E, F>
where
    A: DeserializeOwned + JsonSchema + Send + 'static,
    O: Serialize + Send + 'static,
    E: Into<ToolError> + 'static,
    F: Fn(A, CallContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, E>> + Send + 'static,
{
    fn schema(&self) -> ToolSchema {
        ToolSchema::new(&self.name, &self.description, schema_of::<A>())
    }

    async fn execute(&self, arguments: Value, call: CallContext) -> Result<ToolOutput, ToolError> {
        let args = parse(arguments)?;
        (self.run)(args, call).await.map_err(Into::into).and_then(into_output)
    }

    fn execute_json(self: Arc<Self>, arguments: &[u8], call: CallContext) -> BoxFuture<Result<ToolOutput, ToolError>> {
        match parse_json(arguments) {
            Ok(args) => Box::pin(async move { (self.run)(args, call).await.map_err(Into::into).and_then(into_output) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn is_read_only(&self) -> bool {
        self.effect == Effect::ReadOnly
    }

    fn effect(&self, _: &Value) -> Effect {
        self.effect
    }

    fn declared_effect(&self) -> Option<Effect> {
        Some(self.effect)
    }
}

/// A result as a tool output: a [`ToolOutput`] as it is, text as text, everything else as JSON.
fn into_output<O: Serialize + 'static>(result: O) -> Result<ToolOutput, ToolError> {
    let mut result = Some(result);
    if let Some(output) = (&mut result as &mut dyn Any).downcast_mut::<Option<ToolOutput>>() {
        return Ok(output.take().unwrap_or_default());
    }
    let value = serde_json::to_value(result).map_err(|error| format!("the result is not JSON: {error}"))?;
    Ok(value.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::testing::TestHost;

    #[derive(Deserialize, JsonSchema)]
    struct FetchArgs {
        method: String,
    }

    struct Fetch {
        called: Arc<AtomicBool>,
    }

    impl TypedTool for Fetch {
        type Args = FetchArgs;
        type Output = ToolOutput;
        const NAME: &'static str = "fetch";
        const DESCRIPTION: &'static str = "Fetches.";
        const EFFECT: Effect = Effect::Writes;
        const EFFECT_BY_ARGUMENTS: bool = true;

        async fn call(&self, args: FetchArgs, _: CallContext) -> Result<ToolOutput, ToolError> {
            self.called.store(true, Ordering::SeqCst);
            Ok(ToolOutput::text(args.method).with_details(json!({"kept": true})))
        }

        fn effect(&self, args: &FetchArgs) -> Effect {
            if args.method == "GET" { Effect::ReadOnly } else { Effect::Writes }
        }
    }

    fn fetch() -> (Arc<dyn Tool>, Arc<AtomicBool>) {
        let called = Arc::new(AtomicBool::new(false));
        (Arc::new(Fetch { called: called.clone() }), called)
    }

    #[test]
    fn an_effect_may_depend_on_the_arguments() {
        let (tool, _) = fetch();
        assert_eq!(tool.declared_effect(), None);
        assert!(!tool.is_read_only());
        assert_eq!(tool.effect(&json!({"method": "GET"})), Effect::ReadOnly);
        assert_eq!(tool.effect(&json!({"method": "POST"})), Effect::Writes);
        assert_eq!(tool.effect(&json!({"method": 7})), Effect::Writes);
    }

    #[tokio::test]
    async fn bad_arguments_never_reach_the_author() {
        let (tool, called) = fetch();
        let host = TestHost::new();
        let error = host.call(&tool, json!({"method": null})).await.unwrap_err();
        assert!(matches!(&error, ToolError::InvalidArguments(text) if text.contains("/method")), "{error:?}");
        assert!(!called.load(Ordering::SeqCst));
        let output = host.call(&tool, json!({"method": "GET"})).await.unwrap();
        assert_eq!(output.details, Some(json!({"kept": true})), "a whole output passes unchanged");
    }

    #[tokio::test]
    async fn results_become_text_or_json() {
        #[derive(Deserialize, JsonSchema)]
        struct Nothing {}
        #[derive(Serialize)]
        struct Point {
            x: i32,
        }
        let host = TestHost::new();
        let text = tool("a", "", Effect::ReadOnly, |_: Nothing, _| async { Ok::<_, ToolError>("hi".to_owned()) });
        assert_eq!(host.call(&text, json!({})).await.unwrap(), ToolOutput::text("hi"));
        let json = tool("b", "", Effect::ReadOnly, |_: Nothing, _| async { Ok::<_, ToolError>(Point { x: 1 }) });
        assert_eq!(host.call(&json, json!({})).await.unwrap(), ToolOutput::json(json!({"x": 1})));
        let failing = tool("c", "", Effect::Writes, |_: Nothing, _| async { "x".parse::<u8>() });
        let error = host.call(&failing, json!({})).await.unwrap_err();
        assert_eq!(error, ToolError::Failed("invalid digit found in string".into()));
        assert_eq!(failing.effect(&json!({})), Effect::Writes);
    }
}
