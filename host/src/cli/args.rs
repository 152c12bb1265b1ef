//! The command line as it is typed. Flags that are settings become values of the configuration's strongest layer; no
//! flag takes a secret, because other users can see a process's arguments.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use jackfield::config::{FlagValue, OFFLINE_MODEL};
use jackfield_plugin_api::testing::Provider;
use toml::Value;

use crate::telemetry::LogFormat;

const EXIT_CODES: &str = "\
Exit codes:
  0    all is well
  1    the command failed
  2    the command line is wrong
  3    the configuration cannot be used
  4    what was checked is not in order
  5    a plugin is not trusted: its hash, its signature, or a change since it was trusted
  6    a plugin does not fit this host: target, interface, C library, compiler
  7    no model can be reached (no key, or the gateway does not answer)
  8    a tool call needed a human's yes and nobody could give it
  130  stopped by Ctrl-C before the work was done
  143  stopped by SIGTERM before the work was done

Environment: SMOOAI_GATEWAY_KEY (the gateway's key), SMOOAI_GATEWAY_URL, SMOOTH_AGENT_MODEL and the other known
names; JACKFIELD_SECTION__KEY for every setting that `jackfield config show` lists; RUST_LOG; NO_COLOR.";

/// The command that `plugins check` runs in a process of its own.
pub(crate) const CHECK_CHILD: &str = "__plugin-check";

/// A local agent server that you extend by dropping native plugins into a folder.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "jackfield", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(flatten)]
    pub(crate) serve: SettingsArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// For every command.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Read this configuration file, over the project's and the user's.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// How lines of the log look; they go to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server until Ctrl-C.
    Serve(SettingsArgs),
    /// Run the server with demo knowledge and the built-in offline model: no key, no network.
    Demo(SettingsArgs),
    /// Send one message, and print the answer while it is made.
    Chat(ChatArgs),
    /// Work on a plugin: build it, load it, reload it at every change, and call its tools from the same terminal.
    Dev(DevArgs),
    /// Look at plugins, try them, and make one of your own.
    #[command(visible_alias = "plugin")]
    Plugins {
        #[command(subcommand)]
        command: PluginsCommand,
    },
    /// Say what a running server knows, and ask why it finds what it finds.
    Knowledge {
        #[command(subcommand)]
        command: KnowledgeCommand,
    },
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// What `plugins check` runs in a process of its own.
    #[command(name = CHECK_CHILD, hide = true)]
    CheckChild {
        /// Where the report is written.
        report: PathBuf,
    },
    /// Look at what a server needs (configuration, port, plugins, model), and say what to do about what is missing.
    Doctor(DoctorArgs),
    /// Print the version.
    Version(VersionArgs),
    /// Print a completion script for your shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginsCommand {
    /// List the plugins of the folders, and why some would not load. Runs none of their code.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show what one plugin file says about itself. Runs none of its code.
    Inspect(InspectArgs),
    /// Try everything that a host, a model's provider and a user expect of a plugin file, in a process of its own.
    Check(CheckArgs),
    /// Call one tool of a plugin, as a turn would.
    Call(CallArgs),
    /// Trust a plugin file as it is now. One that has changed since it was trusted needs --update.
    Trust(TrustArgs),
    /// Do not load a plugin any more, whatever its file becomes, until it is trusted again.
    Untrust(UntrustArgs),
    /// Make a pair of keys to sign plugins with.
    Keygen(KeygenArgs),
    /// Sign a plugin file; the signature is put beside it.
    Sign(SignArgs),
    /// Say whether a trusted key has signed a plugin file.
    Verify(VerifyArgs),
    /// Make the project of a plugin of your own: it builds, tests and loads as it is, without a network.
    New(NewArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KnowledgeCommand {
    /// Let the running server answer from the text, Markdown and HTML of files and folders, now and after every start.
    Add(AddArgs),
    /// List the sources, or the documents of one.
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Forget a source and its documents; its files stay.
    Rm(RmArgs),
    /// Read sources anew.
    Reindex(ReindexArgs),
    /// Search as a turn would.
    Query(QueryArgs),
}

/// Which server a command is for.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server (http://127.0.0.1:8787). Without it: the one that runs on this machine.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Show the server the token in this file. Without it: the admin token of the run file.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Files and folders of the server's machine.
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// What to call it; by default the file's or folder's own name.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The set that its documents belong to; by default its name.
    #[arg(long, value_name = "NAME")]
    pub(crate) set: Option<String>,
    /// Only this user may find its documents. May be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) user: Vec<String>,
    /// Only members of this group may find its documents. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// List the documents of this source.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The source's name.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReindexArgs {
    /// The sources' names; without one, all.
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// What to look for.
    pub(crate) query: String,
    /// Say how each passage came to its place, and which were cut and why.
    #[arg(long)]
    pub(crate) explain: bool,
    /// How many passages are used.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) limit: u16,
    /// Search with the rights of this user.
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,
    /// Search with the rights of this group's members. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting as it holds; secrets are never printed.
    Show(ShowArgs),
    /// Say whether the configuration can be used.
    Check(SettingsArgs),
    /// Write a file to begin with: every setting with its default, commented out. Replaces nothing.
    Init(InitArgs),
    /// Print the JSON Schema of configuration files, for editors.
    Schema,
}

/// Settings of the server.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingsArgs {
    /// Address to listen on, with or without a port (127.0.0.1, 127.0.0.1:9000, ::1).
    #[arg(long, visible_alias = "addr", value_name = "ADDRESS")]
    bind: Option<String>,
    /// Port to listen on; 0 lets the system choose.
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    #[command(flatten)]
    agent: AgentArgs,
    /// Let pages of this origin connect, for example http://localhost:5173. May be given several times.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Answer to this host name, too. May be given several times.
    #[arg(long = "allow-host", value_name = "NAME")]
    allow_host: Vec<String>,
    /// Listen beyond this machine although nothing checks tokens.
    #[arg(long)]
    allow_unauthenticated: bool,
    /// Let in only who knows the token in this file.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Load only plugins that a key of plugins.trusted_keys has signed.
    #[arg(long)]
    require_signed: bool,
    /// Serve a page with a chat at /.
    #[arg(long)]
    widget: bool,
    /// Give everybody who opens that page the token in this file.
    #[arg(long, value_name = "FILE", requires = "widget")]
    widget_token_file: Option<PathBuf>,
    /// Refuse connections without a good token, instead of treating them as anonymous.
    #[arg(long)]
    strict_auth: bool,
    /// Do not notice changes in the plugin folders; a plugin is reloaded only when that is asked for.
    #[arg(long)]
    no_watch: bool,
}

