//! Background job executor for checkpoints: a thread of its own, or, in simulations, the calling thread.
//!
//! The thread runs at a low priority, and so do those that it starts: an engine that is opened on it compacts at a low
//! priority too. Requests wait for them only when checkpoints fall far behind.
//!
//! # Invariants
//!
//! 1. A job that panics ends neither the thread nor its waiters: it stops the node.

use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use stead_types::{GroupId, NodeId};

use crate::health::{Health, NodeFailure};
use crate::machine::MachineError;

/// Number of different delays.
const STAGGER_STEPS: u64 = 9;

/// Delay of checkpoints that differs between nodes. The replicas of a group apply the same entries, and would otherwise
/// all write their rows at the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stagger {
    percent: u32,
}

impl Stagger {
    /// Returns the delay of a node.
    pub fn of(node: NodeId) -> Self {
        let step = (node.get() % STAGGER_STEPS) as u32;
        Self {
            percent: step * 100 / STAGGER_STEPS as u32,
        }
    }

    /// Returns a delay staggered: between one and two times `time`.
    pub fn time(self, time: Duration) -> Duration {
        time + time * self.percent / 100
    }

    /// Returns a threshold staggered: between one and two times `size`.
    pub fn size(self, size: usize) -> usize {
        size + size / 100 * self.percent as usize
    }
}

/// Niceness of the thread, as RocksDB has it for compaction (`CpuPriority::kLow`).
const NICENESS: i32 = 10;

/// Job that catches its own panics.
type BackgroundJob = Box<dyn FnOnce() + Send>;

/// Executor that runs jobs one after the other. Submitters bound how many wait: a group submits one at a time.
pub struct Background {
    worker: Option<WorkerThread>,
    health: Health,
    /// Delay of this node's checkpoints.
    pub stagger: Stagger,
}

struct WorkerThread {
    jobs: Mutex<Option<Sender<BackgroundJob>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    /// Creates an executor that runs each job before [`Background::submit`] returns.
    pub fn inline() -> Self {
        Self::inline_with(Health::default())
    }

    /// Creates an executor as [`Background::inline`] does, for a node with this health.
    pub fn inline_with(health: Health) -> Self {
        Self {
            worker: None,
            health,
            stagger: Stagger::default(),
        }
    }

    /// Creates an executor with a thread, which ends when this is dropped, after the queued jobs.
    pub fn thread(name: &str, health: Health, stagger: Stagger) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<BackgroundJob>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            lower_priority();
            for job in receiver {
                job();
            }
        })?;
        let worker = WorkerThread {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        };
        Ok(Self {
            worker: Some(worker),
            health,
            stagger,
        })
    }

    /// Tells whether jobs run on the submitting thread.
    pub fn is_inline(&self) -> bool {
        self.worker.is_none()
    }

    /// Runs a job and returns its result; a panic of it stops the node.
    pub fn run<T: Send + 'static>(
        &self,
        group: Option<GroupId>,
        doing: &'static str,
        job: impl FnOnce() -> Result<T, MachineError> + Send + 'static,
    ) -> Result<T, MachineError> {
        let (sender, done) = mpsc::channel();
        let health = self.health.clone();
        self.send(Box::new(move || drop(sender.send(health.guard(group, doing, job)))));
        done.recv().unwrap_or_else(|_| {
            Err(MachineError {
                doing,
                source: "the checkpoint thread has ended".into(),
            })
        })
    }

    /// Runs a job, now or soon. Its failure stops the node.
    pub fn submit(
        &self,
        group: Option<GroupId>,
        doing: &'static str,
        job: impl FnOnce() -> Result<(), MachineError> + Send + 'static,
    ) {
        let health = self.health.clone();
        self.send(Box::new(move || {
            if let Err(MachineError { doing, source }) = health.guard(group, doing, job) {
                let source = source.into();
                health.fail(NodeFailure {
                    group,
                    doing,
                    source,
                    rebuild: None,
                });
            }
        }));
    }

    fn send(&self, job: BackgroundJob) {
        let Some(worker) = &self.worker else {
            return job();
        };
        // The thread runs until this is dropped: no job can end it.
        if let Some(jobs) = &*worker.jobs.lock()
            && jobs.send(job).is_err()
        {
            let ended = "the checkpoint thread has ended";
            self.health.fail(NodeFailure::of_node("writing checkpoints", ended));
        }
    }
}

/// Lowers the priority of the calling thread. On other systems than Linux it would be the whole process's.
pub(crate) fn lower_priority() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICENESS)
    {
        tracing::warn!(%error, "cannot lower the priority of the checkpoint thread");
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        drop(self.jobs.lock().take());
        // The last owner may be dropped by a job, on the thread itself.
        if let Some(handle) = self.thread.lock().take()
            && handle.thread().id() != thread::current().id()
            && handle.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new(1);

    fn both(health: &Health) -> [Background; 2] {
        [
            Background::inline_with(health.clone()),
            Background::thread("test", health.clone(), Stagger::default()).unwrap(),
        ]
    }

    #[test]
    fn stagger_differs_for_nine_consecutive_nodes() {
        let mut sizes: Vec<usize> = (1..=9).map(|node| Stagger::of(NodeId::new(node)).size(9_000)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!((sizes.len(), sizes[0]), (9, 9_000));
        assert!(sizes[8] < 18_000);
    }

    #[test]
    fn background_jobs_run_in_order_before_drop() {
        for background in both(&Health::default()) {
            let (sender, receiver) = mpsc::channel();
            for number in 0..100 {
                let sender = sender.clone();
                background.submit(Some(GROUP), "counting", move || {
                    sender.send(number).unwrap();
                    Ok(())
                });
            }
            drop((background, sender));
            assert!(receiver.into_iter().eq(0..100));
        }
    }

    #[test]
    fn panicking_detached_job_stops_the_node() {
        // Invariant 1.
        for kind in 0..2 {
            let health = Health::default();
            let background = both(&health).into_iter().nth(kind).unwrap();
            background.submit(Some(GROUP), "counting", || panic!("on purpose"));
            assert_eq!(background.run(None, "counting", || Ok(7)).unwrap(), 7);
            assert_eq!(health.failure().unwrap().source.to_string(), "panic: on purpose");
        }
    }

    #[test]
    fn failing_job_stops_the_node_and_others_run() {
        // Invariant 1.
        let fails = || {
            Err(MachineError {
                doing: "failing",
                source: "on purpose".into(),
            })
        };
        for kind in 0..2 {
            for waits in [false, true] {
                let health = Health::default();
                let background = both(&health).into_iter().nth(kind).unwrap();
                if waits {
                    let job = || -> Result<(), MachineError> { panic!("on purpose") };
                    background.run(Some(GROUP), "counting", job).unwrap_err();
                    assert_eq!(health.failure().unwrap().source.to_string(), "panic: on purpose");
                } else {
                    background.submit(Some(GROUP), "counting", fails);
                }
                assert_eq!(background.run(None, "counting", || Ok(7)).unwrap(), 7);
                let failure = health.failure().unwrap().to_string();
                let doing = if waits { "counting" } else { "failing" };
                assert_eq!(failure, format!("group g1 failed while {doing}"));
            }
        }
    }
}
