//! Tenants as messages.

use stead_api::{
    convert,
    proto::{admin::v1 as admin, v1},
};
use stead_state::directory::{
    DirectoryView, Followers, LeaseLoss, MoveState, ReplicaSetMember, Tenant, TenantMove, TenantState,
};
use stead_types::{Durability, TenantLimit, TenantLimits};

use super::{etag, region_loss_message, region_name, time};

/// Converts a tenant into a message.
pub(super) fn message(view: &DirectoryView, tenant: &Tenant) -> admin::Tenant {
    admin::Tenant {
        name: tenant.name.to_string(),
        number: tenant.number.get(),
        home_region: region_name(view, tenant.home),
        home_group: tenant.home.get(),
        epoch: tenant.epoch.get(),
        fence_epoch: tenant.fence_epoch.get(),
        followers: Some(followers_message(&tenant.followers)),
        residency: tenant.residency.iter().map(ToString::to_string).collect(),
        durability: durability_message(tenant.durability).into(),
        labels: tenant.labels.as_deref().cloned().unwrap_or_default(),
        state: state_message(tenant.state).into(),
        etag: etag(tenant.version),
        create_time: Some(time(tenant.created)),
        update_time: Some(time(tenant.updated)),
        replicas: replicas(view, tenant),
        lineage: Vec::new(),
        limits: Some(convert::limits::from_limits(&tenant.own_limits())),
        effective_limits: Some(effective(&tenant.own_limits())),
        moving: tenant.moving.as_deref().map(|moving| move_message(view, moving)),
        on_lease_loss: lease_loss_message(tenant.on_lease_loss).into(),
        on_region_loss: Some(region_loss_message::message(tenant.on_region_loss())),
    }
}

/// Converts the members of a tenant into messages.
pub(super) fn replicas(view: &DirectoryView, tenant: &Tenant) -> Vec<admin::Replica> {
    let replica = |member: &ReplicaSetMember| {
        let role = if member.group == tenant.home {
            v1::Role::Home
        } else {
            v1::Role::Follower
        };
        admin::Replica {
            group: member.group.get(),
            region: region_name(view, member.group),
            role: role.into(),
            leaving: !member.state.stays(),
        }
    };
    tenant.members.iter().map(replica).collect()
}

fn move_message(view: &DirectoryView, moving: &TenantMove) -> admin::TenantMove {
    admin::TenantMove {
        to_region: region_name(view, moving.to),
        to_group: moving.to.get(),
        epoch: moving.epoch.get(),
        heir_ready: moving.heir_ready,
        cancel_requested: moving.state == MoveState::Aborting,
        start_time: Some(time(moving.started)),
    }
}

fn effective(limits: &TenantLimits) -> admin::Limits {
    let mut all = TenantLimits::default();
    for limit in TenantLimit::ALL {
        if let Some(value) = limits.effective(limit) {
            all.set(limit, value).expect("defaults are within their ranges");
        }
    }
    convert::limits::from_limits(&all)
}

fn followers_message(followers: &Followers) -> admin::Followers {
    match followers {
        Followers::AllAdmitted => admin::Followers {
            all_admitted: true,
            regions: Vec::new(),
        },
        Followers::Named(regions) => {
            let regions = regions.iter().map(ToString::to_string).collect();
            admin::Followers {
                all_admitted: false,
                regions,
            }
        }
    }
}

fn durability_message(durability: Durability) -> v1::Durability {
    match durability {
        Durability::Region => v1::Durability::Region,
        Durability::Remote => v1::Durability::Remote,
    }
}

fn lease_loss_message(policy: LeaseLoss) -> admin::OnLeaseLoss {
    match policy {
        LeaseLoss::Stop => admin::OnLeaseLoss::Stop,
        LeaseLoss::Continue => admin::OnLeaseLoss::Continue,
        LeaseLoss::Stopping => admin::OnLeaseLoss::Stopping,
    }
}

fn state_message(state: TenantState) -> admin::tenant::State {
    match state {
        TenantState::Active => admin::tenant::State::Active,
        TenantState::Disabled => admin::tenant::State::Disabled,
        TenantState::Deleting => admin::tenant::State::Deleting,
    }
}
