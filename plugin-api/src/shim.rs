//! The plugin's side of the binary interface: makes of a [`Plugin`] the objects that a host calls.
//!
//! Everything of the author's (the plugin, its tools, their futures) is made, polled and dropped within the plugin's
//! surroundings (see [`scope`](crate::scope)) and under the guards of `jackfield-plugin-abi`. The end of a plugin has
//! an order: `shutdown` is awaited, the plugin is dropped, then its tokio stops without waiting.

use std::{sync::Arc, time::Duration};

use jackfield_plugin_abi::{
    AbiCallInfo, AbiError, AbiFuture, CancelObj, CreateReply, HostObj, ProviderAbi, RErr, ROk, RResult, RSlice, RStr,
    RString, RVec, ServiceReply, Surroundings, ToolAbi, ToolObj, guard::catch, kind, provider_object, tool_object,
};
use serde_json::{Map, Value};

use crate::{
    BoxFuture, CallContext, CallInfo, CallLink, Host, HostLink, LogLevel, Plugin, Tool, ToolError, ToolProviderContext,
    forward,
    scope::{Link, PluginRuntime, Scope},
    wire,
};

/// What [`PluginModule::create`](jackfield_plugin_abi::PluginModule::create) does for the plugin `P`.
pub(crate) fn create<P: Plugin>(id: &str, host: HostObj, config: RStr<'_>) -> AbiFuture<CreateReply> {
    catch(|| start::<P>(id, host, config)).unwrap_or_else(AbiFuture::panicked)
}

fn start<P: Plugin>(id: &str, host: HostObj, config: RStr<'_>) -> AbiFuture<CreateReply> {
    let host = Arc::new(AbiHost(host));
    let link = Arc::new(Link { host: host.clone() });
    forward::install(&link);
    let config = match parse_config_text(config.as_str()) {
        Ok(config) => config,
        Err(error) => return AbiFuture::ready(RErr(error)),
    };
    let runtime = match PluginRuntime::start(id, &link) {
        Ok(runtime) => runtime,
        Err(error) => {
            let message = format!("the plugin's runtime cannot start: {error}");
            return AbiFuture::ready(RErr(AbiError::new(kind::UNAVAILABLE, message)));
        }
    };
    let instance = Arc::new(Instance { link, host, runtime });
    AbiFuture::new_within(instance.at(0), async move {
        match P::init(instance.host(), config).await {
            Ok(plugin) => ROk(provider_object(ProviderShim { plugin: Some(Arc::new(plugin)), instance })),
            Err(error) => RErr(AbiError::new(kind::FAILED, error.message())),
        }
    })
}

/// No configuration is an empty one.
fn parse_config_text(config: &str) -> Result<Value, AbiError> {
    if config.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_str(config)
        .map_err(|error| AbiError::new(kind::INVALID_ARGUMENTS, format!("the configuration is not JSON: {error}")))
}

/// What all parts of one plugin object share.
struct Instance {
    link: Arc<Link>,
    host: Arc<AbiHost>,
    runtime: PluginRuntime,
}

impl Instance {
    fn host(&self) -> Host {
        Host::new(self.host.clone())
    }

    /// The surroundings of code that runs for this call; 0 for none.
    fn at(self: &Arc<Self>, call_id: u64) -> At {
        At { instance: Arc::clone(self), call_id }
    }
}

#[derive(Clone)]
struct At {
    instance: Arc<Instance>,
    call_id: u64,
}

impl Surroundings for At {
    fn within<R>(&self, code: impl FnOnce() -> R) -> R {
        let _scope = Scope::enter(&self.instance.link, self.call_id);
        self.instance.runtime.within(code)
    }
}

struct ProviderShim<P> {
    /// Taken out when the shim is dropped.
    plugin: Option<Arc<P>>,
    instance: Arc<Instance>,
}

impl<P> ProviderShim<P> {
    fn plugin(&self) -> Arc<P> {
        Arc::clone(self.plugin.as_ref().expect("the plugin is taken out only when the shim is dropped"))
    }
}

impl<P: Plugin> ProviderAbi for ProviderShim<P> {
    fn tools_for(&self, context_json: RStr<'_>) -> AbiFuture<RResult<RVec<ToolObj>, AbiError>> {
        let context: ToolProviderContext = match serde_json::from_str(context_json.as_str()) {
            Ok(context) => context,
            Err(error) => {
                let message = format!("the turn's context cannot be read: {error}");
                return AbiFuture::ready(RErr(AbiError::new(kind::INVALID_ARGUMENTS, message)));
            }
        };
        let (plugin, instance) = (self.plugin(), self.instance.clone());
        AbiFuture::new_within(self.instance.at(0), async move {
            let tools = plugin.tools_for(&context).await;
            let shims = tools.into_iter().map(|tool| ToolShim { tool: Some(tool), instance: instance.clone() });
            ROk(shims.map(tool_object).collect::<Vec<_>>().into())
        })
    }

