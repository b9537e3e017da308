//! Restore of a voter whose rows are lost, from a snapshot of another voter.
//!
//! Its log and its vote are whole, but the purged entries were in the rows only. Until it has them again the voter
//! takes no part in the group, as if it were down: it neither votes nor acknowledges nor responds.
//!
//! ```text
//!   log purged up to P, machine applied less ──"a snapshot that reaches P"──> every other voter, in turn
//!        └── machine at S >= P ── records up to S are dropped, all if they conflict ──> the group is opened normally
//! ```
//!
//! # Invariants
//!
//! 1. A group is opened only if its log has no gap after the entries that its machine has applied.
//! 2. The voter then has all that it had acknowledged: up to S in the machine, above S in the log. A record at S of
//!    another term than S was never committed, nor was any above it.
//! 3. A snapshot is accepted from any voter that has applied enough: an applied entry is committed, whichever node
//!    leads. So one whole voter is enough, also where no leader can be elected without this one. A voter whose
//!    snapshot cannot be installed is skipped.
//! 4. Records that the rows of another voter replace are not kept: where replicas differ these records may be the
//!    corrupt ones, and a leader would send them to others.

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
use stead_store::machine::{AppliedState, Machine, Snapshot};
use stead_types::NodeId;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::Status;

use crate::blocking::BlockingWorker;
use crate::encoding::{log_id_record, membership_record, read_entry_record, read_log_id_record};
use crate::error::OpenError;
use crate::machine::{StateMachine, external_index};
use crate::member::Member;
use crate::peer_channels::PeerChannels;
use crate::snapshot_source::{SnapshotPace, SnapshotSource};
use crate::spool::{self, ReceiveProgress, Spool};
use crate::wire::{self, MessageKind, Sender};

/// Interval of rounds of requests.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Rounds without a snapshot between two error logs.
const ROUNDS_PER_REPORT: u32 = 10;

type BoxError = Box<dyn Error + Send + Sync>;

/// Restore of one group, whose rows may be lost.
pub(crate) struct Restore<'a> {
    pub(crate) sender: Sender,
    pub(crate) peers: &'a PeerChannels,
    pub(crate) log: Arc<dyn GroupLog>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) worker: BlockingWorker,
    pub(crate) spool: Option<&'a Path>,
}

impl Restore<'_> {
    pub(crate) async fn run(&self, voters: &[NodeId], min_index: Option<u64>) -> Result<(), OpenError> {
        let group = self.sender.group;
        let unreadable = |source: BoxError| OpenError::Unreadable { group, source };
        let missing_index = self
            .missing_index(min_index)
            .map_err(|error| unreadable(error.into()))?;
        let restored = missing_index.is_some();
        if let Some(missing_index) = missing_index {
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
                lacking = external_index(missing_index),
                applied = self.machine.applied().index,
                "rows lack entries that are purged from the log or not trusted there: this node takes no part in the group until \
                 another voter has sent a snapshot"
            );
            self.ask(&others, missing_index).await.map_err(unreadable)?;
        }
        let applied = self.machine.applied();
        let conflicted = drop_superseded(&*self.log, &applied, restored || min_index.is_some()).await;
        if conflicted.map_err(|error| unreadable(error.into()))? {
            tracing::warn!(%group, index = applied.index, "truncated records that were never committed");
        }
        Ok(())
    }

    /// Returns the index that a snapshot must reach: where the log is purged, or the required entry, if the machine has
    /// applied less.
    fn missing_index(&self, min_index: Option<u64>) -> io::Result<Option<u64>> {
        let purged = self.log.state()?.purged.map(|purged| purged.index);
        let missing_index = purged.max(min_index.and_then(|index| index.checked_sub(1)));
        let applied = self.machine.applied().index;
        Ok(missing_index.filter(|missing_index| applied < external_index(*missing_index)))
    }

    /// Requests a snapshot of the other voters in turn, until one is installed.
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
                                spool::mark_installed(&self.worker);
                                tracing::info!(%group, from = %voter, index, "rows restored");
                                return Ok(());
                            }
                            // Nothing of the snapshot is used. A failed disk would reject any other voter's as well.
                            Err(error) => {
                                self.worker.health.check()?;
                                answers.push(format!("node {voter}: cannot install its snapshot: {}", error.source));
                            }
                        }
                    }
                    Err(status) => {
                        self.peers.alarms.record_status(&status);
                        answers.push(format!("node {voter}: {}", status.message()));
                    }
                }
            }
            if round % ROUNDS_PER_REPORT == 0 {
                let answers = answers.join("; ");
                tracing::error!(
                    %group,
                    %answers,
                    "cannot restore the rows: no other voter has sent a snapshot yet. Start those that are down; if every \
                     voter has lost its rows, restore those of one from a backup, or from where they were set aside"
                );
            }
            sleep(ASK_INTERVAL).await;
        }
        Ok(())
    }

    async fn fetch(&self, voter: NodeId, purged: u64) -> Result<Snapshot, Status> {
        let mut client = self
            .peers
            .dedicated_client(voter)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let question = self.sender.envelope(MessageKind::Fetch, 0, wire::fetch(purged));
        let mut envelopes = client.fetch(question).await?.into_inner();
        let head = spool::next_envelope(&mut envelopes).await?;
        let head = wire::body(head, MessageKind::SnapshotHead).and_then(wire::read_snapshot_head);
        let (_, meta) = head.map_err(malformed)?;
        let reached = meta.last_log_id.as_ref().map(|id| id.index);
        if reached.is_none_or(|reached| reached < purged) {
            return Err(behind(reached, purged));
        }
        let spool = Spool::open(self.spool, &format!("fetched-{}", self.sender.group));
        let spool = spool.map_err(|error| spool::reject(&self.worker, &error))?;
        let chunks = spool::receive(spool, &mut envelopes, &self.worker, &ReceiveProgress::default().begin())
            .await?
            .chunks;
        let applied = AppliedState {
            index: reached.map_or(0, external_index),
            log_id: log_id_record(meta.last_log_id.as_ref()),
            membership: membership_record(&meta.last_membership),
            // A leader sends it before this voter can lead.
            time: 0,
        };
        Ok(Snapshot { applied, chunks })
    }
}

