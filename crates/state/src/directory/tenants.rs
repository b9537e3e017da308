//! Applies commands about tenants, and reports of groups about them.

use stead_types::{DirectoryVersion, Durability, GroupId, Incarnation, TenantName, TenantNumber};

use super::{
    ApplyContext, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, GroupReport, NewTenant, Rejection,
    TENANTS_MAX, Tenant, TenantState, TenantUpdate, command::REFRESH_MEMBERS_MAX, placement,
};

impl Directory {
    pub(super) fn create_tenant(&mut self, context: &mut ApplyContext, new: NewTenant) -> DirectoryResult {
        if self.view.tenant_named(&new.name).is_some() {
            return Err(Rejection::TenantExists(new.name));
        }
        if self.view.tenant_count() >= TENANTS_MAX {
            return Err(Rejection::TenantsFull);
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
            member.leaving = true;
        }
        self.change(context, tenant);
        Ok(DirectoryOutcome::Tenant(number))
    }

    pub(super) fn report(
        &mut self,
        context: &mut ApplyContext,
        from: GroupId,
        incarnation: Incarnation,
        reports: &[GroupReport],
    ) -> DirectoryResult {
        if self
            .view
            .group(from)
            .is_none_or(|group| group.incarnation != incarnation)
        {
            return Err(Rejection::StaleIncarnation);
        }
        for GroupReport::Erased(number) in reports {
            self.erased(context, from, *number);
        }
        Ok(DirectoryOutcome::Done)
    }

    /// Removes a leaving member that has erased the tenant. Any other report is late or repeated, and is ignored.
    fn erased(&mut self, context: &mut ApplyContext, from: GroupId, number: TenantNumber) {
        let Some(tenant) = self.view.tenant(number) else {
            return;
        };
        if !tenant
            .members
            .iter()
            .any(|member| member.group == from && member.leaving)
        {
            return;
        }
        let mut tenant = Tenant::clone(tenant);
        tenant.members = tenant
            .members
            .iter()
            .filter(|member| member.group != from)
            .copied()
            .collect();
        if tenant.members.is_empty() {
            context.push(&mut self.view, DirectoryChange::TenantGone(number));
            return;
        }
        if tenant.state != TenantState::Deleting {
            // The group may become a member again, now that its old copy is erased.
            tenant.members = placement::members(&self.view, &tenant);
        }
        self.change(context, tenant);
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

    fn named(&self, name: &TenantName, etag: Option<DirectoryVersion>) -> Result<Tenant, Rejection> {
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
        tenant.members = placement::members(&self.view, &tenant);
        if tenant.durability == Durability::Remote && tenant.follower_groups().next().is_none() {
            return Err(Rejection::RemoteAlone);
        }
        self.change(context, tenant);
        Ok(())
    }

    fn change(&mut self, context: &mut ApplyContext, mut tenant: Tenant) {
        tenant.version = context.version;
        tenant.updated = context.time;
        context.push(&mut self.view, DirectoryChange::Tenant(Box::new(tenant)));
    }
}
