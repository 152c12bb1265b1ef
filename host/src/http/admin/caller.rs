//! Who calls the admin API. `As<Curator>` as the first argument of a handler lets in curators and admins; it is decided
//! before anything else of the request is read.

use std::{marker::PhantomData, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, request::Parts},
};
use subtle::ConstantTimeEq;

use super::answers::AdminError;
use crate::{
    auth::{AuthError, MODE_NONE, Principal, Role},
    protocol::ErrorCode,
    socket::{Live, bearer_header},
};

/// A role as a type.
pub(super) trait AtLeast: Send + Sync + 'static {
    /// The lowest role that will do.
    const ROLE: Role;
}

/// Anybody with a role.
pub(super) struct Basic;
/// Curators and admins.
pub(super) struct Curator;
/// Admins only.
pub(super) struct Admin;

impl AtLeast for Basic {
    const ROLE: Role = Role::Basic;
}

impl AtLeast for Curator {
    const ROLE: Role = Role::Curator;
}

impl AtLeast for Admin {
    const ROLE: Role = Role::Admin;
}

/// The caller, who has at least this role.
pub(super) struct As<R> {
    /// Who it is.
    pub(super) principal: Principal,
    role: PhantomData<R>,
}

impl<R: AtLeast> FromRequestParts<Arc<Live>> for As<R> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, live: &Arc<Live>) -> Result<Self, AdminError> {
        let principal = principal(live, &parts.headers).await?;
        if principal.role < R::ROLE {
            let message = format!("this needs the role {}, yours is {}", R::ROLE.as_str(), principal.role.as_str());
            return Err(AdminError::forbidden(message));
        }
        Ok(Self { principal, role: PhantomData })
    }
}

/// The holder of this run's admin token, which stands in the run file and nowhere else. What changes the code that the
/// server runs, or which files it reads, takes this as its first argument, whatever the mode is: otherwise anybody who
/// may chat as an admin could load a library, or read what only the server's user may read.
pub(super) struct Operator;

impl FromRequestParts<Arc<Live>> for Operator {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, live: &Arc<Live>) -> Result<Self, AdminError> {
        let token = bearer_header(&parts.headers)
            .ok_or_else(|| unauthenticated("this is the operator's alone: send the admin token of the run file"))?;
        if is_operator(live, token) {
            return Ok(Self);
        }
        let message = "this is the operator's alone; only the admin token of the run file lets you";
        Err(AdminError::forbidden(message))
    }
}

fn is_operator(live: &Live, token: &str) -> bool {
    token.as_bytes().ct_eq(live.admin_token.reveal().as_bytes()).into()
}

/// The run's admin token is an admin of the server's own organisation; any other token is the verifier's to judge.
/// Where nobody checks tokens, none is needed.
async fn principal(live: &Live, headers: &HeaderMap) -> Result<Principal, AdminError> {
    let auth = live.services.auth();
    let token = match bearer_header(headers) {
        Some(token) if is_operator(live, token) => {
            return Ok(Principal {
                user_id: "operator".to_owned(),
                org_id: live.services.config().org_id.clone(),
                role: Role::Admin,
                display_name: None,
                email: None,
                groups: Vec::new(),
            });
        }
        Some(token) => token,
        None if auth.mode() == MODE_NONE => "",
        None => return Err(unauthenticated("send a token: Authorization: Bearer TOKEN")),
    };
    auth.verify(token).await.map_err(|error| {
        let message = error.to_string();
        match error {
            AuthError::InvalidToken(_) => refused(StatusCode::UNAUTHORIZED, ErrorCode::InvalidToken, message),
            AuthError::MissingRole => refused(StatusCode::UNAUTHORIZED, ErrorCode::MissingRole, message),
            AuthError::Misconfigured(_) => {
                tracing::error!(%message, "tokens cannot be checked");
                refused(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::AuthMisconfigured, message)
            }
        }
    })
}

fn refused(status: StatusCode, code: ErrorCode, message: String) -> AdminError {
    AdminError::new(status, code, message)
}

fn unauthenticated(message: &str) -> AdminError {
    refused(StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated, message.to_owned())
}