/// Settings of the agent, for a server that `chat` starts, too.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AgentArgs {
    /// Load the plugins of this folder. May be given several times.
    #[arg(long, value_name = "DIR")]
    plugins: Vec<PathBuf>,
    /// Run plugins in processes of their own, unless their settings say otherwise.
    #[arg(long)]
    isolate: bool,
    /// Model to use; `offline` is the built-in stand-in that needs no key and no network.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Base address of an OpenAI-compatible gateway, ending before /chat/completions.
    #[arg(long, value_name = "URL")]
    gateway_url: Option<String>,
    /// Add the demo documents, persona and tool.
    #[arg(long)]
    seed_kb: bool,
    /// Answer from the text, Markdown and HTML of this file or folder. May be given several times.
    #[arg(long, value_name = "PATH")]
    knowledge: Vec<PathBuf>,
    /// Ask a human before tools whose names contain one of these parts, separated by commas.
    #[arg(long, value_name = "PART,…")]
    confirm_tools: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// What to say; without it, or as -, it is read from standard input.
    pub(crate) message: Option<String>,
    /// The server to talk to (ws://127.0.0.1:8787/ws). Without it: the one that runs, or one for this message alone.
    #[arg(long, value_name = "URL", conflicts_with_all = ["plugins", "isolate", "model", "gateway_url", "seed_kb", "knowledge", "confirm_tools"])]
    pub(crate) server: Option<String>,
    /// Show the server the token in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Say yes to every tool call that asks.
    #[arg(long)]
    pub(crate) approve: bool,
    /// Print the server's frames, one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// A setting of the agent starts a server for this message alone.
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The folder of the plugin's project.
    #[arg(value_name = "FOLDER", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The package of the plugin, where the folder holds several.
    #[arg(long, value_name = "NAME")]
    pub(crate) package: Option<String>,
    /// Build with the release profile.
    #[arg(long)]
    pub(crate) release: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// A folder to look at; without it, those of the configuration. May be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) plugins: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The plugin's file, or the id of one in the plugin folders.
    #[arg(value_name = "FILE|ID")]
    pub(crate) file: String,
    /// A folder to look for the id in; without it, those of the configuration. May be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) plugins: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The plugin's file, or the id of one in the plugin folders.
    #[arg(value_name = "FILE|ID")]
    pub(crate) plugin: String,
    /// Whose rules for tools it is held against.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_values = ["openai", "anthropic", "gemini"])]
    pub(crate) provider: Vec<Provider>,
    /// Count warnings as failures.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Call tools that may change something, too; without it they are only looked at.
    #[arg(long)]
    pub(crate) call_all: bool,
    /// How long all of it may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    /// A folder to look for the id in; without it, those of the configuration. May be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) plugins: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The plugin's file, or the id of one in the plugin folders.
    #[arg(value_name = "FILE|ID")]
    pub(crate) plugin: String,
    /// The tool's name.
    pub(crate) tool: String,
    /// The arguments, a JSON object; @FILE reads them from a file, - from standard input.
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}")]
    pub(crate) args: String,
    /// Longest duration of the call, in seconds; without it, the limits of the configuration hold.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Run the call although it may change something.
    #[arg(long)]
    pub(crate) approve: bool,
    /// A folder to look for the id in; without it, those of the configuration. May be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) plugins: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// The plugin's file, or the id of one in the plugin folders.
    #[arg(value_name = "FILE|ID")]
    pub(crate) plugin: String,
    /// Also when it has changed since it was trusted; what changed is printed.
    #[arg(long)]
    pub(crate) update: bool,
    /// A folder to look for the id in; without it, those of the configuration. May be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) plugins: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UntrustArgs {
    /// The plugin's id.
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// Where the secret key is put; the public key is put beside it, with .pub added.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The plugin's file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The file of the secret key, made by keygen or by minisign.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The plugin's file; its signature lies beside it.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A public key in one line (RW…), instead of those of the configuration. May be given several times.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The folder to make; its last part names the plugin.
    #[arg(value_name = "NAME")]
    pub(crate) name: PathBuf,
    /// Where the crate jackfield-plugin-api comes from: a folder, or a version of the registry's. Without it: from this
    /// program, which carries its sources.
    #[arg(long, value_name = "PATH|VERSION")]
    pub(crate) api: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Say where each value comes from.
    #[arg(long)]
    pub(crate) origin: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write it; without it, the user's own file.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl SettingsArgs {
    /// The flags as values of the configuration.
    pub(crate) fn flags(&self) -> Vec<FlagValue> {
        let mut flags = self.agent.flags();
        if let Some(bind) = &self.bind {
            let (host, port) = split_address(bind);
            flags.push(flag("server.bind", "--bind", host));
            flags.extend(port.map(|port| flag("server.port", "--bind", port)));
        }
        flags.extend(self.port.as_ref().map(|port| flag("server.port", "--port", port.as_str())));
        flags.extend(list("server.allowed_origins", "--allow-origin", &self.allow_origin));
        flags.extend(list("server.allowed_hosts", "--allow-host", &self.allow_host));
        flags.extend(
            self.allow_unauthenticated.then(|| flag("server.allow_unauthenticated", "--allow-unauthenticated", true)),
        );
        flags.extend(
            self.token_file.as_ref().map(|path| flag("auth.token", "--token-file", format!("file:{}", path.display()))),
        );
        flags.extend(self.require_signed.then(|| flag("plugins.require_signed", "--require-signed", true)));
        flags.extend(self.widget.then(|| flag("widget.serve", "--widget", true)));
        flags.extend(
            self.widget_token_file
                .as_ref()
                .map(|path| flag("widget.token", "--widget-token-file", format!("file:{}", path.display()))),
        );
        flags.extend(self.strict_auth.then(|| flag("auth.strict", "--strict-auth", true)));
        flags.extend(self.no_watch.then(|| flag("plugins.watch", "--no-watch", "off")));
        flags
    }

    /// The flags over those of the demo: offline model and demo knowledge, unless a flag says otherwise.
    pub(crate) fn demo_flags(&self) -> Vec<FlagValue> {
        let mut flags = self.flags();
        if self.agent.model.is_none() {
            flags.push(flag("model.name", "demo", OFFLINE_MODEL));
        }
        flags.push(flag("knowledge.seed", "demo", true));
        flags
    }
}

