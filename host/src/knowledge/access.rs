//! Who may find a document. Organisation and reader make one term, so that one filter answers for both, in the index
//! as among the vectors. Pure.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Document;

/// Groups of a requester that take part in a search; further ones give no access.
const GROUPS_MAX: usize = 256;

/// Who may find a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentAcl {
    /// Everyone in the organisation.
    #[serde(default)]
    pub public: bool,
    /// These user ids.
    #[serde(default)]
    pub users: Vec<String>,
    /// Members of these groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// An access rule that cannot be read. Its document must not be indexed: without the rule everyone would find it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{{public: bool, users: [], groups: []}} was expected as access rule: {0}")]
pub struct AclError(pub String);

impl DocumentAcl {
    /// Reads the metadata value `acl_v2` of a document: `{"public": bool, "users": [], "groups": []}`, each of them
    /// optional.
    ///
    /// # Errors
    ///
    /// [`AclError`] for anything else, a key that is not known included: it may have been meant to keep somebody out.
    pub fn from_acl_v2(json: &str) -> Result<Self, AclError> {
        serde_json::from_str(json).map_err(|error| AclError(error.to_string()))
    }
}

/// Who asks: decides which documents can be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requester {
    /// The organisation of the turn.
    pub org_id: String,
    /// The verified user, if any.
    pub user_id: Option<String>,
    /// The user's groups.
    pub groups: Vec<String>,
}

/// A reader within an organisation.
enum Reader<'a> {
    Everyone,
    User(&'a str),
    Group(&'a str),
}

/// The terms under which a document can be found.
pub(super) fn audiences_of(document: &Document) -> Vec<String> {
    let org = &document.org_id;
    match &document.acl {
        None => vec![audience(org, Reader::Everyone)],
        Some(acl) if acl.public => vec![audience(org, Reader::Everyone)],
        Some(acl) => {
            let users = acl.users.iter().map(|user| audience(org, Reader::User(user)));
            let groups = acl.groups.iter().map(|group| audience(org, Reader::Group(group)));
            users.chain(groups).collect()
        }
    }
}

/// The terms that the requester may use.
pub(super) fn audiences_for(requester: &Requester) -> BTreeSet<String> {
    let org = &requester.org_id;
    let user = requester.user_id.as_deref().map(|user| audience(org, Reader::User(user)));
    let groups = requester.groups.iter().take(GROUPS_MAX).map(|group| audience(org, Reader::Group(group)));
    [audience(org, Reader::Everyone)].into_iter().chain(user).chain(groups).collect()
}

/// The term that every document of an organisation has, whoever may find it. No requester is ever given it: it counts
/// what an access rule hides.
pub(super) fn whole_organisation(org_id: &str) -> String {
    format!("{}:{org_id}!", org_id.len())
}

/// The length in front keeps one organisation's names apart from another's, whatever characters they hold.
fn audience(org_id: &str, reader: Reader<'_>) -> String {
    let length = org_id.len();
    match reader {
        Reader::Everyone => format!("{length}:{org_id}*"),
        Reader::User(user) => format!("{length}:{org_id}u{user}"),
        Reader::Group(group) => format!("{length}:{org_id}g{group}"),
    }
}

/// Organisation and id of a document as one term, as for an audience.
pub(super) fn document_key(org_id: &str, id: &str) -> String {
    format!("{}:{org_id}{id}", org_id.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_name_reaches_into_another_organisation() {
        let requester = |org: &str, user: &str| Requester {
            org_id: org.to_owned(),
            user_id: Some(user.to_owned()),
            groups: vec![user.to_owned()],
        };
        let open = |org: &str| audiences_of(&Document { org_id: org.to_owned(), ..Document::new("d", "text") });
        for org in ["a", "ab", "1:a", "a*", ""] {
            for other in ["b", "a", "au", "a!"] {
                let terms = audiences_for(&requester(org, "*"));
                assert_eq!(open(other).iter().any(|term| terms.contains(term)), org == other, "{org} {other}");
                assert!(!terms.contains(&whole_organisation(other)));
            }
        }
        assert_ne!(document_key("a", "bc"), document_key("ab", "c"));
    }

    #[test]
    fn a_rule_is_read_strictly() {
        let rule = DocumentAcl::from_acl_v2(r#"{"public": false, "users": ["ann"], "groups": []}"#).unwrap();
        assert_eq!(rule, DocumentAcl { users: vec!["ann".to_owned()], ..DocumentAcl::default() });
        assert_eq!(DocumentAcl::from_acl_v2("{}").unwrap(), DocumentAcl::default());
        for wrong in ["", "true", r#"{"user": ["ann"]}"#, r#"{"users": "ann"}"#, r#"{"public": "yes"}"#] {
            let error = DocumentAcl::from_acl_v2(wrong).unwrap_err();
            assert!(error.to_string().contains("users: []"), "{wrong}: {error}");
        }
    }
}
