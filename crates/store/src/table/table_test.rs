//! Model test of a table against a map, with freezes, flushes and power losses in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::memory::Disk;

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    PutNew(u8, u8),
    Delete(u8),
    Freeze,
    Flush,
    Range(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..24u8;
    prop_oneof![
        4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::PutNew(key, value)),
        3 => key.clone().prop_map(Step::Delete),
        1 => Just(Step::Freeze),
        1 => Just(Step::Flush),
        2 => (key.clone(), key).prop_map(|(start, end)| Step::Range(start, end)),
    ]
}

fn key(number: u8) -> Bytes {
    vec![b'k', number].into()
}

fn value(number: u8) -> Bytes {
    vec![number; 3].into()
}

fn flush(table: &mut Table) {
    let frozen = table.freeze();
    table.engine.write(&mut frozen.changes()).unwrap();
    table.drop_frozen();
}

fn run(steps: Vec<Step>) {
    let mut table = Table::new(Disk::default().open());
    let mut model = BTreeMap::new();
    for step in steps {
        match step {
            Step::PutNew(number, byte) if !model.contains_key(&key(number)) => {
                table.put_new(key(number), value(byte));
                model.insert(key(number), value(byte));
            }
            Step::Put(number, byte) | Step::PutNew(number, byte) => {
                table.put(key(number), value(byte));
                model.insert(key(number), value(byte));
            }
            Step::Delete(number) => {
                table.delete(key(number));
                model.remove(&key(number));
            }
            Step::Freeze => drop(table.freeze()),
            Step::Flush => flush(&mut table),
            Step::Range(start, end) => same(&table, &model, &(key(start)..key(end))),
        }
        for number in 0..24 {
            assert_eq!(
                table.get(&key(number)).unwrap().as_ref(),
                model.get(&key(number)),
                "invariant 1"
            );
        }
    }
    same(&table, &model, &(key(0)..key(255)));
    flush(&mut table);
    flush(&mut table);
    assert_eq!((table.memory_len(), table.dirty_rows()), (0, 0));
    same(&table, &model, &(key(0)..key(255)));
}

fn same(table: &Table, model: &BTreeMap<Bytes, Bytes>, range: &Range<Bytes>) {
    let expected: Vec<_> = match range.start < range.end {
        true => model
            .range(range.clone())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        false => Vec::new(),
    };
    let rows = |order| -> Vec<_> {
        table
            .range(&range.start..&range.end, order)
            .map(Result::unwrap)
            .collect()
    };
    assert_eq!(rows(Order::Ascending), expected);
    let mut backward = rows(Order::Descending);
    backward.reverse();
    assert_eq!(backward, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn table_equals_a_map(steps in proptest::collection::vec(step(), 1..80)) {
        run(steps);
    }
}

#[test]
fn fresh_row_deleted_before_flush_leaves_nothing() {
    let mut table = Table::new(Disk::default().open());
    table.put_new(key(1), value(1));
    table.delete(key(1));
    assert_eq!(table.dirty_rows(), 0, "invariant 3");
    table.put_new(key(1), value(1));
    flush(&mut table);
    table.delete(key(1));
    table.put_new(key(1), value(2));
    table.delete(key(1));
    assert_eq!(table.get(&key(1)).unwrap(), None, "the row on disk does not come back");
}

#[test]
fn engine_read_error_is_not_an_absent_row() {
    let disk = Disk::default();
    let mut table = Table::new(disk.open());
    table.put(key(1), value(1));
    disk.power_loss(0);
    assert_eq!(table.get(&key(1)).unwrap(), Some(value(1)));
    assert!(table.get(&key(2)).is_err());
    assert!(table.range(&key(0)..&key(9), Order::Ascending).any(|row| row.is_err()));
}
