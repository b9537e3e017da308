//! Applies committed entries: matches commands and delegates, one file for each family of commands.

mod data;
mod owned;
mod ownership;
mod promotion;
mod range;
mod replay;
mod retention_floor;
mod rewind;
mod seed;
mod txn;
mod write;

#[cfg(test)]
pub(super) use range::ROWS_MAX;

use stead_types::TenantNumber;

use super::{
    Shard,
    apply_result::{ApplyResult, GuardFailure},
    command::Command,
    ownership::EntryStamp,
    record::TenantRecord,
};
use crate::{
    codec::Entry,
    rows::{RowsMut, Unreadable, feed},
};

/// Changes below the retention floor that are swept with each entry, and with each effect that it has: more than it
/// leaves behind, so that sweeping does not fall behind.
pub(super) const SWEPT_ROWS_PER_ENTRY: usize = 64;
const SWEPT_ROWS_PER_EFFECT: usize = 2;

/// Context of the entry being applied.
struct EntryContext<'a> {
    rows: &'a mut dyn RowsMut,
    /// Log index of the entry.
    index: u64,
    /// The entry's logged time, in milliseconds since 1970.
    time: u64,
    /// Effects of the entry so far.
    effects: usize,
    /// Rows that rewinds may look at after the entry's commands.
    rewound_rows: usize,
}

impl EntryContext<'_> {
    fn stamp(&self) -> EntryStamp {
        EntryStamp {
            index: self.index,
            time: self.time,
        }
    }
}

impl Shard {
    /// Applies an entry and returns the result of each of its commands. `may_trim` tells whether rows may be removed
    /// that only a snapshot being read still needs; no result depends on it.
    pub fn apply(
        &mut self,
        rows: &mut dyn RowsMut,
        index: u64,
        entry: Entry,
        may_trim: bool,
    ) -> Result<Vec<ApplyResult>, Unreadable> {
        let time = entry.time;
        let commands = entry.decode(index, Command::decode)?;
        let mut context = EntryContext {
            rows,
            index,
            time,
            effects: 0,
            rewound_rows: rewind::ROWS_PER_ENTRY,
        };
        let mut results = Vec::with_capacity(commands.len());
        self.changed.begin(index);
        self.moved.clear();
        for command in commands {
            let tenant = command.tenant();
            if let Some(tenant) = tenant {
                self.changed.add(index, tenant);
            }
            let outcomes = tenant.map_or(0, |tenant| self.outcomes_of(tenant));
            results.push(self.apply_command(&mut context, command)?);
            self.outcomes = self.outcomes + tenant.map_or(0, |tenant| self.outcomes_of(tenant)) - outcomes;
        }
        let (effects, rewound_rows) = (context.effects, context.rewound_rows);
        if !self.touched.is_empty() {
            let (len, touched) = self.take_touched();
            let row = feed::FeedEntry { time, len, touched };
            rows.put_new(feed::key(self.prefix, index), feed::encode(&row));
        }
        self.rewind(rows, rewound_rows)?;
        self.sweep(rows, SWEPT_ROWS_PER_ENTRY + SWEPT_ROWS_PER_EFFECT * effects, may_trim)?;
        Ok(results)
    }

