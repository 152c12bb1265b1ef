//! Whole conversations from files, each replayed many times on all threads, because order that holds by luck holds
//! nearly always.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jackfield::local::LocalServer;
use jackfield_tests::{
    model::{ScriptedModel, script},
    scenario::Scenario,
    server::{any_port, config_for},
};
use tokio::task::JoinSet;

use crate::turns::Simple;

/// How often each scenario is replayed.
const RUNS: usize = 200;

/// How many runs go on at the same time.
const AT_A_TIME: usize = 8;

macro_rules! scenarios {
    ($($name:ident,)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                replay(stringify!($name)).await;
            }
        )*
    };
}

scenarios! {
    cancel_before_the_next_message,
    cancel_from_another_socket,
    cancel_of_a_waiting_call,
    cancel_with_nothing_running,
    citations,
    confirmation_approved,
    confirmation_denied,
    confirmations_one_after_the_other,
    history,
    interaction_choices,
    interaction_declined,
    interaction_in_prose,
    interaction_intake,
    interaction_stale_id,
    keyless_server,
    one_turn_at_a_time,
    ping,
    resume_after_a_lost_socket,
    session,
    streamed_turn,
    suggested_replies,
    tool_call,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios")
}

#[test]
fn every_file_is_replayed() {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    found.sort();
    assert_eq!(found, NAMES);
}

/// One server for all runs; each has conversations of its own and replies of its own.
async fn replay(name: &str) {
    let scenario = Arc::new(Scenario::read(&folder().join(format!("{name}.json"))));
    let model = Arc::new(ScriptedModel::start(script()).await);
    let mut config = config_for(&model);
    config.confirm_tools = scenario.server.confirm.clone();
    if !scenario.server.key {
        config.gateway_key = None;
    }
    let builder = LocalServer::builder().addr(any_port()).config(config).seed_kb(scenario.server.seed);
    let server = builder.tools(Arc::new(Simple)).spawn().await.unwrap();

    let mut runs = JoinSet::new();
    for number in 0..RUNS {
        if runs.len() == AT_A_TIME {
            runs.join_next().await.unwrap().unwrap();
        }
        let (scenario, model, url) = (scenario.clone(), model.clone(), server.ws_url());
        let label = format!("{name}-{number}");
        runs.spawn(async move {
            model.append(scenario.script_for(&label));
            scenario.play(&url, &label).await;
            assert_eq!(model.left_for(&label), 0, "{label}: the gateway was not asked for everything");
        });
    }
    while let Some(ended) = runs.join_next().await {
        ended.unwrap();
    }
    server.shutdown().await.unwrap();
    assert_eq!(model.take_violations(), Vec::<String>::new());
}
