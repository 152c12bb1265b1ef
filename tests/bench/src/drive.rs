//! The run: starts everything, measures in interleaved rounds, prints the table.
//!
//! Rounds are interleaved so that whatever else the machine does falls on all servers alike. Every count is fixed and the
//! whole run has a limit; what it started ends with it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    client::{Client, DirectClient, Question, TurnFigures},
    process::Process,
    report::{Report, Row, percentile},
};

/// The whole run.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Turns of one conversation before the next one begins: as long as a usual chat, so that the history does not decide.
const TURNS_PER_CONVERSATION: usize = 20;
/// After opening or closing many connections, until the memory is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Open files wanted: both ends of every connection at once, with room.
const OPEN_FILES: u64 = 8192;

/// How much of everything is measured.
pub(crate) struct Plan {
    rounds: usize,
    short_turns_per_round: usize,
    streams: usize,
    tokens_per_stream: u64,
    tokens_of_one_stream: u64,
    paced_tokens: u64,
    pace: Duration,
    clients: usize,
    turns_per_client: usize,
    idle_connections: usize,
}

impl Plan {
    /// The full measure, or a tenth of it.
    pub(crate) fn new(quick: bool) -> Self {
        let full = Self {
            rounds: 5,
            short_turns_per_round: 400,
            streams: 64,
            tokens_per_stream: 2000,
            tokens_of_one_stream: 50_000,
            paced_tokens: 50,
            pace: Duration::from_millis(20),
            clients: 32,
            turns_per_client: 40,
            idle_connections: 1000,
        };
        if !quick {
            return full;
        }
        Self { rounds: 1, short_turns_per_round: 200, tokens_of_one_stream: 5000, idle_connections: 100, ..full }
    }
}

/// Measures and prints. A run that fails or takes too long still prints what it has measured.
pub(crate) async fn run(jackfield: Option<PathBuf>, plan: Plan) -> anyhow::Result<()> {
    raise_open_files()?;
    let gateway = Process::gateway().await?;
    let bench = Bench { gateway: gateway.addr(), jackfield };
    let mut report = Report::new(bench.names());
    let outcome = timeout(RUN_LIMIT, measure(&bench, &plan, &mut report)).await;
    println!("{}", report.table());
    outcome.context("the run took too long")??;
    gateway.stop().await
}

async fn measure(bench: &Bench, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let servers = bench.start().await?;
    one_token_turns(bench, &servers, plan, report).await?;
    saturated_streams(&servers, plan, report).await?;
    one_stream(bench, &servers, plan, report).await?;
    paced_streams(&servers, plan, report).await?;
    short_turns(&servers, plan, report).await?;
    stop(servers).await?;

    // Memory is read in fresh processes: what the turns above have left behind is another question.
    let servers = bench.start().await?;
    idle_connections(&servers, plan, report).await?;
    stop(servers).await
}

/// What is compared: the relay, and `jackfield` if there is one.
struct Bench {
    gateway: SocketAddr,
    jackfield: Option<PathBuf>,
}

impl Bench {
    fn names(&self) -> Vec<&'static str> {
        if self.jackfield.is_some() { vec!["relay", "jackfield"] } else { vec!["relay"] }
    }

    async fn start(&self) -> anyhow::Result<Vec<Process>> {
        let mut servers = vec![Process::relay(self.gateway).await?];
        if let Some(program) = &self.jackfield {
            servers.push(Process::jackfield(program, self.gateway).await?);
        }
        Ok(servers)
    }
}

async fn stop(servers: Vec<Process>) -> anyhow::Result<()> {
    for server in servers {
        server.stop().await?;
    }
    Ok(())
}

/// One short turn after the other, beside the same request sent straight to the gateway.
async fn one_token_turns(bench: &Bench, servers: &[Process], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut direct = DirectClient::connect(bench.gateway).await?;
    let mut clients = connect_each(servers).await?;
    let mut direct_ms = Vec::new();
    let mut server_ms = vec![Vec::new(); servers.len()];
    // The first round warms up: connections, caches, allocators.
    for round in 0..=plan.rounds {
        let mut direct_round = Vec::new();
        for _ in 0..plan.short_turns_per_round {
            direct_round.push(millis(direct.ask(Question::ONE_TOKEN).await?));
        }
        let mut server_rounds = Vec::new();
        for client in &mut clients {
            server_rounds.push(sequential_turns(client, plan.short_turns_per_round).await?);
        }
        if round > 0 {
            direct_ms.extend(direct_round);
            server_ms.iter_mut().zip(server_rounds).for_each(|(all, round)| all.extend(round));
        }
    }
    report_short_turns(report, &mut direct_ms, &mut server_ms);
    Ok(())
}

