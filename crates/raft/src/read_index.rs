//! Read index for linearizable reads: one round of quorum confirmation serves all reads that came before it.
//!
//! # Invariants
//!
//! 1. A waiter joins the round that starts after it came, never one in flight: the index then covers everything that
//!    was committed when it came.

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use stead_types::planted::{self, Bug};
use tokio::sync::{Notify, oneshot, watch};

use crate::error::{ReadIndexError, leader};
use crate::machine::{Raft, external_index};

/// Most reads that wait for a round.
const WAITERS_MAX: usize = 1 << 16;

type ReadIndexResult = Result<u64, ReadIndexError>;

/// Queue of reads that wait for the next round.
#[derive(Default)]
pub(crate) struct ReadIndexQueue {
    waiters: Mutex<Vec<oneshot::Sender<ReadIndexResult>>>,
    wake: Notify,
}

impl ReadIndexQueue {
    /// Obtains a read index: waits until everything committed before this call is applied here.
    pub(crate) async fn index(&self) -> ReadIndexResult {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiters = self.waiters.lock();
            if waiters.len() >= WAITERS_MAX {
                return Err(ReadIndexError::Overloaded);
            }
            waiters.push(answer);
        }
        self.wake.notify_one();
        answered.await.unwrap_or(Err(ReadIndexError::Stopped))
    }

    /// Rejects the waiting reads.
    pub(crate) fn stop(&self) {
        self.waiters.lock().clear();
    }

    /// Runs rounds for as long as the group runs.
    pub(crate) async fn run(&self, raft: Raft, mut applied: watch::Receiver<u64>) {
        loop {
            self.wake.notified().await;
            let mut waiters = std::mem::take(&mut *self.waiters.lock());
            if waiters.is_empty() {
                continue;
            }
            let outcome = round(&raft, &mut applied).await;
            if planted::is(Bug::ReadRoundJoined) {
                waiters.append(&mut *self.waiters.lock());
            }
            for waiter in waiters {
                waiter.send(outcome).ok();
            }
        }
    }
}

async fn round(raft: &Raft, applied: &mut watch::Receiver<u64>) -> ReadIndexResult {
    if planted::is(Bug::ReadIndexSkipped) {
        return Ok(*applied.borrow());
    }
    let read = raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
    let read = read.map_err(|error| match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => ReadIndexError::NotLeader {
            leader: leader(&forward),
        },
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ReadIndexError::NoQuorum,
        RaftError::Fatal(_) => ReadIndexError::Stopped,
    })?;
    let index = external_index(read.read_log_id().index());
    wait_until_applied(applied, index).await?;
    Ok(index)
}

async fn wait_until_applied(applied: &mut watch::Receiver<u64>, index: u64) -> Result<(), ReadIndexError> {
    let is_applied = |applied: &u64| *applied >= index || planted::is(Bug::ReadBeforeApply);
    let waited = applied.wait_for(is_applied).await;
    waited.map(drop).map_err(|_| ReadIndexError::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn read_waits_until_its_index_is_applied() {
        let (apply, mut applied) = watch::channel(6);
        let mut waiting = Box::pin(wait_until_applied(&mut applied, 7));
        assert!(futures::poll!(&mut waiting).is_pending());
        apply.send_replace(7);
        waiting.await.unwrap();
        drop(apply);
        assert_eq!(wait_until_applied(&mut applied, 8).await, Err(ReadIndexError::Stopped));
    }
}
