//! Regions.

use std::time::Duration;

use stead_api::proto::admin::v1::{self, region_service_client::RegionServiceClient as Service};
use stead_types::Error;

use super::{Admin, Group, NodeInfo, PAGE_SIZE};
use crate::answer::malformed;

/// A region as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its name.
    pub name: String,
    /// Where its data lies in law.
    pub jurisdiction: String,
    /// Tenants at home here.
    pub home_tenants: u64,
    /// Its nodes.
    pub nodes: Vec<u64>,
    /// Its groups.
    pub groups: Vec<u32>,
}

/// How far a group is behind a home that it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The home.
    pub home_group: u32,
    /// Its region.
    pub home_region: String,
    /// The follower.
    pub follower_group: u32,
    /// Its region.
    pub follower_region: String,
    /// Whether the stream is up.
    pub connected: bool,
    /// The home's Raft index up to which the follower has applied.
    pub applied_offset: u64,
    /// As the follower measures it.
    pub staleness: Option<Duration>,
    /// Tenants whose changes come with the stream.
    pub attached_tenants: u64,
    /// Tenants that have fallen out of it.
    pub detached_tenants: u64,
    /// Of these, those of which the home has sent what the follower cannot take.
    pub unreadable_tenants: u64,
}

/// How a region is, as the node that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionStatus {
    /// What it is.
    pub region: RegionInfo,
    /// Its nodes.
    pub nodes: Vec<NodeInfo>,
    /// Its groups.
    pub groups: Vec<Group>,
    /// How far it is behind other regions.
    pub lags: Vec<Lag>,
}

impl Admin {
    /// Returns all regions.
    ///
    /// # Errors
    ///
    /// Nobody who can answer.
    pub async fn regions(&self) -> Result<Vec<RegionInfo>, Error> {
        let mut regions = Vec::new();
        let mut request = v1::ListRegionsRequest {
            page_size: PAGE_SIZE,
            ..Default::default()
        };
        let inner = self.0.inner();
        let deadline = inner.deadline(None);
        loop {
            let call = async |channel, request| Service::new(channel).list_regions(request).await;
            let answer = inner.unary(request.clone(), deadline, true, call).await?;
            regions.extend(answer.regions.into_iter().map(info));
            if answer.next_page_token.is_empty() {
                return Ok(regions);
            }
            request.page_token = answer.next_page_token;
        }
    }

    /// Returns how a region is.
    ///
    /// # Errors
    ///
    /// No such region, or nobody who can answer.
    pub async fn region(&self, name: &str) -> Result<RegionStatus, Error> {
        let request = v1::GetRegionRequest { name: name.to_owned() };
        let call = async |channel, request| Service::new(channel).get_region(request).await;
        let inner = self.0.inner();
        let answer = inner.unary(request, inner.deadline(None), true, call).await?;
        Ok(RegionStatus {
            region: answer.region.map(info).ok_or_else(|| malformed("region"))?,
            nodes: answer.nodes.into_iter().map(NodeInfo::read).collect(),
            groups: answer.groups.into_iter().map(Group::read).collect(),
            lags: answer.lags.into_iter().map(lag).collect(),
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
    } = region;
    RegionInfo {
        name,
        jurisdiction,
        home_tenants,
        nodes,
        groups,
    }
}

fn lag(lag: v1::FollowerLag) -> Lag {
    Lag {
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
