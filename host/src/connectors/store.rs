//! The connectors of the admin API, in memory. Pure.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ConnectorConfig, ConnectorError, ConnectorKind};

/// Longest name of a connector, in characters.
const NAME_CHARS_MAX: usize = 200;

/// A connector, as the protocol shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connector {
    /// Names the connector.
    pub id: String,
    /// For people; also the set of its documents.
    pub name: String,
    /// Its kind.
    pub kind: ConnectorKind,
    /// What its kind needs.
    pub config: ConnectorConfig,
    /// Whether it may be indexed. What was indexed before stays.
    pub enabled: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last replaced.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// What a caller says about a connector.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewConnector {
    /// For people; also the set of its documents.
    pub name: String,
    /// Only `file` exists here.
    pub kind: String,
    /// What its kind needs.
    #[serde(default)]
    pub config: ConnectorConfig,
    /// Whether it may be indexed.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

impl NewConnector {
    /// The name, checked.
    pub(super) fn checked_name(&self) -> Result<String, ConnectorError> {
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains(char::is_control) {
            let expected = format!("a connector needs a name of 1 to {NAME_CHARS_MAX} printable characters");
            return Err(ConnectorError::Invalid(expected));
        }
        Ok(name.to_owned())
    }
}

/// A connector and where it reads.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) connector: Connector,
    pub(super) path: PathBuf,
}

/// Connectors by organisation and id.
#[derive(Debug, Default)]
pub(super) struct Store {
    by_id: BTreeMap<(String, String), Stored>,
}

impl Store {
    pub(super) fn insert(&mut self, org_id: &str, stored: Stored, max: usize) -> Result<(), ConnectorError> {
        let key = (org_id.to_owned(), stored.connector.id.clone());
        if self.by_id.len() >= max && !self.by_id.contains_key(&key) {
            return Err(ConnectorError::Full { limit: "connectors", max });
        }
        self.by_id.insert(key, stored);
        Ok(())
    }

    pub(super) fn get(&self, org_id: &str, id: &str) -> Result<&Stored, ConnectorError> {
        self.by_id.get(&(org_id.to_owned(), id.to_owned())).ok_or(ConnectorError::Unknown)
    }

    pub(super) fn remove(&mut self, org_id: &str, id: &str) -> Result<Stored, ConnectorError> {
        self.by_id.remove(&(org_id.to_owned(), id.to_owned())).ok_or(ConnectorError::Unknown)
    }

    /// The connectors of an organisation, oldest first.
    pub(super) fn of_org(&self, org_id: &str) -> Vec<Connector> {
        let own = self.by_id.iter().filter(|((org, _), _)| org == org_id);
        let mut own: Vec<Connector> = own.map(|(_, stored)| stored.connector.clone()).collect();
        own.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
        own
    }
}
