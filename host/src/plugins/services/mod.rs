//! What the host does for plugins when they ask: remembers values for them, hands out the secrets they were granted, their
//! configuration, and a folder for each conversation. Each plugin sees its own only.
//!
//! | service | body | answer |
//! |---|---|---|
//! | `kv.get/1` | `{"key": "…"}` | `{"value": …}`, null when there is none |
//! | `kv.set/1` | `{"key": "…", "value": …}` | `{}` |
//! | `kv.delete/1` | `{"key": "…"}` | `{"existed": true}` |
//! | `config/1` | – | `{"config": {…}}`, as at the start |
//! | `secret/1` | `{"name": "…"}` | `{"value": "…"}`; only names under `[plugins.ID.secrets]` |
//! | `workspace/1` | `{"conversation_id": "…"}` | `{"path": "…"}`, gone when the conversation is |
//!
//! Values live as long as the server, so they survive a reload of the plugin and not a restart of the server.

mod kv;
mod workspace;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jackfield_plugin_abi::{AbiError, kind};
use jackfield_plugin_api::GatewayKey;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use self::{kv::Stores, workspace::Workspaces};
use crate::{
    clock::SharedClock,
    config::{Limits, PluginsConfig},
    ids::PluginId,
};

/// The services, by name.
pub(super) const OFFERED: [&str; 6] = ["kv.get/1", "kv.set/1", "kv.delete/1", "config/1", "secret/1", "workspace/1"];

/// The services of one server.
pub(super) struct HostServices {
    stores: Stores,
    workspaces: Workspaces,
    secrets: BTreeMap<PluginId, BTreeMap<String, GatewayKey>>,
    /// What each plugin was handed when it was started last. Held for a few lines only.
    configs: Mutex<BTreeMap<PluginId, Value>>,
}

impl HostServices {
    pub(super) fn new(config: &PluginsConfig, limits: &Limits, clock: &SharedClock) -> Self {
        let granted = config.by_id.iter().map(|(id, settings)| (id.clone(), settings.secrets.clone()));
        Self {
            stores: Stores::new(limits.plugin_kv_bytes),
            workspaces: Workspaces::new(config.private_base(), clock.new_id(), limits.plugin_workspaces),
            secrets: granted.collect(),
            configs: Mutex::default(),
        }
    }

    /// Remembers what a plugin is handed.
    pub(super) fn configured(&self, id: &PluginId, config: Value) {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), config);
    }

    /// Forgets what belongs to a conversation that has ended. Blocks on the disk for a moment.
    pub(super) fn conversation_ended(&self, conversation_id: &str) {
        self.workspaces.remove(conversation_id);
    }

    /// Answers a plugin; `None` when there is no such service. Blocks on the disk for a moment at most.
    pub(super) fn answer(&self, id: &PluginId, service: &str, body: &[u8]) -> Option<Result<Value, AbiError>> {
        Some(match service {
            "kv.get/1" => read(service, body).map(|Key { key }| json!({ "value": self.stores.get(id, &key) })),
            "kv.set/1" => read(service, body)
                .and_then(|KeyValue { key, value }| self.stores.set(id, key, value).map(|()| json!({}))),
            "kv.delete/1" => read(service, body).map(|Key { key }| json!({ "existed": self.stores.delete(id, &key) })),
            "config/1" => {
                let configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(json!({ "config": configs.get(id).cloned().unwrap_or_else(|| json!({})) }))
            }
            "secret/1" => read(service, body).and_then(|Name { name }| self.secret(id, &name)),
            "workspace/1" => read(service, body).and_then(|Conversation { conversation_id }| {
                let path = self.workspaces.of(&conversation_id)?;
                Ok(json!({ "path": path.display().to_string() }))
            }),
            _ => return None,
        })
    }

    fn secret(&self, id: &PluginId, name: &str) -> Result<Value, AbiError> {
        match self.secrets.get(id).and_then(|granted| granted.get(name)) {
            Some(secret) => Ok(json!({ "value": secret.reveal() })),
            None => {
                let text = format!(
                    "the secret {name:?} is not granted to this plugin; the operator writes {name} = \"env:NAME\" or \"file:PATH\" under [plugins.{id}.secrets]"
                );
                Err(AbiError::new(kind::DENIED, text))
            }
        }
    }
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    value: Value,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Conversation {
    conversation_id: String,
}

