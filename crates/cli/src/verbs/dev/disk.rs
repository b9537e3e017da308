//! How fast this machine's disk syncs while something is measured: printed beside, because figures depend on it.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::AbortHandle};

const EVERY: Duration = Duration::from_millis(100);
const BLOCK: [u8; 4096] = [7; 4096];

/// Syncs a block now and then until dropped.
#[derive(Debug)]
pub(super) struct Disk {
    taken: Arc<Mutex<Vec<Duration>>>,
    task: AbortHandle,
}

impl Disk {
    pub(super) fn watch(data: &Path) -> std::io::Result<Self> {
        let file = Arc::new(File::create(data.join("fdatasync.probe"))?);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let kept = taken.clone();
        let watch = async move {
            loop {
                let file = file.clone();
                if let Ok(Ok(sync)) = tokio::task::spawn_blocking(move || sync(&file)).await {
                    kept.lock().await.push(sync);
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        Ok(Self {
            taken,
            task: tokio::spawn(watch).abort_handle(),
        })
    }

    /// Returns the 99th percentile since the last call.
    pub(super) async fn p99(&self) -> Duration {
        let mut taken = std::mem::take(&mut *self.taken.lock().await);
        super::load::percentile(&mut taken, 0.99)
    }
}

fn sync(mut file: &File) -> std::io::Result<Duration> {
    let started = Instant::now();
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&BLOCK)?;
    file.sync_data()?;
    Ok(started.elapsed())
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.task.abort();
    }
}
