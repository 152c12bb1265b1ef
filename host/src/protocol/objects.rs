//! The rows and values that events carry, as clients see them: the strict shapes, with no key more than the published
//! clients allow. They are filled from storage by whoever answers; storage rows themselves never reach the wire.

use std::str::FromStr;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::schema;
use crate::ids::{ConversationId, MessageId, ParticipantId};

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageDirection {
    /// The visitor.
    Inbound,
    /// The agent.
    Outbound,
}

/// What kind of participant wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ParticipantType {
    /// A visitor.
    User,
    /// The agent.
    AiAgent,
}

/// One message of a history page.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageRow {
    /// Its id.
    pub id: MessageId,
    /// Who wrote it.
    pub direction: MessageDirection,
    /// What it says.
    pub content: MessageContent,
    /// Who sent it, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ParticipantRow>,
    /// When it was stored.
    #[serde(serialize_with = "instant")]
    #[schemars(schema_with = "schema::instant")]
    pub created_at: Timestamp,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MessageContent {
    /// The text; may be empty when the message was only pictures.
    pub text: String,
}

/// A participant as a message names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ParticipantRow {
    /// Its id.
    pub id: ParticipantId,
    /// Visitor or agent.
    #[serde(rename = "type")]
    pub kind: ParticipantType,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One conversation of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConversationRow {
    /// Its id.
    pub conversation_id: ConversationId,
    /// Its title, see [`display_title`].
    #[schemars(description = "Its title.")]
    pub title: String,
    /// When its last message or rename was.
    #[serde(serialize_with = "instant")]
    #[schemars(schema_with = "schema::instant")]
    pub updated_at: Timestamp,
    /// How many messages it has; at least one.
    #[schemars(range(min = 1))]
    pub message_count: u64,
}

/// Where a part of the answer comes from.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Citation {
    /// Id of the source document.
    #[schemars(schema_with = "schema::text")]
    pub id: String,
    /// What the source is called.
    pub title: String,
    /// Its address, when it has one that a browser can open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"))]
    pub url: Option<String>,
    /// The passage, at most 280 characters and then `…`.
    #[schemars(length(max = 281))]
    pub snippet: String,
    /// How well it fits the message.
    #[serde(serialize_with = "finite")]
    pub score: f64,
}

/// Tokens and money of a turn, summed over its model calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Price in US dollars.
    #[serde(serialize_with = "finite")]
    pub cost_usd: f64,
    /// Tokens of all requests.
    pub prompt_tokens: u64,
    /// Tokens of all replies.
    pub completion_tokens: u64,
}

/// How a turn left the user's matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolutionStatus {
    /// It is dealt with.
    Resolved,
    /// It goes on. The default: nothing here judges replies.
    #[default]
    InProgress,
    /// A human has to take over.
    RequiresEscalation,
    /// The user has to say more.
    NeedsMoreInfo,
    /// It cannot go on.
    Blocked,
}

/// What a finished turn answers: the content of `eventual_response`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Id of the stored reply; a fresh one when the reply was empty and so not stored.
    pub message_id: MessageId,
    /// The cleaned reply. It equals the concatenated `stream_token`s.
    pub text: String,
    /// Replies that the user may want to send next; at most four.
    pub suggested_next_actions: Vec<String>,
    /// How the matter stands.
    pub resolution_status: ResolutionStatus,
    /// Whether a human should take over.
    pub needs_escalation: bool,
    /// Tokens and money, when known.
    pub usage: Option<Usage>,
    /// Sources; the key is left out when there are none.
    pub citations: Vec<Citation>,
    /// An instruction of a tool to the client application.
    pub directive: Option<Map<String, Value>>,
}

impl Answer {
    /// An answer that is only text.
    pub fn text(message_id: MessageId, text: impl Into<String>) -> Self {
        Self {
            message_id,
            text: text.into(),
            suggested_next_actions: Vec::new(),
            resolution_status: ResolutionStatus::default(),
            needs_escalation: false,
            usage: None,
            citations: Vec::new(),
            directive: None,
        }
    }
}

/// The scores that nothing here measures; clients demand a number.
const UNMEASURED: f64 = 0.5;
/// Most replies that are suggested.
pub const SUGGESTIONS_MAX: usize = 4;

