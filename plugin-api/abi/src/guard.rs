//! Where foreign code enters, its panics end here.
//!
//! Every dynamic library carries its own copy of the standard library, so a panic that leaves the library which
//! raised it cannot be caught by anybody: it ends the process. Therefore each entry into a library catches inside
//! that library, also when a value is dropped, and what crosses is the text of the panic.

use std::{
    any::Any,
    mem::ManuallyDrop,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs `code` and turns a panic into its text.
///
/// After a panic the caller goes on: what the code had borrowed may be half changed (memory safety is not at stake;
/// standard locks mark themselves poisoned), so the caller must fail that one operation and drop what belongs to it.
pub fn catch<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    // Unwind safety: the broken invariants a panic may leave are those of the author's own values, and the author is
    // told that a panic fails the call but keeps the plugin (see the crate documentation).
    catch_unwind(AssertUnwindSafe(code)).map_err(panic_text)
}

/// The text of a panic's payload. A payload that itself panics when it is dropped is leaked rather than let through.
fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic whose payload is not text".to_owned()
    };
    if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(second);
    }
    text
}

/// A value whose destructor may panic without harm.
#[derive(Debug)]
pub struct Guarded<T>(ManuallyDrop<T>);

impl<T> Guarded<T> {
    /// Takes charge of dropping `value`.
    pub fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the value is dropped only here, and `drop` runs once; nobody can reach the field afterwards. A panic
        // half-way leaves the rest of the value leaked, which is safe.
        let _ = catch(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_of_a_panic() {
        assert_eq!(catch(|| -> () { panic!("plain") }).unwrap_err(), "plain");
        let number = 7;
        assert_eq!(catch(|| -> () { panic!("formatted {number}") }).unwrap_err(), "formatted 7");
        assert_eq!(catch(|| 3).unwrap(), 3);
    }

    #[test]
    fn survives_a_payload_that_panics_when_dropped() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                std::panic::panic_any(Bomb);
            }
        }
        let error = catch(|| -> () { std::panic::panic_any(Bomb) }).unwrap_err();
        assert_eq!(error, "a panic whose payload is not text");
    }

    #[test]
    fn a_guarded_value_may_panic_when_dropped() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        drop(Guarded::new(Bad));
    }
}
