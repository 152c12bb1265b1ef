//! The objects that cross: the host, a cancellation, a provider, a tool.
//!
//! Text is UTF-8, structure is JSON with optional fields, and ownership is plain: what is borrowed (`RStr`, `RSlice`)
//! is valid until the function returns, never inside the future it returned; what is owned is freed by whoever
//! received it, through the library that made it. Functions are called on any thread, also several at once. None may
//! block for long. None lets a panic out: objects are made by [`host_object`] and its sisters only, which put a guard
//! around the implementation.
//!
//! How this grows: first as an optional JSON field, then as a new service name of `request`, and only when both fail
//! as a method appended under the mark, with a default body, because the other side may be older and not have it.
//! Nothing above a mark changes, ever.

// The attribute macro writes types that nobody can document, and implementations inside constants.
#![allow(missing_docs, non_local_definitions)]

use std::sync::Arc;

use abi_stable::{
    sabi_trait,
    sabi_trait::TD_Opaque,
    std_types::{RBox, RErr, RResult, RSlice, RStr, RString, RVec},
};

use crate::{
    AbiCallInfo, AbiError, AbiFuture,
    guard::{Guarded, catch},
};

/// The host, held by a plugin for as long as the provider lives; clones are cheap.
pub type HostObj = HostAbi_TO<'static, RBox<()>>;
/// Tells a running call that nobody waits for it any more; clones are cheap.
pub type CancelObj = CancelAbi_TO<'static, RBox<()>>;
/// A plugin's provider, held by the host.
pub type ProviderObj = ProviderAbi_TO<'static, RBox<()>>;
/// A plugin's tool, held by the host for as long as a turn that offers it runs.
pub type ToolObj = ToolAbi_TO<'static, RBox<()>>;

/// The answer to a service request: bytes (JSON by convention of the service), or why not.
pub type ServiceReply = RResult<RVec<u8>, AbiError>;

/// What a plugin may ask of the host.
#[sabi_trait]
pub trait HostAbi: Send + Sync + Clone {
    /// Whether a line of this level (1 error .. 5 trace) would be kept. Asked before a line is made, so it is quick.
    fn log_enabled(&self, level: u8) -> bool;

    /// Writes a line to the host's log. `fields_json` is a JSON object or empty; `call_id` is 0 outside a call.
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields_json: RStr<'_>, call_id: u64);

    /// Progress of a call, from 0 to 1, NaN when unknown; restarts the idle clock. Ignored when the call has ended.
    fn progress(&self, call_id: u64, fraction: f32, message: RStr<'_>);

    /// Asks a service, `name/version` of the host or `PLUGIN.name/version` of another plugin.
    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        let _ = body;
        AbiFuture::ready(RErr(AbiError::not_offered(service.as_str(), "host")))
    }

    /// Tells the host that something happened: a JSON object with a `type`. Unknown types are ignored.
    #[sabi(last_prefix_field)]
    fn notify(&self, event_json: RStr<'_>) {
        let _ = event_json;
    }

    // --- appended after 1.0 goes below ---
}

/// The cancellation of one call.
#[sabi_trait]
pub trait CancelAbi: Send + Sync + Clone {
    /// Whether the call has been cancelled or has run out of time.
    fn is_cancelled(&self) -> bool;

    /// Ends when the call is cancelled; the value means nothing.
    #[sabi(last_prefix_field)]
    fn cancelled(&self) -> AbiFuture<u8>;

    // --- appended after 1.0 goes below ---
}

/// What the host asks of a plugin.
#[sabi_trait]
pub trait ProviderAbi: Send + Sync {
    /// The tools for a turn; `context_json` says which turn. The host waits for a short time only.
    fn tools_for(&self, context_json: RStr<'_>) -> AbiFuture<RResult<RVec<ToolObj>, AbiError>>;

    /// The plugin will be dropped: finish within this many milliseconds. Called once, after the last call ended; the
    /// value is 0 for done, 1 for out of time.
    fn shutdown(&self, deadline_ms: u64) -> AbiFuture<u8>;

    /// A service that this plugin offers to the host and, through the host, to other plugins.
    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        let _ = body;
        AbiFuture::ready(RErr(AbiError::not_offered(service.as_str(), "plugin")))
    }

    /// Something happened: a JSON object with a `type` ("conversation_ended", ...). Unknown types are ignored.
    #[sabi(last_prefix_field)]
    fn notify(&self, event_json: RStr<'_>) {
        let _ = event_json;
    }

    // --- appended after 1.0 goes below ---
}

/// One tool.
#[sabi_trait]
pub trait ToolAbi: Send + Sync {
    /// Name, description, argument schema and options as JSON; empty when the plugin panicked while making it.
    fn spec(&self) -> RString;

