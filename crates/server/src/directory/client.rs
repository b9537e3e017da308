//! Client of the directory's leader, on any node.
//!
//! # Invariants
//!
//! 1. A version that is returned was read after the call arrived here.
//! 2. A command is sent to a second voter only when the first certainly did nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::RwLock;
use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::internal::v1::{ProposeRequest, ReadVersionRequest, directory_service_client::DirectoryServiceClient},
    status,
};
use stead_state::{
    directory::{Command, DirectoryOutcome, FEATURE_LEVEL_MAX, decode_result},
    lease::{LeaseAnswer, Renewal},
};
use stead_types::{DirectoryVersion, Error, ErrorKind, Incarnation, NodeId};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use super::local_voter::{LocalVoter, VoterError};
use crate::lease_messages;

/// Longest search for the leader before the caller gets an error.
const LEADER_SEARCH_MAX: Duration = Duration::from_secs(4);
/// Longest time for one voter's response.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Pause between rounds over all voters.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

type VoterClient = DirectoryServiceClient<Channel>;

/// Client of the directory's leader.
pub(crate) struct DirectoryClient {
    local_voter: Option<LocalVoter>,
    connect: Connect,
    voters: RwLock<Arc<[Voter]>>,
    /// Index in `voters` of the one that answered last.
    last_voter: AtomicU64,
    tickets: AtomicU64,
    last_read: Mutex<VersionRead>,
    /// The highest version that a response has shown.
    highest_version: watch::Sender<DirectoryVersion>,
}

/// Another voter of the directory.
#[derive(Clone)]
pub(crate) struct Voter {
    /// The node.
    pub(crate) node: NodeId,
    /// Its peer address.
    address: String,
    /// Client of its service.
    pub(crate) client: VoterClient,
}

/// The last version read. It serves every call that came before the read began.
#[derive(Default)]
struct VersionRead {
    tickets_below: u64,
    version: Option<DirectoryVersion>,
}

impl DirectoryClient {
    /// Returns a client of these voters, which asks `local_voter` first if this node is one of them.
    pub(crate) fn new(
        local_voter: Option<LocalVoter>,
        voters: &[(NodeId, String)],
        connect: &Connect,
    ) -> std::io::Result<Self> {
        let client = Self {
            local_voter,
            connect: connect.clone(),
            voters: RwLock::new(Arc::new([])),
            last_voter: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            last_read: Mutex::default(),
            highest_version: watch::Sender::new(DirectoryVersion::ZERO),
        };
        client.set_voters(voters)?;
        Ok(client)
    }

    /// Sets the other voters; those that stay at their addresses keep their connections.
    ///
    /// # Errors
    ///
    /// An address cannot be dialled; the voters stay as they are.
    pub(crate) fn set_voters(&self, voters: &[(NodeId, String)]) -> std::io::Result<()> {
        let known = self.voters();
        let is_same =
            |(voter, (node, address)): (&Voter, &(NodeId, String))| voter.node == *node && voter.address == *address;
        if known.len() == voters.len() && known.iter().zip(voters).all(is_same) {
            return Ok(());
        }
        let open = |(node, address): &(NodeId, String)| {
            let kept = known
                .iter()
                .find(|voter| voter.node == *node && voter.address == *address);
            if let Some(kept) = kept {
                return Ok(kept.clone());
            }
            let channel = channel(&self.connect, address, Keepalive::PEER)?;
            Ok(Voter {
                node: *node,
                address: address.clone(),
                client: DirectoryServiceClient::new(channel),
            })
        };
        let voters = voters.iter().map(open).collect::<std::io::Result<_>>()?;
        *self.voters.write() = voters;
        Ok(())
    }

    /// Returns this node's own voter, if it is one.
    pub(crate) fn local_voter(&self) -> Option<&LocalVoter> {
        self.local_voter.as_ref()
    }

    /// Returns a receiver of the highest version that any response has shown.
    pub(crate) fn watch_highest_version(&self) -> watch::Receiver<DirectoryVersion> {
        self.highest_version.subscribe()
    }

    fn record_version(&self, version: DirectoryVersion) {
        self.highest_version.send_if_modified(|highest| {
            let is_higher = version > *highest;
            *highest = version.max(*highest);
            is_higher
        });
    }

