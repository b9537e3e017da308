//! Applies commands about ownership and following: the decision is [`crate::shard::ownership`]'s, here rows,
//! idempotency windows and indexes follow the record.

use std::collections::btree_map::Entry;

use stead_types::TenantNumber;

use super::{
    super::{
        Shard,
        apply_result::GuardFailure,
        client_windows::ClientWindows,
        command::{Accept, BeginAttach, Create, Erase, Follow, Heir, Offset, Relinquish},
        ownership::{self, RevisionAt},
        record::TenantRecord,
        tenant::LoadedTenant,
    },
    EntryContext, rewind,
};
use crate::{lineage::Lineage, rows::Unreadable};

impl Shard {
    pub(super) fn create(
        &mut self,
        context: &mut EntryContext<'_>,
        create: Create,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        let Entry::Vacant(place) = self.tenants.entry(create.tenant) else {
            return Ok(Err(GuardFailure::HasRecord));
        };
        let mut tenant = LoadedTenant::unknown();
        if let Err(failure) = ownership::create(&mut tenant.record, &create) {
            return Ok(Err(failure));
        }
        place.insert(tenant);
        self.index_owner(context.rows, create.tenant)?;
        Ok(Ok(()))
    }

    pub(super) fn follow(
        &mut self,
        context: &mut EntryContext<'_>,
        follow: Follow,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        let (number, group) = (follow.tenant, self.prefix.group);
        let done = self.cutting(context, number, &follow.lineage, |record, revision_at| {
            ownership::follow(record, group, &follow, revision_at)
        })?;
        Ok(done.map(|cut| {
            self.take_from_service(context, number, cut);
            self.not_due(number);
        }))
    }

    /// Applies a transition that may cut what is off this lineage, to a record that may be new. A command whose guard fails
    /// leaves no record.
    pub(super) fn cutting<T>(
        &mut self,
        context: &EntryContext<'_>,
        number: TenantNumber,
        lineage: &Lineage,
        transition: impl FnOnce(&mut TenantRecord, RevisionAt<'_>) -> Result<T, GuardFailure>,
    ) -> Result<Result<T, GuardFailure>, Unreadable> {
        let prefix = self.prefix;
        Ok(match self.tenants.entry(number) {
            Entry::Occupied(held) => {
                let record = &mut held.into_mut().record;
                let at = rewind::fork_revision(context.rows, prefix, number, record, lineage)?;
                transition(record, &|sequence| at.filter(|at| at.sequence() == sequence))
            }
            Entry::Vacant(place) => {
                let mut tenant = LoadedTenant::unknown();
                let done = transition(&mut tenant.record, &|_| None);
                if done.is_ok() {
                    place.insert(tenant);
                }
                done
            }
        })
    }

    pub(super) fn begin_attach(&mut self, begin: BeginAttach) -> Result<(), GuardFailure> {
        if begin.incarnation < self.stream(begin.home).incarnation {
            return Err(GuardFailure::Offset);
        }
        ownership::begin_attach(self.record_mut(begin.tenant)?, &begin)
    }

    pub(super) fn offset(&mut self, offset: Offset) -> Result<(), GuardFailure> {
        if offset.offset <= self.stream(offset.home) {
            return Err(GuardFailure::Offset);
        }
        let before = self.streams.insert(offset.home, offset.offset);
        self.streams_dirty = true;
        if before.map(|before| before.incarnation) != Some(offset.offset.incarnation) {
            self.index_all_detached();
        }
        Ok(())
    }

    pub(super) fn erase(&mut self, context: &mut EntryContext<'_>, erase: Erase) -> Result<(), GuardFailure> {
        let tenant = self.tenants.get_mut(&erase.tenant).ok_or(GuardFailure::NoRecord)?;
        let copies = ownership::erase(&mut tenant.record, &erase)?;
        tenant.clients = ClientWindows::default();
        tenant.shadow_clients = ClientWindows::default();
        tenant.dirty = true;
        for copy in copies {
            self.discard(context.rows, erase.tenant, &copy);
        }
        self.index_maintenance(erase.tenant);
        self.not_due(erase.tenant);
        Ok(())
    }

    pub(super) fn relinquish(
        &mut self,
        context: &EntryContext<'_>,
        relinquish: Relinquish,
    ) -> Result<(), GuardFailure> {
        let group = self.prefix.group;
        let record = self.record_mut(relinquish.tenant)?;
        ownership::relinquish(record, group, &relinquish, context.stamp())?;
        self.not_due(relinquish.tenant);
        Ok(())
    }

    pub(super) fn heir(&mut self, heir: Heir) -> Result<(), GuardFailure> {
        self.check_incarnation(heir.tenant)?;
        let group = self.prefix.group;
        ownership::heir(self.record_mut(heir.tenant)?, group, &heir)
    }

    pub(super) fn accept(
        &mut self,
        context: &mut EntryContext<'_>,
        accept: Accept,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        let number = accept.head.tenant;
        if let Err(failure) = self.take_over(context, &accept) {
            return Ok(Err(failure));
        }
        self.index_owner(context.rows, number)?;
        self.index_maintenance(number);
        // The entry makes a batch of the feed, so that a wait for its index ends without another write.
        self.touch(number, accept.baton.last, 0);
        Ok(Ok(()))
    }

    fn take_over(&mut self, context: &EntryContext<'_>, accept: &Accept) -> Result<(), GuardFailure> {
        self.check_incarnation(accept.head.tenant)?;
        let group = self.prefix.group;
        let record = self.record_mut(accept.head.tenant)?;
        ownership::accept(record, group, accept, context.stamp())
    }

    /// Checks that the session of a tenant, if it has one, is of the current incarnation of its home's feed.
    fn check_incarnation(&self, tenant: TenantNumber) -> Result<(), GuardFailure> {
        let record = self.record(tenant).ok_or(GuardFailure::NoRecord)?;
        let is_old = record
            .session
            .is_some_and(|session| session.incarnation < self.stream(session.home).incarnation);
        if is_old { Err(GuardFailure::Session) } else { Ok(()) }
    }
}
