//! Output of tenants.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use stead_client::{
    Durability, Followers, LimitUnit, MoveInFlight, OnLeaseLoss, OnRegionLoss, Replica, Role, TenantInfo, TenantLimit,
    TenantLimits, TenantState,
};

use crate::{
    output::{OutputTable, list},
    verbs::operation::display::replica_value,
};

/// Returns a table of tenants.
pub(super) fn table(tenants: &[TenantInfo]) -> OutputTable {
    let columns = &[
        "NAME",
        "HOME",
        "EPOCH",
        "FOLLOWERS",
        "STATE",
        "NUMBER",
        "GROUP",
        "RESIDENCY",
        "DURABILITY",
        "ON LEASE LOSS",
        "ON REGION LOSS",
        "LABELS",
        "LIMITS",
        "ETAG",
    ];
    let mut table = OutputTable::new(columns, 5);
    for tenant in tenants {
        table.push(cells(tenant), value(tenant));
    }
    table
}

fn cells(tenant: &TenantInfo) -> Vec<String> {
    let labels: Vec<String> = tenant
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    vec![
        tenant.name.clone(),
        tenant.home_region.clone(),
        tenant.epoch.to_string(),
        followers(&tenant.replicas),
        state_text(tenant),
        tenant.number.get().to_string(),
        tenant.home_group.to_string(),
        if tenant.residency.is_empty() {
            "any".into()
        } else {
            list(&tenant.residency)
        },
        durability(tenant.durability).to_lowercase(),
        on_lease_loss(tenant.on_lease_loss).to_lowercase(),
        on_region_loss(tenant.on_region_loss),
        list(&labels),
        list(&limits(&tenant.limits)),
        tenant.etag.clone(),
    ]
}

/// Returns the state, with the move in flight.
fn state_text(tenant: &TenantInfo) -> String {
    let state = state(tenant.state).to_lowercase();
    match &tenant.moving {
        Some(moving) => format!("{state}, {}", moving_text(moving)),
        None => state,
    }
}

/// Formats a move in flight for people.
pub(super) fn moving_text(moving: &MoveInFlight) -> String {
    let doing = if moving.cancel_requested {
        "cancelling the move to"
    } else {
        "moving to"
    };
    format!("{doing} {} g{}", moving.to_region, moving.to_group)
}

/// Returns a move in flight as JSON.
pub(super) fn moving_value(moving: &MoveInFlight) -> Value {
    json!({
        "toRegion": moving.to_region,
        "toGroup": moving.to_group,
        "epoch": moving.epoch,
        "heirReady": moving.heir_ready,
        "cancelRequested": moving.cancel_requested,
        "startTime": time(moving.started),
    })
}

/// Returns the regions of the followers, without those that are to erase the tenant.
fn followers(replicas: &[Replica]) -> String {
    let follows = |replica: &&Replica| replica.role == Role::Follower && !replica.leaving;
    let regions: Vec<&str> = replicas
        .iter()
        .filter(follows)
        .map(|replica| replica.region.as_str())
        .collect();
    if regions.is_empty() {
        return "none".to_owned();
    }
    list(&regions)
}

/// Formats the tenant's own limits as the command line accepts them.
fn limits(limits: &TenantLimits) -> Vec<String> {
    let written = |(limit, value): (TenantLimit, u64)| {
        let value = match limit.unit() {
            LimitUnit::Milliseconds => humantime::format_duration(Duration::from_millis(value)).to_string(),
            LimitUnit::Count | LimitUnit::Bytes => value.to_string(),
        };
        format!("{}={}", limit.name().replace('_', "-"), value.replace(' ', ""))
    };
    limits.iter().map(written).collect()
}

/// Formats limits as the message has them: numbers of 64 bits as text, the age in seconds.
fn limits_value(limits: &TenantLimits) -> Value {
    let name = |limit: TenantLimit| {
        let mut words = limit.name().split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| {
            format!("{name}{}{}", word[..1].to_uppercase(), &word[1..])
        })
    };
    let value = |limit: TenantLimit, value: u64| match limit.unit() {
        LimitUnit::Milliseconds => format!("{}s", Duration::from_millis(value).as_secs_f64()),
        LimitUnit::Count | LimitUnit::Bytes => value.to_string(),
    };
    let all = limits
        .iter()
        .map(|(limit, number)| (name(limit), Value::from(value(limit, number))));
    Value::Object(all.collect())
}

