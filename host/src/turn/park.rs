//! Waiting for a human in the middle of a turn.
//!
//! ```text
//!            park                      take_call, take_form       wake
//!   RUNNING ──────▶ parked (in the slot) ──────▶ taken (the ack is queued now) ──────▶ answered
//!                     │  ▲                         │
//!                     │  └── dropped without wake ─┘
//!                     ├── deadline, or nobody there to answer ──▶ expired
//!                     └── dropped (cancel, end of turn) ─────────▶ gone
//! ```
//!
//! A slot holds at most one park, a tool call that wants a yes or a form. An answer is bound to exactly the park that was live when it came: a late, duplicate
//! or foreign answer finds nothing and can never count for a later park. Everything is undone by `Drop`.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    ids::ParkId,
    tools::{Accepted, CallDigest, Form},
};

/// What a human answered to a tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The call may run.
    Approved,
    /// It may not.
    Rejected,
}

/// What a user answered to a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FormAnswer {
    /// These values, which have passed the form's check.
    Submitted(Accepted),
    /// They would rather not say.
    Declined,
}

/// What a human decided, in a word, for counting.
pub(crate) trait Decision {
    fn as_str(&self) -> &'static str;
}

impl Decision for Verdict {
    fn as_str(&self) -> &'static str {
        match self {
            Verdict::Approved => "approved",
            Verdict::Rejected => "rejected",
        }
    }
}

impl Decision for FormAnswer {
    fn as_str(&self) -> &'static str {
        match self {
            FormAnswer::Submitted(_) => "submitted",
            FormAnswer::Declined => "declined",
        }
    }
}

/// How a park ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParkEnd<A> {
    /// A human answered.
    Answered(A),
    /// Nobody answered in time.
    Expired(Duration),
    /// For this long there was nobody who could have answered.
    Unattended(Duration),
}

impl<A: Decision> ParkEnd<A> {
    /// What came of it, in a word.
    pub(super) fn decision(&self) -> &'static str {
        match self {
            ParkEnd::Answered(answer) => answer.as_str(),
            ParkEnd::Expired(_) => "expired",
            ParkEnd::Unattended(_) => "unattended",
        }
    }
}

/// How long a park lasts at most.
#[derive(Clone, Debug)]
pub(crate) struct ParkLimits {
    /// Longest wait, `Limits::confirmation`.
    pub(crate) total: Duration,
    /// Longest stretch without anybody who could answer, `Limits::confirmation_unattended`; absent for a session that
    /// said that it will come back.
    pub(crate) unattended: Option<Duration>,
}

/// There is a park already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the turn already waits for a human")]
pub(crate) struct AlreadyParked;

/// The place of the one park of a conversation's turn. Clones share it: the turn parks, connections answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParkSlot(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held for a few lines, never across an `.await`.
    parked: Mutex<Option<Parked>>,
    /// Rung when a taken park was put back, so that its waiter looks at its clocks again.
    put_back: Notify,
}

#[derive(Debug)]
struct Parked {
    id: ParkId,
    asked: Asked,
}

/// What the human is asked, and the way for the answer.
#[derive(Debug)]
enum Asked {
    /// Whether a call may run. The digest says exactly which.
    Call(CallDigest, oneshot::Sender<Verdict>),
    /// To fill in a form.
    Form(Arc<Form>, oneshot::Sender<FormAnswer>),
}

impl Asked {
    /// Whether the turn has stopped waiting.
    fn is_closed(&self) -> bool {
        match self {
            Asked::Call(_, verdict) => verdict.is_closed(),
            Asked::Form(_, answer) => answer.is_closed(),
        }
    }
}

impl ParkSlot {
    /// Registers the wait for a yes or no. `digest` says to which call.
    pub(crate) fn park_call(&self, id: ParkId, digest: CallDigest) -> Result<Park<Verdict>, AlreadyParked> {
        self.park(id, |verdict| Asked::Call(digest, verdict))
    }

