//! A future that crosses the boundary.
//!
//! ```text
//!   library that owns the code                      library that waits
//!   AbiFuture::new(async { .. })  ── moved ──▶  future.await -> Result<T, PluginPanicked>
//!        poll: catches, gives AbiPoll  ◀─────────  each poll lends a waker
//!        drop: catches                 ◀─────────  drop = cancel
//! ```
//!
//! What never happens: a panic of the future, or of its destructor, passes the boundary; the future is polled after
//! it ended; author's code runs while the memory of the future is given back.

use std::{
    fmt,
    future::Future,
    mem::ManuallyDrop,
    pin::Pin,
    task::{Context, Poll},
};

use abi_stable::{StableAbi, std_types::RString};

use crate::{guard::catch, waker::AbiWaker};

/// A future made in one library and awaited in another. Dropping it cancels it.
#[repr(C)]
#[derive(StableAbi)]
#[must_use = "a future does nothing until it is polled"]
pub struct AbiFuture<T> {
    /// Null once the future has ended and has been given back.
    state: *mut (),
    poll: unsafe extern "C" fn(*mut (), AbiWaker) -> AbiPoll<T>,
    release: unsafe extern "C" fn(*mut ()),
}

/// The answer of one poll.
#[repr(u8)]
#[derive(StableAbi)]
pub enum AbiPoll<T> {
    /// Not yet; the waker will be woken.
    Pending,
    /// The value.
    Ready(T),
    /// The future panicked, with this text; it is gone.
    Panicked(RString),
}

/// The other side's future panicked instead of giving a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginPanicked {
    /// The text of the panic.
    pub message: String,
}

impl fmt::Display for PluginPanicked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "panicked: {}", self.message)
    }
}

impl std::error::Error for PluginPanicked {}

// SAFETY: `AbiFuture::new`, the only way to put code behind the pointer, takes a `Send` future; the functions may be
// called on any thread, one at a time, which `&mut self` ensures.
unsafe impl<T> Send for AbiFuture<T> {}

/// What has to be in place on a thread while code of a future runs: a runtime's context, the number of a call.
///
/// Another library's thread polls and drops the future, so nothing that the future's own library keeps per thread is
/// there unless it is put there each time.
pub trait Surroundings: Send + 'static {
    /// Runs `code` with everything in place, and clears it away again, also when `code` panics.
    fn within<R>(&self, code: impl FnOnce() -> R) -> R;
}

/// No surroundings.
impl Surroundings for () {
    fn within<R>(&self, code: impl FnOnce() -> R) -> R {
        code()
    }
}

impl<T> AbiFuture<T> {
    /// Wraps a future of this library.
    pub fn new<F>(future: F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        Self::new_within((), future)
    }

    /// Wraps a future that is polled and dropped within `surroundings`.
    pub fn new_within<S, F>(surroundings: S, future: F) -> Self
    where
        S: Surroundings,
        F: Future<Output = T> + Send + 'static,
    {
        let state = Box::new(State { future: ManuallyDrop::new(future), alive: true, surroundings });
        Self { state: Box::into_raw(state).cast(), poll: poll_state::<F, S>, release: release_state::<F, S> }
    }

    /// Makes a future and wraps it; a panic while it is made becomes the future's answer.
    pub fn guarded<F>(make: impl FnOnce() -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        match catch(make) {
            Ok(future) => Self::new(future),
            Err(message) => Self::panicked(message),
        }
    }

    /// A future that has its value already.
    pub fn ready(value: T) -> Self
    where
        T: Send + 'static,
    {
        Self::new(std::future::ready(value))
    }

    /// A future that answers with a panic that was caught already.
    pub fn panicked(message: String) -> Self {
        let state = Box::new(RString::from(message));
        Self { state: Box::into_raw(state).cast(), poll: poll_panicked::<T>, release: release_panicked }
    }

    /// Gives the future back to its library.
    fn release(&mut self) {
        let state = std::mem::replace(&mut self.state, std::ptr::null_mut());
        if !state.is_null() {
            // SAFETY: `state` belongs to `release`, both set together by a constructor, and it is null from now on.
            unsafe { (self.release)(state) };
        }
    }
}

impl<T> Future for AbiFuture<T> {
    type Output = Result<T, PluginPanicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.state.is_null() {
            return Poll::Ready(Err(PluginPanicked { message: "the future was polled after it had ended".into() }));
        }
        // SAFETY: `state` is alive and belongs to `poll`, both set together by a constructor; `&mut self` makes this
        // the only poll; the lent waker is alive until `poll` returns.
        let answer = unsafe { (self.poll)(self.state, AbiWaker::lend(context.waker())) };
        match answer {
            AbiPoll::Pending => Poll::Pending,
            AbiPoll::Ready(value) => {
                self.release();
                Poll::Ready(Ok(value))
            }
            AbiPoll::Panicked(message) => {
                self.release();
                Poll::Ready(Err(PluginPanicked { message: message.into_string() }))
            }
        }
    }
}