fn report_short_turns(report: &mut Report, direct_ms: &mut [f64], server_ms: &mut [Vec<f64>]) {
    let direct = percentile(direct_ms, 0.5);
    let medians: Vec<f64> = server_ms.iter_mut().map(|values| percentile(values, 0.5)).collect();
    report.add(Row {
        what: "one-token turn, p50, ms".to_owned(),
        direct: Some(direct),
        servers: medians.clone(),
        goal: "≤ 1",
    });
    report.add(Row {
        what: "one-token turn, p99, ms".to_owned(),
        direct: Some(percentile(direct_ms, 0.99)),
        servers: server_ms.iter_mut().map(|values| percentile(values, 0.99)).collect(),
        goal: "",
    });
    report.add(Row {
        what: "… added to the direct request, p50, ms".to_owned(),
        direct: None,
        servers: medians.iter().map(|median| median - direct).collect(),
        goal: "≤ 0.3",
    });
}

async fn sequential_turns(client: &mut Client, turns: usize) -> anyhow::Result<Vec<f64>> {
    let mut durations = Vec::with_capacity(turns);
    for turn in 0..turns {
        if turn % TURNS_PER_CONVERSATION == 0 {
            client.new_session().await?;
        }
        durations.push(millis(client.turn(Question::ONE_TOKEN).await?.total));
    }
    Ok(durations)
}

/// Many streams at once, as fast as the server takes them.
async fn saturated_streams(servers: &[Process], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let question = Question::at_once(plan.tokens_per_stream);
    let mut figures = vec![StreamFigures::default(); servers.len()];
    for _ in 0..plan.rounds {
        for (server, figures) in servers.iter().zip(&mut figures) {
            figures.add(&streams_at_once(server, plan.streams, question).await?, question.tokens);
        }
    }
    report.add(Row {
        what: format!("{} saturated streams: CPU per token, µs", plan.streams),
        direct: None,
        servers: figures.iter().map(StreamFigures::cpu_micros_per_token).collect(),
        goal: "≤ 3",
    });
    report.add(Row {
        what: "… tokens per frame".to_owned(),
        direct: None,
        servers: figures.iter().map(StreamFigures::tokens_per_frame).collect(),
        goal: "",
    });
    Ok(())
}

/// Many streams at the pace of a real model.
async fn paced_streams(servers: &[Process], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let question = Question { tokens: plan.paced_tokens, pace: plan.pace };
    let mut figures = vec![StreamFigures::default(); servers.len()];
    for _ in 0..plan.rounds.min(3) {
        for (server, figures) in servers.iter().zip(&mut figures) {
            figures.add(&streams_at_once(server, plan.streams, question).await?, question.tokens);
        }
    }
    report.add(Row {
        what: format!("{} paced streams: first token, p50, ms", plan.streams),
        direct: None,
        servers: figures.iter_mut().map(|figures| percentile(&mut figures.first_token_ms, 0.5)).collect(),
        goal: "≤ 8",
    });
    report.add(Row {
        what: "… CPU per token, µs".to_owned(),
        direct: None,
        servers: figures.iter().map(StreamFigures::cpu_micros_per_token).collect(),
        goal: "≤ 25",
    });
    Ok(())
}

/// What the turns of one burst looked like, and what they cost the server.
struct Burst {
    turns: Vec<TurnFigures>,
    cpu_seconds: f64,
}

/// One turn on each of many fresh connections, all at the same time.
async fn streams_at_once(server: &Process, streams: usize, question: Question) -> anyhow::Result<Burst> {
    let clients = connect_many(server.addr(), streams).await?;
    let before = server.cpu_seconds()?;
    let mut running = JoinSet::new();
    for mut client in clients {
        running.spawn(async move { client.turn(question).await });
    }
    let turns = running.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Burst { turns, cpu_seconds: server.cpu_seconds()? - before })
}

#[derive(Clone, Default)]
struct StreamFigures {
    tokens: f64,
    frames: f64,
    cpu_seconds: f64,
    first_token_ms: Vec<f64>,
}

