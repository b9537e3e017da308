//! Applies committed entries: matches commands and delegates, one file for each family of commands.

mod data;
mod owned;
mod ownership;
mod range;
mod retention_floor;
mod seed;
mod txn;
mod write;

#[cfg(test)]
pub(super) use range::ROWS_MAX;

use stead_types::{DirectoryVersion, TenantNumber};

use super::{
    Shard,
    apply_result::{ApplyResult, GuardFailure},
    command::Command,
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
        };
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            let tenant = command.tenant();
            let outcomes = tenant.map_or(0, |tenant| self.outcomes_of(tenant));
            results.push(self.apply_command(&mut context, command)?);
            self.outcomes = self.outcomes + tenant.map_or(0, |tenant| self.outcomes_of(tenant)) - outcomes;
        }
        let effects = context.effects;
        if !self.touched.is_empty() {
            let (len, touched) = self.take_touched();
            let row = feed::FeedEntry { time, len, touched };
            rows.put_new(feed::key(self.prefix, index), feed::encode(&row));
        }
        self.sweep(rows, SWEPT_ROWS_PER_ENTRY + SWEPT_ROWS_PER_EFFECT * effects, may_trim)?;
        Ok(results)
    }

    fn apply_command(&mut self, context: &mut EntryContext<'_>, command: Command) -> Result<ApplyResult, Unreadable> {
        let attachment = attachment(&command);
        let result = match command {
            Command::Write(command) => return self.write(context, command),
            Command::Txn(command) => return self.txn(context, command),
            Command::DeleteRange(command) => return self.delete_range(context, command),
            Command::Expire(command) => return self.expire(context, command),
            Command::Data(command) => return self.data(context, command),
            Command::Chunk(command) => self.chunk(context, command)?,
            Command::RetentionFloor(command) => self.retention_floor(context, command)?,
            Command::Create(command) => self.create(context, command)?,
            Command::Follow(command) => self.follow(context, command),
            Command::BeginAttach(command) => self.begin_attach(command),
            Command::Attach(command) => self.attach(command),
            Command::Detach(command) => self.detach(command),
            Command::Offset(command) => self.offset(command),
            Command::Seed(command) => self.seed(context, command),
            Command::Swap(command) => self.swap(context, command),
            Command::Erase(command) => self.erase(context, command),
            Command::Rejoin(command) => self.rejoin(command),
        };
        if let Some(tenant) = attachment {
            self.index_detached(tenant);
        }
        Ok(match result {
            Ok(()) => ApplyResult::Done,
            Err(failure) => ApplyResult::GuardFailed(failure),
        })
    }

    /// Returns a tenant's record for a change.
    fn record_mut(&mut self, tenant: TenantNumber) -> Result<&mut TenantRecord, GuardFailure> {
        let tenant = self.tenants.get_mut(&tenant).ok_or(GuardFailure::NoRecord)?;
        tenant.dirty = true;
        Ok(&mut tenant.record)
    }
}

/// Returns the tenant whose attachment a command may change; `Data` and `Offset` update the index themselves.
fn attachment(command: &Command) -> Option<TenantNumber> {
    match command {
        Command::Follow(command) => Some(command.tenant),
        Command::BeginAttach(command) => Some(command.tenant),
        Command::Attach(command) => Some(command.tenant),
        Command::Detach(command) => Some(command.tenant),
        Command::Seed(command) => Some(command.tenant),
        Command::Erase(command) => Some(command.tenant),
        Command::Write(_)
        | Command::Txn(_)
        | Command::DeleteRange(_)
        | Command::Expire(_)
        | Command::Create(_)
        | Command::Data(_)
        | Command::Offset(_)
        | Command::Chunk(_)
        | Command::Swap(_)
        | Command::Rejoin(_)
        | Command::RetentionFloor(_) => None,
    }
}

/// Checks that a command was not derived from an older directory view than the record has seen.
fn check_view(record: &TenantRecord, version: DirectoryVersion) -> Result<(), GuardFailure> {
    if version < record.view_version {
        return Err(GuardFailure::OlderView);
    }
    Ok(())
}