    /// Returns the function that dials.
    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }

    /// Returns the other voters.
    pub(crate) fn voters(&self) -> Arc<[Voter]> {
        self.voters.read().clone()
    }

    /// Returns the client of the other voter with this index, if there are so many.
    pub(super) fn voter_at(&self, at: usize) -> Option<VoterClient> {
        self.voters.read().get(at).map(|voter| voter.client.clone())
    }

    /// Returns a version that was current after this call. Concurrent calls share one read.
    pub(crate) async fn version(&self) -> Result<DirectoryVersion, Error> {
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
        let mut last_read = self.last_read.lock().await;
        if let Some(version) = last_read.version.filter(|_| ticket < last_read.tickets_below) {
            return Ok(version);
        }
        let tickets_below = self.tickets.load(Ordering::SeqCst);
        let version = self.read_version().await?;
        self.record_version(version);
        *last_read = VersionRead {
            tickets_below,
            version: Some(version),
        };
        Ok(version)
    }

    async fn read_version(&self) -> Result<DirectoryVersion, Error> {
        let from = Instant::now();
        while from.elapsed() < LEADER_SEARCH_MAX {
            if let Some(local_voter) = &self.local_voter {
                match local_voter.version().await {
                    Ok(version) => return Ok(version),
                    Err(VoterError::Failed(error)) if !error.is_transient() => return Err(error),
                    Err(VoterError::Failed(_) | VoterError::NotLeader) => {}
                }
            }
            for at in self.voter_order() {
                let Some(mut client) = self.voter_at(at) else { break };
                if let Ok(Ok(answer)) = timeout(ATTEMPT_MAX, client.read_version(ReadVersionRequest {})).await {
                    self.last_voter.store(at as u64, Ordering::Relaxed);
                    let answer = answer.into_inner();
                    return Ok(version(answer.incarnation, answer.index));
                }
            }
            sleep(ROUND_PAUSE).await;
        }
        Err(no_leader())
    }

    /// Sends a renewal to the leader, as one attempt: to this node's own voter, else to the voter that answered last.
    /// After a failure the next call tries the next voter.
    ///
    /// Returns `None` if the leader runs a version that grants no leases.
    pub(crate) async fn renew_lease(&self, node: NodeId, renewal: &Renewal) -> Result<Option<LeaseAnswer>, Error> {
        if let Some(local_voter) = &self.local_voter
            && let Ok(answer) = local_voter.grant_lease(node, FEATURE_LEVEL_MAX, renewal).await
        {
            self.record_version(answer.version);
            return Ok(Some(answer));
        }
        let at = self.voter_order().next().ok_or_else(no_leader)?;
        let mut client = self.voter_at(at).ok_or_else(no_leader)?;
        let request = lease_messages::from_renewal(node, renewal);
        match timeout(ATTEMPT_MAX, client.renew_lease(request)).await {
            Ok(Ok(response)) => {
                self.last_voter.store(at as u64, Ordering::Relaxed);
                let answer = lease_messages::answer(response.get_ref());
                self.record_version(answer.version);
                Ok(Some(answer))
            }
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
                self.last_voter.store(at as u64 + 1, Ordering::Relaxed);
                Ok(None)
            }
            Ok(Err(status)) => {
                self.last_voter.store(at as u64 + 1, Ordering::Relaxed);
                Err(status::from_status(&status))
            }
            Err(_) => {
                self.last_voter.store(at as u64 + 1, Ordering::Relaxed);
                Err(no_leader())
            }
        }
    }

    /// Proposes a command and waits until it is applied.
    pub(crate) async fn propose(&self, command: &Command) -> Result<(DirectoryOutcome, DirectoryVersion), Error> {
        let (encoded, from) = (command.encode(), Instant::now());
        while from.elapsed() < LEADER_SEARCH_MAX {
            if let Some(local_voter) = &self.local_voter {
                match local_voter.propose_command(command).await {
                    Ok((answer, version)) => return Ok((answer?, version)),
                    Err(VoterError::Failed(error)) => return Err(error),
                    Err(VoterError::NotLeader) => {}
                }
            }
            for at in self.voter_order() {
                if let Some(done) = self.propose_at(at, encoded.clone()).await {
                    return done;
                }
            }
            sleep(ROUND_PAUSE).await;
        }
        Err(no_leader())
    }

    /// Proposes a command to one voter; `None` if it certainly did nothing and another one may be tried.
    async fn propose_at(
        &self,
        at: usize,
        command: Bytes,
    ) -> Option<Result<(DirectoryOutcome, DirectoryVersion), Error>> {
        let mut client = self.voter_at(at)?;
        let answer = match timeout(ATTEMPT_MAX, client.propose(ProposeRequest { command })).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) if was_not_sent(&status) => return None,
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
                return Some(Err(self.outcome_unknown_at(at)));
            }
            Ok(Err(status)) => {
                let error = status::from_status(&status);
                return (!error.is_transient()).then_some(Err(error));
            }
            Err(_) => return Some(Err(self.outcome_unknown_at(at))),
        };
        self.last_voter.store(at as u64, Ordering::Relaxed);
        let reached = version(answer.incarnation, answer.index);
        self.record_version(reached);
        let malformed = |_| Error::new(ErrorKind::Internal, "the directory's response cannot be decoded");
        let outcome = decode_result(answer.answer).map_err(malformed);
        Some(outcome.and_then(|answer| Ok((answer?, reached))))
    }

    /// Returns the error of an unknown outcome. The next voter is tried first from now on: this one may be gone for
    /// good, and a retry must not come to it for ever.
    fn outcome_unknown_at(&self, at: usize) -> Error {
        self.last_voter.store(at as u64 + 1, Ordering::Relaxed);
        outcome_unknown()
    }

    /// Returns the indexes of the voters to try, the one that answered last first.
    pub(super) fn voter_order(&self) -> impl Iterator<Item = usize> + use<> {
        let count = self.voters.read().len();
        let last_voter = usize::try_from(self.last_voter.load(Ordering::Relaxed)).unwrap_or(0);
        (0..count).map(move |at| (at + last_voter) % count)
    }
}

/// Tells whether a status was created locally because nothing could be sent. Any other local status may follow a
/// command that has arrived.
fn was_not_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let was_canceled = error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled);
        if was_canceled || error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn outcome_unknown() -> Error {
    let message = "the directory's leader did not respond: check whether the command was applied before you retry";
    Error::new(ErrorKind::OutcomeUnknown { key: None }, message)
}

fn version(incarnation: u32, index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation(incarnation),
        index,
    }
}

fn no_leader() -> Error {
    Error::new(
        ErrorKind::NoLeader,
        "the directory has no leader that this node can reach; nothing was executed",
    )
}
