//! Applies commands about ownership and following: `Create`, `Follow`, `BeginAttach`, `Attach`, `Detach`, `Offset`,
//! `Erase`, `Rejoin`.

use stead_types::{
    Epoch, Revision,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        apply_result::GuardFailure,
        client_windows::ClientWindows,
        command::{Attach, BeginAttach, Create, Detach, Erase, Follow, Offset, Rejoin},
        record::{AttachSession, CopyState, Fork, Role, TenantRecord},
        tenant::LoadedTenant,
    },
    EntryContext, check_view,
};
use crate::{
    lineage::{Lineage, RevisionStatus},
    rows::Unreadable,
};

impl Shard {
    pub(super) fn create(
        &mut self,
        context: &mut EntryContext<'_>,
        create: Create,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        if self.tenants.contains_key(&create.tenant) {
            return Ok(Err(GuardFailure::HasRecord));
        }
        let mut tenant = LoadedTenant::unknown();
        let record = &mut tenant.record;
        record.view_version = create.version;
        record.lineage = Lineage::starting(Epoch::FIRST);
        record.policy = create.policy;
        record.live.number = record.next_copy();
        self.tenants.insert(create.tenant, tenant);
        self.become_owner(context.rows, create.tenant, Epoch::FIRST)?;
        Ok(Ok(()))
    }

    pub(super) fn follow(&mut self, context: &mut EntryContext<'_>, follow: Follow) -> Result<(), GuardFailure> {
        if follow.home == self.prefix.group {
            return Err(GuardFailure::NotFollower);
        }
        let (epoch, promised) = match self.tenants.get(&follow.tenant) {
            Some(tenant) => {
                check_view(&tenant.record, follow.version)?;
                (tenant.record.epoch, tenant.record.promised)
            }
            None => (Epoch::NONE, Epoch::NONE),
        };
        // For a frozen group `promised` is the epoch it is frozen for.
        if follow.epoch <= epoch || follow.epoch < promised {
            return Err(GuardFailure::Epoch { epoch, promised });
        }
        let tenant = self.tenants.entry(follow.tenant).or_insert_with(LoadedTenant::unknown);
        let record = &mut tenant.record;
        let point = record.lineage.fork_point(&follow.lineage);
        if record.live.revision.sequence() > point {
            // The whole live copy becomes the fork, under its number; the tenant is seeded again.
            let copy = std::mem::take(&mut record.live);
            let lineage = std::mem::take(&mut record.lineage);
            // The fork's windows are in rows from the next checkpoint on, and in no snapshot that was cut before.
            let clients = std::mem::take(&mut tenant.clients);
            tenant.fork_clients.push((copy.number, clients));
            record.forks.push(Fork { copy, lineage, point });
            // The suspect copy is the fork now; an empty copy is never suspect.
            record.suspect = false;
        }
        if record.live.number == 0 {
            record.live.number = record.next_copy();
        }
        record.role = Role::Follower { home: follow.home };
        record.epoch = follow.epoch;
        record.promised = follow.epoch;
        record.view_version = follow.version;
        record.accepted = None;
        record.session = None;
        record.uncounted.clear();
        record.lineage = follow.lineage;
        tenant.dirty = true;
        let off = record
            .shadow
            .take_if(|shadow| record.lineage.status_of(shadow.state.revision) != RevisionStatus::OnLineage);
        if let Some(shadow) = off {
            tenant.shadow_clients = ClientWindows::default();
            self.discard(context.rows, follow.tenant, &shadow.state);
        }
        self.index_maintenance(follow.tenant);
        self.not_due(follow.tenant);
        Ok(())
    }

