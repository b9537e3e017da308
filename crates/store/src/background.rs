//! Where checkpoints run: on a thread of their own, or, in simulations, right where they are asked for.
//!
//! The thread steps back where processors are short, and so do those that it starts: an engine that is opened on it
//! compacts at a low priority too. Nobody waits for any of them unless they are very late.
//!
//! # Invariants
//!
//! 1. A job that panics ends neither the thread nor what waits for it: it stops the node.

use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use stead_types::{GroupId, NodeId};

use crate::health::{Failure, Health};
use crate::machine::Failed;

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

/// Something to do, which catches its own panics.
type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs one after the other. Whoever submits bounds how many wait: a group submits one at a time.
pub struct Background {
    worker: Option<Worker>,
    health: Health,
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
        Self::inline_with(Health::default())
    }

    /// As [`Background::inline`], for a node with this health.
    pub fn inline_with(health: Health) -> Self {
        Self {
            worker: None,
            health,
            stagger: Stagger::default(),
        }
    }

    /// Runs jobs on a thread, which ends when this is dropped, after the jobs that wait.
    pub fn thread(name: &str, health: Health, stagger: Stagger) -> std::io::Result<Self> {
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
            health,
            stagger,
        })
    }

    /// Tells whether jobs run where they are submitted.
    pub fn is_inline(&self) -> bool {
        self.worker.is_none()
    }

    /// Runs a job and returns what it returned; a panic of it stops the node.
    pub fn run<T: Send + 'static>(
        &self,
        group: Option<GroupId>,
        doing: &'static str,
        job: impl FnOnce() -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let (sender, done) = mpsc::channel();
        let health = self.health.clone();
        self.send(Box::new(move || drop(sender.send(health.guard(group, doing, job)))));
        done.recv().unwrap_or_else(|_| {
            Err(Failed {
                doing,
                source: "the thread of checkpoints has ended".into(),
            })
        })
    }

    /// Runs a job, now or soon. Its failure stops the node.
    pub fn submit(
        &self,
        group: Option<GroupId>,
        doing: &'static str,
        job: impl FnOnce() -> Result<(), Failed> + Send + 'static,
    ) {
        let health = self.health.clone();
        self.send(Box::new(move || {
            if let Err(Failed { doing, source }) = health.guard(group, doing, job) {
                let source = source.into();
                health.fail(Failure {
                    group,
                    doing,
                    source,
                    rebuild: None,
                });
            }
        }));
    }

    fn send(&self, job: Job) {
        let Some(worker) = &self.worker else {
            return job();
        };
        // The thread runs until this is dropped: no job can end it.
        if let Some(jobs) = &*worker.jobs.lock()
            && jobs.send(job).is_err()
        {
            let ended = "the thread of checkpoints has ended";
            self.health.fail(Failure::of_node("making checkpoints", ended));
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

    const GROUP: GroupId = GroupId::new(1);

    fn both(health: &Health) -> [Background; 2] {
        [
            Background::inline_with(health.clone()),
            Background::thread("test", health.clone(), Stagger::default()).unwrap(),
        ]
    }

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
    fn panic_of_a_job_that_nobody_waits_for_stops_the_node() {
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
    fn panicking_or_failing_job_stops_the_node_and_others_go_on() {
        // Invariant 1.
        let fails = || {
            Err(Failed {
                doing: "failing",
                source: "on purpose".into(),
            })
        };
        for kind in 0..2 {
            for waits in [false, true] {
                let health = Health::default();
                let background = both(&health).into_iter().nth(kind).unwrap();
                if waits {
                    let job = || -> Result<(), Failed> { panic!("on purpose") };
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
