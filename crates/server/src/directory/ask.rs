//! Questions and commands for the directory's leader, from any node.
//!
//! # Invariants
//!
//! 1. A version that is answered was read after the question arrived here.
//! 2. A command is sent to a second voter only when the first certainly did nothing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::internal::v1::{ProposeRequest, ReadVersionRequest, directory_service_client::DirectoryServiceClient},
    status,
};
use stead_state::directory::{Command, Outcome, decode_answer};
use stead_types::{DirectoryVersion, Error, ErrorKind, Incarnation, NodeId};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use super::seat::{Refusal, Seat};

/// How long the leader is looked for before the caller is told that there is none.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long one voter may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Pause between rounds over all voters.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

type Client = DirectoryServiceClient<Channel>;

/// Asks the directory's leader.
pub(crate) struct Directory {
    seat: Option<Seat>,
    voters: Vec<(NodeId, Client)>,
    /// Position in `voters` of the one that answered last.
    last: AtomicU64,
    tickets: AtomicU64,
    answered: Mutex<Answered>,
    /// The highest version that an answer has shown.
    shown: watch::Sender<DirectoryVersion>,
}

/// The last answered question: it serves everybody who came before it was asked.
#[derive(Default)]
struct Answered {
    tickets_below: u64,
    version: Option<DirectoryVersion>,
}

impl Directory {
    /// Returns a handle that asks these voters, by way of `seat` if this node is one of them.
    pub(crate) fn new(seat: Option<Seat>, voters: &[(NodeId, String)], connect: &Connect) -> std::io::Result<Self> {
        let client = |(id, address): &(NodeId, String)| {
            let channel = channel(connect, address, Keepalive::PEER)?;
            Ok((*id, DirectoryServiceClient::new(channel)))
        };
        Ok(Self {
            seat,
            voters: voters.iter().map(client).collect::<std::io::Result<_>>()?,
            last: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            answered: Mutex::default(),
            shown: watch::Sender::new(DirectoryVersion::ZERO),
        })
    }

    /// Returns this node's own part of the directory.
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// Returns a receiver that sees the highest version that any answer has shown.
    pub(crate) fn shown(&self) -> watch::Receiver<DirectoryVersion> {
        self.shown.subscribe()
    }

    fn show(&self, version: DirectoryVersion) {
        self.shown.send_if_modified(|shown| {
            let is_higher = version > *shown;
            *shown = version.max(*shown);
            is_higher
        });
    }

    /// Returns the voters' clients.
    pub(crate) fn voters(&self) -> &[(NodeId, Client)] {
        &self.voters
    }

    /// Returns a version that was current after this call; one question serves all who wait.
    pub(crate) async fn version(&self) -> Result<DirectoryVersion, Error> {
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
        let mut answered = self.answered.lock().await;
        if let Some(version) = answered.version.filter(|_| ticket < answered.tickets_below) {
            return Ok(version);
        }
        let tickets_below = self.tickets.load(Ordering::SeqCst);
        let version = self.ask_version().await?;
        self.show(version);
        *answered = Answered {
            tickets_below,
            version: Some(version),
        };
        Ok(version)
    }

    async fn ask_version(&self) -> Result<DirectoryVersion, Error> {
        let from = Instant::now();
        while from.elapsed() < PATIENCE {
            if let Some(seat) = &self.seat {
                match seat.version().await {
                    Ok(version) => return Ok(version),
                    Err(Refusal::Failed(error)) if !error.is_transient() => return Err(error),
                    Err(Refusal::Failed(_) | Refusal::NotLeader) => {}
                }
            }
            for at in self.order() {
                let mut client = self.voters[at].1.clone();
                if let Ok(Ok(answer)) = timeout(ATTEMPT_MAX, client.read_version(ReadVersionRequest {})).await {
                    self.last.store(at as u64, Ordering::Relaxed);
                    let answer = answer.into_inner();
                    return Ok(version(answer.incarnation, answer.index));
                }
            }
            sleep(ROUND_PAUSE).await;
        }
        Err(no_leader())
    }

    /// Has a command applied.
    pub(crate) async fn propose(&self, command: &Command) -> Result<(Outcome, DirectoryVersion), Error> {
        let command = command.encode();
        let from = Instant::now();
        while from.elapsed() < PATIENCE {
            if let Some(seat) = &self.seat {
                match seat.propose(command.clone()).await {
                    Ok((answer, version)) => return Ok((answer?, version)),
                    Err(Refusal::Failed(error)) => return Err(error),
                    Err(Refusal::NotLeader) => {}
                }
            }
            for at in self.order() {
                if let Some(done) = self.propose_at(at, command.clone()).await {
                    return done;
                }
            }
            sleep(ROUND_PAUSE).await;
        }
        Err(no_leader())
    }

    /// Asks one voter; `None` if it certainly did nothing and another one may.
    async fn propose_at(&self, at: usize, command: Bytes) -> Option<Result<(Outcome, DirectoryVersion), Error>> {
        let mut client = self.voters[at].1.clone();
        let answer = match timeout(ATTEMPT_MAX, client.propose(ProposeRequest { command })).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) if was_not_sent(&status) => return None,
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => return Some(Err(self.unknown_at(at))),
            Ok(Err(status)) => {
                let error = status::from_status(&status);
                return (!error.is_transient()).then_some(Err(error));
            }
            Err(_) => return Some(Err(self.unknown_at(at))),
        };
        self.last.store(at as u64, Ordering::Relaxed);
        let reached = version(answer.incarnation, answer.index);
        self.show(reached);
        let malformed = |_| Error::new(ErrorKind::Internal, "the directory's answer cannot be read");
        let outcome = decode_answer(answer.answer).map_err(malformed);
        Some(outcome.and_then(|answer| Ok((answer?, reached))))
    }

    /// Says that it is not known what a voter has done. The next one is asked first from now on: this one may be gone for
    /// good, and whoever asks again must not come to it for ever.
    fn unknown_at(&self, at: usize) -> Error {
        self.last.store(at as u64 + 1, Ordering::Relaxed);
        unknown()
    }

    /// Positions of the voters to ask, the one that answered last first, this node itself left out.
    fn order(&self) -> impl Iterator<Item = usize> + use<'_> {
        let count = self.voters.len();
        let last = usize::try_from(self.last.load(Ordering::Relaxed)).unwrap_or(0);
        (0..count).map(move |at| (at + last) % count)
    }
}

/// Tells whether a status was made here because nothing could be sent. Any other status that was made here may follow
/// a command that has arrived.
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

fn unknown() -> Error {
    let message = "the directory's leader did not answer: look whether it was done before asking again";
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
        "the directory has no leader that can be reached from here; nothing happened",
    )
}
