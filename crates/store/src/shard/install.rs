//! Install of a snapshot: new rows beside the old ones, a durable checkpoint, the switch, a checkpoint again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use stead_state::{
    codec::Malformed,
    rows::{COPY_PREFIX_LEN, GROUP_PREFIX_LEN, GroupPrefix, Order, Rows, change, current, kind, tenant},
    shard::current_after,
};
use stead_types::{
    Sequence,
    planted::{self, Bug},
};

use super::{ShardMachine, machine::MachineState};
use crate::{
    chunks::decode,
    group_rows::{BulkWriter, failed},
    machine::{MachineError, Snapshot},
    table::Table,
};

const DOING: &str = "installing a snapshot";
/// Rows that are read at a time while expiry rows are written.
const EXPIRY_ROWS: usize = 10_000;

/// Installs a snapshot in place of a machine's state.
pub(super) fn install(machine: &ShardMachine, snapshot: Snapshot) -> Result<(), MachineError> {
    // Maintenance removes rows of other installs: it waits until this install is the current one.
    let _pin;
    {
        let _nobody_removes = machine.rows.read()?;
        _pin = (!planted::is(Bug::InstallUnpinned)).then(|| machine.pin.clone());
    }
    let prefix = GroupPrefix {
        group: machine.group,
        install: machine.rows.allocate_install()?,
    };
    let mut rows = InstallWriter {
        bulk_writer: machine.rows.bulk_writer(),
        prefix,
        swept: BTreeMap::new(),
        tails: BTreeSet::new(),
    };
    for row in decode(snapshot.chunks) {
        let (key, value) = row?;
        rows.put(&key, value)?;
    }
    rows.bulk_writer.finish()?;
    let table = Table::new(machine.engine.clone());
    put_expiry(machine.rows.bulk_writer(), &table, prefix)?;
    let state = MachineState::open(prefix, &table).map_err(failed(DOING))?;
    machine.rows.activate_install(state, prefix.install, snapshot.applied)
}

/// Writes the expiry rows of the current versions: replaced versions do not expire.
fn put_expiry(mut bulk_writer: BulkWriter, table: &Table, prefix: GroupPrefix) -> Result<(), MachineError> {
    let Range { mut start, end } = prefix.range(kind::CURRENT);
    loop {
        let rows = table.range(&start..&end, Order::Ascending).take(EXPIRY_ROWS);
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed(DOING))?;
        let Some((last, _)) = rows.last() else {
            return bulk_writer.finish();
        };
        start = [last.as_ref(), &[0]].concat().into();
        for (key, value) in rows {
            let current = current::decode(value).map_err(failed(DOING))?;
            if let Some(expires) = current.live.and_then(|live| live.expires) {
                let (copy, of) = (&key[GROUP_PREFIX_LEN..COPY_PREFIX_LEN], &key[COPY_PREFIX_LEN..]);
                let row = [copy, &expires.0.to_be_bytes(), of].concat();
                bulk_writer.put(prefix.key(kind::EXPIRY, row.len()).raw(&row).finish(), Bytes::new())?;
            }
        }
    }
}

/// Writer of a snapshot's rows under a new install number.
struct InstallWriter {
    bulk_writer: BulkWriter,
    prefix: GroupPrefix,
    /// For each copy, by the rest of its key: the sequence up to which tombstones are swept. Records come first.
    swept: BTreeMap<Bytes, Sequence>,
    /// Copies that are the tails of forks: they have changes only.
    tails: BTreeSet<Bytes>,
}

impl InstallWriter {
    /// Writes a row; a change also becomes the current version of its key, until a later one replaces it.
    fn put(&mut self, key: &[u8], value: Bytes) -> Result<(), MachineError> {
        let malformed = || failed(DOING)(Malformed { what: "snapshot row" });
        let (kind, rest) = key.split_first().ok_or_else(malformed)?;
        let key = self.prefix.key(*kind, rest.len()).raw(rest).finish();
        match *kind {
            kind::CLIENT | kind::STREAM | kind::FEED | kind::FEED_FLOOR => {}
            kind::TENANT => self.note_swept(key.clone(), value.clone()).map_err(failed(DOING))?,
            kind::CHANGE => self.put_current(&key, value.clone())?,
            _ => return Err(malformed()),
        }
        self.bulk_writer.put(key, value)
    }

    fn note_swept(&mut self, key: Bytes, value: Bytes) -> Result<(), Malformed> {
        let (number, record) = (tenant::parse_key(key)?, tenant::decode(value)?);
        let copy_of = |number_of_copy| {
            let copy = self.prefix.copy(number, number_of_copy).key(kind::CHANGE, 0).finish();
            copy.slice(GROUP_PREFIX_LEN..)
        };
        for state in record.copies() {
            self.swept.insert(copy_of(state.number), state.swept);
        }
        let tails = record.forks.iter().filter(|fork| fork.tail.is_some());
        self.tails.extend(tails.map(|fork| copy_of(fork.copy.number)));
        Ok(())
    }

    fn put_current(&mut self, key: &Bytes, value: Bytes) -> Result<(), MachineError> {
        let (sequence, effect) = change::parse_key(key.clone()).map_err(failed(DOING))?;
        let change = change::decode(sequence, effect, value).map_err(failed(DOING))?;
        let copy = key.slice(GROUP_PREFIX_LEN..COPY_PREFIX_LEN);
        if self.tails.contains(&copy) {
            return Ok(());
        }
        let mut row = self.prefix.key(kind::CURRENT, copy.len() + change.key.len());
        let row = row.raw(&copy).raw(&change.key).finish();
        let is_swept = self.swept.get(&copy).is_some_and(|swept| sequence <= *swept);
        if change.value.is_none() && is_swept {
            return self.bulk_writer.remove(row);
        }
        self.bulk_writer.put(row, current::encode(&current_after(&change)))
    }
}
