//! Tests that every storage must pass. A storage's own test module calls [`storage_contract!`] with a function that
//! makes an empty one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::{Map, json};
use uuid::Uuid;

use super::*;
use crate::config::Limits;

/// Makes one test of each promise.
macro_rules! storage_contract {
    ($make:expr) => {
        $crate::storage::contract::storage_contract!($make =>
            what_was_written_is_read,
            pages_cover_the_log_exactly_once,
            paging_is_stable_while_messages_arrive,
            an_unknown_cursor_is_told_apart,
            messages_before_an_instant,
            messages_are_read_forwards_too,
            the_clock_may_go_backwards,
            the_oldest_messages_go_first,
            lists_are_by_last_change_and_without_empty_ones,
            lists_page_by_key,
            lists_are_filtered_by_organisation_owner_and_text,
            the_longest_idle_conversation_goes_first,
            the_longest_idle_session_goes_first,
            a_pinned_conversation_stays,
            idle_rows_expire,
            using_a_session_keeps_its_conversation,
            what_is_gone_cannot_be_changed,
            failed_turns_and_images_are_kept,
            a_title_is_given_once_and_moves_nothing,
            an_organisations_settings_are_its_own,
        );
    };
    ($make:expr => $($name:ident,)*) => {$(
        #[tokio::test]
        async fn $name() {
            $crate::storage::contract::$name(&$make).await;
        }
    )*};
}
pub(crate) use storage_contract;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_750_000_000 + second).unwrap()
}

pub(crate) fn conversation_id(number: u128) -> ConversationId {
    ConversationId(Uuid::from_u128(1 << 100 | number))
}

pub(crate) fn session_id(number: u128) -> SessionId {
    SessionId(Uuid::from_u128(2 << 100 | number))
}

/// A conversation of the organisation `org` and the session that created it, both with this number.
pub(crate) fn create(number: u128, now: Timestamp) -> (Conversation, Session) {
    let conversation = Conversation {
        id: conversation_id(number),
        name: format!("{PLACEHOLDER_PREFIX}{}", session_id(number)),
        org_id: "org".to_owned(),
        idempotency_key: session_id(number).to_string(),
        metadata: Map::new(),
        created_at: now,
        updated_at: now,
    };
    let session = Session {
        id: session_id(number),
        conversation_id: conversation.id,
        org_id: "org".to_owned(),
        agent_id: "agent".to_owned(),
        agent_name: "an agent".to_owned(),
        user_participant_id: ParticipantId(Uuid::from_u128(1)),
        agent_participant_id: ParticipantId(Uuid::from_u128(2)),
        supports: vec![],
        declared: vec![],
        metadata: Map::new(),
        created_at: now,
        last_activity_at: now,
    };
    (conversation, session)
}

/// Numbers the messages of all tests; beyond what any test uses as an unknown id.
static NEXT_MESSAGE: AtomicU64 = AtomicU64::new(1_000);

pub(crate) fn message(conversation_id: ConversationId, text: &str, now: Timestamp) -> Message {
    Message {
        id: MessageId(Uuid::from_u128(NEXT_MESSAGE.fetch_add(1, Ordering::Relaxed).into())),
        conversation_id,
        direction: Direction::Inbound,
        text: text.into(),
        images: vec![],
        from: Some(ParticipantRef {
            id: ParticipantId(Uuid::from_u128(1)),
            kind: ParticipantKind::User,
            name: Some("Visitor".to_owned()),
        }),
        turn_error: None,
        created_at: now,
    }
}

fn visitor(conversation_id: ConversationId, email: Option<&str>) -> Participant {
    Participant {
        id: ParticipantId(Uuid::from_u128(1)),
        conversation_id,
        kind: ParticipantKind::User,
        external_id: None,
        email: email.map(str::to_owned),
        phone: None,
        browser_fingerprint: None,
        name: "Visitor".to_owned(),
        created_at: at(0),
    }
}

type Make<'a> = &'a dyn Fn(&Limits) -> SharedStorage;