    fn shutdown(&self, deadline_ms: u64) -> AbiFuture<u8> {
        let (plugin, instance) = (self.plugin(), self.instance.clone());
        AbiFuture::new_within(self.instance.at(0), async move {
            let limit = Duration::from_millis(deadline_ms);
            u8::from(instance.runtime.timeout(limit, plugin.shutdown()).await.is_none())
        })
    }

    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        let body = match parse_body(body.as_slice()) {
            Ok(body) => body,
            Err(error) => return AbiFuture::ready(RErr(wire::error_to_abi(error))),
        };
        let (plugin, service) = (self.plugin(), service.as_str().to_owned());
        AbiFuture::new_within(self.instance.at(0), async move {
            let reply = plugin.request(&service, body).await;
            match reply.and_then(|reply| Ok(serde_json::to_vec(&reply)?)) {
                Ok(reply) => ROk(reply.into()),
                Err(error) => RErr(wire::error_to_abi(error)),
            }
        })
    }

    fn notify(&self, event_json: RStr<'_>) {
        let Ok(event) = serde_json::from_str::<Value>(event_json.as_str()) else { return };
        self.instance.at(0).within(|| self.plugin().notify(&event));
    }
}

impl<P> Drop for ProviderShim<P> {
    fn drop(&mut self) {
        let plugin = self.plugin.take();
        // The runtime stops also when the plugin's destructor panics, hence the catch between the two.
        let _ = catch(|| self.instance.at(0).within(move || drop(plugin)));
        self.instance.runtime.stop();
    }
}

/// An empty body is `null`.
fn parse_body(body: &[u8]) -> Result<Value, ToolError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body)
        .map_err(|error| ToolError::InvalidArguments(format!("the request's body is not JSON: {error}")))
}

struct ToolShim {
    /// Taken out when the shim is dropped.
    tool: Option<Arc<dyn Tool>>,
    instance: Arc<Instance>,
}

impl ToolShim {
    fn tool(&self) -> &Arc<dyn Tool> {
        self.tool.as_ref().expect("the tool is taken out only when the shim is dropped")
    }
}

impl ToolAbi for ToolShim {
    fn spec(&self) -> RString {
        let spec = self.instance.at(0).within(|| wire::ToolSpec::of(self.tool().as_ref()));
        serde_json::to_string(&spec).unwrap_or_default().into()
    }

    fn effect(&self, arguments: RSlice<'_, u8>) -> u8 {
        // Arguments that are no JSON are never run; the most dangerous effect is then the right one to show.
        let Ok(arguments) = serde_json::from_slice(arguments.as_slice()) else { return u8::MAX };
        wire::effect_to_abi(self.instance.at(0).within(|| self.tool().effect(&arguments)))
    }

    fn execute(
        &self,
        arguments: RSlice<'_, u8>,
        info: AbiCallInfo,
        info_json: RStr<'_>,
        cancel: CancelObj,
    ) -> AbiFuture<RResult<RVec<u8>, AbiError>> {
        let call = CallContext::new(
            call_info(info, info_json.as_str()),
            Arc::new(AbiCall { host: self.instance.host.clone(), cancel, call_id: info.call_id }),
            self.instance.host(),
        );
        let tool = Arc::clone(self.tool());
        let at = self.instance.at(info.call_id);
        // The text is borrowed for this function only, so the author's type is read from it before there is a future.
        let output = at.within(|| tool.execute_json(arguments.as_slice(), call));
        AbiFuture::new_within(at, async move {
            match output.await.and_then(|output| Ok(serde_json::to_vec(&output)?)) {
                Ok(output) => ROk(output.into()),
                Err(error) => RErr(wire::error_to_abi(error)),
            }
        })
    }
}

impl Drop for ToolShim {
    fn drop(&mut self) {
        let tool = self.tool.take();
        self.instance.at(0).within(move || drop(tool));
    }
}

/// The numbers come as numbers, the rest as JSON; what a newer host says beyond it is ignored.
fn call_info(info: AbiCallInfo, info_json: &str) -> CallInfo {
    let mut call: CallInfo = serde_json::from_str(info_json).unwrap_or_default();
    call.call_id = info.call_id;
    call.deadline_unix_ms = info.deadline_unix_ms;
    call
}

/// The host behind its object.
struct AbiHost(HostObj);

impl HostLink for AbiHost {
    fn log_enabled(&self, level: LogLevel) -> bool {
        self.0.log_enabled(level as u8)
    }

    fn log(&self, level: LogLevel, target: &str, message: &str, fields: &Value, call_id: u64) {
        let fields = fields.to_string();
        self.0.log(level as u8, target.into(), message.into(), fields.as_str().into(), call_id);
    }

    fn request(&self, service: &str, body: Vec<u8>) -> BoxFuture<Result<Vec<u8>, ToolError>> {
        let reply = self.0.request(service.into(), body.as_slice().into());
        Box::pin(async move {
            match reply.await {
                Ok(ROk(reply)) => Ok(reply.into_vec()),
                Ok(RErr(error)) => Err(wire::error_from_abi(error)),
                Err(panic) => Err(ToolError::Unavailable(format!("the service {panic}"))),
            }
        })
    }

    fn notify(&self, event: &Value) {
        self.0.notify(event.to_string().as_str().into());
    }
}

/// The host's side of one call.
struct AbiCall {
    host: Arc<AbiHost>,
    cancel: CancelObj,
    call_id: u64,
}

impl CallLink for AbiCall {
    fn progress(&self, fraction: f32, message: &str) {
        self.host.0.progress(self.call_id, fraction, message.into());
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn cancelled(&self) -> BoxFuture<()> {
        let cancelled = self.cancel.cancelled();
        Box::pin(async move {
            if cancelled.await.is_err() {
                // The host failed to say, which is not the same as a cancellation.
                std::future::pending::<()>().await;
            }
        })
    }
}
