//! Panics, caught where somebody can say what they mean.
//!
//! A process's panic hook is called before a panic is caught. By [`is_caught`] it knows whether somebody does, and tells
//! why; what nobody catches ends a thread or a task in silence.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    /// How many callers on this thread catch panics, one inside the other.
    static CATCHERS: Cell<u32> = const { Cell::new(0) };
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panic: {0}")]
pub struct Panicked(pub(super) String);

impl Panicked {
    /// Reads the message of what `catch_unwind` or a joined thread returned.
    pub fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        Self::saying(text.or_else(|| payload.downcast_ref::<&'static str>().copied()))
    }

    /// Reads the message of a panic that the process's hook is told of.
    pub fn of(info: &PanicHookInfo<'_>) -> Self {
        Self::saying(info.payload_as_str())
    }

    fn saying(text: Option<&str>) -> Self {
        Self(text.unwrap_or("of a value that is no text").to_owned())
    }
}

/// Tells whether a panic of this thread is caught now.
pub fn is_caught() -> bool {
    CATCHERS.get() > 0
}

/// Does something; a panic of it is an error.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    CATCHERS.set(CATCHERS.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    CATCHERS.set(CATCHERS.get() - 1);
    done.map_err(|payload| Panicked::new(&*payload))
}

/// Future whose panics are errors. It is not to be polled after one.
#[derive(Debug)]
pub struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Caught<F> {
    /// Catches the panics of a future.
    pub fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match caught(|| self.0.as_mut().poll(context)) {
            Ok(polled) => polled.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panics_of_calls_and_futures_are_errors() {
        assert!(!is_caught());
        assert_eq!(caught(|| caught(is_caught)), Ok(Ok(true)));
        let panicked = caught(|| panic!("at {}", 7)).unwrap_err();
        assert_eq!(panicked.to_string(), "panic: at 7");
        let future = async {
            tokio::task::yield_now().await;
            assert!(is_caught());
            std::panic::panic_any(7)
        };
        let panicked: Result<(), _> = Caught::new(future).await;
        assert_eq!(panicked.unwrap_err().to_string(), "panic: of a value that is no text");
        assert!(!is_caught());
    }
}
