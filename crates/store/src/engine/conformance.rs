//! Conformance tests for engines; they cite the invariants of [`super`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use stead_state::rows::{Order, change, expiry};

use super::{Engine, KEY_LEN_MAX, RowChange, VALUE_LEN_MAX};

pub(super) fn put(key: &str, value: &str) -> RowChange {
    RowChange {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

fn remove(key: &str) -> RowChange {
    RowChange {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: None,
    }
}

pub(super) fn write(engine: &dyn Engine, batch: Vec<RowChange>) {
    engine.write(&mut batch.into_iter()).unwrap();
}

fn keys(engine: &dyn Engine, start: &str, end: &str, order: Order) -> Vec<String> {
    let rows = engine.range(start.as_bytes()..end.as_bytes(), order);
    rows.map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap())
        .collect()
}

/// Runs all checks; `open` opens the same engine again, the one opened before being dropped.
pub(super) fn check(open: &mut dyn FnMut() -> Arc<dyn Engine>) {
    rows_are_read_both_ways(open);
    checkpoints_survive(open);
    random_batches_survive(open);
    large_batches_replace_small_ones_and_the_other_way(open);
    ranges_end_where_they_should(open);
    the_longest_rows_survive(open);
}

fn rows_are_read_both_ways(open: &mut dyn FnMut() -> Arc<dyn Engine>) {
    let engine = open();
    assert_eq!(engine.get(b"a").unwrap(), None);
    write(&*engine, vec![]);
    write(&*engine, vec![put("a", "1"), put("b", "2"), put("c", "3")]);
    assert_eq!(engine.get(b"b").unwrap(), Some(Bytes::from("2")));
    assert_eq!(keys(&*engine, "a", "c", Order::Ascending), ["a", "b"]);
    assert_eq!(keys(&*engine, "", "z", Order::Descending), ["c", "b", "a"]);
    write(&*engine, vec![remove("b"), put("c", ""), remove("d")]);
    assert_eq!(keys(&*engine, "", "z", Order::Ascending), ["a", "c"]);
    assert_eq!(engine.get(b"c").unwrap(), Some(Bytes::new()), "empty is not absent");
    engine.checkpoint().unwrap();
}

fn checkpoints_survive(open: &mut dyn FnMut() -> Arc<dyn Engine>) {
    let engine = open();
    assert_eq!(keys(&*engine, "", "z", Order::Ascending), ["a", "c"], "invariant 2");
    engine.checkpoint().unwrap();
    engine.check_workers().unwrap();
}

fn random_batches_survive(open: &mut dyn FnMut() -> Arc<dyn Engine>) {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut model = BTreeMap::new();
    for _ in 0..12 {
        let engine = open();
        for _ in 0..6 {
            let keys = 1 << random.random_range(0..10);
            let share = random.random_range(0.0..1.0);
            let mut batch = BTreeMap::new();
            for _ in 0..keys {
                let key = format!("k{:03}", random.random_range(0..keys));
                let change = match random.random_bool(share) {
                    true => put(&key, &random.random_range(0..9).to_string()),
                    false => remove(&key),
                };
                batch.insert(change.key.clone(), change);
            }
            for (key, change) in &batch {
                model.insert(key.clone(), change.value.clone());
            }
            write(&*engine, batch.into_values().collect());
        }
        engine.checkpoint().unwrap();
        drop(engine);
        let expected = model
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        let expected: Vec<_> = expected.collect();
        let engine = open();
        let found = engine.range(b"k".as_slice()..b"l".as_slice(), Order::Ascending);
        assert_eq!(found.map(Result::unwrap).collect::<Vec<_>>(), expected);
        for (key, value) in &model {
            assert_eq!(engine.get(key).unwrap(), *value);
        }
    }
    let without = model.into_keys().map(|key| RowChange { key, value: None }).collect();
    let engine = open();
    write(&*engine, without);
    engine.checkpoint().unwrap();
}

fn large_batches_replace_small_ones_and_the_other_way(open: &mut dyn FnMut() -> Arc<dyn Engine>) {
    const ROWS: u32 = 5000;
    let engine = open();
    let name = |number: u32| format!("m{number:06}");
    let all = |value: &'static str| (0..ROWS).map(move |number| put(&name(number), value)).collect();
    write(&*engine, vec![put(&name(7), "small"), put(&name(8), "small")]);
    write(&*engine, all("large"));
    assert_eq!(engine.get(name(7).as_bytes()).unwrap(), Some(Bytes::from("large")));
    write(&*engine, vec![put(&name(7), "again"), remove(&name(9))]);
    engine.checkpoint().unwrap();
    drop(engine);
    let engine = open();
    assert_eq!(engine.get(name(7).as_bytes()).unwrap(), Some(Bytes::from("again")));
    assert_eq!(engine.get(name(8).as_bytes()).unwrap(), Some(Bytes::from("large")));
    assert_eq!(keys(&*engine, "m", "n", Order::Ascending).len() as u32, ROWS - 1);
    let without = (0..ROWS).map(|number| remove(&name(number))).collect();
    write(&*engine, without);
    engine.checkpoint().unwrap();
    drop(engine);
    assert_eq!(keys(&*open(), "", "z", Order::Descending), ["c", "a"]);
}

fn ranges_end_where_they_should(open: &mut dyn FnMut() -> Arc<dyn Engine>) {
    let engine = open();
    let many = (0..300).map(|number| put(&format!("p{number:03}"), "x")).collect();
    write(&*engine, many);
    for order in [Order::Ascending, Order::Descending] {
        assert_eq!(keys(&*engine, "p100", "p250", order).len(), 150);
        assert!(keys(&*engine, "p250", "p100", order).is_empty(), "backward");
        assert!(keys(&*engine, "p100", "p100", order).is_empty());
    }
    assert_eq!(keys(&*engine, "p", "q", Order::Descending)[0], "p299");
    assert!(engine.disk_len() < 1 << 30);
}

fn the_longest_rows_survive(open: &mut dyn FnMut() -> Arc<dyn Engine>) {
    let row = |number: u8, key_len: usize, value_len: usize| RowChange {
        key: [vec![b'r', number], vec![b'k'; key_len - 2]].concat().into(),
        value: Some(vec![number; value_len].into()),
    };
    let rows = vec![
        row(0, KEY_LEN_MAX, 0),
        row(1, 2, VALUE_LEN_MAX),
        row(2, expiry::KEY_ROW_LEN_MAX, change::ROW_LEN_MAX - 1),
        row(3, expiry::KEY_ROW_LEN_MAX, change::ROW_LEN_MAX),
        row(4, expiry::KEY_ROW_LEN_MAX, change::ROW_LEN_MAX + 1),
    ];
    let engine = open();
    write(&*engine, rows.clone());
    engine.checkpoint().unwrap();
    drop(engine);
    let engine = open();
    let found = engine.range(b"r".as_slice()..b"s".as_slice(), Order::Ascending);
    let found = found.map(|found| {
        found.map(|(key, value)| RowChange {
            key,
            value: Some(value),
        })
    });
    assert!(found.map(Result::unwrap).eq(rows.iter().cloned()));
    let without = rows.into_iter().map(|change| RowChange { value: None, ..change });
    write(&*engine, without.collect());
    engine.checkpoint().unwrap();
}