/// A storage with conversations 0, 1, …, each created one second after the one before.
async fn filled(make: Make<'_>, limits: Limits, conversations: u128) -> SharedStorage {
    let storage = make(&limits);
    for number in 0..conversations {
        let (conversation, session) = create(number, at(number as i64));
        let participants = vec![visitor(conversation.id, None)];
        storage.create_conversation(conversation, participants, session).await.unwrap();
    }
    storage
}

async fn say(storage: &SharedStorage, number: u128, text: &str, now: Timestamp) {
    storage.append_message(message(conversation_id(number), text, now)).await.unwrap();
}

async fn texts(storage: &SharedStorage, before: MessagesBefore, limit: usize) -> (Vec<String>, bool) {
    let page = storage.messages(conversation_id(0), before, limit).await.unwrap().unwrap();
    (page.rows.iter().map(|row| row.text.to_string()).collect(), page.has_more)
}

fn query(limit: usize) -> ConversationQuery {
    let org_id = "org".to_owned();
    ConversationQuery {
        org_id,
        owner: OwnerFilter::Everyone,
        after: None,
        contains: None,
        with_empty: false,
        skip: 0,
        limit,
    }
}

async fn listed(storage: &SharedStorage, query: ConversationQuery) -> Vec<ConversationId> {
    storage.conversations(query).await.unwrap().rows.iter().map(|row| row.id).collect()
}

pub(crate) async fn what_was_written_is_read(make: Make<'_>) {
    let storage = make(&Limits::default());
    let (conversation, session) = create(0, at(0));
    let id = conversation.id;
    let first = visitor(id, Some("a@example.com"));
    storage.create_conversation(conversation.clone(), vec![first.clone()], session.clone()).await.unwrap();
    assert_eq!(storage.conversation(id).await.unwrap(), Some(conversation));
    assert_eq!(storage.session(session.id).await.unwrap(), Some(session.clone()));
    assert_eq!(storage.session(session_id(9)).await.unwrap(), None);

    let second = Participant { id: ParticipantId(Uuid::from_u128(5)), ..first.clone() };
    let resumed = Session { id: session_id(1), ..session.clone() };
    storage.add_session(resumed.clone(), vec![second.clone()]).await.unwrap();
    assert_eq!(storage.session(resumed.id).await.unwrap(), Some(resumed));
    assert_eq!(storage.participants(id).await.unwrap(), vec![first, second]);

    let entries = json!({"contactEmail": "b@example.com"}).as_object().unwrap().clone();
    storage.merge_session_metadata(session.id, entries.clone()).await.unwrap();
    assert_eq!(storage.session(session.id).await.unwrap().unwrap().metadata, entries);

    storage.set_conversation_metadata(id, "clientSupports", Some(json!(["identity_form"]))).await.unwrap();
    let metadata = storage.conversation(id).await.unwrap().unwrap().metadata;
    assert_eq!(metadata["clientSupports"], json!(["identity_form"]));
    storage.set_conversation_metadata(id, "clientSupports", None).await.unwrap();
    assert!(storage.conversation(id).await.unwrap().unwrap().metadata.is_empty());

    assert!(storage.rename_conversation(id, "a title", at(3)).await.unwrap());
    assert!(!storage.rename_conversation(conversation_id(9), "a title", at(3)).await.unwrap());
    let renamed = storage.conversation(id).await.unwrap().unwrap();
    assert_eq!((renamed.name.as_str(), renamed.updated_at), ("a title", at(3)));
}

pub(crate) async fn pages_cover_the_log_exactly_once(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 1).await;
    for number in 0..7 {
        say(&storage, 0, &number.to_string(), at(0)).await;
    }
    assert_eq!(texts(&storage, MessagesBefore::Newest, 3).await, (vec!["6".into(), "5".into(), "4".into()], true));
    let mut seen = Vec::new();
    let mut before = MessagesBefore::Newest;
    loop {
        let page = storage.messages(conversation_id(0), before, 2).await.unwrap().unwrap();
        seen.extend(page.rows.iter().map(|row| row.text.to_string()));
        before = MessagesBefore::Message(page.rows.last().unwrap().id);
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, ["6", "5", "4", "3", "2", "1", "0"]);
    // A page that is exactly full does not promise another one.
    assert!(!texts(&storage, MessagesBefore::Newest, 7).await.1);
}

