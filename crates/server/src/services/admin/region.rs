//! `RegionService`: regions, their nodes and groups, and the lag of their followers.

use std::{collections::BTreeSet, sync::Arc};

use stead_api::{
    convert,
    proto::admin::v1::{
        self as admin, CreateRegionRequest, CreateRegionResponse, GetReadinessRequest, GetReadinessResponse,
        GetRegionRequest, GetRegionResponse, ListRegionsRequest, ListRegionsResponse,
        region_service_client::RegionServiceClient, region_service_server,
    },
};
use stead_state::directory::{self, Command, Directory, DirectoryView};
use stead_types::{Error, ErrorKind, NodeId, RegionName};
use tonic::{Request, Response, Status};

use super::{PAGE_DEFAULT, PAGE_MAX, by, group, node, readiness, region_seeds, time, to_status};
use crate::{
    admin_peers::{await_response, is_peer_request, peer_request},
    host::{self, Host},
};

/// The service.
#[derive(Clone)]
pub(crate) struct RegionService(Arc<Host>);

impl RegionService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }
}

fn message(view: &DirectoryView, region: &directory::Region) -> admin::Region {
    let groups: Vec<_> = view.groups_of(&region.name).collect();
    admin::Region {
        name: region.name.to_string(),
        jurisdiction: region.jurisdiction.to_string(),
        home_tenants: groups.iter().map(|group| view.load(group.number).homes).sum(),
        nodes: view
            .nodes()
            .filter(|node| node.region == region.name)
            .map(|node| node.number.get())
            .collect(),
        groups: groups.iter().map(|group| group.number.get()).collect(),
        drains: region.drains.iter().map(|id| convert::operation::name(*id)).collect(),
        last_rehearsal: region
            .rehearsed
            .map(|rehearsed| convert::operation::name(rehearsed.operation))
            .unwrap_or_default(),
        last_rehearsal_time: region.rehearsed.map(|rehearsed| time(rehearsed.time)),
    }
}

impl RegionService {
    fn list(&self, request: &ListRegionsRequest) -> Result<ListRegionsResponse, Error> {
        self.0.check_view_loaded()?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let after = convert::page::position(b"regions", &request.page_token)?;
        let mut regions: Vec<admin::Region> = self.0.directory_view.read(|view| {
            let is_after = |region: &&directory::Region| {
                after
                    .as_ref()
                    .is_none_or(|after| region.name.as_str().as_bytes() > after.as_slice())
            };
            view.regions()
                .filter(is_after)
                .take(size + 1)
                .map(|region| message(view, region))
                .collect()
        });
        let more = regions.len() > size;
        regions.truncate(size);
        let last = regions.last().filter(|_| more);
        let next_page_token = last.map(|last| convert::page::token(b"regions", last.name.as_bytes()));
        Ok(ListRegionsResponse {
            regions,
            next_page_token: next_page_token.unwrap_or_default(),
        })
    }

    async fn get(&self, name: &str, may_ask_peers: bool) -> Result<GetRegionResponse, Error> {
        let name: RegionName = convert::id::region("name", name)?;
        if !may_ask_peers {
            return Ok(GetRegionResponse {
                lags: host::follower_lags(&self.0, &name),
                seeds: host::seeds_to(&self.0, &name),
                ..GetRegionResponse::default()
            });
        }
        self.0.check_view_loaded()?;
        let found = self.0.directory_view.read(|view| {
            let region = view.region(&name)?;
            let nodes = view
                .nodes()
                .filter(|node| node.region == name)
                .map(|node| node::message(view, node));
            let groups = view.groups_of(&name).map(|group| group::message(view, group));
            Some((
                message(view, region),
                nodes.collect::<Vec<_>>(),
                groups.collect::<Vec<_>>(),
            ))
        });
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no region {name}"));
        let (region, nodes, groups) = found.ok_or_else(missing)?;
        let nodes = nodes.into_iter().map(|node| node::with_status(&self.0, node));
        let groups = groups.into_iter().map(|group| group::with_status(&self.0, group, true));
        let statuses = futures::future::join(futures::future::join_all(nodes), futures::future::join_all(groups));
        let (nodes, groups) = statuses.await;
        let (lags, seeds) =
            futures::future::join(self.lags(&name, &nodes, &groups), region_seeds::seeds(&self.0, &name)).await;
        Ok(GetRegionResponse {
            region: Some(region),
            lags,
            seeds,
            nodes,
            groups,
        })
    }