    /// Registers the wait for a form.
    pub(crate) fn park_form(&self, id: ParkId, form: Arc<Form>) -> Result<Park<FormAnswer>, AlreadyParked> {
        self.park(id, |answer| Asked::Form(form, answer))
    }

    fn park<A>(&self, id: ParkId, asked: impl FnOnce(oneshot::Sender<A>) -> Asked) -> Result<Park<A>, AlreadyParked> {
        let (answer, receiver) = oneshot::channel();
        let mut parked = self.lock();
        if parked.is_some() {
            return Err(AlreadyParked);
        }
        *parked = Some(Parked { id, asked: asked(answer) });
        Ok(Park { slot: self.clone(), id, receiver })
    }

    /// Takes the call that waits, so that nobody else can answer it; `None` when none does. The caller queues the
    /// acknowledgement and only then calls [`Answerable::wake`].
    pub(crate) fn take_call(&self) -> Option<Answerable<Verdict>> {
        self.take(|parked| matches!(parked.asked, Asked::Call(..)))
    }

    /// The form that waits. Looking at it changes nothing.
    pub(crate) fn waiting_form(&self) -> Option<(ParkId, Arc<Form>)> {
        match self.lock().as_ref()? {
            Parked { id, asked: Asked::Form(form, _) } => Some((*id, form.clone())),
            Parked { asked: Asked::Call(..), .. } => None,
        }
    }

    /// Takes this very form, like [`take_call`](Self::take_call).
    pub(crate) fn take_form(&self, id: ParkId) -> Option<Answerable<FormAnswer>> {
        self.take(|parked| matches!(parked.asked, Asked::Form(..)) && parked.id == id)
    }

    fn take<A>(&self, is_meant: impl FnOnce(&mut Parked) -> bool) -> Option<Answerable<A>> {
        let parked = self.lock().take_if(is_meant)?;
        Some(Answerable { slot: self.clone(), parked: Some(parked), answers: PhantomData })
    }

    /// Whether the turn waits for a human. A park that is just being answered no longer counts.
    pub(crate) fn is_parked(&self) -> bool {
        self.lock().is_some()
    }

    /// Removes the park with this id; says whether it was there.
    fn remove(&self, id: ParkId) -> bool {
        self.lock().take_if(|parked| parked.id == id).is_some()
    }