/// Drops records that conflict with the machine's applied state (invariant 2) and, if that was restored from another
/// voter, those that it includes (invariant 4), durably. Tells whether any conflicted.
async fn drop_superseded(log: &dyn GroupLog, applied: &AppliedState, restored: bool) -> io::Result<bool> {
    let Some(applied) = read_log_id_record(applied.log_id.clone())? else {
        return Ok(false);
    };
    let at = log.read(applied.index..applied.index + 1, usize::MAX)?;
    let conflicts = match at.into_iter().next() {
        None => false,
        Some(record) => read_entry_record(record.bytes)?.log_id != applied,
    };
    if conflicts {
        log.truncate_after(applied.index.checked_sub(1))?;
    } else if !restored {
        return Ok(false);
    }
    log.purge(applied.index, log_id_record(Some(&applied)))?;
    if let Some(vote) = log.state()?.vote {
        // Neither of the two syncs; a vote does.
        let (done, written) = oneshot::channel();
        log.save_vote(vote, Box::new(move |result| drop(done.send(result))));
        written.await.map_err(io::Error::other)??;
    }
    Ok(conflicts)
}

/// Takes a snapshot for a voter whose rows are lost, and streams it.
pub(crate) async fn serve_snapshot(
    member: &Arc<Member>,
    min_index: u64,
) -> Result<impl Stream<Item = Result<RaftEnvelope, Status>> + Send + use<>, Status> {
    let Ok(only) = member.serving_snapshot.clone().try_lock_owned() else {
        return Err(Status::resource_exhausted(
            "another snapshot of the group is being sent",
        ));
    };
    let applied = *member.applied.borrow();
    if applied < external_index(min_index) {
        return Err(behind(applied.checked_sub(1), min_index));
    }
    let machine = member.machine.clone();
    let cut = member.worker.run("cutting a snapshot", move || machine.snapshot());
    let snapshot = cut.await.map_err(|failed| Status::internal(failed.to_string()))?;
    let meta = StateMachine::meta(&snapshot.applied).map_err(|error| Status::internal(error.to_string()))?;
    let vote = member.raft.metrics().borrow_watched().vote;
    let head = member
        .sender
        .envelope(MessageKind::SnapshotHead, 0, wire::snapshot_head(&vote, &meta));
    // The receiver sees that the end is missing.
    let (failed, _) = oneshot::channel();
    let pace = SnapshotPace {
        copies: member.copies.clone(),
        transfers: None,
    };
    let rest = SnapshotSource::new(member.sender, member.worker.clone(), pace, snapshot.chunks, failed).into_stream();
    let envelopes = stream::iter([head]).chain(rest).map(move |envelope| {
        let _until_the_end = &only;
        Ok(envelope)
    });
    Ok(envelopes)
}

fn behind(applied: Option<u64>, min_index: u64) -> Status {
    let (applied, min_index) = (applied.map_or(0, external_index), external_index(min_index));
    Status::failed_precondition(format!("applied index is {applied}, but {min_index} is required"))
}

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;
    use stead_store::log::LogRecord;
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
            LogRecord {
                index,
                bytes: entry_record(&entry),
            }
        };
        log.append((3..=6).map(record).collect(), Box::new(drop));
        log
    }

    fn applied(term: u64, index: u64) -> AppliedState {
        AppliedState {
            index: external_index(index),
            log_id: log_id_record(Some(&id(term, index))),
            membership: bytes::Bytes::new(),
            time: 0,
        }
    }

    #[tokio::test]
    async fn only_records_superseded_by_snapshot_are_dropped() {
        // Invariants 2 and 4. At 4 and above stands what term 2 has replaced elsewhere.
        for (term, index, restored, conflicts, first) in [
            (1, 4, false, false, Some(3)),
            (2, 4, false, true, None),
            (2, 9, false, false, Some(3)),
            (1, 4, true, false, Some(5)),
            (2, 4, true, true, None),
            (2, 9, true, false, None),
        ] {
            let disk = Disk::default();
            let log = log(&disk);
            let conflicted = drop_superseded(&*log, &applied(term, index), restored).await.unwrap();
            assert_eq!(conflicted, conflicts);
            let state = log.state().unwrap();
            assert_eq!(state.first, first, "{term} {index} {restored}");
            assert_eq!(
                state.purged.unwrap().index,
                if conflicts || restored { index } else { 2 }
            );
        }
    }
}
