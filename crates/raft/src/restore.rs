//! How a voter whose rows are gone gets them back, and how it is kept from doing harm meanwhile.
//!
//! Its log and its vote are whole, but what was purged from the log stood in the rows only. Until it has that again the
//! voter takes no part in the group, as if it were down: it neither votes nor acknowledges, and it answers nobody.
//!
//! ```text
//!   log purged up to P, machine applied less ──"a snapshot that reaches P"──> every other voter, in turn
//!        └── machine at S >= P ── records up to S are dropped, and all if they contradict S ──> opened as any other group
//! ```
//!
//! # Invariants
//!
//! 1. A group is opened only where its log goes on behind what its machine has applied, or before.
//! 2. What this voter had acknowledged it has then: up to S in the machine, above S in the log. A record at S of another
//!    term than S was never committed, nor was any above it.
//! 3. A snapshot is taken from any voter that has applied enough: what is applied is committed, whoever leads. So one whole
//!    voter is enough, also where no leader can be elected without this one. One that gives what cannot be read is passed
//!    over.
//! 4. Records that rows of another voter stand for are not kept: where replicas differ they may be what was wrong, and a
//!    leader would send them to others.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::async_runtime::watch::WatchReceiver;
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_state::codec::Malformed;
use stead_store::log::GroupLog;
use stead_store::machine::{Applied, Machine, Snapshot};
use stead_types::NodeId;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::Status;

use crate::blocking::Worker;
use crate::encoding::{log_id_record, membership_record, read_entry_record, read_log_id_record};
use crate::error::OpenError;
use crate::machine::{StateMachine, index_outside};
use crate::member::Member;
use crate::network::Source;
use crate::peers::Peers;
use crate::spool::{self, Spool};
use crate::wire::{self, Kind, Sender};

/// The time between two rounds of questions.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// An operator is told after so many rounds without an answer that helps, and again after as many more.
const ROUNDS_TOLD: u32 = 10;

type BoxError = Box<dyn Error + Send + Sync>;

/// One group whose rows may be gone.
pub(crate) struct Restore<'a> {
    pub(crate) sender: Sender,
    pub(crate) peers: &'a Peers,
    pub(crate) log: Arc<dyn GroupLog>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) worker: Worker,
    pub(crate) spool: Option<&'a Path>,
}

