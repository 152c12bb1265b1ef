//! The macros that turn a plugin type into a plugin file.

use std::marker::PhantomData;

use jackfield_plugin_abi::{AbiFuture, CreateReply, HostObj, LibHeader, PluginEntry, RStr, manifest, plugin_header};

use crate::{Plugin, PluginManifest, manifest::Field, shim};

/// Which compiler built this crate, as `rustc --version` says it.
const RUSTC: &str = env!("JACKFIELD_RUSTC");
/// The target this crate was built for.
pub const TARGET: &str = env!("JACKFIELD_TARGET");
/// The version of this crate.
const API_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `export_plugin!` knows about the crate it stands in.
pub trait Exported: 'static {
    /// The plugin.
    type Plugin: Plugin + PluginManifest;
    /// The bytes of the manifest section.
    fn section() -> &'static [u8];
}

/// The functions of the plugin's file.
pub struct Entry<E>(PhantomData<E>);

impl<E: Exported> PluginEntry for Entry<E> {
    extern "C" fn manifest() -> RStr<'static> {
        // Reading the section keeps the linker from dropping it.
        manifest::text(E::section()).unwrap_or_default().into()
    }

    extern "C" fn create(host: HostObj, config: RStr<'_>) -> AbiFuture<CreateReply> {
        shim::create::<E::Plugin>(<E::Plugin as PluginManifest>::ID, host, config)
    }
}

/// The value of the exported symbol.
pub const fn header<E: Exported>() -> LibHeader {
    plugin_header::<Entry<E>>()
}

/// The whole manifest of `P`: what its type says, and what is known where it is exported.
pub const fn manifest_fields<P: PluginManifest>(panic: &'static str) -> [Field<'static>; 6] {
    [
        Field::Written(P::FIELDS),
        Field::Text("abi", jackfield_plugin_abi::ABI_VERSION),
        Field::Text("api", API_VERSION),
        Field::Text("rustc", RUSTC),
        Field::Text("target", TARGET),
        Field::Text("panic", panic),
    ]
}

/// `first`, or `second` when that is empty.
pub const fn first_of(first: &'static str, second: &'static str) -> &'static str {
    if first.is_empty() { second } else { first }
}

/// Writes down what a plugin says about itself, for its type.
///
/// ```text
/// plugin_manifest!(Clock {
///     id: "clock",                                          // required, first: [a-z0-9_-], at most 64
///     description: "Time and dates",                        // default: the package's description
///     tools: { "current_time": read_only, "set": writes },  // read_only | confined | writes | destructive | by_arguments
///     permissions: { network: ["time.example:123"], read: [], write: [], exec: [], env: ["TZ"] },
///     config_schema: include_str!("config.schema.json"),    // JSON Schema of the plugin's configuration
///     isolated_only: true,                                  // must run in a process of its own
/// });
/// ```
///
/// Version, authors, licence and homepage are those of the package the macro stands in. All values are literals, since
/// the manifest is read from the file without running it; the test kit checks that they agree with what the plugin
/// does. [`export_plugin!`](crate::export_plugin) can hold the same keys, when plugin and library are one crate.
#[macro_export]
macro_rules! plugin_manifest {
    ($plugin:path { id: $id:literal $(, $($rest:tt)*)? }) => {
        $crate::plugin_manifest!(@munch [$plugin] [$id] [isolated_only = false]
            [description = ::core::env!("CARGO_PKG_DESCRIPTION")] [] $($($rest)*)?);
    };
    (@munch $plugin:tt $id:tt $isolated:tt $text:tt $done:tt description: $value:expr $(, $($rest:tt)*)?) => {
        $crate::plugin_manifest!(@munch $plugin $id $isolated [description = $value] $done $($($rest)*)?);
    };
    (@munch $plugin:tt $id:tt $isolated:tt $text:tt [$($done:tt)*]
        tools: { $($name:literal : $effect:ident),* $(,)? } $(, $($rest:tt)*)?) => {
        $crate::plugin_manifest!(@munch $plugin $id $isolated $text
            [$($done)* $crate::__private::Field::Tools(&[$(($name, $crate::plugin_manifest!(@effect $effect))),*]),]
            $($($rest)*)?);
    };
    (@munch $plugin:tt $id:tt $isolated:tt $text:tt [$($done:tt)*]
        permissions: { $($kind:ident : [$($wanted:literal),* $(,)?]),* $(,)? } $(, $($rest:tt)*)?) => {
        $crate::plugin_manifest!(@munch $plugin $id $isolated $text
            [$($done)* $crate::__private::Field::Permissions(&[
                $(($crate::plugin_manifest!(@permission $kind), &[$($wanted),*])),*
            ]),]
            $($($rest)*)?);
    };
    (@munch $plugin:tt $id:tt $isolated:tt $text:tt [$($done:tt)*] config_schema: $value:expr $(, $($rest:tt)*)?) => {
        $crate::plugin_manifest!(@munch $plugin $id $isolated $text
            [$($done)* $crate::__private::Field::Json("config_schema", $value),] $($($rest)*)?);
    };
    (@munch $plugin:tt $id:tt $isolated:tt $text:tt $done:tt isolated_only: $value:literal $(, $($rest:tt)*)?) => {
        $crate::plugin_manifest!(@munch $plugin $id [isolated_only = $value] $text $done $($($rest)*)?);
    };
    (@munch [$plugin:path] [$id:literal] [isolated_only = $isolated:literal] [description = $text:expr]
        [$($done:tt)*]) => {
        const _: () = ::core::assert!(
            $crate::__private::is_id($id),
            "a plugin's id has lower-case letters, digits, - and _ only, at most 64 of them, and begins with one of the first two"
        );

        impl $crate::PluginManifest for $plugin {
            const ID: &'static str = $id;
            const ISOLATED_ONLY: bool = $isolated;
            const FIELDS: &'static str = {
                const FIELDS: &[$crate::__private::Field<'static>] = &[
                    $crate::__private::Field::Text("id", $id),
                    $crate::__private::Field::Text("version", ::core::env!("CARGO_PKG_VERSION")),
                    $crate::__private::Field::Text("description", $text),
                    $crate::__private::Field::Colons("authors", ::core::env!("CARGO_PKG_AUTHORS")),
                    $crate::__private::Field::Text("license", ::core::env!("CARGO_PKG_LICENSE")),
                    $crate::__private::Field::Text("homepage", $crate::__private::first_of(
                        ::core::env!("CARGO_PKG_HOMEPAGE"),
                        ::core::env!("CARGO_PKG_REPOSITORY"),
                    )),
                    $crate::__private::Field::Flag("isolated_only", $isolated),
                    $($done)*
                ];
                const BYTES: [u8; $crate::__private::fields_len(FIELDS)] = $crate::__private::fields_text(FIELDS);
                $crate::__private::as_text(&BYTES)
            };
        }
    };
    (@munch $plugin:tt $id:tt $isolated:tt $text:tt $done:tt $key:ident $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "a plugin's manifest has no key `", ::core::stringify!($key), "` of this form; the keys are id: \"..\" (first), ",
            "description: \"..\", tools: { \"name\": effect, .. }, permissions: { network: [\"..\"], .. }, ",
            "config_schema: include_str!(\"..\"), isolated_only: true"
        ));
    };
    (@effect read_only) => { "read_only" };
    (@effect confined) => { "confined" };
    (@effect writes) => { "writes" };
    (@effect destructive) => { "destructive" };
    (@effect by_arguments) => { "by_arguments" };
    (@effect $other:ident) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($other),
            "` is no effect; expected read_only, confined, writes, destructive or by_arguments"
        ))
    };
    (@permission network) => { "network" };
    (@permission read) => { "read" };
    (@permission write) => { "write" };
    (@permission exec) => { "exec" };
    (@permission env) => { "env" };
    (@permission $other:ident) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($other), "` is no permission; expected network, read, write, exec or env"
        ))
    };
    ($plugin:path { $($anything:tt)* }) => {
        ::core::compile_error!("a plugin's manifest starts with its id: `id: \"my-plugin\", description: ..`");
    };
}

