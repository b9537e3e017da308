//! Operators' calls for Raft groups.

use std::time::{Duration, SystemTime};

use stead_api::convert::read::clock_difference_ms;
use stead_api::proto::admin::v1::{self, group_service_client::GroupServiceClient as Service};
use stead_types::Error;

use super::{Admin, PAGE_SIZE};
use crate::{paging::ListPage, response::malformed};

/// Raft group in the directory; number 0 is the directory's own group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of the group.
    pub number: u32,
    /// Region of the group; empty for the directory.
    pub region: String,
    /// Number of recoveries from a lost majority.
    pub incarnation: u32,
    /// Nodes that vote in it.
    pub voters: Vec<u64>,
    /// Number of tenants whose home it is.
    pub home_tenants: u64,
    /// Status; absent if no voter answered.
    pub status: Option<GroupStatus>,
}

/// Status of a group, as its leader reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Node that leads, if any.
    pub leader: Option<u64>,
    /// Raft term.
    pub term: u64,
    /// Last applied log index.
    pub applied: u64,
    /// Log index up to which the state is durable without the log.
    pub durable: u64,
    /// Voters with their last matching log index, if known.
    pub matched: Vec<(u64, Option<u64>)>,
    /// Milliseconds by which logged time is ahead of the median of the voters' wall clocks; absent where fewer than
    /// three answer.
    pub logged_time_ahead_ms: Option<i64>,
    /// Remaining time of the leader's lease; absent without one, and where none is needed.
    pub lease_left: Option<Duration>,
    /// Time since which the leader has had no lease: tenants that stop without one are not served. Absent with one, and
    /// where none is needed.
    pub no_lease_since: Option<SystemTime>,
    /// Milliseconds by which each voter's wall clock is ahead of that median.
    pub clocks_ahead_ms: Vec<(u64, i64)>,
}

impl Admin {
    /// Returns the groups of a region, or all if it is empty.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn groups(&self, region: &str) -> Result<Vec<Group>, Error> {
        let state = self.0.state();
        let request = v1::ListGroupsRequest {
            page_size: PAGE_SIZE,
            region: region.to_owned(),
            ..Default::default()
        };
        let groups = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).list_groups(request).await,
                |request, page_token| request.page_token = page_token,
                |answer| ListPage {
                    items: answer.groups,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        Ok(groups.into_iter().map(Group::read).collect())
    }

    /// Returns a group with its status.
    ///
    /// # Errors
    ///
    /// No such group, or no node answers.
    pub async fn group(&self, number: u32) -> Result<Group, Error> {
        let call = async |channel, request| Service::new(channel).get_group(request).await;
        let state = self.0.state();
        let answer = state
            .unary(v1::GetGroupRequest { number }, state.deadline(None), true, call)
            .await?;
        answer.group.map(Group::read).ok_or_else(|| malformed("group"))
    }

    /// Transfers the leadership of a group to a voter, or to any other one that is up to date.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether the change may have happened.
    pub async fn move_leader(&self, group: u32, to: Option<u64>, reason: &str) -> Result<Group, Error> {
        let request = v1::MoveLeaderRequest {
            group,
            to,
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).move_leader(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        answer.group.map(Group::read).ok_or_else(|| malformed("group"))
    }
}

impl Group {
    pub(super) fn read(group: v1::Group) -> Self {
        let v1::Group {
            number,
            region,
            incarnation,
            voters,
            home_tenants,
            status,
            next_voters: _,
        } = group;
        let status = status.map(|status| GroupStatus {
            logged_time_ahead_ms: status.logged_time_ahead.as_ref().map(clock_difference_ms),
            clocks_ahead_ms: status
                .voters
                .iter()
                .filter_map(|voter| Some((voter.node, clock_difference_ms(voter.clock_ahead.as_ref()?))))
                .collect(),
            lease_left: status.lease_left.and_then(|left| left.try_into().ok()),
            no_lease_since: status.no_lease_since.and_then(|since| since.try_into().ok()),
            leader: status.leader,
            term: status.term,
            applied: status.applied_index,
            durable: status.durable_index,
            matched: status
                .voters
                .into_iter()
                .map(|voter| (voter.node, voter.matched_index))
                .collect(),
        });
        Self {
            number,
            region,
            incarnation,
            voters,
            home_tenants,
            status,
        }
    }
}
