//! Panics turned into errors, where the caller knows the operation.
//!
//! A process's panic hook is called before a panic is caught. With [`is_catching_panics`] it knows whether the panic
//! will be caught and reported; an uncaught one would end a thread or a task silently.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    /// Number of nested callers on this thread that catch panics.
    static CATCHERS: Cell<u32> = const { Cell::new(0) };
}

/// Panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panic: {0}")]
pub struct PanicError(pub(super) String);

impl PanicError {
    /// Reads the message of the payload that `catch_unwind` or a joined thread returned.
    pub fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        Self::from_text(text.or_else(|| payload.downcast_ref::<&'static str>().copied()))
    }

    /// Reads the message of a panic in the process's hook.
    pub fn of(info: &PanicHookInfo<'_>) -> Self {
        Self::from_text(info.payload_as_str())
    }

    fn from_text(text: Option<&str>) -> Self {
        Self(text.unwrap_or("payload is not a string").to_owned())
    }
}

/// Tells whether a panic of this thread would be caught.
pub fn is_catching_panics() -> bool {
    CATCHERS.get() > 0
}

/// Runs a closure and turns a panic into an error.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, PanicError> {
    CATCHERS.set(CATCHERS.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHERS.set(CATCHERS.get() - 1);
    done.map_err(|payload| PanicError::new(&*payload))
}

/// Future that turns panics into errors. It must not be polled after one.
#[derive(Debug)]
pub struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> CatchPanic<F> {
    /// Wraps a future.
    pub fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, PanicError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_panic(|| self.0.as_mut().poll(context)) {
            Ok(polled) => polled.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn caught_panics_of_calls_and_futures_are_errors() {
        assert!(!is_catching_panics());
        assert_eq!(catch_panic(|| catch_panic(is_catching_panics)), Ok(Ok(true)));
        let panicked = catch_panic(|| panic!("at {}", 7)).unwrap_err();
        assert_eq!(panicked.to_string(), "panic: at 7");
        let future = async {
            tokio::task::yield_now().await;
            assert!(is_catching_panics());
            std::panic::panic_any(7)
        };
        let panicked: Result<(), _> = CatchPanic::new(future).await;
        assert_eq!(panicked.unwrap_err().to_string(), "panic: payload is not a string");
        assert!(!is_catching_panics());
    }
}
