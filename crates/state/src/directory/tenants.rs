//! Applies commands that create, update and erase tenants.

use stead_types::{DirectoryVersion, TenantName, TenantNumber};

use super::{
    ApplyContext, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, MemberState, NewTenant, Rejection,
    TENANTS_MAX, Tenant, TenantState, TenantUpdate, command::REFRESH_MEMBERS_MAX, moves, ownership, placement,
    region_loss,
};
use crate::shard::record::LeaseLossPolicy;

impl Directory {
    pub(super) fn create_tenant(&mut self, context: &mut ApplyContext, new: NewTenant) -> DirectoryResult {
        if self.view.tenant_named(&new.name).is_some() {
            return Err(Rejection::TenantExists(new.name));
        }
        if self.view.tenant_count() >= TENANTS_MAX {
            return Err(Rejection::TenantsFull);
        }
        if new.on_lease_loss != LeaseLossPolicy::Stop {
            self.view.settings().check_moves()?;
        }
        let home = placement::home(&self.view, &new.home)?;
        let number = TenantNumber::new(self.next_tenant);
        let mut tenant = Tenant {
            durability: new.durability,
            followers: new.followers,
            residency: new.residency.into(),
            labels: Some(new.labels).filter(|labels| !labels.is_empty()).map(Box::new),
            version: context.version,
            created: context.time,
            updated: context.time,
            ..Tenant::new(number, new.name, home)
        };
        tenant.set_limits(new.limits);
        ownership::set_lease_loss(&mut tenant, new.on_lease_loss);
        self.fit(context, tenant)?;
        self.next_tenant += 1;
        Ok(DirectoryOutcome::Tenant(number))
    }

    pub(super) fn update_tenant(&mut self, context: &mut ApplyContext, update: TenantUpdate) -> DirectoryResult {
        let mut tenant = self.named(&update.name, update.etag)?;
        let number = tenant.number;
        if let Some(followers) = update.followers {
            tenant.followers = followers;
        }
        if let Some(residency) = update.residency {
            tenant.residency = residency.into();
        }
        if let Some(durability) = update.durability {
            tenant.durability = durability;
        }
        if let Some(labels) = update.labels {
            tenant.labels = Some(labels).filter(|labels| !labels.is_empty()).map(Box::new);
        }
        tenant.set_limits(update.limits.apply(tenant.own_limits()));
        if let Some(policy) = update.on_lease_loss {
            self.view.settings().check_moves()?;
            ownership::set_lease_loss(&mut tenant, policy);
        }
        tenant.state = match update.enabled {
            Some(true) => TenantState::Active,
            Some(false) => TenantState::Disabled,
            None => tenant.state,
        };
        self.fit(context, tenant)?;
        Ok(DirectoryOutcome::Tenant(number))
    }

    pub(super) fn erase_tenant(
        &mut self,
        context: &mut ApplyContext,
        name: &TenantName,
        etag: Option<DirectoryVersion>,
    ) -> DirectoryResult {
        let mut tenant = self.named(name, etag)?;
        if tenant.state != TenantState::Disabled {
            return Err(Rejection::NotDisabled(tenant.name));
        }
        let number = tenant.number;
        tenant.state = TenantState::Deleting;
        for member in &mut tenant.members {
            member.state = MemberState::Erasing;
        }
        self.end_by_erase(context, &mut tenant);
        self.change(context, tenant);
        Ok(DirectoryOutcome::Tenant(number))
    }

    /// Adjusts the members of the next tenants to the existing regions.
    pub(super) fn refresh_members(&mut self, context: &mut ApplyContext) -> DirectoryResult {
        let Some(from) = self.refresh_members_from else {
            return Ok(DirectoryOutcome::Done);
        };
        let next = self
            .view
            .tenants_from(from)
            .take(REFRESH_MEMBERS_MAX)
            .cloned()
            .collect::<Vec<_>>();
        for tenant in &next {
            let members = placement::members(&self.view, tenant);
            if tenant.state != TenantState::Deleting && members != tenant.members {
                let mut tenant = Tenant::clone(tenant);
                tenant.members = members;
                self.change(context, tenant);
            }
        }
        let last = next.last().map(|tenant| TenantNumber::new(tenant.number.get() + 1));
        self.refresh_members_from = last.filter(|_| next.len() == REFRESH_MEMBERS_MAX);
        Ok(DirectoryOutcome::Done)
    }

    /// Returns a copy of a tenant, as the caller has seen it.
    pub(super) fn named(&self, name: &TenantName, etag: Option<DirectoryVersion>) -> Result<Tenant, Rejection> {
        let tenant = self.view.tenant_named(name);
        let tenant = tenant.ok_or_else(|| Rejection::TenantUnknown(name.clone()))?;
        if etag.is_some_and(|etag| etag != tenant.version) {
            return Err(Rejection::Changed(name.clone()));
        }
        Ok(Tenant::clone(tenant))
    }

    /// Checks a tenant's policy, assigns its members, and stores it.
    fn fit(&mut self, context: &mut ApplyContext, mut tenant: Tenant) -> Result<(), Rejection> {
        placement::check(&self.view, &tenant)?;
        region_loss::check(&tenant)?;
        tenant.members = placement::members(&self.view, &tenant);
        placement::check_durability(&self.view, &tenant)?;
        moves::check_after_move(&self.view, &tenant)?;
        self.change(context, tenant);
        Ok(())
    }

    /// Stores a tenant's new record, stamped with the version being applied.
    pub(super) fn change(&mut self, context: &mut ApplyContext, mut tenant: Tenant) {
        tenant.version = context.version;
        tenant.updated = context.time;
        context.push(&mut self.view, DirectoryChange::Tenant(Box::new(tenant)));
    }
}
