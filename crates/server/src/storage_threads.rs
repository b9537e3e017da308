//! Task that looks after the storage engine: its own threads, and the disk space of removed rows.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stead_store::{background::Background, engine::Engine, group_rows::failed};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Interval at which the engine's own threads are checked.
const THREAD_CHECK_INTERVAL: Duration = Duration::from_secs(5);
const CHECK_TASK: &str = "checking the engine's threads";

/// Checks at intervals whether threads of the engine have ended, which nothing else would report while nothing is
/// written, and lets the engine free disk space. A check that a checkpoint delays is not followed by another one before
/// it is done.
pub(crate) async fn check_threads(
    engine: Arc<dyn Engine>,
    background: Arc<Background>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let is_due = Arc::new(AtomicBool::new(true));
    while stop.run_until_cancelled(sleep(THREAD_CHECK_INTERVAL)).await.is_some() {
        if is_due.swap(false, Ordering::AcqRel) {
            let (engine, is_due) = (engine.clone(), is_due.clone());
            background.submit(None, CHECK_TASK, move || {
                let checked = engine.check_workers().and_then(|()| engine.reclaim());
                is_due.store(true, Ordering::Release);
                checked.map_err(failed(CHECK_TASK))
            });
        }
    }
    Ok(())
}
