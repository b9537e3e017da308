//! `stead.internal.v1.DirectoryService`: the service of the directory's voters for other nodes.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use stead_api::{
    peer_identity::PeerIdentity,
    proto::internal::v1::{
        JoinRequest, JoinResponse, ProposeRequest, ProposeResponse, ReadBulkMoveTenantsRequest,
        ReadBulkMoveTenantsResponse, ReadIdentityRequest, ReadIdentityResponse, ReadOperationsRequest,
        ReadOperationsResponse, ReadPromotionItemsRequest, ReadPromotionItemsResponse, ReadRenewalsRequest,
        ReadRenewalsResponse, ReadVersionRequest, ReadVersionResponse, RenewLeaseRequest, RenewLeaseResponse,
        ReportRequest, ReportResponse, WatchRequest, WatchResponse, directory_service_server,
    },
    status,
};
use stead_state::directory::{Command, encode_result};
use stead_store::group_rows::IncompleteChange;
use stead_types::{DirectoryVersion, Error, ErrorKind, GroupId, Incarnation, NodeId, TenantNumber};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    directory::{LocalVoter, OperationQuery, VoterError},
    host::Host,
    lease_messages,
    services::join,
};

/// Most changes in one message.
const MESSAGE_CHANGES_MAX: usize = 1_000;

/// The service.
#[derive(Clone)]
pub(crate) struct DirectoryPeerService {
    host: Arc<Host>,
    stop: CancellationToken,
}

impl DirectoryPeerService {
    /// Returns the service; watches end when the token fires.
    pub(crate) fn new(host: Arc<Host>, stop: CancellationToken) -> Self {
        Self { host, stop }
    }

    fn local_voter(&self) -> Result<&LocalVoter, Status> {
        let error = || Error::new(ErrorKind::NoLeader, "this node does not vote in the directory");
        self.host
            .directory
            .local_voter()
            .ok_or_else(|| status::to_status(&error()))
    }
}

fn to_status(error: VoterError) -> Status {
    match error {
        VoterError::NotLeader => status::to_status(&Error::new(
            ErrorKind::NoLeader,
            "this node does not lead the directory",
        )),
        VoterError::Failed(error) => status::to_status(&error),
    }
}