/// [`Answer`] as it stands on the wire.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WireAnswer<'a> {
    /// Id of the stored reply; a fresh one when the reply was empty and so not stored.
    message_id: MessageId,
    /// The reply.
    response: WireResponse<'a>,
    /// Whether a human should take over.
    needs_escalation: bool,
    /// Tokens and money, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
    /// Sources.
    #[serde(skip_serializing_if = "<[Citation]>::is_empty")]
    #[schemars(length(min = 1))]
    citations: &'a [Citation],
    /// An instruction of a tool to the client application.
    #[serde(skip_serializing_if = "Option::is_none")]
    directive: Option<&'a Map<String, Value>>,
}

/// The reply of a [`WireAnswer`].
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WireResponse<'a> {
    /// The text; parts are paragraphs.
    #[schemars(with = "Vec<String>")]
    response_parts: [&'a str; 1],
    /// Always 0.5: nothing here measures it.
    customer_happiness_score: f64,
    /// Always 0.5: nothing here measures it.
    needs_satisfaction_score: f64,
    /// Always empty.
    request_summary: &'static str,
    /// How the matter stands.
    resolution_status: ResolutionStatus,
    /// Replies that the user may want to send next.
    #[schemars(length(max = SUGGESTIONS_MAX))]
    suggested_next_actions: &'a [String],
}

impl JsonSchema for Answer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Answer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        WireAnswer::json_schema(generator)
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireAnswer {
            message_id: self.message_id,
            response: WireResponse {
                response_parts: [&self.text],
                customer_happiness_score: UNMEASURED,
                needs_satisfaction_score: UNMEASURED,
                request_summary: "",
                resolution_status: self.resolution_status,
                suggested_next_actions: &self.suggested_next_actions,
            },
            needs_escalation: self.needs_escalation,
            usage: self.usage.as_ref(),
            citations: &self.citations,
            directive: self.directive.as_ref(),
        }
        .serialize(serializer)
    }
}

/// The last row of a page of the conversation list; the next page holds what comes strictly after it. Its text is
/// opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationCursor {
    /// The row's `updated_at`, to the nanosecond.
    pub updated_at: Timestamp,
    /// The row's id, for rows of the same instant.
    pub conversation_id: ConversationId,
}

impl std::fmt::Display for ConversationCursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}_{}", self.updated_at.as_nanosecond(), self.conversation_id.0.simple())
    }
}

impl FromStr for ConversationCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (nanoseconds, id) = text.split_once('_').ok_or(NotACursor)?;
        let nanoseconds: i128 = nanoseconds.parse().map_err(|_| NotACursor)?;
        Ok(Self {
            updated_at: Timestamp::from_nanosecond(nanoseconds).map_err(|_| NotACursor)?,
            conversation_id: ConversationId(Uuid::try_parse(id).map_err(|_| NotACursor)?),
        })
    }
}

/// The text was not made by this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this server; send the nextCursor of the previous page, or none for the first page")]
pub struct NotACursor;

/// Longest title, in characters.
pub const TITLE_CHARS: usize = 60;

/// A title as it is stored: runs of white space become one space, quotes, asterisks, backticks and hashes around it go,
/// and it is cut to 60 characters. Empty when nothing is left.
pub fn clean_title(raw: &str) -> String {
    let collapsed = raw.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_wrapping =
        |c: char| matches!(c, '"' | '\'' | '“' | '”' | '„' | '‘' | '’' | '«' | '»' | '*' | '`' | '#' | ' ');
    let mut title: String = collapsed.trim_matches(is_wrapping).chars().take(TITLE_CHARS).collect();
    title.truncate(title.trim_end().len());
    title
}

/// A conversation's title as the list shows it: `name` unless it is blank or a placeholder, otherwise the first inbound
/// text, both cut to 60 characters and `…`; otherwise the name as it is.
pub fn display_title(name: &str, is_placeholder: bool, first_inbound_text: Option<&str>) -> String {
    if !name.trim().is_empty() && !is_placeholder {
        return shorten(name, TITLE_CHARS);
    }
    match first_inbound_text {
        Some(text) if !text.trim().is_empty() => shorten(text.trim(), TITLE_CHARS),
        _ => name.to_owned(),
    }
}

