//! All state of a machine that a result can depend on, for comparisons.

use bytes::Bytes;
use stead_state::{
    rows::{GROUP_PREFIX_LEN, Order, kind},
    shard::{read::Scan, record::TenantRecord},
};
use stead_types::{Revision, Sequence, TenantNumber};

use super::super::{ReadView, ShardMachine};

/// All state that a result can depend on.
#[derive(Debug, PartialEq)]
pub(super) struct State {
    pub(super) records: Vec<(TenantNumber, TenantRecord)>,
    pub(super) data: Vec<Vec<(Bytes, Revision, Bytes)>>,
    pub(super) changes: Vec<Vec<Bytes>>,
    pub(super) clients: Vec<String>,
    streams: String,
    feed: String,
    /// Current versions, tombstones too.
    pub(super) current: Vec<(Bytes, Bytes)>,
}

impl State {
    pub(super) fn of(machine: &ShardMachine) -> Self {
        machine
            .read(|view| {
                let records: Vec<_> = view
                    .shard()
                    .records()
                    .map(|(number, record)| {
                        let mut record = record.clone();
                        // A node's own progress.
                        record.live.trimmed = Sequence::ZERO;
                        (number, record)
                    })
                    .collect();
                let tenants = records.iter().map(|(number, _)| *number);
                Self {
                    data: tenants.clone().map(|number| data(&view, number, None)).collect(),
                    changes: tenants.clone().map(|number| changes(&view, number)).collect(),
                    clients: tenants
                        .map(|number| format!("{:?}", view.shard().clients(number).unwrap().windows()))
                        .collect(),
                    streams: format!("{:?}", view.shard().streams()),
                    feed: format!("{:?}", view.feed(0, 1_000_000).unwrap()),
                    current: records
                        .iter()
                        .flat_map(|(number, record)| current(&view, *number, record))
                        .collect(),
                    records,
                }
            })
            .unwrap()
    }
}

fn current(view: &ReadView<'_>, number: TenantNumber, record: &TenantRecord) -> Vec<(Bytes, Bytes)> {
    let range = view
        .shard()
        .prefix()
        .copy(number, record.live.number)
        .range(kind::CURRENT);
    let rows = view
        .rows
        .range(&range.start..&range.end, Order::Ascending)
        .map(Result::unwrap);
    rows.map(|(key, value)| (key.slice(GROUP_PREFIX_LEN..), value))
        .collect()
}

pub(super) fn data(view: &ReadView<'_>, number: TenantNumber, at: Option<Revision>) -> Vec<(Bytes, Revision, Bytes)> {
    let scan = Scan {
        start: Bytes::new(),
        end: None,
        order: Order::Ascending,
        keys_only: false,
        at,
        after: None,
        keys_max: 1_000,
        len_max: 1 << 20,
    };
    let page = view.reading(number).unwrap().scan(&scan).unwrap();
    let entries = page.entries.into_iter();
    entries
        .map(|(key, version)| (key, version.revision, version.value.bytes))
        .collect()
}

/// Changes from the floor on.
fn changes(view: &ReadView<'_>, number: TenantNumber) -> Vec<Bytes> {
    let reading = view.reading(number).unwrap();
    let found = reading
        .changes(reading.state().retention_floor, Sequence::MAX, usize::MAX)
        .unwrap();
    found.changes.iter().map(stead_state::rows::change::encode).collect()
}
