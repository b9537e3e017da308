//! Where work runs that waits for a disk.

use tokio::task::JoinError;

/// Where checkpoints, snapshots and the like are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On the runtime's threads for blocking work.
    Pool,
    /// At once, on the calling task: for simulations, where everything runs on one thread.
    Inline,
}

impl Blocking {
    /// Runs `work` and returns what it returned. A panic of `work` is one of the caller.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Pool => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                Err(error) => resume(error),
            },
        }
    }
}

fn resume(error: JoinError) -> ! {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => panic!("blocking work is never aborted, but: {error}"),
    }
}
