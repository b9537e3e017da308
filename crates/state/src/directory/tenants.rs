//! Commands about tenants, and reports of groups about them.

use stead_types::{DirectoryVersion, Durability, Epoch, GroupId, Incarnation, TenantName, TenantNumber};

use super::{
    Answer, Change, Directory, NewTenant, Outcome, Rejection, Report, State, TENANTS_MAX, Tenant, TenantUpdate, Turn,
    command::SETTLE_MAX, placement,
};
use crate::lineage::Lineage;

impl Directory {
    pub(super) fn create_tenant(&mut self, turn: &mut Turn, new: NewTenant) -> Answer {
        if self.view.tenant_named(&new.name).is_some() {
            return Err(Rejection::TenantExists(new.name));
        }
        if self.view.tenant_count() >= TENANTS_MAX {
            return Err(Rejection::TenantsFull);
        }
        let home = placement::home(&self.view, &new.home)?;
        let number = TenantNumber::new(self.next_tenant);
        let mut tenant = Tenant {
            number,
            name: new.name,
            home,
            epoch: Epoch::FIRST,
            fence_epoch: Epoch::NONE,
            op: 0,
            state: State::Active,
            durability: new.durability,
            followers: new.followers,
            residency: new.residency.into(),
            lineage: Lineage::starting(Epoch::FIRST),
            members: Box::new([]),
            labels: Some(new.labels).filter(|labels| !labels.is_empty()).map(Box::new),
            limits: None,
            version: turn.version,
            created: turn.time,
            updated: turn.time,
        };
        tenant.set_limits(new.limits);
        self.fit(turn, tenant)?;
        self.next_tenant += 1;
        Ok(Outcome::Tenant(number))
    }

    pub(super) fn update_tenant(&mut self, turn: &mut Turn, update: TenantUpdate) -> Answer {
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
            Some(true) => State::Active,
            Some(false) => State::Disabled,
            None => tenant.state,
        };
        self.fit(turn, tenant)?;
        Ok(Outcome::Tenant(number))
    }

    pub(super) fn erase_tenant(
        &mut self,
        turn: &mut Turn,
        name: &TenantName,
        etag: Option<DirectoryVersion>,
    ) -> Answer {
        let mut tenant = self.named(name, etag)?;
        if tenant.state != State::Disabled {
            return Err(Rejection::NotDisabled(tenant.name));
        }
        let number = tenant.number;
        tenant.state = State::Deleting;
        for member in &mut tenant.members {
            member.leaving = true;
        }
        self.change(turn, tenant);
        Ok(Outcome::Tenant(number))
    }

    pub(super) fn report(
        &mut self,
        turn: &mut Turn,
        from: GroupId,
        incarnation: Incarnation,
        reports: &[Report],
    ) -> Answer {
        if self
            .view
            .group(from)
            .is_none_or(|group| group.incarnation != incarnation)
        {
            return Err(Rejection::StaleIncarnation);
        }
        for Report::Erased(number) in reports {
            self.erased(turn, from, *number);
        }
        Ok(Outcome::Done)
    }

    /// A member that was leaving has erased the tenant. Any other report is late or repeated, and says nothing.
    fn erased(&mut self, turn: &mut Turn, from: GroupId, number: TenantNumber) {
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
            turn.push(&mut self.view, Change::TenantGone(number));
            return;
        }
        if tenant.state != State::Deleting {
            // The group may be wanted again, now that nothing of its old copy is left.
            tenant.members = placement::members(&self.view, &tenant);
        }
        self.change(turn, tenant);
    }

    /// Fits the members of the next tenants to the regions there are.
    pub(super) fn settle(&mut self, turn: &mut Turn) -> Answer {
        let Some(from) = self.settle_from else {
            return Ok(Outcome::Done);
        };
        let next = self
            .view
            .tenants_from(from)
            .take(SETTLE_MAX)
            .cloned()
            .collect::<Vec<_>>();
        for tenant in &next {
            let members = placement::members(&self.view, tenant);
            if tenant.state != State::Deleting && members != tenant.members {
                let mut tenant = Tenant::clone(tenant);
                tenant.members = members;
                self.change(turn, tenant);
            }
        }
        let last = next.last().map(|tenant| TenantNumber::new(tenant.number.get() + 1));
        self.settle_from = last.filter(|_| next.len() == SETTLE_MAX);
        Ok(Outcome::Done)
    }

    fn named(&self, name: &TenantName, etag: Option<DirectoryVersion>) -> Result<Tenant, Rejection> {
        let tenant = self.view.tenant_named(name);
        let tenant = tenant.ok_or_else(|| Rejection::TenantUnknown(name.clone()))?;
        if etag.is_some_and(|etag| etag != tenant.version) {
            return Err(Rejection::Changed(name.clone()));
        }
        Ok(Tenant::clone(tenant))
    }

    /// Checks a tenant's policy, gives it the members that follow from it, and keeps it.
    fn fit(&mut self, turn: &mut Turn, mut tenant: Tenant) -> Result<(), Rejection> {
        placement::check(&self.view, &tenant)?;
        tenant.members = placement::members(&self.view, &tenant);
        if tenant.durability == Durability::Remote && tenant.follower_groups().next().is_none() {
            return Err(Rejection::RemoteAlone);
        }
        self.change(turn, tenant);
        Ok(())
    }

    fn change(&mut self, turn: &mut Turn, mut tenant: Tenant) {
        tenant.version = turn.version;
        tenant.updated = turn.time;
        turn.push(&mut self.view, Change::Tenant(Box::new(tenant)));
    }
}