fn value(tenant: &TenantInfo) -> Value {
    let followers = match &tenant.followers {
        Followers::AllAdmitted => json!({ "allAdmitted": true }),
        Followers::Regions(regions) => json!({ "regions": regions }),
    };
    json!({
        "name": tenant.name,
        "number": tenant.number.get().to_string(),
        "homeRegion": tenant.home_region,
        "homeGroup": tenant.home_group,
        "epoch": tenant.epoch.get(),
        "followers": followers,
        "residency": tenant.residency,
        "durability": format!("DURABILITY_{}", durability(tenant.durability)),
        "labels": tenant.labels,
        "limits": limits_value(&tenant.limits),
        "effectiveLimits": limits_value(&tenant.effective_limits),
        "state": format!("STATE_{}", state(tenant.state)),
        "etag": tenant.etag,
        "createTime": time(tenant.created),
        "updateTime": time(tenant.updated),
        "replicas": tenant.replicas.iter().map(replica_value).collect::<Vec<_>>(),
        "moving": tenant.moving.as_ref().map(moving_value),
        "onLeaseLoss": format!("ON_LEASE_LOSS_{}", on_lease_loss(tenant.on_lease_loss)),
        "onRegionLoss": on_region_loss_value(tenant.on_region_loss),
    })
}

fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(|time| humantime::format_rfc3339_millis(time).to_string())
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Region => "REGION",
        Durability::Remote => "REMOTE",
    }
}

/// Says what becomes of a tenant when its home region is lost, for people.
pub(super) fn on_region_loss(policy: OnRegionLoss) -> String {
    let (what, promotion) = match policy {
        OnRegionLoss::Alert => return "alert".to_owned(),
        OnRegionLoss::Observe(promotion) => ("observe", promotion),
        OnRegionLoss::Promote(promotion) => ("promote", promotion),
    };
    let after = humantime::format_duration(promotion.after);
    match promotion.max_loss {
        Some(max) => format!("{what} after {after}, loss at most {}", humantime::format_duration(max)),
        None => format!("{what} after {after}, without loss"),
    }
}

/// Returns what becomes of a tenant when its home region is lost as JSON.
pub(super) fn on_region_loss_value(policy: OnRegionLoss) -> Value {
    let (action, promotion) = match policy {
        OnRegionLoss::Alert => ("ACTION_ALERT", None),
        OnRegionLoss::Observe(promotion) => ("ACTION_OBSERVE", Some(promotion)),
        OnRegionLoss::Promote(promotion) => ("ACTION_PROMOTE", Some(promotion)),
    };
    let seconds = |duration: Duration| format!("{:.3}s", duration.as_secs_f64());
    json!({
        "action": action,
        "after": promotion.map(|promotion| seconds(promotion.after)),
        "maxLoss": promotion.and_then(|promotion| promotion.max_loss).map(seconds),
    })
}

fn on_lease_loss(policy: OnLeaseLoss) -> &'static str {
    match policy {
        OnLeaseLoss::Stop => "STOP",
        OnLeaseLoss::Continue => "CONTINUE",
        OnLeaseLoss::Stopping => "STOPPING",
    }
}

fn state(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "ACTIVE",
        TenantState::Disabled => "DISABLED",
        TenantState::Deleting => "DELETING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_omit_leaving_replicas() {
        let replica = |region: &str, role, leaving| Replica {
            group: 1,
            region: region.into(),
            role,
            leaving,
        };
        let home = replica("eu-west", Role::Home, false);
        let leaving = replica("us-east", Role::Follower, true);
        assert_eq!(followers(&[home.clone(), leaving.clone()]), "none");
        let stays = replica("ap-south", Role::Follower, false);
        assert_eq!(followers(&[home, leaving, stays]), "ap-south");
    }
}
