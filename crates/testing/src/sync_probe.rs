//! Probe of the disk's sync latency while something is measured: printed beside the figures, which depend on it.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::AbortHandle};

const SYNC_INTERVAL: Duration = Duration::from_millis(100);
const BLOCK: [u8; 4096] = [7; 4096];

/// Syncs a block periodically until dropped.
#[derive(Debug)]
pub struct SyncProbe {
    latencies: Arc<Mutex<Vec<Duration>>>,
    task: AbortHandle,
}

impl SyncProbe {
    /// Starts to sync a file in a folder.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn start(data: &Path) -> std::io::Result<Self> {
        let file = Arc::new(File::create(data.join("fdatasync.probe"))?);
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let samples = latencies.clone();
        let watch = async move {
            loop {
                let file = file.clone();
                if let Ok(Ok(sync)) = tokio::task::spawn_blocking(move || sync(&file)).await {
                    samples.lock().await.push(sync);
                }
                tokio::time::sleep(SYNC_INTERVAL).await;
            }
        };
        Ok(Self {
            latencies,
            task: tokio::spawn(watch).abort_handle(),
        })
    }

    /// Returns the 99th percentile since the last call.
    pub async fn p99(&self) -> Duration {
        let mut latencies = std::mem::take(&mut *self.latencies.lock().await);
        crate::load::percentile(&mut latencies, 0.99)
    }
}

fn sync(mut file: &File) -> std::io::Result<Duration> {
    let started = Instant::now();
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&BLOCK)?;
    file.sync_data()?;
    Ok(started.elapsed())
}

impl Drop for SyncProbe {
    fn drop(&mut self) {
        self.task.abort();
    }
}