pub(crate) async fn paging_is_stable_while_messages_arrive(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 1).await;
    for number in 0..4 {
        say(&storage, 0, &number.to_string(), at(0)).await;
    }
    let page = storage.messages(conversation_id(0), MessagesBefore::Newest, 2).await.unwrap().unwrap();
    say(&storage, 0, "later", at(0)).await;
    let cursor = MessagesBefore::Message(page.rows[1].id);
    assert_eq!(texts(&storage, cursor, 5).await, (vec!["1".into(), "0".into()], false));
}

pub(crate) async fn an_unknown_cursor_is_told_apart(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 2).await;
    say(&storage, 1, "elsewhere", at(0)).await;
    let page = storage.messages(conversation_id(1), MessagesBefore::Newest, 1).await.unwrap().unwrap();
    let elsewhere = MessagesBefore::Message(page.rows[0].id);
    assert_eq!(storage.messages(conversation_id(0), elsewhere, 5).await.unwrap(), None);
    let unknown = MessagesBefore::Message(MessageId(Uuid::from_u128(1)));
    assert_eq!(storage.messages(conversation_id(9), unknown, 5).await.unwrap(), None);
    let empty = Some(Page { rows: vec![], has_more: false });
    assert_eq!(storage.messages(conversation_id(0), MessagesBefore::Newest, 5).await.unwrap(), empty);
}

pub(crate) async fn messages_before_an_instant(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 1).await;
    for number in 0..4 {
        say(&storage, 0, &number.to_string(), at(number)).await;
    }
    assert_eq!(texts(&storage, MessagesBefore::Instant(at(2)), 5).await, (vec!["1".into(), "0".into()], false));
    assert_eq!(texts(&storage, MessagesBefore::Instant(at(0)), 5).await, (vec![], false));
    assert_eq!(texts(&storage, MessagesBefore::Instant(at(9)), 1).await, (vec!["3".into()], true));
}

pub(crate) async fn a_title_is_given_once_and_moves_nothing(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 2).await;
    say(&storage, 0, "hello", at(1)).await;
    assert!(storage.title_conversation(conversation_id(0), "first").await.unwrap());
    assert!(!storage.title_conversation(conversation_id(0), "second").await.unwrap());
    let row = storage.conversation(conversation_id(0)).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.updated_at), ("first", at(1)));

    storage.rename_conversation(conversation_id(1), "chosen", at(2)).await.unwrap();
    assert!(!storage.title_conversation(conversation_id(1), "late").await.unwrap());
    assert_eq!(storage.conversation(conversation_id(1)).await.unwrap().unwrap().name, "chosen");
    assert!(!storage.title_conversation(conversation_id(9), "nobody").await.unwrap());
}

pub(crate) async fn the_clock_may_go_backwards(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 1).await;
    say(&storage, 0, "first", at(10)).await;
    say(&storage, 0, "second", at(5)).await;
    let page = storage.messages(conversation_id(0), MessagesBefore::Newest, 5).await.unwrap().unwrap();
    let times: Vec<_> = page.rows.iter().map(|row| (row.text.to_string(), row.created_at)).collect();
    assert_eq!(times, [("second".to_owned(), at(10)), ("first".to_owned(), at(10))]);
    assert_eq!(storage.conversation(conversation_id(0)).await.unwrap().unwrap().updated_at, at(10));
}

pub(crate) async fn the_oldest_messages_go_first(make: Make<'_>) {
    let storage = filled(make, Limits { messages_per_conversation: 3, ..Limits::default() }, 1).await;
    for number in 0..5 {
        say(&storage, 0, &number.to_string(), at(0)).await;
    }
    let expected = vec!["4".to_owned(), "3".to_owned(), "2".to_owned()];
    assert_eq!(texts(&storage, MessagesBefore::Newest, 9).await, (expected, false));
    let row = storage.conversations(query(1)).await.unwrap().rows.remove(0);
    assert_eq!((row.message_count, row.first_inbound_text.as_deref()), (3, Some("0")));
}

