//! Values that plugins ask the host to remember, each plugin's for itself, within a number of bytes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use jackfield_plugin_abi::{AbiError, kind};
use serde_json::Value;

use crate::ids::PluginId;

/// The values of all plugins.
pub(super) struct Stores {
    /// What the keys and values of one plugin may have together, as JSON text.
    bytes_max: usize,
    /// Held for a few lines only.
    by_plugin: Mutex<HashMap<PluginId, Store>>,
}

#[derive(Default)]
struct Store {
    values: BTreeMap<String, Value>,
    bytes: usize,
}

impl Stores {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, by_plugin: Mutex::default() }
    }

    pub(super) fn get(&self, id: &PluginId, key: &str) -> Option<Value> {
        self.lock().get(id)?.values.get(key).cloned()
    }

    /// Remembers a value in the place of the one before.
    pub(super) fn set(&self, id: &PluginId, key: String, value: Value) -> Result<(), AbiError> {
        let fresh = size(&key, &value);
        let mut stores = self.lock();
        let store = stores.entry(id.clone()).or_default();
        let before = store.values.get(&key).map_or(0, |before| size(&key, before));
        let bytes = store.bytes - before + fresh;
        if bytes > self.bytes_max {
            let max = self.bytes_max;
            let text = format!(
                "the values of this plugin would have {bytes} bytes, the limit plugin_kv_bytes is {max}; delete some"
            );
            return Err(AbiError::new(kind::FAILED, text));
        }
        store.bytes = bytes;
        store.values.insert(key, value);
        Ok(())
    }

    /// Forgets a value; whether there was one.
    pub(super) fn delete(&self, id: &PluginId, key: &str) -> bool {
        let mut stores = self.lock();
        let Some(store) = stores.get_mut(id) else { return false };
        match store.values.remove(key) {
            Some(value) => {
                store.bytes -= size(key, &value);
                true
            }
            None => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PluginId, Store>> {
        self.by_plugin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(key: &str, value: &Value) -> usize {
    key.len() + value.to_string().len()
}
