//! A program that embeds the server and runs its plugins in processes of their own: `fixture_embedder FOLDER [PROGRAM]`.
//! It prints the plugins' reports as one line of JSON and goes on until its input ends.
//!
//! Tests also name it as a worker program. Under the name `forgetful` it is a program whose author forgot the line that
//! makes it one.

#![allow(clippy::print_stdout, reason = "the test reads what it prints")]

use std::{io::Read, path::PathBuf, time::Duration};

use jackfield::{
    ServerConfig,
    config::{Isolation, PluginsConfig},
    local::LocalServer,
};

fn main() -> anyhow::Result<()> {
    let forgetful = std::env::current_exe()?.file_name().is_some_and(|name| name == "forgetful");
    if !forgetful {
        jackfield::worker::run_if_requested();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(embed())
}

async fn embed() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().ok_or_else(|| anyhow::anyhow!("usage: fixture_embedder FOLDER [PROGRAM]"))?;
    let plugins = PluginsConfig { default_isolation: Isolation::Process, ..PluginsConfig::from(folder) };
    let mut config = ServerConfig::default();
    config.model = "offline".to_owned();
    let mut builder = LocalServer::builder().addr(([127, 0, 0, 1], 0).into()).config(config).plugins(plugins);
    if let Some(program) = arguments.next() {
        builder = builder.worker_program(program);
    }
    let server = builder.spawn().await?;
    let reports = server.plugins_settled(Duration::from_secs(30)).await;
    println!("{}", serde_json::to_string(&reports)?);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    server.shutdown().await?;
    Ok(())
}
