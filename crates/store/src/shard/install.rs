//! Taking a snapshot in: new rows beside the old ones, a durable checkpoint, the swap, a checkpoint again.

use std::ops::Range;

use bytes::Bytes;
use stead_state::{
    codec::Malformed,
    rows::{COPY_LEN, Order, PLACE_LEN, Place, Rows, change, current, kind},
    shard::{Shard, current_after},
};
use stead_types::planted::{self, Bug};

use super::{
    ShardMachine,
    machine::Held,
    sweep::{Stale, free_install},
};
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
    let place = {
        let inner = machine.rows.read();
        _pin = (!planted::is(Bug::InstallUnpinned)).then(|| machine.pin.clone());
        let current = inner.state.shard.place();
        Place {
            group: machine.group,
            install: free_install(&inner.table, current).map_err(failed(DOING))?,
        }
    };
    let mut filler = machine.rows.filler();
    for row in decode(snapshot.chunks) {
        let (key, value) = row?;
        put(&mut filler, place, &key, value)?;
    }
    filler.finish()?;
    let table = Table::new(machine.engine.clone());
    put_expiry(machine.rows.filler(), &table, place)?;
    let shard = Shard::open(place, &table).map_err(failed(DOING))?;
    let stale = Stale::default();
    machine
        .rows
        .swap(Held { shard, stale }, place.install, snapshot.applied)
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

/// Writes a row under the new place; a change also becomes the current version of its key, until a later one does.
fn put(filler: &mut Filler, place: Place, key: &[u8], value: Bytes) -> Result<(), Failed> {
    let malformed = || failed(DOING)(Malformed { what: "snapshot row" });
    let (kind, rest) = key.split_first().ok_or_else(malformed)?;
    let key = place.key(*kind, rest.len()).raw(rest).finish();
    match *kind {
        kind::TENANT | kind::CLIENT | kind::STREAM | kind::FEED => {}
        kind::CHANGE => {
            let (sequence, effect) = change::parse_key(key.clone()).map_err(failed(DOING))?;
            let change = change::decode(sequence, effect, value.clone()).map_err(failed(DOING))?;
            let mut row = place.key(kind::CURRENT, COPY_LEN - PLACE_LEN + change.key.len());
            let row = row.raw(&key[PLACE_LEN..COPY_LEN]).raw(&change.key).finish();
            filler.put(row, current::encode(&current_after(&change)))?;
        }
        _ => return Err(malformed()),
    }
    filler.put(key, value)
}