/// Refuses a renewal of another node's lease than that of the node in the certificate of the connection.
fn check_renewing(peer: Option<&PeerIdentity>, node: NodeId) -> Result<(), Status> {
    match peer {
        Some(peer) if !peer.is(node) => Err(Status::permission_denied(format!(
            "the renewal is of {node}, and the certificate of its connection is of {peer}"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Rejects a command of another node that this build cannot decode: in the log it would stop every voter.
fn check_decodable(command: Bytes) -> Result<Bytes, Status> {
    decode(&command).map(|_| command)
}

fn decode(command: &Bytes) -> Result<Command, Status> {
    let refused = || {
        let kind = command.first().map_or_else(|| "none".to_owned(), ToString::to_string);
        let version = env!("CARGO_PKG_VERSION");
        let message = format!(
            "command: stead {version} at the directory's leader cannot decode it (kind {kind}): run one version on all nodes"
        );
        status::to_status(&Error::invalid("command", message))
    };
    let decoded = command.first().map(|kind| Command::decode(*kind, command.slice(1..)));
    decoded.and_then(Result::ok).ok_or_else(refused)
}

struct DirectoryWatcher {
    local_voter: LocalVoter,
    versions: watch::Receiver<DirectoryVersion>,
    stop: CancellationToken,
    sent_version: DirectoryVersion,
    queued: Vec<WatchResponse>,
}

impl DirectoryWatcher {
    async fn next(mut self) -> Option<(Result<WatchResponse, Status>, Self)> {
        loop {
            if let Some(message) = self.queued.pop() {
                return Some((Ok(message), self));
            }
            let newest = *self.versions.borrow_and_update();
            if newest > self.sent_version {
                match self.messages() {
                    Ok(messages) => self.queued = messages,
                    // The client follows another voter.
                    Err(incomplete) => {
                        tracing::debug!(%incomplete, "watch of the directory ended");
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

    /// Returns the messages with all changes since the last one, in reverse order for popping.
    fn messages(&mut self) -> Result<Vec<WatchResponse>, IncompleteChange> {
        let since = self
            .local_voter
            .machine
            .changes_since(self.sent_version, MESSAGE_CHANGES_MAX)?;
        let message = |changes: &[bytes::Bytes]| WatchResponse {
            changes: changes.to_vec(),
            ..Default::default()
        };
        let mut messages: Vec<WatchResponse> = since.changes.chunks(MESSAGE_CHANGES_MAX).map(message).collect();
        if messages.is_empty() {
            messages.push(WatchResponse::default());
        }
        if let Some(first) = messages.first_mut() {
            first.reset = since.is_snapshot;
        }
        if let Some(last) = messages.last_mut() {
            (last.incarnation, last.index) = (since.version.incarnation.0, since.version.index);
        }
        self.sent_version = since.version;
        messages.reverse();
        Ok(messages)
    }
}

#[tonic::async_trait]
impl directory_service_server::DirectoryService for DirectoryPeerService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let local_voter = self.local_voter()?.clone();
        let request = request.into_inner();
        let watcher = DirectoryWatcher {
            versions: local_voter.machine.version(),
            local_voter,
            stop: self.stop.clone(),
            sent_version: DirectoryVersion {
                incarnation: Incarnation(request.incarnation),
                index: request.index,
            },
            queued: Vec::new(),
        };
        Ok(Response::new(Box::pin(stream::unfold(watcher, DirectoryWatcher::next))))
    }

    async fn read_version(
        &self,
        _request: Request<ReadVersionRequest>,
    ) -> Result<Response<ReadVersionResponse>, Status> {
        let version = self.local_voter()?.version().await.map_err(to_status)?;
        Ok(Response::new(ReadVersionResponse {
            incarnation: version.incarnation.0,
            index: version.index,
        }))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let command = decode(&request.into_inner().command)?;
        let proposed = self.local_voter()?.propose_command(&command).await;
        let (answer, version) = proposed.map_err(to_status)?;
        Ok(Response::new(ProposeResponse {
            answer: encode_result(&answer),
            incarnation: version.incarnation.0,
            index: version.index,
        }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let local_voter = self.local_voter()?;
        let mut answers = Vec::new();
        for command in request.into_inner().commands {
            let (answer, _) = local_voter
                .propose(check_decodable(command)?)
                .await
                .map_err(to_status)?;
            answers.push(encode_result(&answer));
        }
        Ok(Response::new(ReportResponse { answers }))
    }

    async fn renew_lease(&self, request: Request<RenewLeaseRequest>) -> Result<Response<RenewLeaseResponse>, Status> {
        let renewal = lease_messages::renewal(request.get_ref());
        let (node, level) = (NodeId::new(request.get_ref().node), request.get_ref().feature_level);
        check_renewing(request.extensions().get(), node)?;
        let granted = self.local_voter()?.grant_lease(node, level, &renewal).await;
        let answer = granted.map_err(to_status)?;
        Ok(Response::new(lease_messages::from_answer(answer)))
    }

    async fn read_operations(
        &self,
        request: Request<ReadOperationsRequest>,
    ) -> Result<Response<ReadOperationsResponse>, Status> {
        let local_voter = self.local_voter()?;
        let read = async {
            let query = OperationQuery::from_message(request.get_ref())?;
            local_voter.read_operations(&query).await
        };
        let page = read.await.map_err(|error| status::to_status(&error))?;
        Ok(Response::new(page.message()))
    }

    async fn read_bulk_move_tenants(
        &self,
        request: Request<ReadBulkMoveTenantsRequest>,
    ) -> Result<Response<ReadBulkMoveTenantsResponse>, Status> {
        let ReadBulkMoveTenantsRequest { id, from, limit } = request.into_inner();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let read = self
            .local_voter()?
            .bulk_move_tenants(id, TenantNumber::new(from), limit);
        let tenants = read.map_err(|error| status::to_status(&error))?;
        Ok(Response::new(tenants.message()))
    }

    async fn read_promotion_items(
        &self,
        request: Request<ReadPromotionItemsRequest>,
    ) -> Result<Response<ReadPromotionItemsResponse>, Status> {
        let ReadPromotionItemsRequest { id, from, limit } = request.into_inner();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let read = self
            .local_voter()?
            .promotion_tenants(id, TenantNumber::new(from), limit);
        let tenants = read.map_err(|error| status::to_status(&error))?;
        Ok(Response::new(tenants.message()))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let joined = join::join(&self.host, request.into_inner()).await;
        joined.map(Response::new).map_err(|error| status::to_status(&error))
    }

    async fn read_identity(
        &self,
        request: Request<ReadIdentityRequest>,
    ) -> Result<Response<ReadIdentityResponse>, Status> {
        Ok(Response::new(join::identity(&self.host, request.get_ref())))
    }

    async fn read_renewals(
        &self,
        request: Request<ReadRenewalsRequest>,
    ) -> Result<Response<ReadRenewalsResponse>, Status> {
        let groups: Vec<GroupId> = request.into_inner().groups.into_iter().map(GroupId::new).collect();
        let since = self.local_voter()?.since_renewals(&groups);
        let since = since.ok_or_else(|| to_status(VoterError::NotLeader))?;
        let ms = |since: std::time::Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(ReadRenewalsResponse {
            since_ms: since.into_iter().map(ms).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_command_kind_is_refused_by_name() {
        let refused = check_decodable(Bytes::from_static(b"\xc8?")).unwrap_err();
        assert!(
            refused.message().contains("(kind 200): run one version on all nodes"),
            "{refused}"
        );
        assert!(
            check_decodable(Bytes::new())
                .unwrap_err()
                .message()
                .contains("(kind none)")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_pass_only_if_decodable(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let command = Bytes::from(bytes);
            if let Ok(command) = check_decodable(command) {
                prop_assert!(Command::decode(command[0], command.slice(1..)).is_ok());
            }
        }
    }
}
