//! The worker's side: a process that serves one plugin to the host at the other end of its socket.
//!
//! ```text
//!   main thread: descriptors closed ─▶ hello ─▶ setup read ─▶ fences ─▶ frames in and out, until the socket hangs up
//!   plugin's threads:                                           library opened, provider made, calls run
//! ```
//!
//! The socket is the lifeline: when it hangs up, whyever, the plugin is dropped and the process ends. The main thread
//! never runs the plugin's code, so a plugin that blocks or spins cannot keep the process from hearing that.

mod jobs;
mod plugin;
mod proxy;

use std::{
    io::{self, Read, Write},
    os::{fd::IntoRawFd, unix::net::UnixStream as StdStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use jackfield_plugin_abi::{AbiError, kind};
use tokio::net::UnixStream;

use self::plugin::Served;
use super::{
    VERSION,
    confine::confine,
    descriptors::take_socket,
    frames::{Decoder, PROTOCOL, ToHost, ToWorker},
    outbox::Outbox,
    setup::Setup,
};
use crate::{ids::PluginId, plugins::confinement::Confinement};

/// The setup comes before its own limits are known; a configuration is never this long.
const SETUP_BYTES_MAX: usize = 64 << 20;
/// The question that is answered when the plugin has started.
pub(super) const START: u64 = 0;

/// Serves the host until it hangs up. To be called first thing in `main`, while the process has one thread; the value
/// is the process's exit code.
pub(crate) fn serve() -> u8 {
    match prepare().and_then(Prepared::run) {
        Ok(()) => 0,
        Err(error) => {
            // Standard error goes to the host's log.
            let _ = writeln!(io::stderr(), "the plugin worker ends: {error}");
            1
        }
    }
}

/// A confined process, about to open the library.
struct Prepared {
    socket: StdStream,
    /// Has read the setup and may hold what came behind it.
    decoder: Decoder,
    setup: Setup,
    confinement: Confinement,
}

fn prepare() -> io::Result<Prepared> {
    let mut socket = take_socket()?;
    let hello = ToHost::Hello { protocol: PROTOCOL, version: VERSION.to_owned() };
    socket.write_all(&hello.encode(START))?;
    let mut decoder = Decoder::new(SETUP_BYTES_MAX);
    let mut setup: Setup = serde_json::from_slice(&read_setup(&mut socket, &mut decoder)?)?;
    decoder.limit(setup.limits.frame_bytes);
    name_process(&setup.plugin);
    setup.library = reachable(setup.library)?;
    let confinement = confine(&setup.permitted, &setup.library, &setup.limits);
    Ok(Prepared { socket, decoder, setup, confinement })
}

fn read_setup(socket: &mut StdStream, decoder: &mut Decoder) -> io::Result<Bytes> {
    let mut piece = [0; 16 * 1024];
    loop {
        match decoder.next::<ToWorker>().map_err(io::Error::other)? {
            Some((_, ToWorker::Hello(setup))) => return Ok(setup),
            Some((_, other)) => return Err(io::Error::other(format!("the host began with {other:?}"))),
            None => {}
        }
        match socket.read(&mut piece)? {
            0 => return Err(io::Error::other("the host hung up before it said which plugin to serve")),
            count => decoder.buffer.extend_from_slice(&piece[..count]),
        }
    }
}

/// What process lists show.
fn name_process(plugin: &str) {
    #[cfg(target_os = "linux")]
    {
        let name: Vec<u8> = plugin.bytes().filter(|byte| *byte != 0).take(15).collect();
        // A process without a name of its own works as well.
        let _ = std::ffi::CString::new(name).map(|name| rustix::thread::set_name(&name));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = plugin;
}

/// A copy in the host's memory is a descriptor there and becomes one here. It stays open for good, because the dynamic
/// linker tells libraries apart by name.
fn reachable(library: PathBuf) -> io::Result<PathBuf> {
    if !library.starts_with("/proc") {
        return Ok(library);
    }
    let number = std::fs::File::open(&library)?.into_raw_fd();
    Ok(PathBuf::from(format!("/proc/self/fd/{number}")))
}

impl Prepared {
    fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> io::Result<()> {
        let Self { socket, mut decoder, setup, confinement } = self;
        socket.set_nonblocking(true)?;
        let stream = Arc::new(UnixStream::from_std(socket)?);
        let outbox = Arc::new(Outbox::new(Arc::clone(&stream), setup.limits.queue_bytes));
        let writer = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.run().await }
        });
        let end = Duration::from_millis(setup.limits.end_ms);
        let served = Served::start(PluginId::new(setup.plugin.as_str()), &setup, Arc::clone(&outbox))?;
        served.create(setup, &confinement);
        let outcome = tokio::select! {
            outcome = read(&stream, &mut decoder, &served) => outcome,
            () = served.shut_down() => Ok(()),
        };
        end_within(end);
        served.drop_plugin().await;
        outbox.flushed().await;
        writer.abort();
        outcome
    }
}

/// Handles frames until the host hangs up.
async fn read(stream: &UnixStream, decoder: &mut Decoder, served: &Served) -> io::Result<()> {
    loop {
        while let Some((id, message)) = decoder.next::<ToWorker>().map_err(io::Error::other)? {
            served.handle(id, message);
        }
        stream.readable().await?;
        match stream.try_read_buf(&mut decoder.buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The host died with something unread on its side.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Ends the process when its plugin does not let it end by itself: nobody else may be there to do so.
fn end_within(limit: Duration) {
    let started = thread::Builder::new().name("end".to_owned()).spawn(move || {
        thread::sleep(limit);
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    });
    if started.is_err() {
        // Without a thread to watch the end, the end is now.
        std::process::abort();
    }
}

/// An answer that is not one: the plugin's words are lost, the host is told why.
fn failed(kind: u32, message: impl Into<String>) -> Result<Bytes, AbiError> {
    Err(AbiError::new(kind, message.into()))
}

/// The answer to a question that was dropped, or whose task ended without one.
fn let_go() -> Result<Bytes, AbiError> {
    failed(kind::UNAVAILABLE, "the call was given up")
}
