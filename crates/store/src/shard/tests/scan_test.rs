//! Scans past ranges without a live key: they return what a scan that examines every row returns.

use bytes::Bytes;
use proptest::prelude::*;
use stead_state::{
    rows::Order,
    shard::{
        command::RetentionFloor,
        read::{ReadError, Scan, ScanPage, TenantReader},
    },
};
use stead_types::Revision;

use super::node::{HOME, Node, create, delete, put, tenant};

fn scan(order: Order, at: Option<Revision>, keys_max: usize) -> Scan {
    Scan {
        start: Bytes::from_static(b"k"),
        end: Some(Bytes::from_static(b"l")),
        order,
        keys_only: false,
        at,
        after: None,
        keys_max,
        len_max: usize::MAX,
    }
}

/// Number of rows of one page that were examined, and its keys with their revisions.
type Page = (usize, Vec<(Bytes, Revision)>);

/// Reads a page in as many steps as it takes.
fn page(node: &Node, scan: &Scan, remembers: bool) -> Result<Page, ReadError> {
    let step = |reading: &TenantReader<'_>, scan: &Scan| -> Result<ScanPage, ReadError> {
        if remembers {
            node.machine.scan(reading, scan)
        } else {
            reading.scan(scan)
        }
    };
    let (mut scan, mut examined, mut keys) = (scan.clone(), 0, Vec::new());
    while keys.len() < scan.keys_max {
        let read = node.machine.read(|view| step(&view.reading(tenant(1)).unwrap(), &scan));
        let found = read.unwrap()?;
        examined += found.examined;
        keys.extend(found.entries.into_iter().map(|(key, version)| (key, version.revision)));
        let Some(after) = found.next else { break };
        (scan.after, scan.at) = (Some(after), Some(found.revision));
    }
    keys.truncate(scan.keys_max);
    Ok((examined, keys))
}

/// The head of a queue is found in as many rows as if nothing had been removed before it, from either end.
#[test]
fn head_of_queue_is_flat_over_removed_keys() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    let all: Vec<_> = (0..=255).map(|key| put(1, key, u64::from(key))).collect();
    node.propose(&all);
    let mut most = 0;
    for key in 0..100 {
        for (order, head) in [(Order::Ascending, key), (Order::Descending, 255 - key)] {
            let (examined, keys) = page(&node, &scan(order, None, 1), true).unwrap();
            assert_eq!(keys[0].0, vec![b'k', head]);
            most = examined.max(most);
            node.propose(&[delete(1, head)]);
        }
    }
    assert!(most <= 64, "{most} rows were examined for one key");
    let (examined, _) = page(&node, &scan(Order::Ascending, None, 1), false).unwrap();
    assert!(examined > 100, "{examined}: the removed keys have rows");
    // A key before the head is found, also at the revision at which the head was the first.
    let before = node.state().records[0].1.live.revision;
    node.propose(&[put(1, 50, 1_000)]);
    let first = |at| {
        page(&node, &scan(Order::Ascending, at, 1), true).unwrap().1[0]
            .0
            .clone()
    };
    assert_eq!(first(None), vec![b'k', 50]);
    assert_eq!(first(Some(before)), vec![b'k', 100]);
}

#[derive(Clone, Debug)]
enum Action {
    Put(u8),
    Delete(u8, u8),
    Scan { down: bool, keys: usize, back: u64 },
    Floor,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => any::<u8>().prop_map(Action::Put),
        3 => (any::<u8>(), 1_u8..120).prop_map(|(from, len)| Action::Delete(from, from.saturating_add(len))),
        6 => (any::<bool>(), 1_usize..300, 0_u64..40).prop_map(|(down, keys, back)| Action::Scan { down, keys, back }),
        1 => Just(Action::Floor),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn scan_past_known_ranges_returns_what_every_row_says(actions in prop::collection::vec(action(), 1..60)) {
        let mut node = Node::new(HOME);
        node.propose(&[create(1)]);
        let all: Vec<_> = (0..=255).map(|key| put(1, key, u64::from(key))).collect();
        node.propose(&all);
        for (value, action) in (1_000..).zip(actions) {
            match action {
                Action::Put(key) => {
                    node.propose(&[put(1, key, value)]);
                }
                Action::Delete(from, to) => {
                    let all: Vec<_> = (from..to).map(|key| delete(1, key)).collect();
                    node.propose(&all);
                }
                Action::Floor => {
                    let floor = RetentionFloor {
                        index: node.log.len() as u64,
                        tenants: vec![],
                    };
                    node.propose(&[floor.encode()]);
                }
                Action::Scan { down, keys, back } => {
                    let order = if down { Order::Descending } else { Order::Ascending };
                    let live = node.state().records[0].1.live.revision;
                    let at = Revision::from_u64(live.to_u64() - back);
                    let scan = scan(order, (back > 0).then_some(at), keys);
                    let expected = page(&node, &scan, false).map(|page| page.1);
                    let found = page(&node, &scan, true).map(|page| page.1);
                    prop_assert_eq!(format!("{:?}", found), format!("{:?}", expected));
                }
            }
        }
    }
}