fn read<T: DeserializeOwned>(service: &str, body: &[u8]) -> Result<T, AbiError> {
    serde_json::from_slice(body)
        .map_err(|error| AbiError::new(kind::INVALID_ARGUMENTS, format!("the body of {service} does not fit: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{clock::SystemClock, config::PluginSettings};

    fn services(base: &Path) -> HostServices {
        let mut config = PluginsConfig { private_folder: Some(base.to_owned()), ..PluginsConfig::default() };
        let secrets = BTreeMap::from([("KEY".to_owned(), GatewayKey::new("s3cret"))]);
        let settings = PluginSettings { secrets, ..PluginSettings::default() };
        config.by_id.insert(PluginId::new("a"), settings);
        let limits = Limits { plugin_kv_bytes: 100, plugin_workspaces: 2, ..Limits::default() };
        let clock: SharedClock = Arc::new(SystemClock);
        HostServices::new(&config, &limits, &clock)
    }

    fn ask(services: &HostServices, id: &str, service: &str, body: Value) -> Result<Value, AbiError> {
        services.answer(&PluginId::new(id), service, body.to_string().as_bytes()).expect("the service exists")
    }

    #[test]
    fn values_are_each_plugins_own_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path());
        ask(&services, "a", "kv.set/1", json!({"key": "n", "value": {"count": 1}})).unwrap();
        assert_eq!(ask(&services, "a", "kv.get/1", json!({"key": "n"})).unwrap(), json!({"value": {"count": 1}}));
        assert_eq!(ask(&services, "b", "kv.get/1", json!({"key": "n"})).unwrap(), json!({"value": null}));
        let error = ask(&services, "a", "kv.set/1", json!({"key": "m", "value": "x".repeat(200)})).unwrap_err();
        assert!(error.to_string().contains("plugin_kv_bytes"), "{error}");
        assert_eq!(ask(&services, "a", "kv.delete/1", json!({"key": "n"})).unwrap(), json!({"existed": true}));
        assert_eq!(ask(&services, "a", "kv.delete/1", json!({"key": "n"})).unwrap(), json!({"existed": false}));
        assert!(ask(&services, "a", "kv.get/1", json!({})).unwrap_err().to_string().contains("kv.get/1"));
        assert!(services.answer(&PluginId::new("a"), "kv.list/1", b"").is_none());
    }

    #[test]
    fn secrets_are_handed_out_as_granted() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path());
        assert_eq!(ask(&services, "a", "secret/1", json!({"name": "KEY"})).unwrap(), json!({"value": "s3cret"}));
        for (id, name) in [("a", "OTHER"), ("b", "KEY")] {
            let error = ask(&services, id, "secret/1", json!({ "name": name })).unwrap_err();
            assert!(error.kind == kind::DENIED && error.to_string().contains("[plugins."), "{error}");
        }
    }

    #[test]
    fn a_configuration_is_what_the_plugin_was_handed() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path());
        assert_eq!(ask(&services, "a", "config/1", json!(null)).unwrap(), json!({"config": {}}));
        services.configured(&PluginId::new("a"), json!({"zone": "UTC"}));
        assert_eq!(ask(&services, "a", "config/1", json!(null)).unwrap(), json!({"config": {"zone": "UTC"}}));
    }

    #[test]
    fn a_conversation_has_a_folder_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(folder.path());
        let of = |id: &str| ask(&services, "a", "workspace/1", json!({ "conversation_id": id }));
        let id = SystemClock.new_id_text();
        let path = of(&id).unwrap()["path"].as_str().unwrap().to_owned();
        assert!(Path::new(&path).is_dir() && of(&id).unwrap()["path"] == path.as_str());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert!(of("../../etc").unwrap_err().to_string().contains("conversation"));
        of(&SystemClock.new_id_text()).unwrap();
        assert!(of(&SystemClock.new_id_text()).unwrap_err().to_string().contains("plugin_workspaces"));
        services.conversation_ended(&id);
        assert!(!Path::new(&path).exists());
        of(&SystemClock.new_id_text()).unwrap();
        drop(services);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }

    trait IdText {
        fn new_id_text(&self) -> String;
    }

    impl IdText for SystemClock {
        fn new_id_text(&self) -> String {
            crate::clock::Clock::new_id(self).to_string()
        }
    }
}