    fn put_back(&self, parked: Parked) {
        let mut slot = self.lock();
        // A waiter closes its receiver before it removes its registration, so under this lock it is either seen as
        // closed here, or it will find and remove what is put back now.
        if slot.is_none() && !parked.asked.is_closed() {
            *slot = Some(parked);
        }
        drop(slot);
        self.0.put_back.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Parked>> {
        self.0.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A park that somebody is answering right now. Dropped without [`wake`](Self::wake), for example because the
/// acknowledgement could not be queued, it is put back and can be answered again.
#[derive(Debug)]
#[must_use = "wake the turn with an answer, or drop it to leave the park standing"]
pub(crate) struct Answerable<A> {
    slot: ParkSlot,
    /// Present until woken or dropped.
    parked: Option<Parked>,
    answers: PhantomData<fn(A)>,
}

impl Answerable<Verdict> {
    /// Hands the verdict to the turn. Returns whether the turn still waited for it.
    pub(crate) fn wake(mut self, verdict: Verdict) -> bool {
        let Some(Parked { id, asked: Asked::Call(digest, waiter) }) = self.parked.take() else { return false };
        // The one record of who allowed what: it ties the human's word to the very arguments.
        tracing::info!(park = %id, ?digest, ?verdict, "a human answered");
        waiter.send(verdict).is_ok()
    }
}

impl Answerable<FormAnswer> {
    /// Hands the answer to the turn. Returns whether the turn still waited for it.
    pub(crate) fn wake(mut self, answer: FormAnswer) -> bool {
        let Some(Parked { id, asked: Asked::Form(form, waiter) }) = self.parked.take() else { return false };
        let declined = answer == FormAnswer::Declined;
        tracing::info!(park = %id, kind = form.kind().as_str(), declined, "a user answered a form");
        waiter.send(answer).is_ok()
    }
}

impl<A> Drop for Answerable<A> {
    fn drop(&mut self) {
        if let Some(parked) = self.parked.take() {
            self.slot.put_back(parked);
        }
    }
}

/// The turn's side of its park. Dropping it removes the registration, and only its own.
#[derive(Debug)]
#[must_use = "a park that is dropped is gone"]
pub(crate) struct Park<A> {
    slot: ParkSlot,
    id: ParkId,
    receiver: oneshot::Receiver<A>,
}

impl<A> Park<A> {
    /// Waits for the answer, at most as long as the limits say. `attended` says whether somebody who could answer is
    /// connected; when its sender is gone, its last word holds.
    ///
    /// An answer that was acknowledged before a limit was reached always counts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the park.
    pub(crate) async fn wait(mut self, limits: ParkLimits, mut attended: watch::Receiver<bool>) -> ParkEnd<A> {
        let deadline = Instant::now() + limits.total;
        let mut alone_since = (!*attended.borrow_and_update()).then(Instant::now);
        let mut watching = true;
        let mut expired: Option<ParkEnd<A>> = None;
        loop {
            let alone_until = alone_since.zip(limits.unattended).map(|(since, limit)| since + limit);
            let wake_at = alone_until.map_or(deadline, |until| until.min(deadline));
            tokio::select! {
                biased;
                answer = &mut self.receiver => match answer {
                    Ok(answer) => return ParkEnd::Answered(answer),
                    // Only reached when the registration is gone for good, which nothing but this park does.
                    Err(_) => return ParkEnd::Expired(limits.total),
                },
                changed = attended.changed(), if watching => {
                    watching = changed.is_ok();
                    let is_attended = *attended.borrow_and_update();
                    alone_since = if is_attended { None } else { alone_since.or_else(|| Some(Instant::now())) };
                }
                // While somebody is answering, the limits wait for the outcome, which comes at once.
                () = self.slot.0.put_back.notified(), if expired.is_some() => {}
                () = sleep_until(wake_at), if expired.is_none() => {
                    expired = Some(if Instant::now() >= deadline {
                        ParkEnd::Expired(limits.total)
                    } else {
                        ParkEnd::Unattended(limits.unattended.unwrap_or(limits.total))
                    });
                }
            }
            if expired.is_some()
                && self.slot.remove(self.id)
                && let Some(end) = expired.take()
            {
                return end;
            }
        }
    }
}

impl<A> Drop for Park<A> {
    fn drop(&mut self) {
        // The order matters, see `put_back`.
        self.receiver.close();
        self.slot.remove(self.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::tools::InteractionKind;

    fn id(number: u128) -> ParkId {
        ParkId(Uuid::from_u128(number))
    }

    fn park(slot: &ParkSlot, number: u128) -> Park<Verdict> {
        slot.park_call(id(number), CallDigest::of(&[&number.to_string()])).unwrap()
    }

    fn answering(answerable: &Answerable<Verdict>) -> ParkId {
        answerable.parked.as_ref().unwrap().id
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The default limits, with somebody there or not.
    async fn wait<A>(park: Park<A>, attended: bool) -> ParkEnd<A> {
        let (_sender, attended) = watch::channel(attended);
        park.wait(ParkLimits { total: seconds(300), unattended: Some(seconds(60)) }, attended).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_reaches_the_park_it_was_given_to() {
        for verdict in [Verdict::Approved, Verdict::Rejected] {
            let slot = ParkSlot::default();
            let waiter = tokio::spawn(wait(park(&slot, 1), true));
            let answerable = slot.take_call().unwrap();
            assert_eq!(answering(&answerable), id(1));
            tokio::time::sleep(seconds(1)).await;
            assert!(!waiter.is_finished(), "nothing is delivered before the acknowledgement was queued");
            assert!(answerable.wake(verdict));
            assert_eq!(waiter.await.unwrap(), ParkEnd::Answered(verdict));
            assert!(slot.lock().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn late_duplicate_and_stray_answers_find_nothing() {
        let slot = ParkSlot::default();
        assert!(slot.take_call().is_none(), "nothing is parked");

        let first = tokio::spawn(wait(park(&slot, 1), true));
        let answer = slot.take_call().unwrap();
        assert!(slot.take_call().is_none(), "a duplicate while the first is under way");
        answer.wake(Verdict::Approved);
        assert!(slot.take_call().is_none(), "a duplicate after it");
        first.await.unwrap();

        let expired = wait(park(&slot, 2), true).await;
        assert_eq!(expired, ParkEnd::Expired(seconds(300)));
        assert!(slot.take_call().is_none(), "a late answer");

        // An answer taken for the first park can never reach the second.
        let gone = park(&slot, 3);
        let stale = slot.take_call().unwrap();
        drop(gone);
        let next = tokio::spawn(wait(park(&slot, 4), true));
        assert!(!stale.wake(Verdict::Approved));
        tokio::time::sleep(seconds(1)).await;
        assert!(!next.is_finished());
        assert!(slot.take_call().unwrap().wake(Verdict::Rejected));
        assert_eq!(next.await.unwrap(), ParkEnd::Answered(Verdict::Rejected));
    }

    #[tokio::test]
    async fn one_park_at_a_time_and_a_guard_removes_only_its_own() {
        let slot = ParkSlot::default();
        let first = park(&slot, 1);
        assert_eq!(slot.park_call(id(2), CallDigest::of(&[])).unwrap_err(), AlreadyParked);
        let taken = slot.take_call().unwrap();
        let second = park(&slot, 2);
        drop(first);
        assert!(slot.lock().is_some(), "the second one stands");
        drop(taken);
        assert_eq!(answering(&slot.take_call().unwrap()), second.id, "the first one did not come back");
        drop(second);
        assert!(slot.lock().is_none());
    }

    fn form() -> Arc<Form> {
        let arguments = serde_json::json!({"fields": ["email"]});
        Arc::new(Form::read(InteractionKind::IdentityIntake, arguments.as_object().unwrap()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_form_and_a_call_cannot_be_answered_for_each_other() {
        let slot = ParkSlot::default();
        let waiter = tokio::spawn(wait(park(&slot, 1), true));
        assert_eq!(slot.waiting_form(), None);
        assert!(slot.take_form(id(1)).is_none());
        slot.take_call().unwrap().wake(Verdict::Approved);
        waiter.await.unwrap();

        let waiter = tokio::spawn(wait(slot.park_form(id(2), form()).unwrap(), true));
        assert_eq!(slot.waiting_form(), Some((id(2), form())), "looking takes nothing");
        assert!(slot.take_call().is_none() && slot.take_form(id(3)).is_none());
        drop(slot.take_form(id(2)).unwrap());
        assert!(slot.take_form(id(2)).unwrap().wake(FormAnswer::Declined));
        assert_eq!(waiter.await.unwrap(), ParkEnd::Answered(FormAnswer::Declined));
        assert_eq!(slot.waiting_form(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_could_not_be_acknowledged_leaves_the_park_standing() {
        let slot = ParkSlot::default();
        let waiter = tokio::spawn(wait(park(&slot, 1), true));
        drop(slot.take_call().unwrap());
        assert!(slot.take_call().unwrap().wake(Verdict::Approved));
        assert_eq!(waiter.await.unwrap(), ParkEnd::Answered(Verdict::Approved));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_turn_takes_its_park_with_it() {
        let slot = ParkSlot::default();
        let waiter = tokio::spawn(wait(park(&slot, 1), true));
        tokio::task::yield_now().await;
        let taken = slot.take_call().unwrap();
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
        drop(taken);
        assert!(slot.lock().is_none(), "what is put back for a turn that is gone stays away");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_acknowledged_in_time_counts_after_the_deadline() {
        let slot = ParkSlot::default();
        let waiter = tokio::spawn(wait(park(&slot, 1), true));
        tokio::time::sleep(seconds(299)).await;
        let answer = slot.take_call().unwrap();
        tokio::time::sleep(seconds(2)).await;
        assert!(!waiter.is_finished());
        assert!(answer.wake(Verdict::Approved));
        assert_eq!(waiter.await.unwrap(), ParkEnd::Answered(Verdict::Approved));

        // One that is given up after the deadline expires at once.
        let waiter = tokio::spawn(wait(park(&slot, 2), true));
        tokio::time::sleep(seconds(299)).await;
        let answer = slot.take_call().unwrap();
        tokio::time::sleep(seconds(2)).await;
        let given_up = Instant::now();
        drop(answer);
        assert_eq!(waiter.await.unwrap(), ParkEnd::Expired(seconds(300)));
        assert_eq!(given_up.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_there_ends_it_sooner() {
        let slot = ParkSlot::default();
        let start = Instant::now();
        assert_eq!(wait(park(&slot, 1), false).await, ParkEnd::Unattended(seconds(60)));
        assert_eq!(start.elapsed(), seconds(60));
        assert!(slot.lock().is_none());

        // A session that will come back has the whole time.
        let (_sender, attended) = watch::channel(false);
        let limits = ParkLimits { total: seconds(300), unattended: None };
        assert_eq!(park(&slot, 2).wait(limits, attended).await, ParkEnd::Expired(seconds(300)));
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_coming_back_starts_the_unattended_time_anew() {
        let slot = ParkSlot::default();
        let (sender, attended) = watch::channel(true);
        let limits = ParkLimits { total: seconds(300), unattended: Some(seconds(60)) };
        let start = Instant::now();
        let waiter = tokio::spawn(park(&slot, 1).wait(limits, attended));
        for (after, is_attended) in [(10, false), (50, true), (40, false), (59, false)] {
            tokio::time::sleep(seconds(after)).await;
            sender.send(is_attended).unwrap();
        }
        assert_eq!(waiter.await.unwrap(), ParkEnd::Unattended(seconds(60)));
        assert_eq!(start.elapsed(), seconds(160), "60 s after the last one left at 100 s");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Park,
        DropPark,
        Take,
        Wake,
        GiveUp,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Park), Just(Step::DropPark), Just(Step::Take), Just(Step::Wake), Just(Step::GiveUp)]
    }

    proptest! {
        #[test]
        fn whatever_happens_an_answer_reaches_the_park_it_was_taken_for(steps in proptest::collection::vec(step(), 0..40)) {
            let slot = ParkSlot::default();
            let (mut parks, mut taken): (Vec<Park<Verdict>>, Vec<Answerable<Verdict>>) = (Vec::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Park => parks.extend(slot.park_call(id(number as u128), CallDigest::of(&[])).ok()),
                    Step::DropPark => drop(parks.pop()),
                    Step::Take => taken.extend(slot.take_call()),
                    Step::GiveUp => drop(taken.pop()),
                    Step::Wake => {
                        let Some(answer) = taken.pop() else { continue };
                        let wanted = answering(&answer);
                        let reached = answer.wake(Verdict::Approved);
                        for park in &mut parks {
                            let got = park.receiver.try_recv().is_ok();
                            prop_assert_eq!(got, reached && park.id == wanted);
                        }
                        prop_assert_eq!(reached, parks.iter().any(|park| park.id == wanted));
                        parks.retain(|park| park.id != wanted);
                    }
                }
            }
            drop(parks);
            drop(taken);
            prop_assert!(slot.lock().is_none());
        }
    }
}