    fn apply_command(&mut self, context: &mut EntryContext<'_>, command: Command) -> Result<ApplyResult, Unreadable> {
        let indexed = indexed_tenant(&command);
        // Rows, counters and windows are not those of the copy's position until the rewind has ended.
        let is_rewinding = |tenant| self.record(tenant).is_some_and(|record| record.rewind.is_some());
        if command.tenant().is_some_and(is_rewinding) && !matches!(command, Command::ContinueRewind(_)) {
            return Ok(ApplyResult::GuardFailed(GuardFailure::Rewinding));
        }
        let result = match command {
            Command::Write(command) => return self.write(context, command),
            Command::Txn(command) => return self.txn(context, command),
            Command::DeleteRange(command) => return self.delete_range(context, command),
            Command::Expire(command) => return self.expire(context, command),
            Command::Replay(command) => return self.replay(context, command),
            Command::Data(command) => return self.data(context, command),
            Command::Pull(command) => return self.pull(context, command),
            Command::Chunk(command) => self.chunk(context, command)?,
            Command::RetentionFloor(command) => self.retention_floor(context, command)?,
            Command::Create(command) => self.create(context, command)?,
            Command::Follow(command) => self.follow(context, command)?,
            Command::BeginAttach(command) => self.begin_attach(command),
            Command::Attach(command) => {
                self.decide(command.tenant, |record| super::ownership::attach(record, &command))
            }
            Command::Detach(command) => {
                self.decide(command.tenant, |record| super::ownership::detach(record, &command))
            }
            Command::Offset(command) => self.offset(command),
            Command::Seed(command) => self.seed(context, command),
            Command::SeedWindows(command) => self.seed_windows(command),
            Command::Swap(command) => self.swap(context, command),
            Command::Erase(command) => self.erase(context, command),
            Command::Rejoin(command) => {
                self.decide(command.tenant, |record| super::ownership::rejoin(record, &command))
            }
            Command::Heir(command) => self.heir(command),
            Command::CancelHeir(command) => {
                self.decide(command.tenant, |record| super::ownership::cancel_heir(record, &command))
            }
            Command::Relinquish(command) => self.relinquish(context, command),
            Command::Refuse(command) => {
                self.decide(command.tenant, |record| super::ownership::refuse(record, &command))
            }
            Command::Accept(command) => self.accept(context, command)?,
            Command::Freeze(command) => self.freeze(context, command)?,
            Command::Activate(command) => self.activate(context, command)?,
            Command::DiscardFork(command) => self.discard_fork(context, command),
            Command::ContinueRewind(_) => {
                context.rewound_rows += rewind::ROWS_PER_STEP;
                Ok(())
            }
            Command::Uncount(command) => {
                self.decide(command.tenant, |record| super::ownership::uncount(record, &command))
            }
            Command::Count(command) => self.decide(command.tenant, |record| super::ownership::count(record, &command)),
            Command::ConfirmRemote(command) => self.decide(command.tenant, |record| {
                super::ownership::confirm_remote(record, &command)
            }),
            Command::SetLeaseLossPolicy(command) => self.decide(command.tenant, |record| {
                super::ownership::set_lease_loss_policy(record, &command)
            }),
        };
        if let Some(tenant) = indexed {
            self.index_detached(tenant);
            self.index_handover(tenant);
        }
        Ok(match result {
            Ok(()) => ApplyResult::Done,
            Err(failure) => ApplyResult::GuardFailed(failure),
        })
    }

    /// Applies a command that changes nothing but the record.
    fn decide(
        &mut self,
        tenant: TenantNumber,
        transition: impl FnOnce(&mut TenantRecord) -> Result<(), GuardFailure>,
    ) -> Result<(), GuardFailure> {
        transition(self.record_mut(tenant)?)
    }

    /// Returns a tenant's record for a change.
    fn record_mut(&mut self, tenant: TenantNumber) -> Result<&mut TenantRecord, GuardFailure> {
        let tenant = self.tenants.get_mut(&tenant).ok_or(GuardFailure::NoRecord)?;
        tenant.dirty = true;
        Ok(&mut tenant.record)
    }
}

/// Returns the tenant whose attachment or role a command may change; `Data` and `Offset` update their index themselves.
fn indexed_tenant(command: &Command) -> Option<TenantNumber> {
    match command {
        Command::Create(_)
        | Command::Follow(_)
        | Command::BeginAttach(_)
        | Command::Attach(_)
        | Command::Detach(_)
        | Command::Seed(_)
        | Command::SeedWindows(_)
        | Command::Erase(_)
        | Command::Heir(_)
        | Command::CancelHeir(_)
        | Command::Relinquish(_)
        | Command::Freeze(_)
        | Command::Activate(_)
        // A baton with other digests ends the session.
        | Command::Accept(_) => command.tenant(),
        Command::Write(_)
        | Command::Txn(_)
        | Command::DeleteRange(_)
        | Command::Expire(_)
        | Command::Replay(_)
        | Command::Data(_)
        | Command::Offset(_)
        | Command::Chunk(_)
        | Command::Swap(_)
        | Command::Rejoin(_)
        | Command::RetentionFloor(_)
        | Command::Refuse(_)
        | Command::Uncount(_)
        | Command::Count(_)
        | Command::Pull(_)
        | Command::DiscardFork(_)
        | Command::ContinueRewind(_)
        | Command::ConfirmRemote(_)
        | Command::SetLeaseLossPolicy(_) => None,
    }
}
