//! The command line: what can be said, and what each command does. Data goes to standard output, messages to standard
//! error, and every command ends with one of the documented exit codes.

mod admin;
mod args;
mod chat;
mod config;
mod dev;
mod knowledge;
mod new;
mod plugins;
mod serve;
mod terminal;
mod trust;
mod tryout;
mod which;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use jackfield::config::{ConfigError, Origin, Sources};

use crate::telemetry;
use args::{Cli, Command, ConfigCommand, GlobalArgs, PluginsCommand};
use terminal::Terminal;

/// How a command ends, beside success. The numbers are part of the interface; `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed.
    Failure = 1,
    /// It was called wrongly.
    Usage = 2,
    /// The configuration cannot be used.
    Config = 3,
    /// What was checked is not in order.
    CheckFailed = 4,
    /// A plugin is not trusted.
    Untrusted = 5,
    /// A plugin does not fit this host.
    Incompatible = 6,
    /// No model can be reached.
    NoModel = 7,
    /// A human would have been needed.
    NeedsApproval = 8,
    /// Ctrl-C.
    Interrupted = 130,
    /// `SIGTERM`, asked twice.
    Terminated = 143,
}

/// Why a command ends early: what to say, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::BadValue { origin: Origin::Flag(_), .. } => Exit::Usage,
            _ => Exit::Config,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failure, format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failure, error.to_string())
    }
}

/// Parses the command line, runs the command and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let terminal = Terminal::of_process();
    match run(cli, &terminal) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(exit)) => ExitCode::from(exit as u8),
        Err(failure) => {
            terminal.message(&format!("{} {}", terminal.strong("error:"), failure.message));
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: Cli, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let Cli { global, serve, command } = cli;
    telemetry::start(global.log_format, terminal.rust_log(), terminal.colour_on_errors())
        .map_err(|message| Failure::new(Exit::Config, message))?;
    match command.unwrap_or(Command::Serve(serve)) {
        Command::Serve(settings) => on_runtime(serve::serve(sources(&global)?, &settings, terminal)),
        Command::Demo(settings) => on_runtime(serve::demo(sources(&global)?, &settings, terminal)),
        Command::Chat(chat) => on_runtime(chat::chat(sources(&global)?, &chat, terminal)),
        Command::Dev(args) => on_runtime(dev::dev(sources(&global)?, &args, terminal)),
        Command::Plugins { command: PluginsCommand::List(list) } => plugins::list(sources(&global)?, &list, terminal),
        Command::Plugins { command: PluginsCommand::Inspect(inspect) } => {
            plugins::inspect(sources(&global)?, &inspect, terminal)
        }
        Command::Plugins { command: PluginsCommand::Trust(args) } => trust::trust(sources(&global)?, &args, terminal),
        Command::Plugins { command: PluginsCommand::Untrust(args) } => {
            trust::untrust(sources(&global)?, &args, terminal)
        }
        Command::Plugins { command: PluginsCommand::Keygen(args) } => trust::keygen(&args, terminal),
        Command::Plugins { command: PluginsCommand::Sign(args) } => trust::sign(&args, terminal),
        Command::Plugins { command: PluginsCommand::Verify(args) } => trust::verify(sources(&global)?, &args, terminal),
        Command::Plugins { command: PluginsCommand::Check(args) } => {
            on_runtime(tryout::check(sources(&global)?, &args, terminal))
        }
        Command::Plugins { command: PluginsCommand::Call(args) } => {
            on_runtime(tryout::call(sources(&global)?, &args, terminal))
        }
        Command::CheckChild { report } => tryout::check_child(&report),
        Command::Plugins { command: PluginsCommand::New(args) } => new::new(&args, terminal),
        Command::Knowledge { command } => on_runtime(knowledge::run(sources(&global)?, &command, terminal)),
        Command::Config { command: ConfigCommand::Show(show) } => config::show(sources(&global)?, &show, terminal),
        Command::Config { command: ConfigCommand::Check(settings) } => {
            config::check(sources(&global)?, &settings, terminal)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "jackfield", &mut std::io::stdout().lock());
            Ok(None)
        }
    }
}

fn sources(global: &GlobalArgs) -> Result<Sources, Failure> {
    Ok(Sources::of_process(global.config.as_deref())?)
}

fn on_runtime(command: impl Future<Output = Result<Option<Exit>, Failure>>) -> Result<Option<Exit>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // A thread that waits for the keyboard must not hold up the end.
    runtime.shutdown_background();
    result
}