    pub(super) fn begin_attach(&mut self, begin: BeginAttach) -> Result<(), GuardFailure> {
        if begin.incarnation < self.stream(begin.home).incarnation {
            return Err(GuardFailure::Offset);
        }
        let record = self.record_mut(begin.tenant)?;
        check_follows(record, begin.home, begin.epoch)?;
        check_view(record, begin.version)?;
        if begin.number <= record.attach {
            return Err(GuardFailure::Session);
        }
        record.attach = begin.number;
        record.session = Some(AttachSession {
            home: begin.home,
            incarnation: begin.incarnation,
            epoch: begin.epoch,
            number: begin.number,
            attached: false,
        });
        Ok(())
    }

    pub(super) fn attach(&mut self, attach: Attach) -> Result<(), GuardFailure> {
        let record = self.record_mut(attach.tenant)?;
        let session = record
            .session_of(attach.home, attach.number)
            .ok_or(GuardFailure::Session)?;
        if let Err(failure) = check_attach(record, &attach) {
            record.session = None;
            return Err(failure);
        }
        record.lineage = attach.lineage;
        record.session = Some(AttachSession {
            attached: true,
            ..session
        });
        Ok(())
    }

    pub(super) fn detach(&mut self, detach: Detach) -> Result<(), GuardFailure> {
        let record = self.record_mut(detach.tenant)?;
        record
            .session_of(detach.home, detach.number)
            .ok_or(GuardFailure::Session)?;
        record.session = None;
        Ok(())
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
        let record = &mut tenant.record;
        check_view(record, erase.version)?;
        if record.role == Role::Owner && !erase.deleted {
            return Err(GuardFailure::NotFollower);
        }
        if record.forks.iter().any(|fork| !erase.forks.contains(&fork.copy.number)) {
            return Err(GuardFailure::HoldsForks);
        }
        let mut copies: Vec<CopyState> = vec![std::mem::take(&mut record.live)];
        copies.extend(record.shadow.take().map(|shadow| shadow.state));
        copies.extend(std::mem::take(&mut record.forks).into_iter().map(|fork| fork.copy));
        // `promised`, `copies` and the view version are kept for a later `Follow`.
        record.role = Role::Erased;
        record.epoch = Epoch::NONE;
        record.view_version = erase.version;
        record.lineage = Lineage::default();
        record.accepted = None;
        record.session = None;
        record.suspect = false;
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

    pub(super) fn rejoin(&mut self, rejoin: Rejoin) -> Result<(), GuardFailure> {
        let record = self.record_mut(rejoin.tenant)?;
        check_view(record, rejoin.version)?;
        record.view_version = rejoin.version;
        Ok(())
    }
}

/// Checks the guard of an attach, beyond its session.
fn check_attach(record: &TenantRecord, attach: &Attach) -> Result<(), GuardFailure> {
    check_follows(record, attach.home, attach.epoch)?;
    check_view(record, attach.version)?;
    if record.suspect {
        return Err(GuardFailure::Suspect);
    }
    if record.shadow.is_some() {
        return Err(GuardFailure::Seed);
    }
    if record.live.revision < attach.position {
        return Err(position_failure(record));
    }
    if record.live.revision.sequence() > record.lineage.fork_point(&attach.lineage) {
        return Err(GuardFailure::Diverged);
    }
    Ok(())
}

/// Checks that the record follows this home in this epoch, and has promised no higher one.
pub(super) fn check_follows(
    record: &TenantRecord,
    home: stead_types::GroupId,
    epoch: Epoch,
) -> Result<(), GuardFailure> {
    if record.home() != Some(home) {
        return Err(GuardFailure::NotFollower);
    }
    if (epoch != record.epoch || epoch != record.promised) && !planted::is(Bug::EpochNotGuarded) {
        return Err(epoch_failure(record));
    }
    Ok(())
}

fn epoch_failure(record: &TenantRecord) -> GuardFailure {
    GuardFailure::Epoch {
        epoch: record.epoch,
        promised: record.promised,
    }
}

pub(super) fn position_failure(record: &TenantRecord) -> GuardFailure {
    let revision: Revision = record.live.revision;
    GuardFailure::Position { revision }
}
