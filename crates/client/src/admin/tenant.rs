//! Operators' calls for tenants.

use std::{collections::BTreeMap, time::SystemTime};

use stead_api::{
    convert,
    proto::{
        admin::v1::{self, tenant_service_client::TenantServiceClient as Service},
        v1 as data,
    },
};
use stead_types::{Epoch, Error, TenantLimit, TenantLimits, TenantNumber};

use super::{Admin, OnRegionLoss, PAGE_SIZE, region_loss};
use crate::{Durability, Role, paging::ListPage, response::malformed};

/// Regions in which a tenant has followers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Followers {
    /// Each other region that its residency admits.
    #[default]
    AllAdmitted,
    /// These regions.
    Regions(Vec<String>),
}

/// State of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// It serves calls.
    Active,
    /// It serves nothing; it can be enabled again or erased.
    Disabled,
    /// It is being erased.
    Deleting,
}

/// Behaviour of a tenant's home once its lease has run out, because its region cannot reach the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLeaseLoss {
    /// It stops, with `NO_LEASE`: no two regions ever serve the tenant.
    #[default]
    Stop,
    /// It goes on, and marks its responses as unconfirmed.
    Continue,
    /// It is to stop, and may still go on, because its log does not say so yet. Only in responses; asked for, it means
    /// to stop.
    Stopping,
}

impl OnLeaseLoss {
    fn message(policy: Option<Self>) -> i32 {
        match policy {
            None => v1::OnLeaseLoss::Unspecified,
            Some(Self::Stop | Self::Stopping) => v1::OnLeaseLoss::Stop,
            Some(Self::Continue) => v1::OnLeaseLoss::Continue,
        }
        .into()
    }

    fn read(message: v1::OnLeaseLoss) -> Self {
        match message {
            v1::OnLeaseLoss::Unspecified | v1::OnLeaseLoss::Stop => Self::Stop,
            v1::OnLeaseLoss::Continue => Self::Continue,
            v1::OnLeaseLoss::Stopping => Self::Stopping,
        }
    }
}

/// Replica of a tenant: a group that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Number of the group.
    pub group: u32,
    /// Region of the group.
    pub region: String,
    /// Role of the group for the tenant.
    pub role: Role,
    /// Whether the group is to erase the tenant, and the directory waits for it.
    pub leaving: bool,
}

/// Tenant in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantInfo {
    /// Name of the tenant.
    pub name: String,
    /// Number of the tenant.
    pub number: TenantNumber,
    /// Home region.
    pub home_region: String,
    /// Group that is the home.
    pub home_group: u32,
    /// Epoch: number of times the home has changed.
    pub epoch: Epoch,
    /// Regions of its followers.
    pub followers: Followers,
    /// Jurisdictions in which it may be stored; empty: all.
    pub residency: Vec<String>,
    /// Default durability of its writes.
    pub durability: Durability,
    /// Labels, set by operators.
    pub labels: BTreeMap<String, String>,
    /// State of the tenant.
    pub state: TenantState,
    /// Etag, which changes with every change.
    pub etag: String,
    /// Time of its creation.
    pub created: Option<SystemTime>,
    /// Time of its last change.
    pub updated: Option<SystemTime>,
    /// Every group that holds it.
    pub replicas: Vec<Replica>,
    /// Its own limits.
    pub limits: TenantLimits,
    /// Effective limits: its own, and the cluster's defaults for the others.
    pub effective_limits: TenantLimits,
    /// Move in flight, if any.
    pub moving: Option<MoveInFlight>,
    /// Behaviour of its home without a lease.
    pub on_lease_loss: OnLeaseLoss,
    /// Policy for the loss of its home region.
    pub on_region_loss: OnRegionLoss,
}

/// Move of a tenant that is in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveInFlight {
    /// Region that is to be the home.
    pub to_region: String,
    /// Group that is to be the home.
    pub to_group: u32,
    /// Epoch in which it is to be the home.
    pub epoch: u32,
    /// Whether the target has caught up and is the heir.
    pub heir_ready: bool,
    /// Whether a cancellation was asked for.
    pub cancel_requested: bool,
    /// Time of its beginning.
    pub started: Option<SystemTime>,
}

