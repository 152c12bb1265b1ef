//! `chat`: one message to a server, the answer on standard output while it is made, and what the tools do on standard
//! error. Talks the same protocol as every other client.

mod client;
mod frames;
mod screen;

use std::io::Read;

use jackfield::{
    config::{AuthMode, Sources, state_folder},
    local::LocalServer,
    run_file::RunFile,
};
use jackfield_plugin_api::GatewayKey;

use self::{
    client::Client,
    frames::{Incoming, Outgoing},
    screen::Screen,
};
use super::{
    Exit, Failure,
    args::ChatArgs,
    serve,
    terminal::{Terminal, harmless, one_line},
};

/// Characters of the reason why a plugin is not there.
const REASON_CHARS: usize = 400;
/// A longer message than this is not typed by a person; the server's own limit is smaller.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;

/// Sends one message and prints the answer.
pub(super) async fn chat(sources: Sources, args: &ChatArgs, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let message = message_text(args)?;
    let place = Place::find(sources, args, terminal).await?;
    let result = async {
        let client = Client::connect(&place.url, place.token.as_ref()).await?;
        let humans = Human { approve: args.approve, terminal };
        talk(client, &message, humans, Screen::new(terminal, args.json)).await
    }
    .await;
    if let Some(server) = place.own
        && let Err(error) = server.shutdown().await
    {
        tracing::warn!(%error, "the server for this message did not stop cleanly");
    }
    result
}

/// Sends one message to a server that was just started, and prints the answer.
pub(super) async fn say(url: &str, message: &str, terminal: &Terminal) -> Result<Option<Exit>, Failure> {
    let client = Client::connect(url, None).await?;
    talk(client, message, Human { approve: false, terminal }, Screen::new(terminal, false)).await
}

fn message_text(args: &ChatArgs) -> Result<String, Failure> {
    match args.message.as_deref() {
        Some("-") | None => {
            let mut text = String::new();
            std::io::stdin().lock().take(MESSAGE_BYTES_MAX).read_to_string(&mut text)?;
            Some(text.trim().to_owned())
                .filter(|text| !text.is_empty())
                .ok_or_else(|| Failure::new(Exit::Usage, "no message: say jackfield chat \"message\", or pipe one in"))
        }
        Some(message) => Ok(message.to_owned()),
    }
}

/// The server that is talked to.
struct Place {
    url: String,
    token: Option<GatewayKey>,
    /// Started for this message alone.
    own: Option<LocalServer>,
}

impl Place {
    /// The server that was named, the one that runs, or one of our own.
    async fn find(mut sources: Sources, args: &ChatArgs, terminal: &Terminal) -> Result<Self, Failure> {
        let shown_token = args.token_file.as_deref().map(read_token).transpose()?;
        if let Some(url) = &args.server {
            // Only a token that was named for it: the configuration's own is not for strangers.
            return Ok(Self { url: url.clone(), token: shown_token, own: None });
        }
        sources.flags = args.agent.flags();
        let mut config = sources.load()?.config;
        let own_token = match &config.auth {
            AuthMode::LocalToken(token) => Some(token.clone()),
            _ => None,
        };
        let token = shown_token.or(own_token);
        if sources.flags.is_empty()
            && let Some(folder) = state_folder(&sources.env)
            && let Some(running) = RunFile::find_running(&folder).await?
        {
            return Ok(Self { url: running.ws_url(), token, own: None });
        }
        terminal.message(&terminal.faint("starting a server for this message"));
        config.bind = std::net::Ipv4Addr::LOCALHOST.into();
        config.port = 0;
        let plugin_time = config.limits.plugin_create;
        let own = serve::start(serve::remembering(config, &sources)).await?;
        // This server has one turn only, so its plugins have to be there for it.
        let reports = own.plugins_settled(plugin_time).await;
        for reason in reports.iter().filter_map(|report| report.reason.as_deref()) {
            terminal.message(&one_line(reason, REASON_CHARS));
        }
        Ok(Self { url: own.ws_url(), token, own: Some(own) })
    }
}

