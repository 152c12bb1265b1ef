//! A Rust program that embeds the server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jackfield::{
    HookedCall, PromptComposer, PromptContext, PromptPart, PromptSection, ServerConfig, Skill, SkillResolver,
    StorageBackend, ToolHook,
    auth::LocalTokenVerifier,
    local::{DEFAULT_LOCAL_ADDR, LocalServer},
    server::StartError,
};
use jackfield_plugin_api::linked;
use jackfield_tests::{
    client::{TestClient, answer_text, tool_results},
    model::script,
    server::{TestServer, any_port},
};
use serde_json::json;

use crate::turns::Simple;

#[tokio::test]
async fn the_address_the_seed_and_the_storage_of_the_builder_win() {
    let mut config = ServerConfig::default();
    config.port = 1;
    config.seed_kb = true;
    config.storage = StorageBackend::Postgres;
    config.model = "offline".to_owned();
    let server = LocalServer::builder().addr(any_port()).config(config).spawn().await.unwrap();
    assert_ne!(server.addr().port(), 1);
    assert_eq!(server.ws_url(), format!("ws://{}/ws", server.addr()));
    let mut client = TestClient::connect(&server.ws_url()).await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "/tools").await;
    assert!(!answer_text(&frames).contains("issue_refund"), "the demo is off unless the builder says so");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_and_an_open_address_are_refused_with_the_way_out() {
    let server = LocalServer::builder().addr(any_port()).config(ServerConfig::default()).spawn().await.unwrap();
    let taken = LocalServer::builder().addr(server.addr()).config(ServerConfig::default()).spawn().await;
    let error = taken.expect_err("the port is taken");
    assert!(matches!(error, StartError::Bind { .. }), "{error}");
    assert!(error.to_string().contains("choose another port"), "{error}");

    let open = || LocalServer::builder().addr(([0, 0, 0, 0], 0).into());
    let error = open().config(ServerConfig::default()).spawn().await.expect_err("anybody could connect");
    assert!(error.to_string().contains("--allow-unauthenticated"), "{error}");
    let mut config = ServerConfig::default();
    config.allow_unauthenticated = true;
    open().config(config).spawn().await.unwrap().shutdown().await.unwrap();
    let guarded = open().config(ServerConfig::default()).auth(Arc::new(LocalTokenVerifier::new("secret")));
    guarded.spawn().await.unwrap().shutdown().await.unwrap();
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn debug_shows_modes_and_never_a_secret() {
    assert_eq!(DEFAULT_LOCAL_ADDR, "127.0.0.1:8787");
    let builder = LocalServer::builder().auth(Arc::new(LocalTokenVerifier::new("very-secret"))).tools(Arc::new(Simple));
    let text = format!("{builder:?}");
    assert!(text.contains("local-token") && text.contains("tools: true"), "{text}");
    assert!(!text.contains("very-secret"), "{text}");
}

#[tokio::test]
async fn plugins_can_be_linked_into_the_program() {
    struct Both(Vec<Arc<dyn jackfield_plugin_api::ToolProvider>>);
    #[async_trait]
    impl jackfield_plugin_api::ToolProvider for Both {
        async fn tools_for(
            &self,
            context: &jackfield_plugin_api::ToolProviderContext,
        ) -> Vec<Arc<dyn jackfield_plugin_api::Tool>> {
            let mut tools = Vec::new();
            for provider in &self.0 {
                tools.extend(provider.tools_for(context).await);
            }
            tools
        }
    }
    let clock = linked::<jackfield_plugin_clock::Clock>(json!({})).await.unwrap();
    let server = TestServer::build(
        script().calls("current_time", json!({"zone": "UTC"})).calls("works", json!({})).says("Both."),
        |builder| builder.tools(Arc::new(Both(vec![clock, Arc::new(Simple)]))),
    )
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let frames = client.turn(&session, "go").await;
    let results = tool_results(&frames);
    assert!(results.iter().all(|(_, is_error, _)| !is_error), "{results:?}");
    assert_eq!(results.len(), 2);
    server.shutdown().await;
}

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

#[async_trait]
impl ToolHook for Recorder {
    async fn before(&self, call: HookedCall<'_>) -> Result<(), String> {
        self.0.lock().unwrap().push(format!("before {}", call.tool));
        if call.arguments["n"] == 13 { Err("thirteen is not allowed here".to_owned()) } else { Ok(()) }
    }

    async fn after(&self, call: HookedCall<'_>, result: &str, _: bool) {
        self.0.lock().unwrap().push(format!("after {}: {result}", call.tool));
    }
}

struct OneSkill;

#[async_trait]
impl SkillResolver for OneSkill {
    async fn resolve(&self, name: &str) -> Option<Skill> {
        (name == "pirate").then(|| Skill { name: name.to_owned(), body: "Talk like a pirate.".to_owned() })
    }
}

#[tokio::test]
async fn hooks_persona_and_skills_of_the_program_are_used() {
    let recorder = Arc::new(Recorder::default());
    let replies = script().calls("works", json!({"n": 13})).calls("works", json!({"n": 1})).says("Arr.");
    let server = TestServer::build(replies, |builder| {
        builder
            .tools(Arc::new(Simple))
            .tool_hooks(vec![recorder.clone()])
            .skill_resolver(Arc::new(OneSkill))
            .persona("You are the persona of a test.")
    })
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    let id = client.send_message_with(&session, "go", json!({"skill": "pirate"})).await;
    let frames = client.turn_to_end(&id).await;
    let results = tool_results(&frames);
    assert!(results[0].1 && results[0].2.contains("thirteen"), "{results:?}");
    assert!(!results[1].1);
    let seen = recorder.0.lock().unwrap().clone();
    assert_eq!(seen.len(), 3, "a refused call has no after: {seen:?}");
    let system = server.model().requests()[0].messages_of("system")[0]["content"].as_str().unwrap().to_owned();
    assert!(system.contains("persona of a test") && system.contains("pirate"), "{system}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_can_be_started_and_stopped_again_and_again() {
    for _ in 0..20 {
        let server = LocalServer::builder().addr(any_port()).config(ServerConfig::default()).spawn().await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), server.shutdown()).await.unwrap().unwrap();
    }
}

struct WithoutSuggestions;

impl PromptComposer for WithoutSuggestions {
    fn compose(&self, mut sections: Vec<PromptSection>, context: PromptContext<'_>) -> Vec<PromptSection> {
        sections.retain(|section| section.part != PromptPart::SuggestedReplies);
        let text = format!("This is conversation {}.", context.conversation_id);
        sections.push(PromptSection { part: PromptPart::Workflow, text });
        sections
    }
}

#[tokio::test]
async fn a_composer_rearranges_the_prompt() {
    let server = TestServer::build(script().says("Fine."), |builder| {
        builder.persona("A persona.").prompt_composer(Arc::new(WithoutSuggestions))
    })
    .await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "go").await;
    let requests = server.model().requests();
    let system = requests[0].messages_of("system")[0]["content"].as_str().unwrap();
    assert_eq!(system, format!("A persona.\n\nThis is conversation {}.", session.conversation_id));
    server.shutdown().await;
}

#[tokio::test]
async fn the_run_file_is_in_the_state_folder_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let builder = LocalServer::builder().addr(any_port()).config(ServerConfig::default()).state_dir(&state);
    let server = builder.spawn().await.unwrap();
    let found = jackfield::run_file::RunFile::read(&state).unwrap().expect("it is written");
    assert_eq!(found.address, server.addr());
    server.shutdown().await.unwrap();
    assert_eq!(jackfield::run_file::RunFile::read(&state).unwrap(), None);
}
