//! Which codes are out, how often each may still be tried, and when the next one may be sent. Pure: every method is
//! told the time.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::{config::Limits, ids::SessionId};

/// Deliveries are counted over this time, and a code is remembered for as long.
const WINDOW: Duration = Duration::from_secs(60 * 60);

/// See the module. Bounded by the deliveries of one [`WINDOW`].
pub(super) struct Codes {
    life: Duration,
    attempts: u32,
    resend: Duration,
    sends_per_contact: usize,
    sends: usize,
    issued: HashMap<SessionId, Issued>,
    /// Oldest first, none older than the window.
    sent: VecDeque<Sent>,
    last_number: u64,
}

struct Issued {
    number: u64,
    code: String,
    destination: String,
    at: Instant,
    attempts_left: u32,
}

struct Sent {
    number: u64,
    session: SessionId,
    destination: String,
    at: Instant,
    /// It did not go out, so that the next try need not wait; it counts in the window all the same.
    failed: bool,
}

/// Why no code may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Throttled {
    /// One was sent a moment ago and still counts.
    StillLive,
    /// The next one may be sent after this time.
    For(Duration),
}

/// What a typed code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// The code that was sent to this destination.
    Right { destination: String },
    /// Another one; so many tries are left, at least one.
    Wrong { attempts_left: u32 },
    /// No try is left.
    Spent,
    /// Its time is over.
    Expired,
    /// There is none.
    Nothing,
}

impl Codes {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            life: limits.otp_life,
            attempts: limits.otp_attempts,
            resend: limits.otp_resend,
            sends_per_contact: limits.otp_sends_per_contact,
            sends: limits.otp_sends,
            issued: HashMap::new(),
            sent: VecDeque::new(),
            last_number: 0,
        }
    }

    /// Notes a code that is about to be sent; it takes the place of the session's last one. The number names the
    /// delivery.
    pub(super) fn issue(
        &mut self,
        session: SessionId,
        destination: &str,
        code: &str,
        now: Instant,
    ) -> Result<u64, Throttled> {
        self.forget_old(now);
        if let Some(wait) = self.wait(session, destination, now) {
            let live = self.issued.get(&session).filter(|issued| {
                issued.destination == destination && issued.attempts_left > 0 && now < issued.at + self.life
            });
            return Err(if live.is_some() { Throttled::StillLive } else { Throttled::For(wait) });
        }
        self.last_number += 1;
        let (number, destination) = (self.last_number, destination.to_owned());
        self.sent.push_back(Sent { number, session, destination: destination.clone(), at: now, failed: false });
        let issued = Issued { number, code: code.to_owned(), destination, at: now, attempts_left: self.attempts };
        self.issued.insert(session, issued);
        Ok(number)
    }

    /// How long the next code for this session or destination has to wait, if it has to.
    fn wait(&self, session: SessionId, destination: &str, now: Instant) -> Option<Duration> {
        let until = |at: Instant, time: Duration| (at + time).saturating_duration_since(now);
        let lately = |sent: &&Sent| !sent.failed && (sent.session == session || sent.destination == destination);
        let resend = self.sent.iter().filter(lately).map(|sent| until(sent.at, self.resend)).max();
        let of_contact: Vec<&Sent> = self.sent.iter().filter(|sent| sent.destination == destination).collect();
        let contact = nth_last(&of_contact, self.sends_per_contact).map(|sent| until(sent.at, WINDOW));
        let all: Vec<&Sent> = self.sent.iter().collect();
        let everybody = nth_last(&all, self.sends).map(|sent| until(sent.at, WINDOW));
        [resend, contact, everybody].into_iter().flatten().max().filter(|wait| !wait.is_zero())
    }

    /// Takes back a code that did not go out.
    pub(super) fn withdraw(&mut self, number: u64) {
        self.issued.retain(|_, issued| issued.number != number);
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.number == number) {
            sent.failed = true;
        }
    }

    /// What a typed code is. Counts a wrong one. `is_present` says whether a destination is still a contact of the
    /// session: who owns one address says nothing about another.
    pub(super) fn check(
        &mut self,
        session: SessionId,
        typed: &str,
        is_present: impl FnOnce(&str) -> bool,
        now: Instant,
    ) -> Checked {
        self.forget_old(now);
        let life = self.life;
        let Some(issued) = self.issued.get_mut(&session) else { return Checked::Nothing };
        if !is_present(&issued.destination) {
            self.issued.remove(&session);
            return Checked::Nothing;
        }
        if issued.attempts_left == 0 {
            return Checked::Spent;
        }
        if now >= issued.at + life {
            return Checked::Expired;
        }
        if bool::from(issued.code.as_bytes().ct_eq(typed.as_bytes())) {
            return Checked::Right { destination: issued.destination.clone() };
        }
        issued.attempts_left -= 1;
        match issued.attempts_left {
            0 => Checked::Spent,
            attempts_left => Checked::Wrong { attempts_left },
        }
    }

    /// The session is verified; its code does not count again.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.issued.remove(&session);
    }

    fn forget_old(&mut self, now: Instant) {
        while self.sent.front().is_some_and(|sent| now >= sent.at + WINDOW) {
            let Some(oldest) = self.sent.pop_front() else { return };
            if self.issued.get(&oldest.session).is_some_and(|issued| issued.number == oldest.number) {
                self.issued.remove(&oldest.session);
            }
        }
    }
}