    async fn readiness(&self, name: &str) -> Result<GetReadinessResponse, Error> {
        let view = self.0.directory_view.read(DirectoryView::clone);
        let regions: Vec<RegionName> = match name {
            "" => readiness::regions_with_tenants(&view),
            name => {
                let name: RegionName = convert::id::region("region", name)?;
                let missing = || Error::new(ErrorKind::NotFound, format!("there is no region {name}"));
                view.region(&name).ok_or_else(missing)?;
                vec![name]
            }
        };
        let mut response = GetReadinessResponse::default();
        for region in regions {
            response
                .regions
                .push(readiness::of_region(&self.0, &view, &region).await);
        }
        Ok(response)
    }

    /// Asks the leaders of a region's groups for their lag behind the homes that they follow. A node that did not
    /// report its status is not waited for a second time.
    async fn lags(&self, name: &RegionName, nodes: &[admin::Node], groups: &[admin::Group]) -> Vec<admin::FollowerLag> {
        let leader = |group: &admin::Group| group.status.as_ref()?.leader;
        let leaders: BTreeSet<u64> = groups.iter().filter_map(leader).collect();
        let answered_before = nodes.iter().filter(|node| node.status.is_some());
        let leaders = answered_before.filter(|node| leaders.contains(&node.number));
        let leaders = leaders.map(|node| NodeId::new(node.number));
        let ask = async |leader: NodeId| {
            if leader == self.0.config.node.id {
                return host::follower_lags(&self.0, name);
            }
            let channel = self
                .0
                .admin_address(leader)
                .and_then(|to| self.0.admin_peers.channel(&to));
            let Some(channel) = channel else { return Vec::new() };
            let request = peer_request(GetRegionRequest { name: name.to_string() });
            let answer = await_response(RegionServiceClient::new(channel).get_region(request)).await;
            answer.map(|answer| answer.lags).unwrap_or_default()
        };
        futures::future::join_all(leaders.map(ask)).await.concat()
    }

    async fn create(&self, request: Request<CreateRegionRequest>) -> Result<CreateRegionResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let invalid = |why| Error::invalid("jurisdiction", format!("jurisdiction: {why}"));
        let region = directory::Region::new(
            convert::id::region("name", &request.name)?,
            request.jurisdiction.parse().map_err(invalid)?,
        );
        let made = admin::Region {
            name: request.name,
            jurisdiction: request.jurisdiction,
            ..admin::Region::default()
        };
        let command = Command::CreateRegion(by, region);
        if request.validate_only {
            Directory::dry_run(self.0.directory_view.read(DirectoryView::clone), command)?;
        } else {
            self.0.directory.propose(&command).await?;
        }
        Ok(CreateRegionResponse { region: Some(made) })
    }
}

#[tonic::async_trait]
impl region_service_server::RegionService for RegionService {
    async fn list_regions(
        &self,
        request: Request<ListRegionsRequest>,
    ) -> Result<Response<ListRegionsResponse>, Status> {
        self.list(request.get_ref())
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn get_region(&self, request: Request<GetRegionRequest>) -> Result<Response<GetRegionResponse>, Status> {
        self.get(&request.get_ref().name, !is_peer_request(&request))
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn get_readiness(
        &self,
        request: Request<GetReadinessRequest>,
    ) -> Result<Response<GetReadinessResponse>, Status> {
        self.readiness(&request.get_ref().region)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn create_region(
        &self,
        request: Request<CreateRegionRequest>,
    ) -> Result<Response<CreateRegionResponse>, Status> {
        self.create(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }
}
