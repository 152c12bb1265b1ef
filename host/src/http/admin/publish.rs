//! Sends an event to open connections, exactly as it is given.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    answers::{AdminError, Answer, CallerRefusals, Malformed, TooLong},
    caller::{Admin, As},
    input::Body,
};
use crate::{
    ids::{ConnectionId, SessionId},
    outgoing::Target,
    protocol::{Event, EventFrame},
    socket::Live,
};

/// An event, and whom it is for.
#[derive(Deserialize, ToSchema)]
pub(super) struct Publication {
    target: TargetName,
    /// A frame of the protocol; delivered as it is.
    #[schema(value_type = Object)]
    event: Box<RawValue>,
}

/// Whom an event is for.
#[derive(Deserialize, ToSchema)]
#[schema(as = PublishTarget)]
pub(super) struct TargetName {
    r#type: TargetKind,
    /// Of the connection, session, user, organisation or agent.
    id: String,
}

/// What kind of target.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PublishTargetType)]
pub(super) enum TargetKind {
    Connection,
    Session,
    User,
    Org,
    Agent,
}

/// How many connections got it.
#[derive(Serialize, ToSchema)]
pub(super) struct Delivered {
    delivered: usize,
}

/// Publishes an event to the caller's organisation; a target of another one is unknown, and an unknown target has no
/// connections.
#[utoipa::path(
    post, path = "/admin/publish", operation_id = "publish", tag = "admin", request_body = Publication,
    responses(
        (status = 200, body = Delivered, description = "to how many connections it went"),
        Malformed, TooLong, CallerRefusals
    )
)]
pub(super) async fn publish(
    caller: As<Admin>,
    State(live): State<Arc<Live>>,
    Body(Publication { target, event }): Body<Publication>,
) -> Answer<Delivered> {
    // A client reads objects only, and a frame of anything else would look like a fault of the server.
    if !event.get().starts_with('{') {
        return Err(AdminError::invalid("event must be an object, which is sent as a frame of its own"));
    }
    let org_id = &caller.principal.org_id;
    let now = live.services.clock().now().as_millisecond();
    let frame = EventFrame::new(None, now, Event::Published(event.get().into()));
    let delivered = match target.within(org_id) {
        Some(target) => live.services.subscriptions.publish(org_id, target, frame),
        None => 0,
    };
    Ok(Json(Delivered { delivered }))
}

impl TargetName {
    /// The target, unless the id can name none.
    fn within(self, org_id: &str) -> Option<Target> {
        match self.r#type {
            TargetKind::Connection => ConnectionId::parse(&self.id).map(Target::Connection),
            TargetKind::Session => SessionId::parse(&self.id).map(Target::Session),
            TargetKind::User => Some(Target::User(self.id)),
            TargetKind::Org => (self.id == org_id).then_some(Target::Org),
            TargetKind::Agent => Some(Target::Agent(self.id)),
        }
    }
}