impl<T> Drop for AbiFuture<T> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T> fmt::Debug for AbiFuture<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AbiFuture").field("ended", &self.state.is_null()).finish_non_exhaustive()
    }
}

/// The future in its own library. It never moves after it was boxed.
struct State<F, S> {
    future: ManuallyDrop<F>,
    /// Whether `future` still has to be dropped.
    alive: bool,
    surroundings: S,
}

impl<F, S: Surroundings> State<F, S> {
    /// Drops the future in place, once; a panic of its destructor ends here. The flag falls first, so that a
    /// destructor that panics is not run a second time.
    fn end(&mut self) {
        if std::mem::replace(&mut self.alive, false) {
            let Self { future, surroundings, .. } = self;
            // SAFETY: `alive` was set, so the future has not been dropped, and it cannot be dropped again.
            let _ = catch(|| surroundings.within(|| unsafe { ManuallyDrop::drop(future) }));
        }
    }
}

/// # Safety
///
/// `state` must come from [`AbiFuture::new`] with this `F` and `S`, be alive, and not be in use; the lent waker must be alive.
unsafe extern "C" fn poll_state<F: Future, S: Surroundings>(state: *mut (), waker: AbiWaker) -> AbiPoll<F::Output> {
    // SAFETY: the caller's promise.
    let state = unsafe { &mut *state.cast::<State<F, S>>() };
    if !state.alive {
        return AbiPoll::Panicked("the future was polled after it had ended".into());
    }
    let State { future, surroundings, .. } = state;
    let polled = catch(|| {
        // SAFETY: the future lives in a box that is never moved out of, and is dropped in place.
        let future = unsafe { Pin::new_unchecked(&mut **future) };
        // SAFETY: the caller's promise about the waker.
        surroundings.within(|| unsafe { waker.with(|waker| future.poll(&mut Context::from_waker(waker))) })
    });
    match polled {
        Ok(Poll::Pending) => AbiPoll::Pending,
        Ok(Poll::Ready(value)) => {
            state.end();
            AbiPoll::Ready(value)
        }
        Err(message) => {
            state.end();
            AbiPoll::Panicked(message.into())
        }
    }
}

/// # Safety
///
/// `state` must come from [`AbiFuture::new`] with this `F` and `S` and not have been released.
unsafe extern "C" fn release_state<F, S: Surroundings>(state: *mut ()) {
    // SAFETY: the caller's promise.
    let mut state = unsafe { Box::from_raw(state.cast::<State<F, S>>()) };
    state.end();
    let _ = catch(move || drop(state));
}

/// # Safety
///
/// `state` must come from [`AbiFuture::panicked`] and be alive.
unsafe extern "C" fn poll_panicked<T>(state: *mut (), _: AbiWaker) -> AbiPoll<T> {
    // SAFETY: the caller's promise.
    let message = unsafe { &*state.cast::<RString>() };
    AbiPoll::Panicked(message.clone())
}

