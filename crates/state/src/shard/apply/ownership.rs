//! Commands about who owns and who follows: `Create`, `Follow`, `BeginAttach`, `Attach`, `Detach`, `Offset`, `Erase`,
//! `Rejoin`.

use stead_types::{
    Epoch, Revision,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        answer::Void,
        clients::Clients,
        command::{Attach, BeginAttach, Create, Detach, Erase, Follow, Offset, Rejoin},
        record::{CopyState, Fork, Record, Role, Session},
        tenant::Tenant,
    },
    Context, view,
};
use crate::{
    lineage::{Lineage, Standing},
    rows::Unreadable,
};

impl Shard {
    pub(super) fn create(&mut self, context: &mut Context<'_>, create: Create) -> Result<Result<(), Void>, Unreadable> {
        if self.tenants.contains_key(&create.tenant) {
            return Ok(Err(Void::HasRecord));
        }
        let mut tenant = Tenant::unknown();
        let record = &mut tenant.record;
        record.view_version = create.version;
        record.lineage = Lineage::starting(Epoch::FIRST);
        record.policy = create.policy;
        record.live.number = record.next_copy();
        self.tenants.insert(create.tenant, tenant);
        self.become_owner(context.rows, create.tenant, Epoch::FIRST)?;
        Ok(Ok(()))
    }

