//! Applies committed entries: matches and delegates, one file for each family of commands.

mod data;
mod floor;
mod owned;
mod ownership;
mod range;
mod seed;
mod txn;
mod write;

#[cfg(test)]
pub(super) use range::ROWS_MAX;

use stead_types::{DirectoryVersion, TenantNumber};

use super::{
    Shard,
    answer::{Answer, Void},
    command::Command,
    record::Record,
};
use crate::{
    codec::Entry,
    rows::{RowsMut, Unreadable, feed},
};

/// Changes below the floor that are swept with each entry, and with each effect that it has: more than it leaves behind,
/// so that what is to be swept does not pile up.
pub(super) const SWEPT_ROWS_PER_ENTRY: usize = 64;
const SWEPT_ROWS_PER_EFFECT: usize = 2;

/// What an entry is applied with.
struct Context<'a> {
    rows: &'a mut dyn RowsMut,
    /// Where the entry stands in the log.
    index: u64,
    /// The entry's logged time, in milliseconds since 1970.
    time: u64,
    /// Effects that the entry has had so far.
    effects: usize,
}

impl Shard {
    /// Applies an entry and returns an answer to each of its commands. `may_trim` tells whether rows may be removed that
    /// only a snapshot being read still needs; no answer depends on it.
    pub fn apply(
        &mut self,
        rows: &mut dyn RowsMut,
        index: u64,
        entry: Entry,
        may_trim: bool,
    ) -> Result<Vec<Answer>, Unreadable> {
        let time = entry.time;
        let commands = entry.decode(index, Command::decode)?;
        let mut context = Context {
            rows,
            index,
            time,
            effects: 0,
        };
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let tenant = command.tenant();
            let outcomes = tenant.map_or(0, |tenant| self.outcomes_of(tenant));
            answers.push(self.apply_command(&mut context, command)?);
            self.outcomes = self.outcomes + tenant.map_or(0, |tenant| self.outcomes_of(tenant)) - outcomes;
        }
        let effects = context.effects;
        if !self.touched.is_empty() {
            let (len, touched) = self.take_touched();
            let row = feed::Feed { time, len, touched };
            rows.put_new(feed::key(self.place, index), feed::encode(&row));
        }
        self.sweep(rows, SWEPT_ROWS_PER_ENTRY + SWEPT_ROWS_PER_EFFECT * effects, may_trim)?;
        Ok(answers)
    }

    fn apply_command(&mut self, context: &mut Context<'_>, command: Command) -> Result<Answer, Unreadable> {
        let attachment = attachment(&command);
        let answer = match command {
            Command::Write(command) => return self.write(context, command),
            Command::Txn(command) => return self.txn(context, command),
            Command::DeleteRange(command) => return self.delete_range(context, command),
            Command::Expire(command) => return self.expire(context, command),
            Command::Data(command) => return self.data(context, command),
            Command::Chunk(command) => self.chunk(context, command)?,
            Command::Floor(command) => self.floor(context, command)?,
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
        Ok(match answer {
            Ok(()) => Answer::Done,
            Err(void) => Answer::Void(void),
        })
    }

    /// Returns a tenant's record to be changed.
    fn record_mut(&mut self, tenant: TenantNumber) -> Result<&mut Record, Void> {
        let tenant = self.tenants.get_mut(&tenant).ok_or(Void::NoRecord)?;
        tenant.dirty = true;
        Ok(&mut tenant.record)
    }
}

/// Returns the tenant whose attachment a command may change; `Data` and `Offset` see to it themselves.
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
        | Command::Floor(_) => None,
    }
}

/// Fails for a command that was derived from an older view than the record has seen.
fn view(record: &Record, version: DirectoryVersion) -> Result<(), Void> {
    if version < record.view_version {
        return Err(Void::OlderView);
    }
    Ok(())
}
