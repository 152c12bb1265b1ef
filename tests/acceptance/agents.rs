//! What single agents are: how they speak, what they may use and with which model, from the configuration or from the
//! embedding program.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use jackfield::{
    AgentConfig, AgentConfigResolver, AgentQuery, AgentUnavailable, PersonaOrigin, PromptComposer, PromptContext,
    PromptPart, PromptSection, ServerConfig,
};
use jackfield_plugin_api::{CallContext, Tool, ToolError, ToolOutput, ToolProvider, ToolProviderContext, ToolSchema};
use jackfield_tests::{
    client::{AGENT_ID, TestClient, TestSession, answer_text, kinds, tool_results},
    model::{CapturedRequest, script},
    server::TestServer,
};
use serde_json::{Value, json};

use crate::turns::Simple;

fn config_with(agent: AgentConfig) -> impl FnOnce(&mut ServerConfig) {
    move |config| {
        config.persona = Some("The host's persona.".to_owned());
        config.agents.insert(AGENT_ID.to_uppercase(), agent);
    }
}

fn agent(change: impl FnOnce(&mut AgentConfig)) -> AgentConfig {
    let mut agent = AgentConfig::default();
    change(&mut agent);
    agent
}

fn system_prompt(request: &CapturedRequest) -> &str {
    request.messages_of("system")[0]["content"].as_str().unwrap()
}

async fn session_of(client: &mut TestClient, agent_id: &str) -> TestSession {
    client.create_session_with(json!({"agentId": agent_id})).await
}