pub(crate) async fn lists_are_by_last_change_and_without_empty_ones(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 4).await;
    say(&storage, 2, "a", at(20)).await;
    say(&storage, 0, "b", at(21)).await;
    say(&storage, 1, "c", at(21)).await;
    assert_eq!(listed(&storage, query(9)).await, [1, 0, 2].map(conversation_id));
    storage.rename_conversation(conversation_id(2), "a title", at(22)).await.unwrap();
    storage.rename_conversation(conversation_id(3), "still empty", at(23)).await.unwrap();
    let page = storage.conversations(query(9)).await.unwrap();
    assert_eq!(page.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [2, 1, 0].map(conversation_id));
    let expected = ConversationSummary {
        id: conversation_id(2),
        name: "a title".to_owned(),
        first_inbound_text: Some("a".into()),
        created_at: at(2),
        updated_at: at(22),
        message_count: 1,
    };
    assert_eq!(page.rows[0], expected);
    // An admin sees the empty ones, too, and pages by number.
    let all = |skip, limit| ConversationQuery { with_empty: true, skip, ..query(limit) };
    assert_eq!(listed(&storage, all(0, 9)).await, [3, 2, 1, 0].map(conversation_id));
    assert_eq!(listed(&storage, all(1, 2)).await, [2, 1].map(conversation_id));
    assert_eq!(listed(&storage, all(4, 2)).await, []);
    assert!(storage.conversations(all(1, 2)).await.unwrap().has_more);
    assert!(!storage.conversations(all(2, 2)).await.unwrap().has_more);
}

pub(crate) async fn lists_page_by_key(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 5).await;
    for number in 0..5 {
        say(&storage, number, "text", at(10)).await;
    }
    let first = storage.conversations(query(2)).await.unwrap();
    assert!(first.has_more);
    assert_eq!(first.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [4, 3].map(conversation_id));
    // The row that the cursor names may move away; the page after it is the same.
    say(&storage, 3, "text", at(11)).await;
    let after = Some((first.rows[1].updated_at, first.rows[1].id));
    let second = storage.conversations(ConversationQuery { after, ..query(3) }).await.unwrap();
    assert_eq!(second.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [2, 1, 0].map(conversation_id));
    assert!(!second.has_more);
}

pub(crate) async fn lists_are_filtered_by_organisation_owner_and_text(make: Make<'_>) {
    let storage = make(&Limits::default());
    let emails = [None, Some(" Ann@Example.com "), Some("bob@example.com"), Some("  ")];
    for (number, email) in emails.into_iter().enumerate() {
        let (conversation, session) = create(number as u128, at(0));
        let participants = vec![visitor(conversation.id, email)];
        storage.create_conversation(conversation, participants, session).await.unwrap();
        say(&storage, number as u128, &format!("Text {number}"), at(number as i64)).await;
    }
    let (conversation, session) = create(7, at(0));
    let conversation = Conversation { org_id: "other".to_owned(), ..conversation };
    storage.create_conversation(conversation, vec![], session).await.unwrap();
    say(&storage, 7, "text of another organisation", at(0)).await;

    assert_eq!(listed(&storage, query(9)).await, [3, 2, 1, 0].map(conversation_id));
    let ann = OwnerFilter::OwnedByOrOwnerless("ann@example.com".to_owned());
    assert_eq!(listed(&storage, ConversationQuery { owner: ann, ..query(9) }).await, [3, 1, 0].map(conversation_id));
    let ownerless = ConversationQuery { owner: OwnerFilter::OwnerlessOnly, ..query(9) };
    assert_eq!(listed(&storage, ownerless).await, [3, 0].map(conversation_id));

    let (conversation, session) = create(8, at(0));
    let carl = Participant { external_id: Some("carl".to_owned()), ..visitor(conversation.id, None) };
    storage.create_conversation(conversation, vec![carl], session).await.unwrap();
    say(&storage, 8, "from carl", at(0)).await;
    let of_carl = ConversationQuery { owner: OwnerFilter::Visitor("carl".to_owned()), ..query(9) };
    assert_eq!(listed(&storage, of_carl).await, [conversation_id(8)]);

    let containing = |needle: &str| ConversationQuery { contains: Some(needle.to_owned()), ..query(9) };
    assert_eq!(listed(&storage, containing("text 2")).await, [conversation_id(2)]);
    // A placeholder is no title; a title counts beside the text.
    assert_eq!(listed(&storage, containing("session")).await, []);
    storage.rename_conversation(conversation_id(0), "Große Session", at(9)).await.unwrap();
    assert_eq!(listed(&storage, containing("große")).await, [conversation_id(0)]);
    assert_eq!(listed(&storage, containing("text 0")).await, [conversation_id(0)]);
}