/// Exports a plugin from a `cdylib` crate. A library has room for one.
///
/// ```text
/// export_plugin!(my_plugin::MyPlugin);                  // the type has a plugin_manifest! of its own
/// export_plugin!(MyPlugin { id: "mine", tools: { .. } });   // manifest and export in one
/// ```
///
/// It puts the manifest into a section of the file, and exports the one symbol a host looks for. Panics must unwind,
/// or a panic in a tool would end the host: a crate built with `panic = "abort"` is refused by the compiler, unless the
/// manifest says `isolated_only: true`.
///
/// A complete plugin:
///
/// ```
/// use jackfield_plugin_api::prelude::*;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Person { name: String }
///
/// async fn greet(person: Person, _: CallContext) -> Result<String, ToolError> {
///     Ok(format!("hello {}", person.name))
/// }
///
/// struct Hello;
///
/// #[async_trait]
/// impl ToolProvider for Hello {
///     async fn tools_for(&self, _: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
///         vec![tool("greet", "Greets a person by name.", Effect::ReadOnly, greet)]
///     }
/// }
///
/// #[async_trait]
/// impl Plugin for Hello {
///     async fn init(_: Host, _: Value) -> Result<Self, PluginError> { Ok(Hello) }
/// }
///
/// export_plugin!(Hello { id: "hello", description: "Greets people", tools: { "greet": read_only } });
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_plugin {
    ($plugin:path { $($manifest:tt)* }) => {
        $crate::plugin_manifest!($plugin { $($manifest)* });
        $crate::export_plugin!(@export $plugin);
    };
    ($plugin:path) => {
        $crate::export_plugin!(@export $plugin);
    };
    (@export $plugin:path) => {
        const _: () = {
            ::core::assert!(
                !::core::cfg!(panic = "abort") || <$plugin as $crate::PluginManifest>::ISOLATED_ONLY,
                "a plugin must be built with panic = \"unwind\": remove panic = \"abort\" from the profile, or say isolated_only: true in the manifest"
            );

            const PANIC: &str = if ::core::cfg!(panic = "abort") { "abort" } else { "unwind" };
            const FIELDS: &[$crate::__private::Field<'static>] =
                &$crate::__private::manifest_fields::<$plugin>(PANIC);
            const BYTES: [u8; $crate::__private::object_len(FIELDS)] = $crate::__private::object_text(FIELDS);
            const TEXT: &str = $crate::__private::as_text(&BYTES);

            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,jackfield"))]
            #[cfg_attr(windows, unsafe(link_section = ".jackfld"))]
            #[cfg_attr(not(any(target_vendor = "apple", windows)), unsafe(link_section = ".jackfield"))]
            static SECTION: [u8; $crate::__private::section_len(TEXT)] = $crate::__private::section(TEXT);

            struct Exported;

            impl $crate::__private::Exported for Exported {
                type Plugin = $plugin;
                fn section() -> &'static [u8] {
                    &SECTION
                }
            }

            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals)]
            pub static _1as_0lib_1header_0root_bmodule_bloader: $crate::__private::LibHeader =
                $crate::__private::header::<Exported>();
        };
    };
}