#[tokio::test]
async fn an_agent_speaks_in_its_own_words_and_greets_once() {
    let agent = agent(|agent| {
        agent.instructions = Some("You are Ava.".to_owned());
        agent.personality = Some("Dry humour.".to_owned());
        agent.greeting = Some("Ahoy!".to_owned());
        agent.model = Some("large".to_owned());
    });
    let server = TestServer::with_config(script().says("Fine.").forever(), config_with(agent)).await;
    let mut client = server.connect().await;
    let session = client.create_session().await;
    client.turn(&session, "hi").await;
    client.turn(&session, "again").await;
    let id = client.send_message_with(&session, "with another model", json!({"model": "small"})).await;
    client.turn_to_end(&id).await;
    let requests = server.model().requests();
    let first = system_prompt(&requests[0]);
    assert!(first.starts_with("You are Ava.\n\nDry humour.\n\n"), "{first}");
    assert!(first.find("Ahoy!") < first.find("suggested_replies"), "{first}");
    assert!(!first.contains("The host's persona."));
    assert!(!system_prompt(&requests[1]).contains("Ahoy!"), "there is a history now");
    let models: Vec<&str> = requests.iter().map(|request| request.body["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["large", "large", "small"]);

    // An agent that nobody described gets the defaults.
    let session = session_of(&mut client, "99999999-0000-4000-8000-000000000009").await;
    client.turn(&session, "hi").await;
    let requests = server.model().requests();
    let unknown = requests.last().unwrap();
    assert!(system_prompt(unknown).starts_with("The host's persona."));
    assert_eq!(unknown.body["model"], "scripted");
    server.shutdown().await;
}

/// Offers one tool that tells what the provider was told.
struct TellsConfig;

struct Tells(String);

#[async_trait]
impl Tool for Tells {
    fn schema(&self) -> ToolSchema {
        ToolSchema::new("tells", "a tool of a test", json!({"type": "object"}))
    }

    async fn execute(&self, _: Value, _: CallContext) -> Result<ToolOutput, ToolError> {
        Ok(self.0.clone().into())
    }
}

#[async_trait]
impl ToolProvider for TellsConfig {
    async fn tools_for(&self, context: &ToolProviderContext) -> Vec<Arc<dyn Tool>> {
        let told = json!({"config": context.tool_specific_config, "model": context.model}).to_string();
        let mut tools = Simple.tools_for(context).await;
        tools.push(Arc::new(Tells(told)));
        tools
    }
}

#[tokio::test]
async fn an_agent_has_its_own_tools_their_configuration_and_its_own_ceiling() {
    let agent = agent(|agent| {
        agent.enabled_tools = ["tells", "request_choices"].map(str::to_owned).into();
        agent.tool_config = BTreeMap::from([("tells".to_owned(), json!({"currency": "EUR"}))]);
        agent.max_iterations = Some(2);
        agent.model = Some("large".to_owned());
    });
    let replies = script().calls("tells", json!({})).calls("tells", json!({})).says("Never asked for.");
    let change = |config: &mut ServerConfig| drop(config.agents.insert("ava".to_owned(), agent));
    let server = TestServer::build_with(replies, change, |builder| builder.tools(Arc::new(TellsConfig))).await;
    let mut client = server.connect().await;
    let session = session_of(&mut client, "Ava").await;
    let frames = client.turn(&session, "hi").await;
    let requests = server.model().requests();
    assert_eq!(requests.len(), 2, "the agent's ceiling holds");
    assert_eq!(requests[0].tool_names(), ["request_choices", "submit_interaction", "tells"]);
    let told: Value = serde_json::from_str(tool_results(&frames)[0].2).unwrap();
    assert_eq!(told, json!({"config": {"tells": {"currency": "EUR"}}, "model": "large"}));
    assert_eq!(frames.last().unwrap()["type"], "eventual_response");

    // A client that shows choices needs no tool to report them; others of this agent's tools are still out of reach.
    let fields = json!({"agentId": "ava", "supports": ["choice_chips"]});
    let session = client.create_session_with(fields).await;
    server.model().replace(script().calls("works", json!({})).says("Not mine."));
    let frames = client.turn(&session, "hi").await;
    assert!(tool_results(&frames)[0].1);
    assert_eq!(server.model().requests()[2].tool_names(), ["request_choices", "tells"]);
    server.shutdown().await;
}

/// Knows `known`, fails for `broken`, hangs for `slow`, and knows no other agent.
struct Resolver;

#[async_trait]
impl AgentConfigResolver for Resolver {
    async fn resolve(&self, query: AgentQuery<'_>) -> Result<Option<Arc<AgentConfig>>, AgentUnavailable> {
        assert!(!query.org_id.is_empty() && !query.conversation_id.is_empty());
        match query.agent_id {
            "known" => Ok(Some(Arc::new(agent(|agent| agent.instructions = Some("From the program.".to_owned()))))),
            "broken" => Err(AgentUnavailable("the database password is hunter2".to_owned())),
            "slow" => std::future::pending().await,
            "panics" => panic!("a bug in the program"),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn the_embedding_program_knows_agents_and_what_it_cannot_say_fails_the_turn() {
    let change = |config: &mut ServerConfig| {
        config.limits.agent_config = Duration::from_millis(100);
        for name in ["known", "written"] {
            config
                .agents
                .insert(name.to_owned(), agent(|agent| agent.instructions = Some("From the file.".to_owned())));
        }
    };
    let replies = script().says("Fine.").forever();
    let server = TestServer::build_with(replies, change, |builder| builder.agents(Arc::new(Resolver))).await;
    let mut client = server.connect().await;
    for (agent_id, expected) in [("known", "From the program."), ("written", "From the file.")] {
        let session = session_of(&mut client, agent_id).await;
        client.turn(&session, "hi").await;
        let requests = server.model().requests();
        let system = system_prompt(requests.last().unwrap());
        assert!(system.starts_with(expected), "{agent_id}: {system}");
    }
    let asked = server.model().requests().len();
    for agent_id in ["broken", "slow", "panics"] {
        let session = session_of(&mut client, agent_id).await;
        let frames = client.turn(&session, "hi").await;
        let error = frames.last().unwrap();
        assert_eq!(error["error"]["code"], "AGENT_ERROR", "{agent_id}");
        assert!(!error.to_string().contains("hunter2"));
    }
    assert_eq!(server.model().requests().len(), asked, "no model is asked with the wrong rules");
    let session = session_of(&mut client, "unknown").await;
    assert_eq!(answer_text(&client.turn(&session, "hi").await), "Fine.");
    server.shutdown().await;
}

/// Writes what it is told into the prompt.
struct TellsOrigin;

impl PromptComposer for TellsOrigin {
    fn compose(&self, _: Vec<PromptSection>, context: PromptContext<'_>) -> Vec<PromptSection> {
        let text = format!("{:?} {} {:?}", context.persona_origin, context.session_is_verified, context.agent.greeting);
        vec![PromptSection { part: PromptPart::Persona, text }]
    }
}

#[tokio::test]
async fn a_composer_is_told_whose_words_the_persona_is() {
    let own = agent(|agent| {
        agent.instructions = Some("Mine.".to_owned());
        agent.greeting = Some("Ahoy!".to_owned());
    });
    let change = config_with(own);
    let replies = script().says("Fine.").forever();
    let server =
        TestServer::build_with(replies, change, |builder| builder.prompt_composer(Arc::new(TellsOrigin))).await;
    let mut client = server.connect().await;
    for (agent_id, origin, greeting) in
        [(AGENT_ID, PersonaOrigin::Agent, "Some(\"Ahoy!\")"), ("unknown", PersonaOrigin::Host, "None")]
    {
        let session = session_of(&mut client, agent_id).await;
        assert_eq!(kinds(&client.turn(&session, "hi").await).last(), Some(&"eventual_response"));
        let requests = server.model().requests();
        assert_eq!(system_prompt(requests.last().unwrap()), format!("{origin:?} false {greeting}"));
    }
    server.shutdown().await;
}
