//! Whose conversations a caller can see. The answer follows from the verified token alone, never from anything a
//! frame says. What is not the caller's does not exist for the caller.

use super::{
    Principal,
    verifiers::{MODE_DISABLED, MODE_LOCAL_TOKEN, MODE_NONE},
};
use crate::storage::OwnerFilter;

/// What a caller may see of what people own. A conversation is owned by the address of every visitor in it that has
/// one; a conversation without such an address is ownerless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserScope {
    /// Everything: the server tells no users apart.
    Unscoped,
    /// What this address owns, and what is ownerless. Trimmed and lower case.
    User(String),
    /// Only what is ownerless.
    Denied,
    /// Anything it can name by id, which is its capability; lists show only what is ownerless.
    AnonymousById,
}

impl UserScope {
    /// The scope of a connection, from its verified principal and the mode of the server's verifier (`None` when
    /// there is no verifier).
    pub fn of(principal: Option<&Principal>, mode: Option<&str>) -> Self {
        match (mode, principal) {
            (None | Some(MODE_NONE | MODE_LOCAL_TOKEN | MODE_DISABLED), _) => UserScope::Unscoped,
            (_, None) => UserScope::AnonymousById,
            (_, Some(principal)) => match principal.email.as_deref().and_then(normal_email) {
                Some(email) => UserScope::User(email),
                None => UserScope::Denied,
            },
        }
    }

    /// Whether a conversation that the caller names by id is visible, given the addresses of its visitors.
    pub fn sees_by_id<'a>(&self, owner_emails: impl IntoIterator<Item = &'a str>) -> bool {
        let mut owners = owner_emails.into_iter().filter_map(normal_email).peekable();
        let ownerless = owners.peek().is_none();
        match self {
            UserScope::Unscoped | UserScope::AnonymousById => true,
            UserScope::User(email) => ownerless || owners.any(|owner| owner == *email),
            UserScope::Denied => ownerless,
        }
    }

    /// What a list shows.
    pub fn owner_filter(&self) -> OwnerFilter {
        match self {
            UserScope::Unscoped => OwnerFilter::Everyone,
            UserScope::User(email) => OwnerFilter::OwnedByOrOwnerless(email.clone()),
            UserScope::Denied | UserScope::AnonymousById => OwnerFilter::OwnerlessOnly,
        }
    }
}

/// Who speaks on a connection: the verified principal, if any, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The verified principal.
    pub principal: Option<Principal>,
    /// What it sees.
    pub scope: UserScope,
}

impl Caller {
    /// Derives the scope.
    pub fn new(principal: Option<Principal>, mode: Option<&str>) -> Self {
        let scope = UserScope::of(principal.as_ref(), mode);
        Self { principal, scope }
    }

    /// The organisation of what this caller creates and lists.
    pub fn org_id<'a>(&'a self, local_org: &'a str) -> &'a str {
        self.principal.as_ref().map_or(local_org, |principal| &principal.org_id)
    }

    /// Whether a conversation that the caller names by id exists for it. A principal reaches only its own
    /// organisation, also when unscoped; a caller without one has no organisation to compare.
    pub fn sees_by_id<'a>(&self, org_id: &str, owner_emails: impl IntoIterator<Item = &'a str>) -> bool {
        let same_org = self.principal.as_ref().is_none_or(|principal| principal.org_id == org_id);
        same_org && self.scope.sees_by_id(owner_emails)
    }
}

/// The form in which addresses are compared; a blank one is none.
pub fn normal_email(email: &str) -> Option<String> {
    let email = email.trim();
    (!email.is_empty()).then(|| email.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn principal(email: Option<&str>) -> Principal {
        Principal {
            user_id: "u1".into(),
            org_id: "acme".into(),
            role: Role::Basic,
            display_name: None,
            email: email.map(str::to_owned),
            groups: Vec::new(),
        }
    }

    #[test]
    fn the_scope_follows_from_the_mode_and_the_principal() {
        let alice = principal(Some(" Alice@Example.com "));
        for (mode, principal, expected) in [
            (None, None, UserScope::Unscoped),
            (Some("none"), Some(&alice), UserScope::Unscoped),
            (Some("local-token"), None, UserScope::Unscoped),
            (Some("disabled"), None, UserScope::Unscoped),
            (Some("jwt"), None, UserScope::AnonymousById),
            (Some("jwt"), Some(&alice), UserScope::User("alice@example.com".into())),
            (Some("jwt"), Some(&principal(None)), UserScope::Denied),
            (Some("jwt"), Some(&principal(Some("  "))), UserScope::Denied),
        ] {
            assert_eq!(UserScope::of(principal, mode), expected, "{mode:?}");
        }
    }

    #[test]
    fn what_each_scope_sees() {
        let user = UserScope::User("alice@example.com".into());
        let (nobody, hers, his): (&[&str], &[&str], &[&str]) =
            (&["", " "], &["bob@example.com", " ALICE@example.com"], &["bob@example.com"]);
        for (scope, sees) in [
            (UserScope::Unscoped, [true, true, true]),
            (user, [true, true, false]),
            (UserScope::Denied, [true, false, false]),
            (UserScope::AnonymousById, [true, true, true]),
        ] {
            let seen = [nobody, hers, his].map(|owners| scope.sees_by_id(owners.iter().copied()));
            assert_eq!(seen, sees, "{scope:?}");
        }
        assert_eq!(UserScope::AnonymousById.owner_filter(), OwnerFilter::OwnerlessOnly);
        assert_eq!(UserScope::Unscoped.owner_filter(), OwnerFilter::Everyone);
    }

    #[test]
    fn a_principal_stays_in_its_organisation_even_when_unscoped() {
        let admin = Caller::new(Some(principal(None)), Some("none"));
        assert!(admin.sees_by_id("acme", []) && !admin.sees_by_id("other", []));
        assert_eq!(admin.org_id("reference-org"), "acme");
        let anonymous = Caller::new(None, Some("none"));
        assert!(anonymous.sees_by_id("acme", []));
        assert_eq!(anonymous.org_id("reference-org"), "reference-org");
    }
}
