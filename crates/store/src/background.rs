//! Where checkpoints run: on a thread of their own, or, in simulations, right where they are asked for.

use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

/// Something to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs one after the other. Whoever submits bounds how many wait: a group submits one at a time.
pub struct Background(Option<Worker>);

struct Worker {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    /// Runs each job before [`Background::submit`] returns.
    pub fn inline() -> Self {
        Self(None)
    }

    /// Runs jobs on a thread, which ends when this is dropped, after the jobs that wait.
    pub fn thread(name: &str) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in receiver {
                job();
            }
        })?;
        Ok(Self(Some(Worker {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Tells whether jobs run where they are submitted.
    pub fn is_inline(&self) -> bool {
        self.0.is_none()
    }

    /// Runs a job, now or soon.
    pub fn submit(&self, job: Job) {
        match &self.0 {
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
