//! What a client that can resume turns may rely on about `seq`: from 1 on, and after a resume from where it said it
//! was, without a gap and without a number twice.

use std::collections::BTreeMap;

use serde_json::Value;

/// Watches the numbers of one connection's turns, as its client sends and reads frames.
#[derive(Debug, Default)]
pub struct Numbering {
    turns: BTreeMap<String, Last>,
    /// By the request id of a `resume_turn`: the number that the client said it has.
    resumes: BTreeMap<String, u64>,
}

/// What came last of a turn.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// The number of its last event; 0 before the first.
    Was(u64),
    /// It was resumed after this number; older events may have been dropped meanwhile.
    Resumed(u64),
}

impl Numbering {
    /// Takes note of a frame that the client sends.
    pub fn sent(&mut self, frame: &Value) {
        let Some(request_id) = frame["requestId"].as_str() else { return };
        match frame["action"].as_str() {
            Some("resume_turn") => {
                self.resumes.insert(request_id.to_owned(), frame["afterSeq"].as_u64().unwrap_or(0));
            }
            Some("send_message") => {
                self.turns.insert(request_id.to_owned(), Last::Was(0));
            }
            _ => {}
        }
    }

    /// Checks a frame that the client reads. `sees_all` says that no event is left out for this client.
    pub fn received(&mut self, frame: &Value, sees_all: bool) -> Result<(), String> {
        let Some(request_id) = frame["requestId"].as_str() else { return Ok(()) };
        if let Some(turn) = frame["data"]["requestId"].as_str().filter(|_| frame["data"].get("lastSeq").is_some()) {
            let after = self.resumes.remove(request_id).ok_or("nobody asked to resume this")?;
            let last = frame["data"]["lastSeq"].as_u64().unwrap_or(0);
            self.turns.insert(turn.to_owned(), Last::Resumed(after.min(last)));
            return Ok(());
        }
        let Some(seq) = frame["seq"].as_u64() else { return Ok(()) };
        // The first event may be one of a turn of another connection, seen by cancelling it.
        let fits = match self.turns.get(request_id) {
            None => true,
            Some(Last::Resumed(after)) => seq > *after,
            Some(Last::Was(last)) if sees_all => seq == last + 1,
            Some(Last::Was(last)) => seq > *last,
        };
        let before = self.turns.insert(request_id.to_owned(), Last::Was(seq));
        if fits { Ok(()) } else { Err(format!("number {seq} cannot follow {before:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(seq: u64) -> Value {
        json!({"type": "stream_token", "requestId": "m", "seq": seq})
    }

    fn numbering() -> Numbering {
        let mut numbering = Numbering::default();
        numbering.sent(&json!({"action": "send_message", "requestId": "m"}));
        numbering
    }

    fn read(mut numbering: Numbering, seqs: &[u64], sees_all: bool) -> Result<(), String> {
        seqs.iter().try_for_each(|seq| numbering.received(&event(*seq), sees_all))
    }

    #[test]
    fn gaps_and_duplicates_are_found() {
        assert_eq!(read(numbering(), &[1, 2, 3], true), Ok(()));
        for wrong in [&[2][..], &[1, 3], &[1, 1], &[1, 2, 1]] {
            assert!(read(numbering(), wrong, true).is_err(), "{wrong:?}");
        }
        assert_eq!(read(numbering(), &[1, 3], false), Ok(()), "a hole of events that were left out");
        assert!(read(numbering(), &[1, 3, 3], false).is_err());
    }

    #[test]
    fn a_resume_begins_after_what_the_client_has() {
        let resumed = || {
            let mut numbering = numbering();
            numbering.sent(&json!({"action": "resume_turn", "requestId": "r", "afterSeq": 4}));
            let reply = json!({"requestId": "r", "data": {"requestId": "m", "lastSeq": 9}});
            assert_eq!(numbering.received(&reply, true), Ok(()));
            assert!(numbering.received(&reply, true).is_err(), "one reply for one frame");
            numbering
        };
        assert_eq!(read(resumed(), &[5, 6], true), Ok(()));
        assert_eq!(read(resumed(), &[7, 8], true), Ok(()), "older ones were dropped");
        assert!(read(resumed(), &[4, 5], true).is_err());
        assert!(read(resumed(), &[5, 7], true).is_err());
    }
}
