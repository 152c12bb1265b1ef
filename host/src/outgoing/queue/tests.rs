#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{ids::RequestId, protocol::ErrorCode};

const LIMITS: QueueLimits = QueueLimits { bytes: 4096, events: 16 };

fn frame(request_id: &str, seq: Option<u64>, event: Event) -> Arc<EventFrame> {
    Arc::new(EventFrame { request_id: Some(RequestId::new(request_id)), seq, timestamp_ms: 7, event })
}

fn plain(request_id: &str, event: Event) -> Outgoing {
    Outgoing { frame: frame(request_id, None, event), with_seq: false }
}

fn token(text: &str) -> Outgoing {
    plain("m1", Event::StreamToken(text.to_owned()))
}

fn push(queue: &mut Queue, outgoing: Outgoing) -> Result<(), Overflow> {
    let bytes = outgoing.frame.wire_len();
    queue.push(outgoing, bytes)
}

fn drain(queue: &mut Queue) -> Vec<Outgoing> {
    let mut batch = Vec::new();
    while !queue.is_empty() {
        queue.pop_batch(&mut batch, 1);
    }
    assert_eq!((queue.events(), queue.bytes()), (0, 0));
    batch
}

/// A queue in which so much waits that tokens are merged.
fn pressed() -> Queue {
    let mut queue = Queue::new(LIMITS);
    push(&mut queue, plain("p", Event::Pong)).unwrap();
    queue
}

#[test]
fn without_pressure_each_token_stays_as_it_came() {
    let mut queue = Queue::new(QueueLimits { bytes: 1 << 20, events: 4096 });
    for text in ["ha", "ha", "ha"] {
        push(&mut queue, token(text)).unwrap();
    }
    assert_eq!(drain(&mut queue), [token("ha"), token("ha"), token("ha")]);
}

#[test]
fn under_pressure_adjacent_tokens_become_one() {
    let mut queue = pressed();
    for text in ["ä", "b", "c"] {
        push(&mut queue, token(text)).unwrap();
    }
    push(&mut queue, plain("m1", Event::Keepalive)).unwrap();
    push(&mut queue, token("d")).unwrap();
    let sent: Vec<Event> = drain(&mut queue).into_iter().skip(1).map(|outgoing| outgoing.frame.event.clone()).collect();
    assert_eq!(sent, [Event::StreamToken("äbc".into()), Event::Keepalive, Event::StreamToken("d".into())]);
}

#[test]
fn a_frame_that_a_log_shares_is_not_altered() {
    let mut queue = pressed();
    let first = token("a");
    push(&mut queue, first.clone()).unwrap();
    push(&mut queue, token("b")).unwrap();
    assert_eq!(first, token("a"));
    assert_eq!(drain(&mut queue)[1], token("ab"));
}

#[test]
fn tokens_of_other_kinds_turns_or_with_visible_numbers_stay_apart() {
    let reasoning = || plain("m1", Event::StreamReasoning("r".into()));
    let numbered = |seq| Outgoing { frame: frame("m1", Some(seq), Event::StreamToken("n".into())), with_seq: true };
    let sent = [
        token("a"),
        reasoning(),
        plain("m2", Event::StreamToken("x".into())),
        token("b"),
        numbered(1),
        numbered(2),
        token("c"),
    ];
    let mut queue = pressed();
    for outgoing in sent.clone() {
        push(&mut queue, outgoing).unwrap();
    }
    assert_eq!(drain(&mut queue)[1..], sent);
}

#[test]
fn numbers_that_are_not_shown_do_not_keep_tokens_apart() {
    let numbered = |seq, text: &str| Outgoing {
        frame: frame("m1", Some(seq), Event::StreamToken(text.to_owned())),
        with_seq: false,
    };
    let mut queue = pressed();
    push(&mut queue, numbered(1, "a")).unwrap();
    push(&mut queue, numbered(2, "b")).unwrap();
    assert_eq!(drain(&mut queue)[1].frame.event, Event::StreamToken("ab".into()));
}

#[test]
fn one_event_too_many_is_refused() {
    let mut queue = Queue::new(LIMITS);
    for _ in 0..LIMITS.events {
        push(&mut queue, plain("p", Event::Pong)).unwrap();
    }
    let bytes = queue.bytes();
    assert_eq!(push(&mut queue, plain("p", Event::Pong)), Err(Overflow { events: LIMITS.events, bytes }));
    assert_eq!(drain(&mut queue).len(), LIMITS.events);
}

