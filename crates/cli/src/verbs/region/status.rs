//! `stead region status`.

use clap::Args;
use serde_json::json;
use stead_client::{FollowerLag, RegionStatus};

use super::seeds;
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable},
    verbs::{group, node},
};

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Name of the region
    name: String,
}

impl Status {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let status = client.admin().region(&self.name).await?;
        show(&status, target.output)?;
        match health_problem(&status) {
            Some(what) => Err(CommandError::new(
                Code::Unhealthy,
                format!("region {}: {what}", self.name),
            )),
            None => Ok(()),
        }
    }
}

fn show(status: &RegionStatus, format: Output) -> Result<(), CommandError> {
    if format == Output::Json {
        return output::json(&json!({
            "region": super::list::value(&status.region),
            "nodes": status.nodes.iter().map(node::value).collect::<Vec<_>>(),
            "groups": status.groups.iter().map(group::value).collect::<Vec<_>>(),
            "lags": status.lags.iter().map(value).collect::<Vec<_>>(),
            "seeds": status.seeds.iter().map(seeds::value).collect::<Vec<_>>(),
        }));
    }
    node::table(&status.nodes).print(format)?;
    output::line("")?;
    group::table(&status.groups).print(format)?;
    if !status.seeds.is_empty() {
        output::line("")?;
        seeds::table(&status.seeds).print(format)?;
    }
    if status.lags.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut table = OutputTable::new(
        &["FOLLOWS", "STALENESS", "ATTACHED", "DETACHED", "OFFSET", "BY GROUP"],
        4,
    );
    for lag in &status.lags {
        let staleness = match (lag.connected, lag.staleness) {
            (true, Some(staleness)) => output::duration(staleness),
            (true, None) => "unknown".into(),
            (false, _) => "not connected".into(),
        };
        let detached = match lag.unreadable_tenants {
            0 => lag.detached_tenants.to_string(),
            unreadable => format!("{} ({unreadable} unreadable)", lag.detached_tenants),
        };
        let cells = vec![
            format!("{} g{}", lag.home_region, lag.home_group),
            staleness,
            lag.attached_tenants.to_string(),
            detached,
            lag.applied_offset.to_string(),
            lag.follower_group.to_string(),
        ];
        table.push(cells, value(lag));
    }
    table.print(format)
}

fn value(lag: &FollowerLag) -> serde_json::Value {
    json!({
        "homeGroup": lag.home_group,
        "homeRegion": lag.home_region,
        "followerGroup": lag.follower_group,
        "followerRegion": lag.follower_region,
        "connected": lag.connected,
        "appliedOffset": lag.applied_offset.to_string(),
        "staleness": lag.staleness.map(|staleness| format!("{:.3}s", staleness.as_secs_f64())),
        "attachedTenants": lag.attached_tenants.to_string(),
        "detachedTenants": lag.detached_tenants.to_string(),
        "unreadableTenants": lag.unreadable_tenants.to_string(),
    })
}

/// Returns the first reason why a region is unhealthy.
pub(in crate::verbs) fn health_problem(status: &RegionStatus) -> Option<String> {
    let node = status.nodes.iter().find_map(node::health_problem);
    let group = || status.groups.iter().find_map(group::health_problem);
    node.or_else(group).or_else(|| stream_problem(&status.lags))
}

/// Returns the first feed that does not arrive: its copies grow old.
fn stream_problem(lags: &[FollowerLag]) -> Option<String> {
    let broken = lags.iter().find(|lag| !lag.connected)?;
    Some(format!(
        "group {} is not connected to group {} of {}: its copies of {} grow old",
        broken.follower_group,
        broken.home_group,
        broken.home_region,
        output::count(broken.attached_tenants + broken.detached_tenants, "tenant")
    ))
}
