//! The benchmark: what a server adds to the gateway behind it, beside what a bare relay adds.
//!
//! `drive` starts a scripted gateway, the relay and a `jackfield` program as processes of their own, measures them in
//! turns within one run, and prints a table. The relay is the floor: no agent could do less and still speak the
//! protocol, so figures are to be judged by their ratio to it, not by themselves.
//!
//! Everything happens on the loopback address. The memory and CPU figures come from `/proc`, so `drive` needs Linux.

#![allow(clippy::print_stdout)] // A table on standard output is what this program is for.

mod client;
mod drive;
mod gateway;
mod process;
mod relay;
mod report;
mod wire;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures a server beside the gateway itself and beside a bare relay")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves scripted answers as an OpenAI-compatible gateway.
    ///
    /// The last user message says what comes back: `tokens=N` (default 1) and `pace_ms=M` between them (default 0).
    Gateway {
        /// Port to listen on; 0 lets the system choose.
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Serves the protocol without an agent: each model delta becomes one frame.
    Relay {
        /// Port to listen on; 0 lets the system choose.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Address of the gateway, HOST:PORT.
        #[arg(long)]
        gateway: SocketAddr,
    },
    /// Measures the relay and a server, and prints a table.
    Drive(DriveArgs),
}

#[derive(Args)]
struct DriveArgs {
    /// The `jackfield` program, built for release; without one only the relay is measured.
    #[arg(long)]
    jackfield: Option<PathBuf>,
    /// Measure a tenth of everything: enough to see that it works, too little to trust.
    #[arg(long)]
    quick: bool,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Gateway { port } => one_thread(gateway::run(port)),
        Command::Relay { port, gateway } => every_core(relay::run(port, gateway)),
        Command::Drive(args) => one_thread(drive::run(args.jackfield, drive::Plan::new(args.quick))),
    }
}

/// The gateway and the driver stay on one thread, so that they wake nobody and leave the other cores to the server.
fn one_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// The relay runs on the same kind of runtime as the server that it is compared with.
fn every_core(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