impl StreamFigures {
    fn add(&mut self, burst: &Burst, tokens_per_turn: u64) {
        self.cpu_seconds += burst.cpu_seconds;
        for turn in &burst.turns {
            self.tokens += count(tokens_per_turn);
            self.frames += count(turn.token_frames);
            self.first_token_ms.push(millis(turn.first_token));
        }
    }

    fn cpu_micros_per_token(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.tokens
    }

    fn tokens_per_frame(&self) -> f64 {
        self.tokens / self.frames
    }
}

/// One stream alone, as fast as it goes.
async fn one_stream(bench: &Bench, servers: &[Process], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let question = Question::at_once(plan.tokens_of_one_stream);
    let mut direct = DirectClient::connect(bench.gateway).await?;
    let mut clients = connect_each(servers).await?;
    let mut direct_rates = Vec::new();
    let mut server_rates = vec![Vec::new(); servers.len()];
    for _ in 0..plan.rounds {
        direct_rates.push(rate(question, direct.ask(question).await?));
        for (client, rates) in clients.iter_mut().zip(&mut server_rates) {
            client.new_session().await?;
            rates.push(rate(question, client.turn(question).await?.total));
        }
    }
    report.add(Row {
        what: "one saturated stream, tokens per second".to_owned(),
        direct: Some(percentile(&mut direct_rates, 0.5)),
        servers: server_rates.iter_mut().map(|rates| percentile(rates, 0.5)).collect(),
        goal: "≥ 200 k",
    });
    Ok(())
}

/// Short turns from many clients at once.
async fn short_turns(servers: &[Process], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut cpu_seconds = vec![0.0; servers.len()];
    for _ in 0..plan.rounds {
        for (server, total) in servers.iter().zip(&mut cpu_seconds) {
            let clients = connect_many(server.addr(), plan.clients).await?;
            let before = server.cpu_seconds()?;
            let mut running = JoinSet::new();
            for mut client in clients {
                let turns = plan.turns_per_client;
                running.spawn(async move { sequential_turns(&mut client, turns).await });
            }
            running.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
            *total += server.cpu_seconds()? - before;
        }
    }
    let turns = count(plan.rounds as u64) * count(plan.clients as u64) * count(plan.turns_per_client as u64);
    report.add(Row {
        what: format!("short turn, {} clients: CPU per turn, ms", plan.clients),
        direct: None,
        servers: cpu_seconds.iter().map(|seconds| seconds * 1e3 / turns).collect(),
        goal: "≤ 0.25",
    });
    Ok(())
}

/// Memory with many idle connections, each with a session, and after all of them have closed.
async fn idle_connections(servers: &[Process], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut at_start = Vec::new();
    let mut per_connection = Vec::new();
    let mut held = Vec::new();
    for server in servers {
        sleep(SETTLE).await;
        let start_kib = server.resident_kib()?;
        let mut clients = connect_many(server.addr(), plan.idle_connections).await?;
        sleep(SETTLE).await;
        let open_kib = server.resident_kib()?;
        clients.extend(connect_many(server.addr(), plan.idle_connections).await?);
        drop(clients);
        sleep(SETTLE * 2).await;
        at_start.push(start_kib / 1024.0);
        per_connection.push((open_kib - start_kib) / count(plan.idle_connections as u64));
        held.push((server.resident_kib()? - start_kib) / 1024.0);
    }
    let rows = [
        ("resident at start, MiB".to_owned(), at_start, ""),
        ("memory per idle connection with a session, KiB".to_owned(), per_connection, "≤ 10"),
        (format!("memory held after {} connections closed, MiB", plan.idle_connections * 2), held, "≤ 15"),
    ];
    for (what, servers, goal) in rows {
        report.add(Row { what, direct: None, servers, goal });
    }
    Ok(())
}

async fn connect_each(servers: &[Process]) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for server in servers {
        clients.push(Client::connect(server.addr()).await?);
    }
    Ok(clients)
}

async fn connect_many(addr: SocketAddr, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(Client::connect(addr).await?);
    }
    Ok(clients)
}

/// Raises our own limit of open files, which the servers inherit.
fn raise_open_files() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|current| current < OPEN_FILES) {
            limit.current = Some(limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
            setrlimit(Resource::Nofile, limit).context("the limit of open files cannot be raised")?;
        }
    }
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn rate(question: Question, duration: Duration) -> f64 {
    count(question.tokens) / duration.as_secs_f64()
}

/// Counts of a run are far below what a `f64` holds exactly.
#[allow(clippy::cast_precision_loss)]
fn count(number: u64) -> f64 {
    number as f64
}
