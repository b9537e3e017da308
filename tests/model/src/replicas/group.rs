//! A group of the replica model: its rows.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use stead_state::{
    codec::{Entry, encode_entry},
    rows::{GroupPrefix, Order, Row, Rows, RowsMut, Unreadable},
    shard::{ApplyResult, Shard, record::TenantRecord},
};
use stead_types::{GroupId, TenantNumber};

/// The tenant.
pub(super) const TENANT: TenantNumber = TenantNumber::new(1);

/// Rows in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryRows(BTreeMap<Bytes, Bytes>);

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        Ok(self.0.get(key).cloned())
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        let range = Bytes::copy_from_slice(range.start)..Bytes::copy_from_slice(range.end);
        let rows = self.0.range(range).map(|(key, value)| Ok((key.clone(), value.clone())));
        match order {
            Order::Ascending => Box::new(rows),
            Order::Descending => Box::new(rows.rev()),
        }
    }
}

impl RowsMut for MemoryRows {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.0.remove(&key);
    }
}

/// A group: its rows and its last log index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    id: GroupId,
    rows: Arc<MemoryRows>,
    index: u64,
}

impl Group {
    /// Returns an empty group.
    pub fn new(id: GroupId) -> Self {
        Self {
            id,
            rows: Arc::default(),
            index: 0,
        }
    }

    /// Returns its id.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Opens the shard from the rows.
    pub fn shard(&self) -> Shard {
        let prefix = GroupPrefix {
            group: self.id,
            install: 1,
        };
        Shard::open(prefix, self.rows.as_ref()).expect("the rows were written by a shard")
    }

    /// Returns the rows.
    pub fn rows(&self) -> &MemoryRows {
        &self.rows
    }

    /// Returns the tenant's record.
    pub fn record(&self) -> TenantRecord {
        self.shard()
            .record(TENANT)
            .cloned()
            .unwrap_or_else(TenantRecord::unknown)
    }

    /// Applies an entry of one command at a logged time.
    pub fn apply(&mut self, time: u64, command: Bytes) -> ApplyResult {
        self.index += 1;
        let mut shard = self.shard();
        let rows = Arc::make_mut(&mut self.rows);
        let entry = Entry::parse(encode_entry(time, &[command])).expect("it was encoded a moment ago");
        let mut results = shard
            .apply(rows, self.index, entry, true)
            .expect("the rows can be read");
        shard.flush(rows);
        results.pop().expect("one for each command")
    }
}