/// Description of a tenant to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTenant {
    /// Name of the tenant.
    pub name: String,
    /// Home region; empty: the region of the node that is asked.
    pub home_region: String,
    /// Regions of its followers.
    pub followers: Followers,
    /// Jurisdictions in which it may be stored; empty: all.
    pub residency: Vec<String>,
    /// Default durability of its writes; absent: committed in the home region.
    pub durability: Option<Durability>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its own limits; for the others the cluster's defaults hold.
    pub limits: TenantLimits,
    /// Behaviour of its home without a lease; absent: it stops.
    pub on_lease_loss: Option<OnLeaseLoss>,
    /// Reason, for the audit log.
    pub reason: String,
    /// Whether to validate only.
    pub dry_run: bool,
}

/// Change of a tenant; absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// Name of the tenant.
    pub name: String,
    /// Etag that was read; empty: any.
    pub etag: String,
    /// Regions of its followers.
    pub followers: Option<Followers>,
    /// Jurisdictions in which it may be stored; empty: all.
    pub residency: Option<Vec<String>>,
    /// Default durability of its writes.
    pub durability: Option<Durability>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Limits to be set.
    pub limits: TenantLimits,
    /// Limits to be reset to the cluster's default.
    pub default_limits: Vec<TenantLimit>,
    /// Whether to enable or to disable it.
    pub enabled: Option<bool>,
    /// Behaviour of its home without a lease.
    pub on_lease_loss: Option<OnLeaseLoss>,
    /// Reason, for the audit log.
    pub reason: String,
    /// Whether to validate only.
    pub dry_run: bool,
}

/// One step of the deletion of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantDeletion {
    /// Name of the tenant.
    pub name: String,
    /// Etag that was read; empty: any.
    pub etag: String,
    /// Whether this is the second step, which erases a disabled tenant everywhere. The first step disables it.
    pub erase: bool,
    /// Reason, for the audit log.
    pub reason: String,
    /// Whether to validate only.
    pub dry_run: bool,
}

impl Admin {
    /// Creates a tenant.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether the tenant may have been created.
    pub async fn create_tenant(&self, new: NewTenant) -> Result<TenantInfo, Error> {
        let request = v1::CreateTenantRequest {
            name: new.name,
            home_region: new.home_region,
            followers: Some(followers(new.followers)),
            residency: new.residency,
            durability: Durability::message(new.durability),
            labels: new.labels.into_iter().collect(),
            reason: new.reason,
            validate_only: new.dry_run,
            limits: limits(&new.limits),
            on_lease_loss: OnLeaseLoss::message(new.on_lease_loss),
        };
        let call = async |channel, request| Service::new(channel).create_tenant(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        info(answer.tenant)
    }

    /// Returns a tenant.
    ///
    /// # Errors
    ///
    /// No such tenant, or no node answers.
    pub async fn tenant(&self, name: &str) -> Result<TenantInfo, Error> {
        let request = v1::GetTenantRequest { name: name.to_owned() };
        let call = async |channel, request| Service::new(channel).get_tenant(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), true, call).await?;
        info(answer.tenant)
    }

