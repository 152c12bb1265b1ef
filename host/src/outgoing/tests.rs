#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{ids::RequestId, protocol::Event};

const LIMITS: QueueLimits = QueueLimits { bytes: 1 << 20, events: 64 };

fn frame(event: Event) -> EventFrame {
    EventFrame::new(Some(RequestId::new("m1")), 1, event)
}

async fn recv(receiver: &mut EventReceiver) -> Result<Vec<Event>, CloseReason> {
    let mut batch = Vec::new();
    receiver.recv_batch(&mut batch).await?;
    Ok(batch.into_iter().map(|outgoing| outgoing.frame.event.clone()).collect())
}

/// Whether a future is still not done when everything that can happen has happened.
async fn is_pending(future: impl Future) -> bool {
    timeout(Duration::from_secs(1), future).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_waiting_writer_is_woken() {
    let (sender, mut receiver) = channel(LIMITS);
    let writer = tokio::spawn(async move { recv(&mut receiver).await });
    tokio::task::yield_now().await;
    assert!(sender.send(frame(Event::Cancelled), false));
    assert_eq!(writer.await.unwrap(), Ok(vec![Event::Cancelled]));
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_is_dropped_loses_nothing() {
    let (sender, mut receiver) = channel(LIMITS);
    assert!(is_pending(recv(&mut receiver)).await);
    sender.send(frame(Event::Cancelled), false);
    assert_eq!(recv(&mut receiver).await, Ok(vec![Event::Cancelled]));
    assert!(is_pending(recv(&mut receiver)).await);
    sender.send(frame(Event::Keepalive), false);
    assert_eq!(recv(&mut receiver).await, Ok(vec![Event::Keepalive]));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_close_is_delivered() {
    let (sender, mut receiver) = channel(LIMITS);
    sender.send(frame(Event::Cancelled), false);
    sender.close(CloseReason::ShuttingDown);
    assert!(!sender.send(frame(Event::Keepalive), false));
    assert_eq!(recv(&mut receiver).await, Ok(vec![Event::Cancelled]));
    assert_eq!(recv(&mut receiver).await, Err(CloseReason::ShuttingDown));
    sender.close(CloseReason::SlowClient);
    assert_eq!(sender.close_reason(), Some(CloseReason::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_given_up() {
    let (sender, mut receiver) = channel(LIMITS);
    assert!(is_pending(receiver.overflowed()).await);
    let turn = sender.clone();
    let sent = (0..LIMITS.events + 1).filter(|_| turn.send(frame(Event::Keepalive), false)).count();
    assert_eq!(sent, LIMITS.events);
    receiver.overflowed().await;
    assert_eq!(sender.closed().await, CloseReason::SlowClient);
    assert_eq!(sender.queued_bytes(), 0);
    assert_eq!(recv(&mut receiver).await, Err(CloseReason::SlowClient));
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_waits_for_room_and_leaves_some() {
    let (sender, mut receiver) = channel(LIMITS);
    let again = Arc::new(frame(Event::Keepalive));
    let sent = (0..LIMITS.events).take_while(|_| sender.send_if_room(&again, false).is_ok()).count();
    assert_eq!(sent, LIMITS.events / 2);
    let bytes = again.wire_len();
    assert_eq!(sender.send_if_room(&again, false), Err(NotSent::NoRoom { bytes }));
    assert!(is_pending(sender.room(bytes)).await);
    assert!(sender.send(frame(Event::Cancelled), false), "others still have room");

    let waits = sender.clone();
    let waiting = tokio::spawn(async move { waits.room(bytes).await });
    tokio::task::yield_now().await;
    recv(&mut receiver).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(sender.send_if_room(&again, false), Ok(()));

    // What is larger than half of the queue has to wait until nothing else does.
    let large = Arc::new(frame(Event::StreamToken("x".repeat(LIMITS.bytes / 3))));
    assert!(matches!(sender.send_if_room(&large, false), Err(NotSent::NoRoom { .. })));
    recv(&mut receiver).await.unwrap();
    assert_eq!(sender.send_if_room(&large, false), Ok(()));

    drop(receiver);
    sender.room(bytes).await;
    assert_eq!(sender.send_if_room(&again, false), Err(NotSent::Closed));
}

#[tokio::test(start_paused = true)]
async fn the_writers_end_closes_all_senders() {
    let (sender, receiver) = channel(LIMITS);
    let turn = sender.clone();
    let waits = tokio::spawn(async move { turn.closed().await });
    tokio::task::yield_now().await;
    sender.send(frame(Event::Keepalive), false);
    drop(receiver);
    assert_eq!(waits.await.unwrap(), CloseReason::ConnectionGone);
    assert_eq!(sender.close_reason(), Some(CloseReason::ConnectionGone));
    assert_eq!(sender.queued_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_sender_ends_the_writer() {
    let (sender, mut receiver) = channel(LIMITS);
    let other = sender.clone();
    drop(sender);
    other.send(frame(Event::Cancelled), false);
    drop(other);
    assert_eq!(recv(&mut receiver).await, Ok(vec![Event::Cancelled]));
    assert_eq!(recv(&mut receiver).await, Err(CloseReason::Finished));
}

#[tokio::test(start_paused = true)]
async fn numbers_go_only_to_those_who_asked_for_them() {
    let (sender, mut receiver) = channel(LIMITS);
    let shared = Arc::new(EventFrame { seq: Some(3), ..frame(Event::Keepalive) });
    sender.send(shared.clone(), true);
    sender.send(shared, false);
    let mut batch = Vec::new();
    receiver.recv_batch(&mut batch).await.unwrap();
    let texts: Vec<String> = batch.iter().map(Outgoing::to_json).collect();
    assert!(texts[0].contains("\"seq\":3") && !texts[1].contains("seq"), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_keep_their_own_order() {
    const SENDERS: usize = 4;
    const EACH: usize = 2000;
    let (sender, mut receiver) = channel(QueueLimits { bytes: usize::MAX, events: usize::MAX });
    for id in 0..SENDERS {
        let sender = sender.clone();
        tokio::spawn(async move {
            for number in 0..EACH {
                let event = Event::OtpVerified { message: format!("{id} {number}") };
                assert!(sender.send(frame(event), false));
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    drop(sender);
    let mut next = [0; SENDERS];
    while let Ok(events) = timeout(Duration::from_secs(30), recv(&mut receiver)).await.unwrap() {
        for event in events {
            let Event::OtpVerified { message } = event else { panic!("{event:?}") };
            let (id, number) = message.split_once(' ').unwrap();
            let expected = &mut next[id.parse::<usize>().unwrap()];
            assert_eq!(number.parse(), Ok(*expected));
            *expected += 1;
        }
    }
    assert_eq!(next, [EACH; SENDERS]);
}
