//! Erasure of the rows of a group that a node has left.
//!
//! The highest install number stays: a number is never used twice, also if the node gets the group again.

use bytes::Bytes;
use stead_state::codec::Writer;
use stead_state::rows::{Order, kind, prefix_end};
use stead_types::GroupId;

use super::{failed, group_row};
use crate::engine::{Engine, RowChange};
use crate::machine::MachineError;

/// Most rows that are deleted in one batch.
const BATCH_MAX: usize = 10_000;

/// Erases the rows of a group, durably. The group is not open, and its log is erased afterwards: rows without their log
/// would be taken for a lost log.
///
/// # Errors
///
/// The rows cannot be read or written; called again, it goes on.
pub fn erase(engine: &dyn Engine, group: GroupId) -> Result<(), MachineError> {
    const ERASING: &str = "erasing the rows of a group that this node has left";
    let of_group = kind::SHARD.map(|kind| {
        let mut prefix = Writer::with_capacity(5);
        prefix.u8(kind).u32(group.get());
        prefix.finish()
    });
    let of_directory = (group == GroupId::DIRECTORY).then(|| Bytes::from_static(&[kind::DIRECTORY]));
    for prefix in of_group.into_iter().chain(of_directory) {
        let end = prefix_end(&prefix);
        loop {
            let rows = engine.range(&prefix[..]..&end[..], Order::Ascending).take(BATCH_MAX);
            let keys: Result<Vec<Bytes>, _> = rows.map(|row| row.map(|(key, _)| key)).collect();
            let keys = keys.map_err(failed(ERASING))?;
            if keys.is_empty() {
                break;
            }
            delete(engine, keys).map_err(failed(ERASING))?;
        }
    }
    delete(engine, vec![group_row::key(group)]).map_err(failed(ERASING))?;
    engine.checkpoint().map_err(failed(ERASING))
}

fn delete(engine: &dyn Engine, keys: Vec<Bytes>) -> std::io::Result<()> {
    let change = |key| RowChange { key, value: None };
    engine.write(&mut keys.into_iter().map(change))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::memory::Disk;

    fn count(engine: &dyn Engine) -> usize {
        engine.range(&[0_u8][..]..&[0xff_u8][..], Order::Ascending).count()
    }

    fn key(kind: u8, group: u32, more: u8) -> Bytes {
        let mut key = Writer::with_capacity(6);
        key.u8(kind).u32(group).u8(more);
        key.finish()
    }

    #[test]
    fn rows_of_one_group_go_and_others_stay() {
        let engine = Disk::default().open();
        let mut keys = vec![group_row::key(GroupId::new(1)), group_row::key(GroupId::new(2))];
        for more in 0..3 {
            keys.extend([key(kind::CURRENT, 1, more), key(kind::CURRENT, 2, more)]);
            keys.push(Bytes::copy_from_slice(&[kind::DIRECTORY, more]));
        }
        keys.sort();
        let row = |key| RowChange {
            key,
            value: Some(Bytes::from_static(b"v")),
        };
        engine.write(&mut keys.into_iter().map(row)).unwrap();
        erase(&*engine, GroupId::new(1)).unwrap();
        assert_eq!(count(&*engine), 7);
        assert!(engine.get(&group_row::key(GroupId::new(1))).unwrap().is_none());
        erase(&*engine, GroupId::DIRECTORY).unwrap();
        assert_eq!(count(&*engine), 4, "those of group 2");
    }
}
