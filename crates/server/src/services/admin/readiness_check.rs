//! Check of every region's readiness by the directory's leader, once a minute, for metrics and alerts.

use std::{convert::Infallible, sync::Arc, time::Duration};

use stead_api::proto::admin::v1::RegionReadiness;
use stead_state::directory::DirectoryView;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::readiness::{of_region, regions_with_tenants};
use crate::{host::Host, readiness_metrics::RegionSample};

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Interval at which a voter looks whether it leads, and whether a check is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Task that checks the regions while this node leads the directory.
pub(crate) async fn run(host: Arc<Host>, stop: CancellationToken) -> Result<(), Infallible> {
    let Some(voter) = host.directory.local_voter() else {
        return Ok(());
    };
    let mut checked: Option<Instant> = None;
    while stop.run_until_cancelled(sleep(LOOK_INTERVAL)).await.is_some() {
        if !voter.group.is_leader() {
            checked = None;
            host.metrics.readiness.clear();
            continue;
        }
        if checked.is_none_or(|at| at.elapsed() >= CHECK_INTERVAL) {
            checked = Some(Instant::now());
            let _ = stop.run_until_cancelled(check(&host)).await;
        }
    }
    Ok(())
}

/// Checks every region that is home to tenants, and sets the metrics.
async fn check(host: &Arc<Host>) {
    let view = host.directory_view.read(DirectoryView::clone);
    let mut samples = Vec::new();
    for region in regions_with_tenants(&view) {
        let readiness = of_region(host, &view, &region).await;
        if readiness.tenants_blocked > 0 {
            let command = format!("stead region readiness {region}");
            let (blocked, tenants) = (readiness.tenants_blocked, readiness.tenants);
            let why = why(&readiness);
            warn!(%region, blocked, tenants, why, command, "a loss of the region would leave tenants without a home");
        }
        samples.push(sample(&readiness));
    }
    host.metrics.readiness.set(&samples);
}

fn why(readiness: &RegionReadiness) -> &str {
    let first = readiness.items.first().map(|item| item.blocker.as_str());
    readiness
        .blockers
        .first()
        .map(String::as_str)
        .or(first)
        .unwrap_or_default()
}

fn sample(readiness: &RegionReadiness) -> RegionSample {
    let seconds = |duration: Option<prost_types::Duration>| {
        let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
        duration.map(|duration| duration.as_secs_f64())
    };
    let unix = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds);
    RegionSample {
        region: readiness.region.clone(),
        ready: readiness.tenants_ready - readiness.tenants_at_risk,
        at_risk: readiness.tenants_at_risk,
        blocked: readiness.tenants_blocked,
        wait_seconds: seconds(readiness.wait_max),
        loss_seconds: seconds(readiness.loss_max),
        checked: unix(readiness.check_time),
        rehearsed: unix(readiness.last_rehearsal_time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_counts_each_tenant_once() {
        let readiness = RegionReadiness {
            region: "eu-west".into(),
            tenants: 9,
            tenants_ready: 7,
            tenants_at_risk: 5,
            tenants_blocked: 2,
            ..RegionReadiness::default()
        };
        let sample = sample(&readiness);
        assert_eq!((sample.ready, sample.at_risk, sample.blocked), (2, 5, 2));
        assert_eq!((sample.loss_seconds, sample.rehearsed), (None, None));
    }
}