impl AgentArgs {
    /// The flags as values of the configuration.
    pub(crate) fn flags(&self) -> Vec<FlagValue> {
        let folders: Vec<String> = self.plugins.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let mut flags: Vec<FlagValue> = list("plugins.folders", "--plugins", &folders).into_iter().collect();
        flags.extend(self.isolate.then(|| flag("plugins.default_isolation", "--isolate", "process")));
        flags.extend(self.model.as_ref().map(|model| flag("model.name", "--model", model.as_str())));
        flags.extend(self.gateway_url.as_ref().map(|url| flag("gateway.url", "--gateway-url", url.as_str())));
        flags.extend(self.seed_kb.then(|| flag("knowledge.seed", "--seed-kb", true)));
        let sources: Vec<String> = self.knowledge.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        flags.extend(list("knowledge.sources", "--knowledge", &sources));
        flags.extend(self.confirm_tools.as_ref().map(|parts| flag("tools.confirm", "--confirm-tools", parts.as_str())));
        flags
    }
}

fn flag(key: &'static str, flag: &'static str, value: impl Into<Value>) -> FlagValue {
    FlagValue { key, flag, value: value.into() }
}

fn list(key: &'static str, name: &'static str, items: &[String]) -> Option<FlagValue> {
    (!items.is_empty()).then(|| flag(key, name, items.to_vec()))
}

