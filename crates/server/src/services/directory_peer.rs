//! `stead.internal.v1.DirectoryService`: what voters of the directory answer to other nodes.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use stead_api::{
    proto::internal::v1::{
        ProposeRequest, ProposeResponse, ReadVersionRequest, ReadVersionResponse, ReportRequest, ReportResponse,
        WatchRequest, WatchResponse, directory_service_server,
    },
    status,
};
use stead_state::directory::{Command, encode_answer};
use stead_store::group_rows::HalfChanged;
use stead_types::{DirectoryVersion, Error, ErrorKind, Incarnation};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::directory::{Directory, Refusal, Seat};

/// Changes in one message.
const CHANGES_A_MESSAGE: usize = 1_000;

/// The service.
#[derive(Clone)]
pub(crate) struct DirectoryPeerService {
    directory: Arc<Directory>,
    stop: CancellationToken,
}

impl DirectoryPeerService {
    /// Returns the service; watches end when the token fires.
    pub(crate) fn new(directory: Arc<Directory>, stop: CancellationToken) -> Self {
        Self { directory, stop }
    }

    fn seat(&self) -> Result<&Seat, Status> {
        let error = || Error::new(ErrorKind::NoLeader, "this node does not vote in the directory");
        self.directory.seat().ok_or_else(|| status::to_status(&error()))
    }
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NotLeader => status::to_status(&Error::new(
            ErrorKind::NoLeader,
            "this node does not lead the directory",
        )),
        Refusal::Failed(error) => status::to_status(&error),
    }
}

/// Refuses a command of another node that this build cannot read: in the log it would stop every voter.
fn readable(command: Bytes) -> Result<Bytes, Status> {
    let refused = || {
        let kind = command.first().map_or_else(|| "none".to_owned(), ToString::to_string);
        let version = env!("CARGO_PKG_VERSION");
        let message = format!(
            "command: stead {version} at the directory's leader cannot read it (kind {kind}): run one version on all nodes"
        );
        status::to_status(&Error::invalid("command", message))
    };
    match command.first() {
        Some(kind) if Command::decode(*kind, command.slice(1..)).is_ok() => Ok(command),
        Some(_) | None => Err(refused()),
    }
}

struct Watcher {
    seat: Seat,
    versions: watch::Receiver<DirectoryVersion>,
    stop: CancellationToken,
    sent: DirectoryVersion,
    queued: Vec<WatchResponse>,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<WatchResponse, Status>, Self)> {
        loop {
            if let Some(message) = self.queued.pop() {
                return Some((Ok(message), self));
            }
            let newest = *self.versions.borrow_and_update();
            if newest > self.sent {
                match self.messages() {
                    Ok(messages) => self.queued = messages,
                    // The watcher finds another voter.
                    Err(half_changed) => {
                        tracing::debug!(%half_changed, "a watch of the directory ends");
                        return None;
                    }
                }
                continue;
            }
            tokio::select! {
                changed = self.versions.changed() => changed.ok()?,
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// What has changed since the last message, in the order of popping.
    fn messages(&mut self) -> Result<Vec<WatchResponse>, HalfChanged> {
        let since = self.seat.machine.changes_since(self.sent, CHANGES_A_MESSAGE)?;
        let message = |changes: &[bytes::Bytes]| WatchResponse {
            changes: changes.to_vec(),
            ..Default::default()
        };
        let mut messages: Vec<WatchResponse> = since.changes.chunks(CHANGES_A_MESSAGE).map(message).collect();
        if messages.is_empty() {
            messages.push(WatchResponse::default());
        }
        if let Some(first) = messages.first_mut() {
            first.reset = since.is_snapshot;
        }
        if let Some(last) = messages.last_mut() {
            (last.incarnation, last.index) = (since.version.incarnation.0, since.version.index);
        }
        self.sent = since.version;
        messages.reverse();
        Ok(messages)
    }
}

#[tonic::async_trait]
impl directory_service_server::DirectoryService for DirectoryPeerService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let seat = self.seat()?.clone();
        let request = request.into_inner();
        let watcher = Watcher {
            versions: seat.machine.version(),
            seat,
            stop: self.stop.clone(),
            sent: DirectoryVersion {
                incarnation: Incarnation(request.incarnation),
                index: request.index,
            },
            queued: Vec::new(),
        };
        Ok(Response::new(Box::pin(stream::unfold(watcher, Watcher::next))))
    }

    async fn read_version(
        &self,
        _request: Request<ReadVersionRequest>,
    ) -> Result<Response<ReadVersionResponse>, Status> {
        let version = self.seat()?.version().await.map_err(refused)?;
        Ok(Response::new(ReadVersionResponse {
            incarnation: version.incarnation.0,
            index: version.index,
        }))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let (answer, version) = self
            .seat()?
            .propose(readable(request.into_inner().command)?)
            .await
            .map_err(refused)?;
        Ok(Response::new(ProposeResponse {
            answer: encode_answer(&answer),
            incarnation: version.incarnation.0,
            index: version.index,
        }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let seat = self.seat()?;
        let mut answers = Vec::new();
        for command in request.into_inner().commands {
            let (answer, _) = seat.propose(readable(command)?).await.map_err(refused)?;
            answers.push(encode_answer(&answer));
        }
        Ok(Response::new(ReportResponse { answers }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn command_of_an_unknown_kind_is_refused_by_name() {
        let refused = readable(Bytes::from_static(b"\xc8?")).unwrap_err();
        assert!(
            refused.message().contains("(kind 200): run one version on all nodes"),
            "{refused}"
        );
        assert!(readable(Bytes::new()).unwrap_err().message().contains("(kind none)"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_proposed_only_if_they_are_a_command(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let command = Bytes::from(bytes);
            if let Ok(command) = readable(command) {
                prop_assert!(Command::decode(command[0], command.slice(1..)).is_ok());
            }
        }
    }
}
