//! Operators' calls for regions.

use std::time::{Duration, SystemTime};

use stead_api::proto::admin::v1::{self, region_service_client::RegionServiceClient as Service};
use stead_types::Error;

use super::{Admin, Group, NodeInfo, PAGE_SIZE, SeedProgress, promotion::time, seed};
use crate::{paging::ListPage, response::malformed};

/// Region in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Name of the region.
    pub name: String,
    /// Jurisdiction of its data.
    pub jurisdiction: String,
    /// Number of tenants whose home it is.
    pub home_tenants: u64,
    /// Numbers of its nodes.
    pub nodes: Vec<u64>,
    /// Numbers of its groups.
    pub groups: Vec<u32>,
    /// Names of the operations that have drained it. While there is one, no tenant gets its home there.
    pub drains: Vec<String>,
    /// Name of the last operation that has rehearsed its loss with success; empty: none.
    pub last_rehearsal: String,
    /// When that ended.
    pub rehearsed: Option<SystemTime>,
}

/// Lag of a follower group behind a home that it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerLag {
    /// Group of the home.
    pub home_group: u32,
    /// Region of the home.
    pub home_region: String,
    /// Group of the follower.
    pub follower_group: u32,
    /// Region of the follower.
    pub follower_region: String,
    /// Whether the feed session is connected.
    pub connected: bool,
    /// Log index of the home up to which the follower has applied.
    pub applied_offset: u64,
    /// Staleness, as the follower measures it.
    pub staleness: Option<Duration>,
    /// Number of tenants attached to the feed.
    pub attached_tenants: u64,
    /// Number of tenants detached from the feed.
    pub detached_tenants: u64,
    /// Number of detached tenants of which the home has sent a record that the follower cannot decode.
    pub unreadable_tenants: u64,
}

/// Status of a region, as the node that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionStatus {
    /// The region.
    pub region: RegionInfo,
    /// Its nodes.
    pub nodes: Vec<NodeInfo>,
    /// Its groups.
    pub groups: Vec<Group>,
    /// Its lags behind other regions.
    pub lags: Vec<FollowerLag>,
    /// Copies that are being made for its groups, or were given up lately.
    pub seeds: Vec<SeedProgress>,
}

impl Admin {
    /// Returns all regions.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn regions(&self) -> Result<Vec<RegionInfo>, Error> {
        let state = self.0.state();
        let request = v1::ListRegionsRequest {
            page_size: PAGE_SIZE,
            ..Default::default()
        };
        let regions = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).list_regions(request).await,
                |request, page_token| request.page_token = page_token,
                |answer| ListPage {
                    items: answer.regions,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        Ok(regions.into_iter().map(info).collect())
    }

    /// Returns a region with its status.
    ///
    /// # Errors
    ///
    /// No such region, or no node answers.
    pub async fn region(&self, name: &str) -> Result<RegionStatus, Error> {
        let request = v1::GetRegionRequest { name: name.to_owned() };
        let call = async |channel, request| Service::new(channel).get_region(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), true, call).await?;
        Ok(RegionStatus {
            region: answer.region.map(info).ok_or_else(|| malformed("region"))?,
            nodes: answer.nodes.into_iter().map(NodeInfo::read).collect(),
            groups: answer.groups.into_iter().map(Group::read).collect(),
            lags: answer.lags.into_iter().map(lag).collect(),
            seeds: answer.seeds.into_iter().map(seed::read).collect(),
        })
    }
}

fn info(region: v1::Region) -> RegionInfo {
    let v1::Region {
        name,
        jurisdiction,
        home_tenants,
        nodes,
        groups,
        drains,
        last_rehearsal,
        last_rehearsal_time,
    } = region;
    RegionInfo {
        name,
        jurisdiction,
        home_tenants,
        nodes,
        groups,
        drains,
        last_rehearsal,
        rehearsed: time(last_rehearsal_time),
    }
}

fn lag(lag: v1::FollowerLag) -> FollowerLag {
    FollowerLag {
        home_group: lag.home_group,
        home_region: lag.home_region,
        follower_group: lag.follower_group,
        follower_region: lag.follower_region,
        connected: lag.connected,
        applied_offset: lag.applied_offset,
        staleness: lag.staleness.and_then(|staleness| staleness.try_into().ok()),
        attached_tenants: lag.attached_tenants,
        detached_tenants: lag.detached_tenants,
        unreadable_tenants: lag.unreadable_tenants,
    }
}