#[test]
fn one_byte_too_many_is_refused_also_by_merging() {
    let mut queue = pressed();
    push(&mut queue, token("a")).unwrap();
    let free = LIMITS.bytes - queue.bytes();
    push(&mut queue, token(&"b".repeat(free / 2))).unwrap();
    assert!(queue.bytes() <= LIMITS.bytes);
    push(&mut queue, token("cc")).unwrap_err();
    push(&mut queue, plain("p", Event::Pong)).unwrap_err();
}

#[test]
fn a_frame_larger_than_the_queue_is_taken_when_nothing_waits() {
    let large = || plain("m1", Event::error(ErrorCode::AgentError, "x".repeat(2 * LIMITS.bytes)));
    let mut queue = Queue::new(LIMITS);
    push(&mut queue, large()).unwrap();
    push(&mut queue, token("a")).unwrap_err();
    assert_eq!(drain(&mut queue), [large()]);
    push(&mut queue, token("a")).unwrap();
    push(&mut queue, large()).unwrap_err();
}

#[test]
fn a_batch_has_at_least_one_event_and_ends_at_its_bytes() {
    let mut queue = Queue::new(LIMITS);
    let size = token("a").frame.wire_len();
    for _ in 0..3 {
        push(&mut queue, plain("p", Event::Keepalive)).unwrap();
        push(&mut queue, token("a")).unwrap();
    }
    let mut batch = Vec::new();
    queue.pop_batch(&mut batch, 0);
    assert_eq!(batch.len(), 1);
    queue.pop_batch(&mut batch, size + plain("p", Event::Keepalive).frame.wire_len());
    assert_eq!(batch.len(), 3);
}

#[derive(Clone, Debug)]
enum Step {
    Push(Outgoing),
    Pop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let event = prop_oneof![
        6 => "[a-zü\"]{1,40}".prop_map(Event::StreamToken),
        2 => "[a-z]{1,40}".prop_map(Event::StreamReasoning),
        1 => Just(Event::Cancelled),
        1 => Just(Event::error(ErrorCode::ValidationError, "no")),
        1 => Just(Event::Keepalive),
    ];
    let outgoing =
        (event, 0..2u8, proptest::option::of(1..9u64), any::<bool>()).prop_map(|(event, id, seq, with_seq)| Outgoing {
            frame: frame(if id == 0 { "m1" } else { "m2" }, seq, event),
            with_seq,
        });
    prop_oneof![4 => outgoing.prop_map(Step::Push), 1 => (0..2000usize).prop_map(Step::Pop)]
}

/// What a client makes of a list of events: what stays after adjacent tokens were joined.
fn as_read(events: &[Outgoing]) -> Vec<(Option<RequestId>, Option<u64>, Event)> {
    let mut read: Vec<(Option<RequestId>, Option<u64>, Event)> = Vec::new();
    for outgoing in events {
        let frame = &outgoing.frame;
        let seq = frame.seq.filter(|_| outgoing.with_seq);
        match (read.last_mut(), &frame.event) {
            (Some((id, None, Event::StreamToken(text))), Event::StreamToken(token))
            | (Some((id, None, Event::StreamReasoning(text))), Event::StreamReasoning(token))
                if *id == frame.request_id && seq.is_none() =>
            {
                text.push_str(token);
            }
            _ => read.push((frame.request_id.clone(), seq, frame.event.clone())),
        }
    }
    read
}

proptest! {
    #[test]
    fn order_and_text_are_kept_and_the_bounds_hold(steps in proptest::collection::vec(step(), 1..120)) {
        let mut queue = Queue::new(LIMITS);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Push(outgoing) => {
                    if push(&mut queue, outgoing.clone()).is_ok() {
                        sent.push(outgoing);
                    }
                }
                Step::Pop(bytes) => queue.pop_batch(&mut received, bytes),
            }
            prop_assert!(queue.events() <= LIMITS.events);
            prop_assert!(queue.bytes() <= LIMITS.bytes || queue.events() == 1);
            let waiting: usize = queue.waiting.iter().map(|waiting| waiting.outgoing.frame.wire_len()).sum();
            prop_assert_eq!(queue.bytes(), waiting);
        }
        received.extend(drain(&mut queue));
        prop_assert_eq!(as_read(&received), as_read(&sent));
    }
}
