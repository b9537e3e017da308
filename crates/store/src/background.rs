//! Where checkpoints run: on a thread of their own, or, in simulations, right where they are asked for.
//!
//! The thread steps back where processors are short, and so do those that it starts: an engine that is opened on it
//! compacts at a low priority too. Nobody waits for any of them unless they are very late.

use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use stead_types::NodeId;

/// Nodes whose shares differ.
const STAGGER_STEPS: u64 = 9;

/// Delays what is due by a share that differs between nodes: the replicas of a group apply the same, and would all write
/// their rows at the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stagger {
    percent: u32,
}

impl Stagger {
    /// The share of a node.
    pub fn of(node: NodeId) -> Self {
        let step = (node.get() % STAGGER_STEPS) as u32;
        Self {
            percent: step * 100 / STAGGER_STEPS as u32,
        }
    }

    /// Returns when something is due that is due after `time`: at most twice that.
    pub fn time(self, time: Duration) -> Duration {
        time + time * self.percent / 100
    }

    /// Returns the size at which something is due that is due at `size`: at most twice that.
    pub fn size(self, size: usize) -> usize {
        size + size / 100 * self.percent as usize
    }
}

/// As RocksDB has it for compaction (`CpuPriority::kLow`).
const NICENESS: i32 = 10;

/// Something to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs one after the other. Whoever submits bounds how many wait: a group submits one at a time.
pub struct Background {
    worker: Option<Worker>,
    /// When they are due by size.
    pub stagger: Stagger,
}

struct Worker {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    /// Runs each job before [`Background::submit`] returns.
    pub fn inline() -> Self {
        Self {
            worker: None,
            stagger: Stagger::default(),
        }
    }

    /// Runs jobs on a thread, which ends when this is dropped, after the jobs that wait.
    pub fn thread(name: &str, stagger: Stagger) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            step_back();
            for job in receiver {
                job();
            }
        })?;
        let worker = Worker {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        };
        Ok(Self {
            worker: Some(worker),
            stagger,
        })
    }

    /// Tells whether jobs run where they are submitted.
    pub fn is_inline(&self) -> bool {
        self.worker.is_none()
    }

    /// Runs a job and returns what it returned. A panic of the job is one of the caller.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, done) = mpsc::channel();
        self.submit(Box::new(move || drop(sender.send(job()))));
        done.recv()
            .expect("the thread of checkpoints runs until this is dropped")
    }

    /// Runs a job, now or soon.
    pub fn submit(&self, job: Job) {
        match &self.worker {
            None => job(),
            Some(worker) => {
                if let Some(jobs) = &*worker.jobs.lock() {
                    // The thread ends early only by a panic, which it reports when it is joined.
                    drop(jobs.send(job));
                }
            }
        }
    }
}

/// Lowers the priority of the calling thread. On other systems than Linux it would be the whole process's.
fn step_back() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICENESS)
    {
        tracing::warn!(%error, "checkpoints run at full priority");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.lock().take());
        // The last owner may be dropped by a job, on the thread itself.
        if let Some(handle) = self.thread.lock().take()
            && handle.thread().id() != thread::current().id()
            && handle.join().is_err()
        {
            tracing::error!("the thread of checkpoints panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_nodes_in_a_row_have_shares_of_their_own_below_twice_the_size() {
        let mut sizes: Vec<usize> = (1..=9).map(|node| Stagger::of(NodeId::new(node)).size(9_000)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!((sizes.len(), sizes[0]), (9, 9_000));
        assert!(sizes[8] < 18_000);
    }

    #[test]
    fn jobs_run_in_their_order_and_all_before_the_end() {
        for background in [
            Background::inline(),
            Background::thread("test", Stagger::default()).unwrap(),
        ] {
            let (sender, receiver) = mpsc::channel();
            for number in 0..100 {
                let sender = sender.clone();
                background.submit(Box::new(move || sender.send(number).unwrap()));
            }
            drop((background, sender));
            assert!(receiver.into_iter().eq(0..100));
        }
    }
}
