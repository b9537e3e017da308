//! `ClusterService`: settings of the whole cluster.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert,
    proto::admin::v1::{
        self as admin, FinishUpgradeRequest, FinishUpgradeResponse, GetClusterRequest, GetClusterResponse,
        UpdateClusterRequest, UpdateClusterResponse, cluster_service_server,
    },
};
use stead_state::directory::{ClusterSettings, Command, FEATURE_LEVEL_MAX, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN};
use stead_types::{Error, ErrorKind};
use tonic::{Request, Response, Status};

use super::{by, to_status};
use crate::host::Host;

/// Longest wait for this node's view to show a change that it has just made.
const VIEW_WAIT: Duration = Duration::from_secs(3);

/// The service.
#[derive(Clone)]
pub(crate) struct ClusterService(Arc<Host>);

impl ClusterService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    fn cluster(&self) -> admin::Cluster {
        message(&self.0.directory_view.read(|view| view.settings()))
    }

    async fn update(&self, request: Request<UpdateClusterRequest>) -> Result<UpdateClusterResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let Some(ttl) = request.lease_ttl else {
            let message = "lease_ttl: name a setting to change, such as this one";
            return Err(Error::invalid("lease_ttl", message));
        };
        let ttl = lease_ttl_ms(ttl)?;
        // Older voters cannot read the command.
        self.0.directory_view.read(|view| view.settings().check_moves())?;
        Ok(UpdateClusterResponse {
            cluster: Some(self.change(&Command::SetClusterSettings(by, ttl)).await?),
        })
    }

    async fn finish_upgrade(&self, request: Request<FinishUpgradeRequest>) -> Result<FinishUpgradeResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        convert::directory::reason(&request.get_ref().reason)?;
        if self.0.directory_view.read(|view| view.settings().feature_level) >= FEATURE_LEVEL_MAX {
            return Ok(FinishUpgradeResponse {
                cluster: Some(self.cluster()),
            });
        }
        // Only the directory's leader knows which nodes support it.
        let command = Command::RaiseFeatureLevel(by, FEATURE_LEVEL_MAX, Vec::new());
        Ok(FinishUpgradeResponse {
            cluster: Some(self.change(&command).await?),
        })
    }

    /// Proposes a command, waits until this node's view shows it, and returns the settings.
    async fn change(&self, command: &Command) -> Result<admin::Cluster, Error> {
        let (_, version) = self.0.directory.propose(command).await?;
        if !self.0.directory_view.wait_for(version, VIEW_WAIT).await {
            let message = "done, but this node's view is behind: read it again in a moment";
            return Err(Error::new(ErrorKind::OutcomeUnknown { key: None }, message));
        }
        Ok(self.cluster())
    }
}

fn message(settings: &ClusterSettings) -> admin::Cluster {
    admin::Cluster {
        feature_level: settings.feature_level,
        feature_level_supported: FEATURE_LEVEL_MAX,
        lease_ttl: Some(convert::read::duration(Duration::from_millis(settings.lease_ttl_ms))),
    }
}

/// Reads a ttl: whole milliseconds within the limits.
fn lease_ttl_ms(ttl: prost_types::Duration) -> Result<u64, Error> {
    let given = convert::read::to_duration(ttl);
    let ms = given.and_then(|given| u64::try_from(given.as_millis()).ok());
    let within = ms.filter(|ms| (LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX).contains(ms));
    within.ok_or_else(|| {
        let shown = given.map_or_else(|| "a negative time".to_owned(), |given| format!("{} s", given.as_secs_f64()));
        let (min, max) = (LEASE_TTL_MS_MIN / 1_000, LEASE_TTL_MS_MAX / 1_000);
        let message = format!(
            "lease_ttl: {shown} is out of range: {min} s to {max} s; three quarters of it must outlast an election of the \
             directory"
        );
        Error::invalid("lease_ttl", message)
    })
}

#[tonic::async_trait]
impl cluster_service_server::ClusterService for ClusterService {
    async fn get_cluster(&self, _request: Request<GetClusterRequest>) -> Result<Response<GetClusterResponse>, Status> {
        Ok(Response::new(GetClusterResponse {
            cluster: Some(self.cluster()),
        }))
    }

    async fn update_cluster(
        &self,
        request: Request<UpdateClusterRequest>,
    ) -> Result<Response<UpdateClusterResponse>, Status> {
        self.update(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn finish_upgrade(
        &self,
        request: Request<FinishUpgradeRequest>,
    ) -> Result<Response<FinishUpgradeResponse>, Status> {
        self.finish_upgrade(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(seconds: i64, nanos: i32) -> Result<u64, String> {
        lease_ttl_ms(prost_types::Duration { seconds, nanos }).map_err(|error| error.message)
    }

    #[test]
    fn lease_ttl_is_within_limits() {
        assert_eq!(read(15, 0), Ok(15_000));
        assert_eq!(read(3_600, 0), Ok(3_600_000));
        for (seconds, nanos) in [(14, 999_000_000), (3_600, 1_000_000), (-1, 0), (0, 0)] {
            let refused = read(seconds, nanos).unwrap_err();
            assert!(
                refused.contains("lease_ttl") && refused.contains("15 s to 3600 s"),
                "{refused}"
            );
        }
    }
}
