//! Tenants.

use std::{collections::BTreeMap, time::SystemTime};

use stead_api::{
    convert,
    proto::{
        admin::v1::{self, tenant_service_client::TenantServiceClient as Service},
        v1 as data,
    },
};
use stead_types::{Epoch, Error, TenantLimit, TenantLimits, TenantNumber};

use super::{Admin, PAGE_SIZE};
use crate::{Durability, Role, answer::malformed};

/// In which regions a tenant is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Followers {
    /// In each other region that its residency admits.
    #[default]
    AllAdmitted,
    /// In these.
    Regions(Vec<String>),
}

/// What may be asked of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// It serves.
    Active,
    /// It serves nothing; it can be enabled again or erased.
    Disabled,
    /// It is being erased.
    Deleting,
}

/// A group that holds a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The group.
    pub group: u32,
    /// Its region.
    pub region: String,
    /// What it is to the tenant.
    pub role: Role,
    /// The directory waits until the group has erased the tenant.
    pub leaving: bool,
}

/// A tenant as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantInfo {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: TenantNumber,
    /// Its home.
    pub home_region: String,
    /// The group that is its home.
    pub home_group: u32,
    /// How often the home has changed.
    pub epoch: Epoch,
    /// Where it is followed.
    pub followers: Followers,
    /// Jurisdictions in which it may be stored; empty: all.
    pub residency: Vec<String>,
    /// When its writes are acknowledged, unless they say so themselves.
    pub durability: Durability,
    /// What operators have noted.
    pub labels: BTreeMap<String, String>,
    /// What may be asked of it.
    pub state: TenantState,
    /// Changes with every change.
    pub etag: String,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// When it was changed last.
    pub updated: Option<SystemTime>,
    /// Every group that holds it.
    pub replicas: Vec<Replica>,
    /// Its own limits.
    pub limits: TenantLimits,
    /// What holds: its own limits, and the cluster's defaults where it has none.
    pub effective_limits: TenantLimits,
}

/// A tenant to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTenant {
    /// Its name.
    pub name: String,
    /// Its home; empty: the region of the node that is asked.
    pub home_region: String,
    /// Where it is followed.
    pub followers: Followers,
    /// Jurisdictions in which it may be stored; empty: all.
    pub residency: Vec<String>,
    /// When its writes are acknowledged; absent: committed in the home region.
    pub durability: Option<Durability>,
    /// What operators note.
    pub labels: BTreeMap<String, String>,
    /// What it may use at most, where the default is not to hold.
    pub limits: TenantLimits,
    /// For the audit.
    pub reason: String,
    /// Only check.
    pub dry_run: bool,
}

/// A change of a tenant; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// Which tenant.
    pub name: String,
    /// The etag that was read; empty: whatever it is.
    pub etag: String,
    /// Where it is followed.
    pub followers: Option<Followers>,
    /// Jurisdictions; empty: all.
    pub residency: Option<Vec<String>>,
    /// When its writes are acknowledged.
    pub durability: Option<Durability>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Limits to be set.
    pub limits: TenantLimits,
    /// Limits for which the default is to hold again.
    pub default_limits: Vec<TenantLimit>,
    /// Enables or disables it.
    pub enabled: Option<bool>,
    /// For the audit.
    pub reason: String,
    /// Only check.
    pub dry_run: bool,
}

/// A step of taking a tenant away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantDeletion {
    /// Which tenant.
    pub name: String,
    /// The etag that was read; empty: whatever it is.
    pub etag: String,
    /// The second step: erase a disabled one everywhere. Without it the tenant is disabled.
    pub erase: bool,
    /// For the audit.
    pub reason: String,
    /// Only check.
    pub dry_run: bool,
}

impl Admin {
    /// Makes a tenant.
    ///
    /// # Errors
    ///
    /// A refusal, or a failure that says whether the tenant may have been made.
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
        };
        let call = async |channel, request| Service::new(channel).create_tenant(request).await;
        let inner = self.0.inner();
        let answer = inner.unary(request, inner.deadline(None), false, call).await?;
        info(answer.tenant)
    }

    /// Returns a tenant.
    ///
    /// # Errors
    ///
    /// No such tenant, or nobody who can answer.
    pub async fn tenant(&self, name: &str) -> Result<TenantInfo, Error> {
        let request = v1::GetTenantRequest { name: name.to_owned() };
        let call = async |channel, request| Service::new(channel).get_tenant(request).await;
        let inner = self.0.inner();
        let answer = inner.unary(request, inner.deadline(None), true, call).await?;
        info(answer.tenant)
    }

    /// Returns the tenants at home in a region, or all if it is empty, whose names begin with this.
    ///
    /// # Errors
    ///
    /// Nobody who can answer.
    pub async fn tenants(&self, home_region: &str, name_prefix: &str) -> Result<Vec<TenantInfo>, Error> {
        let mut tenants = Vec::new();
        let mut request = v1::ListTenantsRequest {
            page_size: PAGE_SIZE,
            home_region: home_region.to_owned(),
            name_prefix: name_prefix.to_owned(),
            ..Default::default()
        };
        let inner = self.0.inner();
        let deadline = inner.deadline(None);
        loop {
            let call = async |channel, request| Service::new(channel).list_tenants(request).await;
            let answer = inner.unary(request.clone(), deadline, true, call).await?;
            for tenant in answer.tenants {
                tenants.push(info(Some(tenant))?);
            }
            if answer.next_page_token.is_empty() {
                return Ok(tenants);
            }
            request.page_token = answer.next_page_token;
        }
    }

    /// Changes a tenant.
    ///
    /// # Errors
    ///
    /// A refusal, or a failure that says whether the tenant may have been changed.
    pub async fn update_tenant(&self, change: TenantChange) -> Result<TenantInfo, Error> {
        use v1::{
            tenant::State,
            update_tenant_request::{Labels, Residency},
        };
        let state = change.enabled.map_or(State::Unspecified, |enabled| {
            if enabled { State::Active } else { State::Disabled }
        });
        let request = v1::UpdateTenantRequest {
            name: change.name,
            etag: change.etag,
            followers: change.followers.map(followers),
            residency: change.residency.map(|jurisdictions| Residency { jurisdictions }),
            durability: Durability::message(change.durability),
            labels: change.labels.map(|labels| Labels {
                labels: labels.into_iter().collect(),
            }),
            state: state.into(),
            reason: change.reason,
            validate_only: change.dry_run,
            limits: limits(&change.limits),
            default_limits: change.default_limits.iter().map(ToString::to_string).collect(),
        };
        let call = async |channel, request| Service::new(channel).update_tenant(request).await;
        let inner = self.0.inner();
        let answer = inner.unary(request, inner.deadline(None), false, call).await?;
        info(answer.tenant)
    }

    /// Disables a tenant; with `erase`, a disabled one is erased everywhere.
    ///
    /// # Errors
    ///
    /// A refusal, or a failure that says whether the tenant may have been changed.
    pub async fn delete_tenant(&self, deletion: TenantDeletion) -> Result<TenantInfo, Error> {
        let request = v1::DeleteTenantRequest {
            name: deletion.name,
            etag: deletion.etag,
            erase: deletion.erase,
            reason: deletion.reason,
            validate_only: deletion.dry_run,
        };
        let call = async |channel, request| Service::new(channel).delete_tenant(request).await;
        let inner = self.0.inner();
        let answer = inner.unary(request, inner.deadline(None), false, call).await?;
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
    })
}

fn replica(replica: v1::Replica) -> Replica {
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