impl Restore<'_> {
    pub(crate) async fn run(&self, voters: &[NodeId], reaching: Option<u64>) -> Result<(), OpenError> {
        let group = self.sender.group;
        let unreadable = |source: BoxError| OpenError::Unreadable { group, source };
        let lacking = self.lacks(reaching).map_err(|error| unreadable(error.into()))?;
        let came = lacking.is_some();
        if let Some(lacking) = lacking {
            let others: Vec<NodeId> = voters
                .iter()
                .copied()
                .filter(|node| *node != self.sender.node)
                .collect();
            if others.is_empty() {
                return Err(OpenError::RowsLost { group });
            }
            tracing::warn!(
                %group,
                lacking = index_outside(lacking),
                applied = self.machine.applied().index,
                "the rows lack what is no longer in the log, or is not to be believed there: this node takes no part in the group until another voter has \
                 given it a snapshot"
            );
            self.ask(&others, lacking).await.map_err(unreadable)?;
        }
        let applied = self.machine.applied();
        let dropped = drop_replaced(&*self.log, &applied, came || reaching.is_some()).await;
        if dropped.map_err(|error| unreadable(error.into()))? {
            tracing::warn!(%group, index = applied.index, "records that were never committed are dropped");
        }
        Ok(())
    }

    /// Returns what another voter must give: up to where the log is purged, or to the entry that is to be reached, if the
    /// machine has applied less.
    fn lacks(&self, reaching: Option<u64>) -> io::Result<Option<u64>> {
        let purged = self.log.state()?.purged.map(|purged| purged.index);
        let lacking = purged.max(reaching.and_then(|index| index.checked_sub(1)));
        let applied = self.machine.applied().index;
        Ok(lacking.filter(|lacking| applied < index_outside(*lacking)))
    }

    /// Asks every other voter, again and again, until one has given what is lacking.
    async fn ask(&self, others: &[NodeId], purged: u64) -> Result<(), BoxError> {
        let group = self.sender.group;
        for round in 1_u32.. {
            let mut answers = Vec::new();
            for voter in others {
                match self.fetch(*voter, purged).await {
                    Ok(snapshot) => {
                        let (index, machine) = (snapshot.applied.index, self.machine.clone());
                        let install = move || machine.install(snapshot);
                        match self.worker.run("installing a snapshot", install).await {
                            Ok(()) => {
                                spool::installed(&self.worker);
                                tracing::info!(%group, from = %voter, index, "the rows are back");
                                return Ok(());
                            }
                            // Nothing of it is used; but what this node cannot write, it cannot write from another voter.
                            Err(failed) => {
                                self.worker.health.check()?;
                                answers.push(format!(
                                    "node {voter}: its snapshot cannot be installed: {}",
                                    failed.source
                                ));
                            }
                        }
                    }
                    Err(status) => {
                        self.peers.alarms.note(&status);
                        answers.push(format!("node {voter}: {}", status.message()));
                    }
                }
            }
            if round % ROUNDS_TOLD == 0 {
                let answers = answers.join("; ");
                tracing::error!(
                    %group,
                    %answers,
                    "no other voter has given the rows yet. Start those that are down; if every voter has lost its rows, \
                     those of one must come back from a backup, or from where they were set aside"
                );
            }
            sleep(ASK_INTERVAL).await;
        }
        Ok(())
    }

    async fn fetch(&self, voter: NodeId, purged: u64) -> Result<Snapshot, Status> {
        let mut client = self
            .peers
            .client_alone(voter)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let question = self.sender.envelope(Kind::Fetch, 0, wire::fetch(purged));
        let mut envelopes = client.fetch(question).await?.into_inner();
        let head = spool::next(&mut envelopes).await?;
        let head = wire::body(head, Kind::SnapshotHead).and_then(wire::read_snapshot_head);
        let (_, meta) = head.map_err(malformed)?;
        let reached = meta.last_log_id.as_ref().map(|id| id.index);
        if reached.is_none_or(|reached| reached < purged) {
            return Err(behind(reached, purged));
        }
        let spool = Spool::open(self.spool, &format!("fetched-{}", self.sender.group));
        let spool = spool.map_err(|error| spool::full(&self.worker, &error))?;
        let chunks = spool::receive(spool, &mut envelopes, &self.worker).await?.chunks;
        let applied = Applied {
            index: reached.map_or(0, index_outside),
            log_id: log_id_record(meta.last_log_id.as_ref()),
            membership: membership_record(&meta.last_membership),
            // A leader tells it before this voter can lead.
            time: 0,
        };
        Ok(Snapshot { applied, chunks })
    }
}

/// Drops records that contradict what a machine has applied (invariant 2) and, where that came from another voter, those
/// that it stands for (invariant 4), durably. Tells whether any contradicted it.
async fn drop_replaced(log: &dyn GroupLog, applied: &Applied, came: bool) -> io::Result<bool> {
    let Some(applied) = read_log_id_record(applied.log_id.clone())? else {
        return Ok(false);
    };
    let at = log.read(applied.index..applied.index + 1, usize::MAX)?;
    let contradicts = match at.into_iter().next() {
        None => false,
        Some(record) => read_entry_record(record.bytes)?.log_id != applied,
    };
    if contradicts {
        log.truncate_after(applied.index.checked_sub(1))?;
    } else if !came {
        return Ok(false);
    }
    log.purge(applied.index, log_id_record(Some(&applied)))?;
    if let Some(vote) = log.state()?.vote {
        // Neither of the two syncs; a vote does.
        let (done, written) = oneshot::channel();
        log.save_vote(vote, Box::new(move |result| drop(done.send(result))));
        written.await.map_err(io::Error::other)??;
    }
    Ok(contradicts)
}

