//! What a plugin's file exports: one symbol, behind it one module.

use abi_stable::{
    StableAbi,
    library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    package_version_strings,
    prefix_type::WithMetadata,
    sabi_types::VersionStrings,
    std_types::{ROk, RResult, RStr},
};

use crate::{AbiError, AbiFuture, HostObj, ProviderObj};

/// The name of the one symbol that a plugin exports.
pub const LOADER_SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";

/// The answer of [`PluginModule::create`].
pub type CreateReply = RResult<ProviderObj, AbiError>;

/// The functions of a plugin's file. The host sees it as [`PluginRef`].
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef)))]
#[sabi(missing_field(option))]
pub struct PluginModule {
    /// The manifest, the same text as in the file's section.
    pub manifest: extern "C" fn() -> RStr<'static>,
    /// Makes a provider. `config` is the plugin's own configuration as a JSON object. May be called again: each
    /// provider lives for itself.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(host: HostObj, config: RStr<'_>) -> AbiFuture<CreateReply>,
    // --- appended after 1.0 goes below ---
}

impl RootModule for PluginRef {
    abi_stable::declare_root_module_statics! {PluginRef}

    const BASE_NAME: &'static str = "jackfield_plugin";
    const NAME: &'static str = "jackfield_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// The functions a plugin puts behind its symbol; `export_plugin!` implements this.
///
/// Neither function may let a panic out.
pub trait PluginEntry: 'static {
    /// See [`PluginModule::manifest`].
    extern "C" fn manifest() -> RStr<'static>;
    /// See [`PluginModule::create`].
    extern "C" fn create(host: HostObj, config: RStr<'_>) -> AbiFuture<CreateReply>;
}

/// The value of the exported symbol.
pub const fn plugin_header<E: PluginEntry>() -> LibHeader {
    // SAFETY: `construct` gives exactly what is asked for: a `PrefixRef` of the fields of `PluginRef`, cast by
    // `abi_stable` itself.
    unsafe { LibHeader::from_constructor::<PluginRef>(construct::<E>, CheckTypeLayout::Yes) }
}

/// Gives the module of `E`. It has no code of the author in it and cannot panic.
extern "C" fn construct<E: PluginEntry>() -> RootModuleResult {
    // SAFETY: the fields are erased, not changed: whoever asks for them as `PluginRef` gets what was put in.
    ROk(unsafe { Module::<E>::REF.0.cast() })
}

/// The module of `E`, made by the compiler, so that nothing is allocated when a host looks at it.
struct Module<E>(E);

impl<E: PluginEntry> Module<E> {
    const FIELDS: &'static WithMetadata<PluginModule> =
        &WithMetadata::new(PluginModule { manifest: E::manifest, create: E::create });
    const REF: PluginRef = PluginRef(Self::FIELDS.static_as_prefix());
}