    /// Returns the tenants whose home is in a region, or all if it is empty, with this name prefix.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn tenants(&self, home_region: &str, name_prefix: &str) -> Result<Vec<TenantInfo>, Error> {
        let state = self.0.state();
        let request = v1::ListTenantsRequest {
            page_size: PAGE_SIZE,
            home_region: home_region.to_owned(),
            name_prefix: name_prefix.to_owned(),
            ..Default::default()
        };
        let tenants = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).list_tenants(request).await,
                |request, page_token| request.page_token = page_token,
                |answer| ListPage {
                    items: answer.tenants,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        tenants.into_iter().map(|tenant| info(Some(tenant))).collect()
    }

    /// Changes a tenant.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether the tenant may have been changed.
    pub async fn update_tenant(&self, change: TenantChange) -> Result<TenantInfo, Error> {
        use v1::{
            tenant::State,
            update_tenant_request::{Labels, Residency},
        };
        let request = v1::UpdateTenantRequest {
            name: change.name,
            etag: change.etag,
            followers: change.followers.map(followers),
            residency: change.residency.map(|jurisdictions| Residency { jurisdictions }),
            durability: Durability::message(change.durability),
            labels: change.labels.map(|labels| Labels {
                labels: labels.into_iter().collect(),
            }),
            state: match change.enabled {
                None => State::Unspecified,
                Some(true) => State::Active,
                Some(false) => State::Disabled,
            }
            .into(),
            reason: change.reason,
            validate_only: change.dry_run,
            limits: limits(&change.limits),
            default_limits: change.default_limits.iter().map(ToString::to_string).collect(),
            on_lease_loss: OnLeaseLoss::message(change.on_lease_loss),
        };
        let call = async |channel, request| Service::new(channel).update_tenant(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        info(answer.tenant)
    }

    /// Disables a tenant; with `erase`, erases a disabled one everywhere.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether the tenant may have been changed.
    pub async fn delete_tenant(&self, deletion: TenantDeletion) -> Result<TenantInfo, Error> {
        let request = v1::DeleteTenantRequest {
            name: deletion.name,
            etag: deletion.etag,
            erase: deletion.erase,
            reason: deletion.reason,
            validate_only: deletion.dry_run,
        };
        let call = async |channel, request| Service::new(channel).delete_tenant(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        info(answer.tenant)
    }
}

fn followers(followers: Followers) -> v1::Followers {
    match followers {
        Followers::AllAdmitted => v1::Followers {
            all_admitted: true,
            regions: Vec::new(),
        },
        Followers::Regions(regions) => v1::Followers {
            all_admitted: false,
            regions,
        },
    }
}

fn limits(limits: &TenantLimits) -> Option<v1::Limits> {
    (!limits.is_empty()).then(|| convert::limits::from_limits(limits))
}

fn info(tenant: Option<v1::Tenant>) -> Result<TenantInfo, Error> {
    let tenant = tenant.ok_or_else(|| malformed("tenant"))?;
    let state = match tenant.state() {
        v1::tenant::State::Active | v1::tenant::State::Unspecified => TenantState::Active,
        v1::tenant::State::Disabled => TenantState::Disabled,
        v1::tenant::State::Deleting => TenantState::Deleting,
    };
    let durability = match tenant.durability() {
        data::Durability::Region | data::Durability::Unspecified => Durability::Region,
        data::Durability::Remote => Durability::Remote,
    };
    let on_lease_loss = OnLeaseLoss::read(tenant.on_lease_loss());
    let followers = tenant.followers.map(|followers| match followers.all_admitted {
        true => Followers::AllAdmitted,
        false => Followers::Regions(followers.regions),
    });
    Ok(TenantInfo {
        name: tenant.name,
        number: TenantNumber::new(tenant.number),
        home_region: tenant.home_region,
        home_group: tenant.home_group,
        epoch: Epoch::new(tenant.epoch).ok_or_else(|| malformed("epoch"))?,
        followers: followers.unwrap_or_default(),
        residency: tenant.residency,
        durability,
        labels: tenant.labels.into_iter().collect(),
        state,
        etag: tenant.etag,
        created: tenant.create_time.and_then(|time| time.try_into().ok()),
        updated: tenant.update_time.and_then(|time| time.try_into().ok()),
        replicas: tenant.replicas.into_iter().map(replica).collect(),
        limits: convert::limits::limits(tenant.limits)?,
        effective_limits: convert::limits::limits(tenant.effective_limits)?,
        moving: tenant.moving.map(move_in_flight),
        on_lease_loss,
        on_region_loss: region_loss::read(tenant.on_region_loss),
    })
}

fn move_in_flight(moving: v1::TenantMove) -> MoveInFlight {
    MoveInFlight {
        to_region: moving.to_region,
        to_group: moving.to_group,
        epoch: moving.epoch,
        heir_ready: moving.heir_ready,
        cancel_requested: moving.cancel_requested,
        started: moving.start_time.and_then(|time| time.try_into().ok()),
    }
}

pub(super) fn replica(replica: v1::Replica) -> Replica {
    let role = match replica.role() {
        data::Role::Home => Role::Home,
        data::Role::Follower | data::Role::Unspecified => Role::Follower,
    };
    Replica {
        group: replica.group,
        region: replica.region,
        role,
        leaving: replica.leaving,
    }
}