    /// What a call with these arguments (a JSON object) can change: 0 nothing, 1 its own sandbox, 2 something that
    /// can be changed back, 3 anything. Every other number counts as 3.
    fn effect(&self, arguments: RSlice<'_, u8>) -> u8;

    /// Runs a call. `arguments` is a JSON object that fits the schema; `info_json` is what `info` has no room for.
    /// The answer is a tool output as JSON.
    #[sabi(last_prefix_field)]
    fn execute(
        &self,
        arguments: RSlice<'_, u8>,
        info: AbiCallInfo,
        info_json: RStr<'_>,
        cancel: CancelObj,
    ) -> AbiFuture<RResult<RVec<u8>, AbiError>>;

    // --- appended after 1.0 goes below ---
}

/// Makes the object that is handed to plugins. Whatever `host` panics with is caught on this side.
pub fn host_object<H: HostAbi + 'static>(host: H) -> HostObj {
    HostAbi_TO::from_value(Shared::new(host), TD_Opaque)
}

/// Makes the object that tells a call about its cancellation.
pub fn cancel_object<C: CancelAbi + 'static>(cancel: C) -> CancelObj {
    CancelAbi_TO::from_value(Shared::new(cancel), TD_Opaque)
}

/// Makes the object that is handed to the host. Whatever `provider` panics with is caught on this side, also when it
/// is dropped.
pub fn provider_object<P: ProviderAbi + 'static>(provider: P) -> ProviderObj {
    ProviderAbi_TO::from_value(Shared::new(provider), TD_Opaque)
}

/// Makes the object that is handed to the host. Whatever `tool` panics with is caught on this side, also when it is
/// dropped.
pub fn tool_object<T: ToolAbi + 'static>(tool: T) -> ToolObj {
    ToolAbi_TO::from_value(Shared::new(tool), TD_Opaque)
}

/// The guard around every implementation: the only type that the vtables are made for, because a vtable function
/// that panics ends the process. Cloning it runs none of the implementation's code.
struct Shared<T>(Arc<Guarded<T>>);

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Guarded::new(value)))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The future that `make` gives, or the panic it gave instead.
fn caught<T>(make: impl FnOnce() -> AbiFuture<T>) -> AbiFuture<T> {
    catch(make).unwrap_or_else(AbiFuture::panicked)
}

impl<H: HostAbi> HostAbi for Shared<H> {
    fn log_enabled(&self, level: u8) -> bool {
        catch(|| self.0.log_enabled(level)).unwrap_or(false)
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields_json: RStr<'_>, call_id: u64) {
        let _ = catch(|| self.0.log(level, target, message, fields_json, call_id));
    }

    fn progress(&self, call_id: u64, fraction: f32, message: RStr<'_>) {
        let _ = catch(|| self.0.progress(call_id, fraction, message));
    }

    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        caught(|| self.0.request(service, body))
    }

    fn notify(&self, event_json: RStr<'_>) {
        let _ = catch(|| self.0.notify(event_json));
    }
}

impl<C: CancelAbi> CancelAbi for Shared<C> {
    fn is_cancelled(&self) -> bool {
        catch(|| self.0.is_cancelled()).unwrap_or(false)
    }

    fn cancelled(&self) -> AbiFuture<u8> {
        caught(|| self.0.cancelled())
    }
}

impl<P: ProviderAbi> ProviderAbi for Shared<P> {
    fn tools_for(&self, context_json: RStr<'_>) -> AbiFuture<RResult<RVec<ToolObj>, AbiError>> {
        caught(|| self.0.tools_for(context_json))
    }

    fn shutdown(&self, deadline_ms: u64) -> AbiFuture<u8> {
        caught(|| self.0.shutdown(deadline_ms))
    }

    fn request(&self, service: RStr<'_>, body: RSlice<'_, u8>) -> AbiFuture<ServiceReply> {
        caught(|| self.0.request(service, body))
    }

    fn notify(&self, event_json: RStr<'_>) {
        let _ = catch(|| self.0.notify(event_json));
    }
}

impl<T: ToolAbi> ToolAbi for Shared<T> {
    fn spec(&self) -> RString {
        catch(|| self.0.spec()).unwrap_or_default()
    }

    fn effect(&self, arguments: RSlice<'_, u8>) -> u8 {
        catch(|| self.0.effect(arguments)).unwrap_or(u8::MAX)
    }

    fn execute(
        &self,
        arguments: RSlice<'_, u8>,
        info: AbiCallInfo,
        info_json: RStr<'_>,
        cancel: CancelObj,
    ) -> AbiFuture<RResult<RVec<u8>, AbiError>> {
        caught(|| self.0.execute(arguments, info, info_json, cancel))
    }
}
