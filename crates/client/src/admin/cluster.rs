//! Operators' calls for the cluster as a whole.

use std::time::Duration;

use stead_api::proto::admin::v1::{self, cluster_service_client::ClusterServiceClient as Service};
use stead_types::Error;

use super::Admin;
use crate::response::malformed;

/// Settings of the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Feature level: what every node supports. Never goes back.
    pub feature_level: u32,
    /// Feature level that the version of the node supports that was asked.
    pub feature_level_supported: u32,
    /// Duration of a lease: how long a region may be cut off from the directory before its tenants stop, and how long a
    /// promotion right after a failure may have to wait.
    pub lease_ttl: Duration,
}

impl Admin {
    /// Returns the settings of the cluster.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn cluster(&self) -> Result<ClusterInfo, Error> {
        let call = async |channel, request| Service::new(channel).get_cluster(request).await;
        let state = self.0.state();
        let answer = state
            .unary(v1::GetClusterRequest {}, state.deadline(None), true, call)
            .await?;
        info(answer.cluster)
    }

    /// Sets the duration of a lease, from 15 s to an hour.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether the setting may have been changed.
    pub async fn set_lease_ttl(&self, lease_ttl: Duration, reason: &str) -> Result<ClusterInfo, Error> {
        let request = v1::UpdateClusterRequest {
            lease_ttl: Some(stead_api::convert::read::duration(lease_ttl)),
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).update_cluster(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        info(answer.cluster)
    }

    /// Raises the feature level to what the node's version supports, if every node supports it.
    ///
    /// # Errors
    ///
    /// An error response, such as the names of the nodes that do not support it, or a failure that says whether the level
    /// may have been raised.
    pub async fn finish_upgrade(&self, reason: &str) -> Result<ClusterInfo, Error> {
        let request = v1::FinishUpgradeRequest {
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).finish_upgrade(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        info(answer.cluster)
    }
}

fn info(cluster: Option<v1::Cluster>) -> Result<ClusterInfo, Error> {
    let cluster = cluster.ok_or_else(|| malformed("cluster"))?;
    let lease_ttl = cluster.lease_ttl.and_then(|ttl| ttl.try_into().ok());
    Ok(ClusterInfo {
        feature_level: cluster.feature_level,
        feature_level_supported: cluster.feature_level_supported,
        lease_ttl: lease_ttl.ok_or_else(|| malformed("lease_ttl"))?,
    })
}