/// `127.0.0.1:9000` names a port, too; `::1` does not.
fn split_address(text: &str) -> (String, Option<String>) {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.ip().to_string(), Some(address.port().to_string()));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host.to_owned(), Some(port.to_owned())),
        _ => (text.to_owned(), None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;
    use jackfield::config::{Isolation, Loaded, Sources};

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, String> {
        Cli::try_parse_from(std::iter::once(&"jackfield").chain(words)).map_err(|error| error.to_string())
    }

    fn load(words: &[&str]) -> Result<Loaded, String> {
        let cli = parse(words)?;
        let flags = match cli.command {
            None => cli.serve.flags(),
            Some(Command::Serve(settings)) => settings.flags(),
            Some(Command::Demo(settings)) => settings.demo_flags(),
            Some(Command::Chat(chat)) => chat.agent.flags(),
            Some(other) => panic!("{other:?} has no settings here"),
        };
        Sources { flags, ..Sources::default() }.load().map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves() {
        for words in [&["--plugins", "a", "--plugins", "b"][..], &["serve", "--plugins", "a", "--plugins", "b"]] {
            let config = load(words).unwrap().config;
            assert_eq!(config.plugins.folders, [PathBuf::from("a"), PathBuf::from("b")]);
        }
        assert!(parse(&["--plugins", "a", "chat", "hello"]).is_err());
        assert!(parse(&["serve", "--config", "x.toml", "--log-format", "json"]).is_ok());
    }

    #[test]
    fn every_flag_of_the_server_reaches_its_setting() {
        let words = [
            "--bind",
            "::1",
            "--port",
            "0",
            "--model",
            "m",
            "--gateway-url",
            "http://127.0.0.1:1/v1",
            "--seed-kb",
            "--isolate",
            "--knowledge",
            "docs",
            "--confirm-tools",
            "a,b",
            "--allow-origin",
            "http://localhost:5173",
            "--allow-host",
            "agent.example",
            "--allow-unauthenticated",
            "--no-watch",
        ];
        let config = load(&words).unwrap().config;
        assert_eq!((config.addr().to_string().as_str(), config.model.as_str()), ("[::1]:0", "m"));
        assert_eq!(config.gateway_url, "http://127.0.0.1:1/v1");
        assert_eq!(config.confirm_tools, ["a", "b"]);
        assert_eq!((config.allowed_origins.len(), config.allowed_hosts.len()), (1, 1));
        assert_eq!(config.knowledge.sources, [PathBuf::from("docs")]);
        assert!(config.seed_kb && config.allow_unauthenticated && !config.plugins.is_watched());
        assert_eq!(config.plugins.default_isolation, Isolation::Process);
    }

    #[test]
    fn an_address_may_carry_its_port_and_an_own_flag_wins() {
        for (words, expected) in [
            (&["--bind", "127.0.0.1:9000"][..], "127.0.0.1:9000"),
            (&["--bind", "localhost:9000"], "127.0.0.1:9000"),
            (&["--addr", "[::1]:9000"], "[::1]:9000"),
            (&["--bind", "127.0.0.1:9000", "--port", "9001"], "127.0.0.1:9001"),
            (&["--bind", "0.0.0.0"], "0.0.0.0:8787"),
        ] {
            assert_eq!(load(words).unwrap().config.addr().to_string(), expected);
        }
        assert_eq!(
            load(&["--bind", "example.com:80"]).unwrap_err(),
            "--bind: expected an IP address such as 127.0.0.1, ::1 or 0.0.0.0, got \"example.com\""
        );
        assert!(load(&["--port", "http"]).unwrap_err().starts_with("--port: expected a whole number"));
        assert!(load(&["--token-file", "/nonexistent"]).unwrap_err().starts_with("--token-file: expected"));
    }

    #[test]
    fn the_demo_is_offline_unless_a_model_is_named() {
        let config = load(&["demo"]).unwrap().config;
        assert!(config.is_offline() && config.seed_kb);
        assert_eq!(load(&["demo", "--model", "m"]).unwrap().config.model, "m");
    }

    #[test]
    fn a_chat_with_a_server_takes_no_settings_of_another() {
        assert!(parse(&["chat", "--server", "ws://127.0.0.1:1/ws", "hello"]).is_ok());
        assert!(parse(&["chat", "--server", "ws://127.0.0.1:1/ws", "--model", "m", "hello"]).is_err());
    }

    #[test]
    fn the_exit_codes_are_in_the_help() {
        use crate::cli::Exit;
        let help = Cli::command().render_long_help().to_string();
        let all = [
            Exit::Failure,
            Exit::Usage,
            Exit::Config,
            Exit::CheckFailed,
            Exit::Untrusted,
            Exit::Incompatible,
            Exit::NoModel,
            Exit::NeedsApproval,
        ];
        for exit in all.into_iter().chain([Exit::Interrupted, Exit::Terminated]) {
            assert!(help.lines().any(|line| line.starts_with(&format!("  {} ", exit as u8))), "{exit:?}");
        }
    }
}