    pub(super) fn follow(&mut self, context: &mut Context<'_>, follow: Follow) -> Result<(), Void> {
        if follow.home == self.place.group {
            return Err(Void::NotFollower);
        }
        let (epoch, promised) = match self.tenants.get(&follow.tenant) {
            Some(tenant) => {
                view(&tenant.record, follow.version)?;
                (tenant.record.epoch, tenant.record.promised)
            }
            None => (Epoch::NONE, Epoch::NONE),
        };
        // For a frozen group `promised` is the epoch it is frozen for.
        if follow.epoch <= epoch || follow.epoch < promised {
            return Err(Void::Epoch { epoch, promised });
        }
        let tenant = self.tenants.entry(follow.tenant).or_insert_with(Tenant::unknown);
        let record = &mut tenant.record;
        let point = record.lineage.fork_point(&follow.lineage);
        if record.live.revision.sequence() > point {
            // Whole live state becomes the fork, under its number; the tenant is seeded anew.
            let copy = std::mem::take(&mut record.live);
            let lineage = std::mem::take(&mut record.lineage);
            // The fork's windows stand in rows from the next checkpoint on, and in no snapshot that was cut before.
            let clients = std::mem::take(&mut tenant.clients);
            tenant.fork_clients.push((copy.number, clients));
            record.forks.push(Fork { copy, lineage, point });
            // What was suspected is in the fork; nothing can be wrong with an empty copy.
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
            .take_if(|shadow| record.lineage.standing(shadow.state.revision) != Standing::On);
        if let Some(shadow) = off {
            tenant.shadow_clients = Clients::default();
            self.discard(context.rows, follow.tenant, &shadow.state);
        }
        self.index_maintenance(follow.tenant);
        self.not_due(follow.tenant);
        Ok(())
    }

    pub(super) fn begin_attach(&mut self, begin: BeginAttach) -> Result<(), Void> {
        if begin.incarnation < self.stream(begin.home).incarnation {
            return Err(Void::Offset);
        }
        let record = self.record_mut(begin.tenant)?;
        follows(record, begin.home, begin.epoch)?;
        view(record, begin.version)?;
        if begin.number <= record.attach {
            return Err(Void::Session);
        }
        record.attach = begin.number;
        record.session = Some(Session {
            home: begin.home,
            incarnation: begin.incarnation,
            epoch: begin.epoch,
            number: begin.number,
            attached: false,
        });
        Ok(())
    }

    pub(super) fn attach(&mut self, attach: Attach) -> Result<(), Void> {
        let record = self.record_mut(attach.tenant)?;
        let session = record.session_of(attach.home, attach.number).ok_or(Void::Session)?;
        if let Err(void) = attaches(record, &attach) {
            record.session = None;
            return Err(void);
        }
        record.lineage = attach.lineage;
        record.session = Some(Session {
            attached: true,
            ..session
        });
        Ok(())
    }

    pub(super) fn detach(&mut self, detach: Detach) -> Result<(), Void> {
        let record = self.record_mut(detach.tenant)?;
        record.session_of(detach.home, detach.number).ok_or(Void::Session)?;
        record.session = None;
        Ok(())
    }

    pub(super) fn offset(&mut self, offset: Offset) -> Result<(), Void> {
        if offset.offset <= self.stream(offset.home) {
            return Err(Void::Offset);
        }
        let before = self.streams.insert(offset.home, offset.offset);
        self.streams_dirty = true;
        if before.map(|before| before.incarnation) != Some(offset.offset.incarnation) {
            self.index_all_detached();
        }
        Ok(())
    }

    pub(super) fn erase(&mut self, context: &mut Context<'_>, erase: Erase) -> Result<(), Void> {
        let tenant = self.tenants.get_mut(&erase.tenant).ok_or(Void::NoRecord)?;
        let record = &mut tenant.record;
        view(record, erase.version)?;
        if record.role == Role::Owner && !erase.deleted {
            return Err(Void::NotFollower);
        }
        if record.forks.iter().any(|fork| !erase.forks.contains(&fork.copy.number)) {
            return Err(Void::HoldsForks);
        }
        let mut copies: Vec<CopyState> = vec![std::mem::take(&mut record.live)];
        copies.extend(record.shadow.take().map(|shadow| shadow.state));
        copies.extend(std::mem::take(&mut record.forks).into_iter().map(|fork| fork.copy));
        // `promised`, `copies` and what the view was stay: a later `Follow` goes on from there.
        record.role = Role::Erased;
        record.epoch = Epoch::NONE;
        record.view_version = erase.version;
        record.lineage = Lineage::default();
        record.accepted = None;
        record.session = None;
        record.suspect = false;
        tenant.clients = Clients::default();
        tenant.shadow_clients = Clients::default();
        tenant.dirty = true;
        for copy in copies {
            self.discard(context.rows, erase.tenant, &copy);
        }
        self.index_maintenance(erase.tenant);
        self.not_due(erase.tenant);
        Ok(())
    }

    pub(super) fn rejoin(&mut self, rejoin: Rejoin) -> Result<(), Void> {
        let record = self.record_mut(rejoin.tenant)?;
        view(record, rejoin.version)?;
        record.view_version = rejoin.version;
        Ok(())
    }
}

/// Fails unless an attempt that the home says has succeeded has.
fn attaches(record: &Record, attach: &Attach) -> Result<(), Void> {
    follows(record, attach.home, attach.epoch)?;
    view(record, attach.version)?;
    if record.suspect {
        return Err(Void::Suspect);
    }
    if record.shadow.is_some() {
        return Err(Void::Seed);
    }
    if record.live.revision < attach.position {
        return Err(position_void(record));
    }
    if record.live.revision.sequence() > record.lineage.fork_point(&attach.lineage) {
        return Err(Void::Diverged);
    }
    Ok(())
}

/// Fails unless the record follows this home in this epoch, and has promised no higher one.
pub(super) fn follows(record: &Record, home: stead_types::GroupId, epoch: Epoch) -> Result<(), Void> {
    if record.home() != Some(home) {
        return Err(Void::NotFollower);
    }
    if (epoch != record.epoch || epoch != record.promised) && !planted::is(Bug::EpochNotGuarded) {
        return Err(epoch_void(record));
    }
    Ok(())
}

fn epoch_void(record: &Record) -> Void {
    Void::Epoch {
        epoch: record.epoch,
        promised: record.promised,
    }
}

pub(super) fn position_void(record: &Record) -> Void {
    let revision: Revision = record.live.revision;
    Void::Position { revision }
}