/// The first `chars` characters, and `…` when something was cut.
pub fn shorten(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// RFC 3339 in UTC with milliseconds and `Z`.
fn instant<S: Serializer>(timestamp: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{timestamp:.3}"))
}

/// A number that JSON can hold: what is not finite becomes 0, where serde would write null and break strict clients.
fn finite<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(if number.is_finite() { *number } else { 0.0 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn uuid(last: u8) -> Uuid {
        Uuid::from_bytes([0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, last])
    }

    #[test]
    fn a_message_row_has_the_strict_shape() {
        let mut row = MessageRow {
            id: MessageId(uuid(1)),
            direction: MessageDirection::Outbound,
            content: MessageContent { text: "Hi there!".to_owned() },
            from: Some(ParticipantRow {
                id: ParticipantId(uuid(2)),
                kind: ParticipantType::AiAgent,
                name: Some("smooth-agent".to_owned()),
            }),
            created_at: "2026-01-05T10:00:03.12Z".parse().unwrap(),
        };
        let mut expected = json!({
            "id": "00000000-0000-4000-8000-000000000001", "direction": "outbound", "content": {"text": "Hi there!"},
            "from": {"id": "00000000-0000-4000-8000-000000000002", "type": "ai-agent", "name": "smooth-agent"},
            "createdAt": "2026-01-05T10:00:03.120Z"
        });
        assert_eq!(serde_json::to_value(&row).unwrap(), expected);

        row.direction = MessageDirection::Inbound;
        row.from = None;
        expected["direction"] = json!("inbound");
        expected.as_object_mut().unwrap().remove("from");
        assert_eq!(serde_json::to_value(&row).unwrap(), expected);
    }

    #[test]
    fn a_conversation_row_has_the_strict_shape() {
        let row = ConversationRow {
            conversation_id: ConversationId(uuid(5)),
            title: "Return of an order".to_owned(),
            updated_at: "2026-01-05T10:00:03.1209999Z".parse().unwrap(),
            message_count: 4,
        };
        let expected = json!({
            "conversationId": "00000000-0000-4000-8000-000000000005", "title": "Return of an order",
            "updatedAt": "2026-01-05T10:00:03.120Z", "messageCount": 4
        });
        assert_eq!(serde_json::to_value(&row).unwrap(), expected);
    }

    #[test]
    fn numbers_that_are_not_finite_never_become_null() {
        let usage = Usage { cost_usd: f64::NAN, prompt_tokens: 1, completion_tokens: 2 };
        let expected = json!({"costUsd": 0.0, "promptTokens": 1, "completionTokens": 2});
        assert_eq!(serde_json::to_value(usage).unwrap(), expected);
    }

    #[test]
    fn titles_are_cleaned() {
        assert_eq!(clean_title("  **\"Return   of\nan order\"** "), "Return of an order");
        assert_eq!(clean_title("# `x`"), "x");
        assert_eq!(clean_title(" \"' * "), "");
        assert_eq!(clean_title(&"é".repeat(80)).chars().count(), 60);
        assert_eq!(clean_title(&format!("{} tail", "a".repeat(59))), "a".repeat(59));
    }

    #[test]
    fn a_placeholder_gives_way_to_what_was_said() {
        assert_eq!(display_title("Invoices", false, Some("hello")), "Invoices");
        assert_eq!(display_title("Session 1", true, Some(" hello ")), "hello");
        assert_eq!(display_title("Session 1", true, Some("  ")), "Session 1");
        assert_eq!(display_title("  ", false, Some("hello")), "hello");
        assert_eq!(display_title("Session 1", true, Some(&"ü".repeat(61))), format!("{}…", "ü".repeat(60)));
    }

    #[test]
    fn foreign_cursors_are_refused() {
        for text in ["", "_", "12", "x_00000000000040008000000000000001", "12_nonsense", "999999999999999999999999_1"] {
            assert_eq!(text.parse::<ConversationCursor>(), Err(NotACursor), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(seconds in -1_000_000_000i64..4_000_000_000, nanos in 0i32..1_000_000_000, id: u128) {
            let cursor = ConversationCursor {
                updated_at: Timestamp::new(seconds, nanos).unwrap_or(Timestamp::UNIX_EPOCH),
                conversation_id: ConversationId(Uuid::from_u128(id)),
            };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
}
