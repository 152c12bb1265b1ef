//! The kinds of connectors: which there are, what each needs, and why others are refused. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ConnectorError;

/// A kind of connector that this server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectorKind {
    /// Files of a folder, or one file.
    File,
}

/// What a connector needs to know. Which keys there must be depends on the kind: `file` needs `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectorConfig {
    /// Kind `file`: the folder or file, as an absolute path on the server's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Kind `web`, which this server does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Kind `github`, which this server does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// As `owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// As `owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#ref: Option<String>,
    /// As `owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// As `owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_ref: Option<String>,
}

/// Reads kind and configuration: where the connector's documents are.
pub(super) fn place(kind: &str, config: &ConnectorConfig) -> Result<(ConnectorKind, PathBuf), ConnectorError> {
    let invalid = |message: String| Err(ConnectorError::Invalid(message));
    match kind {
        "file" => {}
        "web" => {
            return invalid(
                "this server has no connector of kind web: it fetches nothing from the network. Kind file exists; save \
                 the pages to a folder that knowledge.roots opens"
                    .to_owned(),
            );
        }
        "github" => {
            return invalid(
                "this server has no connector of kind github; clone the repository into a folder that knowledge.roots \
                 opens, and use kind file"
                    .to_owned(),
            );
        }
        other => return invalid(format!("expected one of the kinds file, web, github, got {other:?}")),
    }
    let ConnectorConfig { path, url, owner, repo, r#ref, visibility, auth_ref } = config;
    let foreign = [
        ("url", url),
        ("owner", owner),
        ("repo", repo),
        ("ref", r#ref),
        ("visibility", visibility),
        ("auth_ref", auth_ref),
    ];
    if let Some((name, _)) = foreign.into_iter().find(|(_, value)| value.is_some()) {
        return invalid(format!("config.{name} is not of kind file, which has path alone"));
    }
    let Some(path) = path.as_deref().map(str::trim).filter(|path| !path.is_empty()) else {
        return invalid("kind file needs config.path, the absolute path of a folder or file".to_owned());
    };
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return invalid(format!("config.path has to be absolute, got {path:?}"));
    }
    Ok((ConnectorKind::File, path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_taken_or_refused_with_its_reason() {
        let with_path = |path: &str| ConnectorConfig { path: Some(path.to_owned()), ..ConnectorConfig::default() };
        assert_eq!(place("file", &with_path(" /docs ")).unwrap(), (ConnectorKind::File, "/docs".into()));
        let foreign = ConnectorConfig { url: Some("https://h".to_owned()), ..with_path("/docs") };
        for (kind, config, expected) in [
            ("web", &foreign, "fetches nothing from the network"),
            ("github", &foreign, "clone the repository"),
            ("ftp", &foreign, "one of the kinds file, web, github, got \"ftp\""),
            ("", &foreign, "one of the kinds"),
            ("file", &foreign, "config.url is not of kind file"),
            ("file", &ConnectorConfig::default(), "needs config.path"),
            ("file", &with_path(" "), "needs config.path"),
            ("file", &with_path("docs"), "has to be absolute, got \"docs\""),
        ] {
            let error = place(kind, config).unwrap_err().to_string();
            assert!(error.contains(expected), "{kind}: {error}");
        }
    }
}