pub(crate) async fn the_longest_idle_conversation_goes_first(make: Make<'_>) {
    let storage = filled(make, Limits { conversations: 3, ..Limits::default() }, 3).await;
    say(&storage, 0, "text", at(10)).await;
    let (conversation, session) = create(3, at(11));
    storage.create_conversation(conversation, vec![], session).await.unwrap();
    assert!(storage.conversation(conversation_id(0)).await.unwrap().is_some());
    assert!(storage.conversation(conversation_id(1)).await.unwrap().is_none());
    assert!(storage.session(session_id(1)).await.unwrap().is_none(), "its sessions go with it");
}

pub(crate) async fn the_longest_idle_session_goes_first(make: Make<'_>) {
    let storage = filled(make, Limits { sessions: 3, ..Limits::default() }, 3).await;
    storage.touch_session(session_id(0), at(10)).await.unwrap();
    let resumed = Session { id: session_id(9), ..create(2, at(11)).1 };
    storage.add_session(resumed, vec![]).await.unwrap();
    assert!(storage.session(session_id(0)).await.unwrap().is_some());
    assert!(storage.session(session_id(1)).await.unwrap().is_none());
    assert!(storage.session(session_id(2)).await.unwrap().is_some());
    assert!(storage.conversation(conversation_id(1)).await.unwrap().is_some(), "it can still be resumed");
}

pub(crate) async fn a_pinned_conversation_stays(make: Make<'_>) {
    let storage = filled(make, Limits { conversations: 1, sessions: 1, ..Limits::default() }, 1).await;
    let first = ConversationPin::new(storage.clone(), conversation_id(0));
    let second = ConversationPin::new(storage.clone(), conversation_id(0));
    let (conversation, session) = create(1, at(1));
    let attempt = storage.create_conversation(conversation.clone(), vec![], session.clone()).await;
    assert_eq!(attempt, Err(StorageError::Full { limit: "conversations", max: 1 }));
    assert_eq!(storage.expire(at(99)).await.unwrap(), vec![]);
    drop(first);
    assert_eq!(storage.expire(at(99)).await.unwrap(), vec![]);
    assert!(storage.session(session_id(0)).await.unwrap().is_some());
    drop(second);
    storage.create_conversation(conversation, vec![], session).await.unwrap();
    assert!(storage.conversation(conversation_id(0)).await.unwrap().is_none());
}

pub(crate) async fn idle_rows_expire(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 3).await;
    storage.add_session(Session { id: session_id(9), ..create(1, at(50)).1 }, vec![]).await.unwrap();
    assert_eq!(storage.expire(at(2)).await.unwrap(), vec![conversation_id(0)]);
    assert!(storage.session(session_id(0)).await.unwrap().is_none());
    assert!(storage.session(session_id(1)).await.unwrap().is_none(), "an old session of a used conversation goes");
    assert!(storage.conversation(conversation_id(1)).await.unwrap().is_some());
    assert!(storage.session(session_id(9)).await.unwrap().is_some());
    assert!(storage.session(session_id(2)).await.unwrap().is_some(), "exactly at the limit is not past it");
    assert_eq!(storage.expire(at(51)).await.unwrap(), vec![conversation_id(2), conversation_id(1)]);
}

pub(crate) async fn using_a_session_keeps_its_conversation(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 2).await;
    storage.touch_session(session_id(0), at(60)).await.unwrap();
    storage.touch_session(session_id(0), at(3)).await.unwrap();
    storage.touch_session(session_id(77), at(3)).await.unwrap();
    assert_eq!(storage.session(session_id(0)).await.unwrap().unwrap().last_activity_at, at(60));
    assert_eq!(storage.expire(at(50)).await.unwrap(), vec![conversation_id(1)]);
    assert!(storage.conversation(conversation_id(0)).await.unwrap().is_some());
}