/// The entry that has to leave before another one may come, when `max` are there.
fn nth_last<'a>(entries: &[&'a Sent], max: usize) -> Option<&'a Sent> {
    entries.len().checked_sub(max).and_then(|index| entries.get(index)).copied()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const MAIL: &str = "a@b.c";

    fn session(number: u128) -> SessionId {
        SessionId(Uuid::from_u128(number))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn minutes(count: u64) -> Duration {
        seconds(60 * count)
    }

    fn codes() -> (Codes, Instant) {
        (Codes::new(&Limits::default()), Instant::now())
    }

    fn check(codes: &mut Codes, typed: &str, now: Instant) -> Checked {
        codes.check(session(1), typed, |destination| destination == MAIL, now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_code_counts_once_and_only_for_its_session() {
        let (mut codes, now) = codes();
        assert_eq!(check(&mut codes, "123456", now), Checked::Nothing);
        codes.issue(session(1), MAIL, "123456", now).unwrap();
        assert_eq!(codes.check(session(2), "123456", |_| true, now), Checked::Nothing);
        let right = Checked::Right { destination: MAIL.to_owned() };
        assert_eq!(check(&mut codes, "123456", now + minutes(9)), right);
        codes.forget(session(1));
        assert_eq!(check(&mut codes, "123456", now), Checked::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn tries_run_out_and_the_right_code_comes_too_late() {
        let (mut codes, now) = codes();
        codes.issue(session(1), MAIL, "123456", now).unwrap();
        for attempts_left in [4, 3, 2, 1] {
            assert_eq!(check(&mut codes, "", now), Checked::Wrong { attempts_left });
        }
        assert_eq!(check(&mut codes, "1234567", now), Checked::Spent);
        assert_eq!(check(&mut codes, "123456", now), Checked::Spent);
        // A new code brings new tries.
        codes.issue(session(1), MAIL, "654321", now + minutes(2)).unwrap();
        assert_eq!(check(&mut codes, "123456", now + minutes(2)), Checked::Wrong { attempts_left: 4 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_expires_and_is_forgotten_at_last() {
        let (mut codes, now) = codes();
        codes.issue(session(1), MAIL, "123456", now).unwrap();
        assert_eq!(check(&mut codes, "123456", now + minutes(10)), Checked::Expired);
        assert_eq!(check(&mut codes, "123456", now + minutes(60)), Checked::Nothing);
        assert!(codes.issued.is_empty() && codes.sent.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_sent_to_a_contact_that_is_no_longer_given_is_void() {
        let (mut codes, now) = codes();
        codes.issue(session(1), MAIL, "123456", now).unwrap();
        assert_eq!(codes.check(session(1), "123456", |_| false, now), Checked::Nothing);
        assert_eq!(check(&mut codes, "123456", now), Checked::Nothing, "also when the contact comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn codes_are_sent_at_intervals_and_only_so_many_to_one_contact() {
        let (mut codes, now) = codes();
        codes.issue(session(1), MAIL, "1", now).unwrap();
        assert_eq!(codes.issue(session(1), MAIL, "2", now + seconds(59)), Err(Throttled::StillLive));
        // Another session cannot be used to flood the same address, nor another address from the same session.
        assert_eq!(codes.issue(session(2), MAIL, "2", now + seconds(20)), Err(Throttled::For(seconds(40))));
        assert_eq!(codes.issue(session(1), "x@y.z", "2", now + seconds(20)), Err(Throttled::For(seconds(40))));
        codes.issue(session(2), "x@y.z", "2", now + seconds(20)).unwrap();
        for minute in 1..5 {
            codes.issue(session(1), MAIL, "3", now + minutes(minute)).unwrap();
        }
        assert_eq!(codes.issue(session(3), MAIL, "4", now + minutes(20)), Err(Throttled::For(minutes(40))));
        codes.issue(session(3), MAIL, "4", now + minutes(60)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_that_did_not_go_out_is_void_and_the_next_one_need_not_wait() {
        let (mut codes, now) = codes();
        for _ in 0..5 {
            let number = codes.issue(session(1), MAIL, "123456", now).unwrap();
            codes.withdraw(number);
            assert_eq!(check(&mut codes, "123456", now), Checked::Nothing);
        }
        assert_eq!(codes.issue(session(1), MAIL, "123456", now), Err(Throttled::For(minutes(60))), "but it counts");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deliveries_of_an_hour_are_bounded() {
        let mut codes = Codes::new(&Limits { otp_sends: 3, ..Limits::default() });
        let now = Instant::now();
        for number in 0..3 {
            codes.issue(session(number), &number.to_string(), "1", now + seconds(number as u64)).unwrap();
        }
        assert_eq!(codes.issue(session(9), "9", "1", now + minutes(10)), Err(Throttled::For(minutes(50))));
        codes.issue(session(9), "9", "1", now + minutes(60)).unwrap();
    }

    proptest! {
        #[test]
        fn no_code_passes_that_was_not_the_last_one_sent(steps in proptest::collection::vec((0_u8..3, 0_u128..3, 0_u64..400), 0..60)) {
            let mut codes = Codes::new(&Limits::default());
            let mut now = Instant::now();
            let mut last: HashMap<SessionId, String> = HashMap::new();
            for (index, (step, who, pause)) in steps.into_iter().enumerate() {
                now += seconds(pause);
                let who = session(who);
                let code = format!("{index:06}");
                match step {
                    0 => if codes.issue(who, MAIL, &code, now).is_ok() {
                        last.insert(who, code);
                    },
                    1 => {
                        let typed = last.get(&who).cloned().unwrap_or_default();
                        if let Checked::Right { .. } = codes.check(who, &typed, |_| true, now) {
                            prop_assert!(!typed.is_empty());
                        }
                    }
                    _ => {
                        let others = last.iter().filter(|(other, _)| **other != who).map(|(_, code)| code.clone());
                        for typed in others.collect::<Vec<_>>() {
                            let is_right = matches!(codes.check(who, &typed, |_| true, now), Checked::Right { .. });
                            prop_assert!(!is_right);
                        }
                    }
                }
                prop_assert!(codes.issued.len() <= codes.sent.len());
            }
        }
    }
}
