//! Wakers across the boundary.
//!
//! The side that polls owns the real waker and lends it as a pointer with three functions; the side that is polled
//! sees an ordinary [`Waker`]. Lending costs nothing; only a future that stores the waker pays for a clone (one
//! allocation on each side). Each function catches panics in the library that owns it. A waker that panics while it
//! is cloned gives the null pointer: waking through that does nothing, and the call's clocks end the call.

use std::{
    mem::ManuallyDrop,
    sync::Arc,
    task::{RawWaker, RawWakerVTable, Wake, Waker},
};

use abi_stable::StableAbi;

use crate::guard::catch;

/// What can be done with a waker of the other side. `data` is never null unless `clone` failed.
#[repr(C)]
#[derive(StableAbi)]
pub(crate) struct AbiWakerFunctions {
    /// Makes an owned copy; null when that failed. The copy must be given to `release` once.
    clone: unsafe extern "C" fn(*const ()) -> *const (),
    /// Wakes the task; callable from any thread, any number of times.
    wake: unsafe extern "C" fn(*const ()),
    /// Ends an owned copy.
    release: unsafe extern "C" fn(*const ()),
}

/// A waker that is lent for the duration of one poll.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub(crate) struct AbiWaker {
    data: *const (),
    functions: &'static AbiWakerFunctions,
}

static FUNCTIONS: AbiWakerFunctions =
    AbiWakerFunctions { clone: clone_waker, wake: wake_waker, release: release_waker };

/// # Safety
///
/// `data` must point to a live `Waker` of this library.
unsafe extern "C" fn clone_waker(data: *const ()) -> *const () {
    // SAFETY: the caller's promise.
    let waker = unsafe { &*data.cast::<Waker>() };
    match catch(|| waker.clone()) {
        Ok(copy) => Box::into_raw(Box::new(copy)).cast_const().cast(),
        Err(_) => std::ptr::null(),
    }
}

/// # Safety
///
/// `data` must point to a live `Waker` of this library.
unsafe extern "C" fn wake_waker(data: *const ()) {
    // SAFETY: the caller's promise.
    let waker = unsafe { &*data.cast::<Waker>() };
    let _ = catch(|| waker.wake_by_ref());
}

/// # Safety
///
/// `data` must come from `clone_waker` of this library and not have been released before.
unsafe extern "C" fn release_waker(data: *const ()) {
    // SAFETY: the caller's promise: the box was leaked by `clone_waker`.
    let waker = unsafe { Box::from_raw(data.cast_mut().cast::<Waker>()) };
    let _ = catch(move || drop(waker));
}

impl AbiWaker {
    /// Lends `waker`. The result must not be used after `waker` is gone; the one caller, `AbiFuture::poll`, passes it
    /// down the stack only.
    pub(crate) fn lend(waker: &Waker) -> Self {
        Self { data: std::ptr::from_ref(waker).cast(), functions: &FUNCTIONS }
    }

    /// Runs `code` with an ordinary waker that stands for this one.
    ///
    /// # Safety
    ///
    /// The lent waker must be alive until this returns.
    pub(crate) unsafe fn with<R>(&self, code: impl FnOnce(&Waker) -> R) -> R {
        let raw = RawWaker::new(std::ptr::from_ref(self).cast(), &LENT);
        // SAFETY: `LENT` keeps the contract of `RawWakerVTable`: its data is `self`, which outlives `waker` below; the
        // clone owns what it needs; dropping does nothing because nothing is owned.
        let waker = unsafe { Waker::from_raw(raw) };
        code(&waker)
    }

    /// A copy that may be kept.
    fn to_owned_waker(self) -> OwnedWaker {
        // SAFETY: `data` is alive during the poll that lent it (see `with`), the only time this is called.
        let data = unsafe { (self.functions.clone)(self.data) };
        OwnedWaker { data, functions: self.functions }
    }
}

/// The functions behind a lent waker on the polled side.
static LENT: RawWakerVTable = RawWakerVTable::new(clone_lent, wake_lent, wake_lent, forget_lent);

/// # Safety
///
/// `data` must point to a live [`AbiWaker`].
unsafe fn clone_lent(data: *const ()) -> RawWaker {
    // SAFETY: the caller's promise.
    let lent = unsafe { *data.cast::<AbiWaker>() };
    let waker = ManuallyDrop::new(Waker::from(Arc::new(lent.to_owned_waker())));
    RawWaker::new(waker.data(), waker.vtable())
}

/// # Safety
///
/// `data` must point to a live [`AbiWaker`].
unsafe fn wake_lent(data: *const ()) {
    // SAFETY: the caller's promise; the lent waker is alive while the `AbiWaker` is.
    unsafe {
        let lent = *data.cast::<AbiWaker>();
        (lent.functions.wake)(lent.data);
    }
}

/// Nothing is owned, so nothing is given back.
unsafe fn forget_lent(_: *const ()) {}

/// A clone of a waker of the other side, shared by all copies on this side.
struct OwnedWaker {
    data: *const (),
    functions: &'static AbiWakerFunctions,
}

// SAFETY: the data stands for a `Waker`, which is `Send` and `Sync`, and the functions may be called on any thread.
unsafe impl Send for OwnedWaker {}
// SAFETY: as above.
unsafe impl Sync for OwnedWaker {}

impl Wake for OwnedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.data.is_null() {
            // SAFETY: `data` came from `clone` and is released only in `drop`.
            unsafe { (self.functions.wake)(self.data) };
        }
    }
}

impl Drop for OwnedWaker {
    fn drop(&mut self) {
        if !self.data.is_null() {
            // SAFETY: `data` came from `clone`, and this is the one place that releases it.
            unsafe { (self.functions.release)(self.data) };
        }
    }
}