pub(crate) async fn what_is_gone_cannot_be_changed(make: Make<'_>) {
    let storage = make(&Limits::default());
    let conversation = Err(StorageError::Gone { what: "conversation" });
    assert_eq!(storage.append_message(message(conversation_id(0), "text", at(0))).await, conversation);
    assert_eq!(storage.add_session(create(0, at(0)).1, vec![]).await, conversation);
    assert_eq!(storage.set_conversation_metadata(conversation_id(0), "key", None).await, conversation);
    let session = Err(StorageError::Gone { what: "session" });
    assert_eq!(storage.merge_session_metadata(session_id(0), Map::new()).await, session);
    assert!(storage.session(session_id(0)).await.unwrap().is_none());
}

pub(crate) async fn failed_turns_and_images_are_kept(make: Make<'_>) {
    let storage = filled(make, Limits::default(), 1).await;
    let image = StoredImage { url: "https://example.com/a.png".to_owned(), detail: Some("low".to_owned()) };
    let with_image = Message { images: vec![image], ..message(conversation_id(0), "", at(1)) };
    let failed = Message {
        direction: Direction::Outbound,
        from: None,
        turn_error: Some(TurnErrorMark { code: "AGENT_ERROR".to_owned(), request_id: "r".to_owned() }),
        ..message(conversation_id(0), "it failed", at(2))
    };
    storage.append_message(with_image.clone()).await.unwrap();
    storage.append_message(failed.clone()).await.unwrap();
    let page = storage.messages(conversation_id(0), MessagesBefore::Newest, 5).await.unwrap().unwrap();
    assert_eq!(page.rows, vec![failed, with_image]);
    let row = storage.conversations(query(1)).await.unwrap().rows.remove(0);
    assert_eq!(row.first_inbound_text, None, "a picture alone gives no title");
}

pub(crate) async fn messages_are_read_forwards_too(make: Make<'_>) {
    let storage = filled(make, Limits { messages_per_conversation: 5, ..Limits::default() }, 1).await;
    for number in 0..7 {
        say(&storage, 0, &number.to_string(), at(number)).await;
    }
    let id = conversation_id(0);
    let (mut after, mut read) = (None, Vec::new());
    loop {
        let page = storage.messages_after(id, after, 2).await.unwrap().unwrap();
        after = page.rows.last().map(|row| row.id);
        read.extend(page.rows.iter().map(|row| row.text.to_string()));
        if !page.has_more {
            break;
        }
    }
    assert_eq!(read, ["2", "3", "4", "5", "6"]);
    assert_eq!(storage.messages_after(id, Some(MessageId(Uuid::from_u128(1))), 2).await.unwrap(), None);
    let empty = storage.messages_after(conversation_id(9), None, 2).await.unwrap().unwrap();
    assert!(empty.rows.is_empty() && !empty.has_more);
}

pub(crate) async fn an_organisations_settings_are_its_own(make: Make<'_>) {
    let storage = make(&Limits { org_settings: 2, ..Limits::default() });
    let settings = |model: &str| OrgSettings {
        model: Some(model.to_owned()),
        system_prompt: "Be brief.".to_owned(),
        persona: None,
        default_tools: vec!["knowledge_search".to_owned()],
        updated_at: at(0),
    };
    assert_eq!(storage.org_settings("a").await.unwrap(), None);
    storage.set_org_settings("a", settings("one")).await.unwrap();
    storage.set_org_settings("b", settings("two")).await.unwrap();
    let full = storage.set_org_settings("c", settings("three")).await.unwrap_err();
    assert_eq!(full, StorageError::Full { limit: "org_settings", max: 2 });
    storage.set_org_settings("a", settings("four")).await.unwrap();
    assert_eq!(*storage.org_settings("a").await.unwrap().unwrap(), settings("four"));
    assert_eq!(*storage.org_settings("b").await.unwrap().unwrap(), settings("two"));
}