fn read_token(path: &std::path::Path) -> Result<GatewayKey, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("--token-file {}: {error}", path.display())))?;
    Ok(GatewayKey::new(text.trim()))
}

/// Who answers when a tool call asks.
struct Human<'a> {
    approve: bool,
    terminal: &'a Terminal,
}

/// The answer to a question, when it is known.
enum Consent {
    /// Decided without asking.
    Known { approved: bool, somebody_was_there: bool },
    /// Being typed.
    Asked(tokio::sync::oneshot::Receiver<bool>),
}

impl Human<'_> {
    fn ask(&self, tool: &str, description: &str) -> Consent {
        let terminal = self.terminal;
        terminal.message(&format!("{} {}", terminal.strong(&harmless(tool)), harmless(description)));
        if self.approve {
            terminal.message(&terminal.faint("approved by --approve"));
            return Consent::Known { approved: true, somebody_was_there: true };
        }
        if !terminal.can_ask() {
            terminal.message("denied, because nobody can be asked here; --approve says yes to every call");
            return Consent::Known { approved: false, somebody_was_there: false };
        }
        terminal.question("Allow it? [y/N] ");
        let (answer, asked) = tokio::sync::oneshot::channel();
        // A thread of its own: reading the keyboard cannot be stopped, and must not hold up the end of the process.
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line).is_ok();
            // The turn may have ended while nobody answered.
            let _ = answer.send(read && matches!(line.trim().to_lowercase().as_str(), "y" | "yes"));
        });
        Consent::Asked(asked)
    }
}

/// One turn, from the message to its terminal event.
async fn talk(
    mut client: Client,
    message: &str,
    human: Human<'_>,
    mut screen: Screen<'_>,
) -> Result<Option<Exit>, Failure> {
    let session_id = client.create_session().await?;
    client.send(&Outgoing::message(&session_id, message)).await?;
    let mut question = None;
    let mut ended_as = None;
    loop {
        tokio::select! {
            frame = client.next() => {
                let (text, frame) = frame?;
                screen.show(&text, &frame)?;
                match frame {
                    Incoming::WriteConfirmationRequired { data } => {
                        let asked = data.data;
                        match human.ask(&asked.tool_id, &asked.action_description) {
                            Consent::Asked(answer) => question = Some(answer),
                            Consent::Known { approved, somebody_was_there } => {
                                client.send(&Outgoing::confirmation(&session_id, approved)).await?;
                                if !somebody_was_there {
                                    ended_as = Some(Exit::NeedsApproval);
                                }
                            }
                        }
                    }
                    Incoming::EventualResponse { .. } => break,
                    Incoming::Cancelled {} => return Ok(Some(Exit::Interrupted)),
                    Incoming::Error { error } => return Err(refused(&error)),
                    _ => {}
                }
            }
            approved = answered(&mut question) => {
                question = None;
                client.send(&Outgoing::confirmation(&session_id, approved)).await?;
            }
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                if ended_as == Some(Exit::Interrupted) {
                    return Ok(ended_as);
                }
                ended_as = Some(Exit::Interrupted);
                client.send(&Outgoing::cancel(&session_id)).await?;
            }
        }
    }
    client.close().await;
    Ok(ended_as)
}

/// Waits for the answer that is being typed; for ever when nothing was asked.
async fn answered(question: &mut Option<tokio::sync::oneshot::Receiver<bool>>) -> bool {
    match question {
        Some(answer) => answer.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

fn refused(error: &frames::ErrorBody) -> Failure {
    let exit = if error.code == "LLM_UNAVAILABLE" { Exit::NoModel } else { Exit::Failure };
    Failure::new(exit, format!("{} ({})", harmless(&error.message), harmless(&error.code)))
}
