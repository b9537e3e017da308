//! `TopologyService`: changes of the cluster's nodes and regions.

use std::sync::Arc;

use stead_api::{
    convert,
    proto::{
        admin::v1::{
            AddGroupRequest, AddNodeRequest, AddRegionRequest, RemoveNodeRequest, RemoveRegionRequest,
            ReplaceNodeRequest, RestoreDirectoryRequest, topology_service_server,
        },
        google::longrunning,
    },
};
use stead_state::directory::{AuditContext, Command, DirectoryOutcome, TopologyCommand, TopologyRequest};
use stead_types::{Error, ErrorKind, NodeId};
use tonic::{Request, Response, Status};

use super::{
    by,
    operation::{self, begun},
    to_status,
};
use crate::host::Host;

/// The service.
#[derive(Clone)]
pub(crate) struct TopologyService(Arc<Host>);

impl TopologyService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    /// Returns a node by its name or number.
    fn node(&self, text: &str) -> Result<NodeId, Error> {
        let found = self.0.directory_view.read(|view| {
            let number = text
                .parse()
                .ok()
                .map(NodeId::new)
                .filter(|node| view.node(*node).is_some());
            let named = || view.nodes().find(|node| node.name == text).map(|node| node.number);
            number.or_else(named)
        });
        let missing = || {
            let message = format!("there is no node {text:?}: `stead node list` shows the nodes there are");
            Error::new(ErrorKind::NotFound, message)
        };
        found.ok_or_else(missing)
    }

    async fn begin(&self, by: AuditContext, request: TopologyRequest) -> Result<longrunning::Operation, Error> {
        convert::directory::reason(&by.reason)?;
        // Older voters cannot read the command.
        self.0
            .directory_view
            .read(|view| request.check_level(view.settings()))?;
        let command = Command::Topology(TopologyCommand::Begin(by, request));
        let (outcome, version) = self.0.directory.propose(&command).await?;
        let DirectoryOutcome::Operation(id) = outcome else {
            let message = "the directory has begun no operation: this is a bug, please report it";
            return Err(Error::new(ErrorKind::Internal, message));
        };
        let operation = begun(&self.0, id, version).await?;
        Ok(self.0.directory_view.read(|view| operation::message(view, &operation)))
    }
}

fn reply(begun: Result<longrunning::Operation, Error>) -> Result<Response<longrunning::Operation>, Status> {
    begun.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl topology_service_server::TopologyService for TopologyService {
    async fn add_node(&self, request: Request<AddNodeRequest>) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        let AddNodeRequest {
            name, region, witness, ..
        } = request.into_inner();
        let region = convert::id::region("region", &region).map_err(|error| to_status(&error))?;
        reply(self.begin(by, TopologyRequest::AddNode { name, region, witness }).await)
    }

    async fn replace_node(
        &self,
        request: Request<ReplaceNodeRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        let ReplaceNodeRequest { node, name, .. } = request.into_inner();
        let old = self.node(&node).map_err(|error| to_status(&error))?;
        reply(self.begin(by, TopologyRequest::ReplaceNode { old, name }).await)
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        let RemoveNodeRequest { node, accept_less, .. } = request.into_inner();
        let node = self.node(&node).map_err(|error| to_status(&error))?;
        reply(self.begin(by, TopologyRequest::RemoveNode { node, accept_less }).await)
    }

    async fn add_region(&self, request: Request<AddRegionRequest>) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        let AddRegionRequest {
            name,
            jurisdiction,
            nodes,
            witness,
            ..
        } = request.into_inner();
        let invalid = |why| to_status(&Error::invalid("jurisdiction", format!("jurisdiction: {why}")));
        let request = TopologyRequest::AddRegion {
            region: convert::id::region("name", &name).map_err(|error| to_status(&error))?,
            jurisdiction: jurisdiction.parse().map_err(invalid)?,
            nodes,
            witness,
        };
        reply(self.begin(by, request).await)
    }

    async fn remove_region(
        &self,
        request: Request<RemoveRegionRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        let RemoveRegionRequest { name, lost, .. } = request.into_inner();
        let region = convert::id::region("name", &name).map_err(|error| to_status(&error))?;
        reply(self.begin(by, TopologyRequest::RemoveRegion { region, lost }).await)
    }

    async fn restore_directory(
        &self,
        request: Request<RestoreDirectoryRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        reply(self.begin(by, TopologyRequest::RestoreDirectory).await)
    }

    async fn add_group(&self, request: Request<AddGroupRequest>) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        let region = convert::id::region("region", &request.get_ref().region).map_err(|error| to_status(&error))?;
        reply(self.begin(by, TopologyRequest::AddGroup(region)).await)
    }
}