/// Cuts a snapshot for a voter whose rows are gone.
pub(crate) async fn cut(
    member: &Arc<Member>,
    reaching: u64,
) -> Result<impl Stream<Item = Result<RaftEnvelope, Status>> + Send + use<>, Status> {
    let Ok(only) = member.giving.clone().try_lock_owned() else {
        return Err(Status::resource_exhausted(
            "another snapshot of the group is being given",
        ));
    };
    let applied = *member.applied.borrow();
    if applied < index_outside(reaching) {
        return Err(behind(applied.checked_sub(1), reaching));
    }
    let machine = member.machine.clone();
    let cut = member.worker.run("cutting a snapshot", move || machine.snapshot());
    let snapshot = cut.await.map_err(|failed| Status::internal(failed.to_string()))?;
    let meta = StateMachine::meta(&snapshot.applied).map_err(|error| Status::internal(error.to_string()))?;
    let vote = member.raft.metrics().borrow_watched().vote;
    let head = member
        .sender
        .envelope(Kind::SnapshotHead, 0, wire::snapshot_head(&vote, &meta));
    // Who receives sees that the end is missing.
    let (failed, _) = oneshot::channel();
    let rest = Source::new(member.sender, member.worker.clone(), snapshot.chunks, failed).into_stream();
    let envelopes = stream::iter([head]).chain(rest).map(move |envelope| {
        let _until_the_end = &only;
        Ok(envelope)
    });
    Ok(envelopes)
}

fn behind(applied: Option<u64>, reaching: u64) -> Status {
    let (applied, reaching) = (applied.map_or(0, index_outside), index_outside(reaching));
    Status::failed_precondition(format!("it has applied up to {applied} only, and {reaching} is needed"))
}

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;
    use stead_store::log::Record;
    use stead_store::log::memory::Disk;
    use stead_types::GroupId;

    use super::*;
    use crate::encoding::entry_record;
    use crate::types::{Entry, LeaderId, LogId, Payload};

    fn id(term: u64, index: u64) -> LogId {
        LogId {
            leader_id: LeaderId::new(term, 1),
            index,
        }
    }

    /// A log with records 3 to 6 of term 1; what stood before is purged.
    fn log(disk: &Disk) -> Arc<dyn GroupLog> {
        let log = disk.open().group(GroupId::new(1));
        log.purge(2, log_id_record(Some(&id(1, 2)))).unwrap();
        let record = |index| {
            let entry = Entry {
                log_id: id(1, index),
                payload: Payload::Blank,
            };
            Record {
                index,
                bytes: entry_record(&entry),
            }
        };
        log.append((3..=6).map(record).collect(), Box::new(drop));
        log
    }

    fn applied(term: u64, index: u64) -> Applied {
        Applied {
            index: index_outside(index),
            log_id: log_id_record(Some(&id(term, index))),
            membership: bytes::Bytes::new(),
            time: 0,
        }
    }

    #[tokio::test]
    async fn records_that_contradict_a_snapshot_are_dropped_and_no_others() {
        // Invariants 2 and 4. At 4 and above stands what term 2 has replaced elsewhere.
        for (term, index, came, dropped, first) in [
            (1, 4, false, false, Some(3)),
            (2, 4, false, true, None),
            (2, 9, false, false, Some(3)),
            (1, 4, true, false, Some(5)),
            (2, 4, true, true, None),
            (2, 9, true, false, None),
        ] {
            let disk = Disk::default();
            let log = log(&disk);
            let contradicted = drop_replaced(&*log, &applied(term, index), came).await.unwrap();
            assert_eq!(contradicted, dropped);
            let state = log.state().unwrap();
            assert_eq!(state.first, first, "{term} {index} {came}");
            assert_eq!(state.purged.unwrap().index, if dropped || came { index } else { 2 });
        }
    }
}
