//! Where checkpoints run: on a thread of their own, or, in simulations, right where they are asked for.

use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use stead_types::NodeId;

/// Nodes whose shares differ.
const STAGGER_STEPS: u64 = 9;

/// Something to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs one after the other. Whoever submits bounds how many wait: a group submits one at a time.
pub struct Background {
    worker: Option<Worker>,
    stagger_percent: usize,
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
            stagger_percent: 0,
        }
    }

    /// Runs jobs on a thread, which ends when this is dropped, after the jobs that wait.
    pub fn thread(name: &str) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
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
            stagger_percent: 0,
        })
    }

    /// Delays what is due by size by a share that differs between nodes: the replicas of a group apply the same, and
    /// would all write their rows at the same moment.
    #[must_use]
    pub fn staggered(mut self, node: NodeId) -> Self {
        let steps = node.get() % STAGGER_STEPS;
        self.stagger_percent = steps as usize * 100 / STAGGER_STEPS as usize;
        self
    }

    /// Returns a size that is due, as this node's share has it: at most twice the size.
    pub fn due(&self, size: usize) -> usize {
        size + size / 100 * self.stagger_percent
    }

    /// Tells whether jobs run where they are submitted.
    pub fn is_inline(&self) -> bool {
        self.worker.is_none()
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
    fn jobs_run_in_their_order_and_all_before_the_end() {
        for background in [Background::inline(), Background::thread("test").unwrap()] {
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
