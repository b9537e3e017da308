//! Taking a snapshot in: new rows beside the old ones, a durable checkpoint, the swap, a checkpoint again.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use stead_state::{
    codec::Malformed,
    rows::{COPY_LEN, Order, PLACE_LEN, Place, Rows, change, current, kind, tenant},
    shard::current_after,
};
use stead_types::{
    Sequence,
    planted::{self, Bug},
};

use super::{ShardMachine, machine::Held};
use crate::{
    chunks::decode,
    group_rows::{Filler, failed},
    machine::{Failed, Snapshot},
    table::Table,
};

const DOING: &str = "installing a snapshot";
/// Rows that are read at a time while others are written.
const EXPIRY_ROWS: usize = 10_000;

/// Replaces a machine's state.
pub(super) fn install(machine: &ShardMachine, snapshot: Snapshot) -> Result<(), Failed> {
    // Maintenance removes rows of other installs: it waits until these are the group's own.
    let _pin;
    {
        let _nobody_removes = machine.rows.read()?;
        _pin = (!planted::is(Bug::InstallUnpinned)).then(|| machine.pin.clone());
    }
    let place = Place {
        group: machine.group,
        install: machine.rows.next_install()?,
    };
    let mut rows = Installed {
        filler: machine.rows.filler(),
        place,
        swept: BTreeMap::new(),
    };
    for row in decode(snapshot.chunks) {
        let (key, value) = row?;
        rows.put(&key, value)?;
    }
    rows.filler.finish()?;
    let table = Table::new(machine.engine.clone());
    put_expiry(machine.rows.filler(), &table, place)?;
    let held = Held::open(place, &table).map_err(failed(DOING))?;
    machine.rows.swap(held, place.install, snapshot.applied)
}

/// Writes when keys expire, as of their current versions: those that were replaced expire no more.
fn put_expiry(mut filler: Filler, table: &Table, place: Place) -> Result<(), Failed> {
    let Range { mut start, end } = place.range(kind::CURRENT);
    loop {
        let rows = table.range(&start..&end, Order::Ascending).take(EXPIRY_ROWS);
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed(DOING))?;
        let Some((last, _)) = rows.last() else {
            return filler.finish();
        };
        start = [last.as_ref(), &[0]].concat().into();
        for (key, value) in rows {
            let current = current::decode(value).map_err(failed(DOING))?;
            if let Some(expires) = current.live.and_then(|live| live.expires) {
                let (copy, of) = (&key[PLACE_LEN..COPY_LEN], &key[COPY_LEN..]);
                let row = [copy, &expires.0.to_be_bytes(), of].concat();
                filler.put(place.key(kind::EXPIRY, row.len()).raw(&row).finish(), Bytes::new())?;
            }
        }
    }
}

/// The rows of a snapshot under a new place.
struct Installed {
    filler: Filler,
    place: Place,
    /// Of each copy, what its key has behind the place: up to where deletes are no current versions. Records come first.
    swept: BTreeMap<Bytes, Sequence>,
}

impl Installed {
    /// Writes a row; a change also becomes the current version of its key, until a later one does.
    fn put(&mut self, key: &[u8], value: Bytes) -> Result<(), Failed> {
        let malformed = || failed(DOING)(Malformed { what: "snapshot row" });
        let (kind, rest) = key.split_first().ok_or_else(malformed)?;
        let key = self.place.key(*kind, rest.len()).raw(rest).finish();
        match *kind {
            kind::CLIENT | kind::STREAM | kind::FEED | kind::FEED_FLOOR => {}
            kind::TENANT => self.note_swept(key.clone(), value.clone()).map_err(failed(DOING))?,
            kind::CHANGE => self.put_current(&key, value.clone())?,
            _ => return Err(malformed()),
        }
        self.filler.put(key, value)
    }

    fn note_swept(&mut self, key: Bytes, value: Bytes) -> Result<(), Malformed> {
        let (number, record) = (tenant::parse_key(key)?, tenant::decode(value)?);
        for state in record.copies() {
            let copy = self.place.copy(number, state.number).key(kind::CHANGE, 0).finish();
            self.swept.insert(copy.slice(PLACE_LEN..), state.swept);
        }
        Ok(())
    }

    fn put_current(&mut self, key: &Bytes, value: Bytes) -> Result<(), Failed> {
        let (sequence, effect) = change::parse_key(key.clone()).map_err(failed(DOING))?;
        let change = change::decode(sequence, effect, value).map_err(failed(DOING))?;
        let copy = key.slice(PLACE_LEN..COPY_LEN);
        let mut row = self.place.key(kind::CURRENT, copy.len() + change.key.len());
        let row = row.raw(&copy).raw(&change.key).finish();
        let is_swept = self.swept.get(&copy).is_some_and(|swept| sequence <= *swept);
        if change.value.is_none() && is_swept {
            return self.filler.remove(row);
        }
        self.filler.put(row, current::encode(&current_after(&change)))
    }
}