/// # Safety
///
/// `state` must come from [`AbiFuture::panicked`] and not have been released.
unsafe extern "C" fn release_panicked(state: *mut ()) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(state.cast::<RString>()) });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll_once<T>(future: &mut AbiFuture<T>, waker: &Waker) -> Poll<Result<T, PluginPanicked>> {
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }

    /// Pending until told otherwise; keeps the waker it was given.
    #[derive(Clone, Default)]
    struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

    impl Gate {
        fn open(&self) {
            let mut gate = self.0.lock().unwrap();
            gate.0 = true;
            if let Some(waker) = gate.1.take() {
                waker.wake();
            }
        }
    }

    impl Future for Gate {
        type Output = &'static str;
        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<&'static str> {
            let mut gate = self.0.lock().unwrap();
            if gate.0 {
                return Poll::Ready("open");
            }
            gate.1 = Some(context.waker().clone());
            Poll::Pending
        }
    }

    #[test]
    fn a_ready_value_comes_through_and_a_late_poll_is_harmless() {
        let mut future = AbiFuture::new(async { String::from("hello") });
        assert_eq!(poll_once(&mut future, Waker::noop()), Poll::Ready(Ok("hello".to_owned())));
        let Poll::Ready(Err(late)) = poll_once(&mut future, Waker::noop()) else { panic!("a late poll must answer") };
        assert!(late.message.contains("after it had ended"));
    }

    #[test]
    fn a_stored_waker_wakes_the_other_side() {
        let count = Arc::new(CountingWaker::default());
        let waker = Waker::from(count.clone());
        let gate = Gate::default();
        let mut future = AbiFuture::new(gate.clone());
        assert!(poll_once(&mut future, &waker).is_pending());
        std::thread::spawn({
            let gate = gate.clone();
            move || gate.open()
        })
        .join()
        .unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll_once(&mut future, &waker), Poll::Ready(Ok("open")));
        drop((future, gate, waker));
        assert_eq!(Arc::strong_count(&count), 1, "every copy of the waker was given back");
    }

    #[test]
    fn a_panic_in_the_body_keeps_its_text_and_later_polls_are_safe() {
        let mut future = AbiFuture::<u8>::new(async { panic!("no such city: {}", "Atlantis") });
        let Poll::Ready(Err(panic)) = poll_once(&mut future, Waker::noop()) else { panic!("must answer") };
        assert_eq!(panic.message, "no such city: Atlantis");
        assert!(matches!(poll_once(&mut future, Waker::noop()), Poll::Ready(Err(_))));
    }

    #[test]
    fn a_panic_before_the_future_exists_is_its_answer() {
        fn make() -> std::future::Ready<u8> {
            panic!("too early")
        }
        let mut future = AbiFuture::guarded(make);
        let Poll::Ready(Err(panic)) = poll_once(&mut future, Waker::noop()) else { panic!("must answer") };
        assert_eq!(panic.message, "too early");
    }

    #[test]
    fn a_destructor_that_panics_ends_quietly_wherever_it_runs() {
        struct Bad(Arc<AtomicUsize>);
        impl Drop for Bad {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
                panic!("in drop");
            }
        }
        let drops = Arc::new(AtomicUsize::new(0));
        // Cancelled before the first poll, cancelled while pending, and at the end of a ready future.
        let never = Bad(drops.clone());
        drop(AbiFuture::new(async move { drop(never) }));
        let pending = Bad(drops.clone());
        let mut future = AbiFuture::new(async move {
            let _kept = pending;
            std::future::pending::<()>().await;
        });
        assert!(poll_once(&mut future, Waker::noop()).is_pending());
        drop(future);
        struct ReadyHolding(Bad);
        impl Future for ReadyHolding {
            type Output = u8;
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u8> {
                let _ = &self.0;
                Poll::Ready(5)
            }
        }
        let mut future = AbiFuture::new(ReadyHolding(Bad(drops.clone())));
        assert_eq!(poll_once(&mut future, Waker::noop()), Poll::Ready(Ok(5)));
        drop(future);
        assert_eq!(drops.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_waker_that_panics_stays_on_its_side() {
        struct BadWaker;
        impl Wake for BadWaker {
            fn wake(self: Arc<Self>) {
                panic!("the executor is broken");
            }
        }
        let waker = Waker::from(Arc::new(BadWaker));
        let gate = Gate::default();
        let mut future = AbiFuture::new(gate.clone());
        assert!(poll_once(&mut future, &waker).is_pending());
        gate.open();
        assert_eq!(poll_once(&mut future, &waker), Poll::Ready(Ok("open")));
    }

    #[test]
    fn surroundings_are_there_at_every_poll_and_at_the_drop() {
        thread_local!(static DEPTH: std::cell::Cell<u8> = const { std::cell::Cell::new(0) });
        struct Counted;
        impl Surroundings for Counted {
            fn within<R>(&self, code: impl FnOnce() -> R) -> R {
                DEPTH.set(DEPTH.get() + 1);
                let result = code();
                DEPTH.set(DEPTH.get() - 1);
                result
            }
        }
        struct Probe(Arc<Mutex<Vec<u8>>>);
        impl Drop for Probe {
            fn drop(&mut self) {
                self.0.lock().unwrap().push(DEPTH.get());
            }
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let probe = Probe(seen.clone());
        let mut future = AbiFuture::new_within(Counted, async move {
            probe.0.lock().unwrap().push(DEPTH.get());
            std::future::pending::<()>().await;
        });
        assert!(poll_once(&mut future, Waker::noop()).is_pending());
        drop(future);
        assert_eq!(*seen.lock().unwrap(), [1, 1]);
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn futures_can_be_sent_and_debugged() {
        fn is_send<T: Send>(_: &T) {}
        let future = AbiFuture::ready(1_u8);
        is_send(&future);
        assert!(format!("{future:?}").contains("ended: false"));
    }
}
