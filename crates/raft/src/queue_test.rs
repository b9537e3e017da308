use super::*;
use proptest::prelude::*;

fn item(class: u64, number: usize, len: usize) -> Item<usize> {
    item_with_work(class, number, len, 0)
}

fn item_with_work(class: u64, number: usize, len: usize, work: usize) -> Item<usize> {
    let commands = vec![Bytes::from(vec![0; len])];
    let bytes = weight(&commands) + work;
    Item::new(class, CommandBatch { commands, bytes }, number)
}

fn numbers(items: &[Item<usize>]) -> Vec<usize> {
    items.iter().map(|item| item.waiter).collect()
}

#[test]
fn entry_takes_queued_items_up_to_its_bounds() {
    let mut queue = ProposalQueue::default();
    for number in 0..ENTRY_COMMANDS_MAX + 2 {
        queue.push(item(1, number, 10));
    }
    assert_eq!(queue.next_entry().len(), ENTRY_COMMANDS_MAX);
    assert_eq!(queue.next_entry().len(), 2);
    assert!(queue.next_entry().is_empty());
}

#[test]
fn item_larger_than_entry_bound_is_alone() {
    let mut queue = ProposalQueue::default();
    queue.push(item(1, 0, 10));
    queue.push(item(1, 1, 2 * ENTRY_BYTES_MAX));
    queue.push(item(1, 2, 10));
    assert_eq!(numbers(&queue.next_entry()), [0]);
    assert_eq!(numbers(&queue.next_entry()), [1]);
    assert_eq!(numbers(&queue.next_entry()), [2]);
}

#[test]
fn extra_work_counts_towards_entry_and_quantum() {
    let mut queue = ProposalQueue::default();
    for number in 0..64 {
        queue.push(item_with_work(1, number, 10, 32 << 10));
        queue.push(item_with_work(2, 100 + number, 10, 32 << 10));
    }
    queue.push(item(3, 999, 10));
    let entry = numbers(&queue.next_entry());
    assert_eq!(entry[..3], [0, 100, 999]);
    assert_eq!(entry.len(), 8, "{entry:?}");
}

#[test]
fn quiet_class_is_not_delayed_by_busy_class() {
    let mut queue = ProposalQueue::default();
    for number in 0..1_000 {
        queue.push(item(1, number, 4 << 10));
    }
    queue.push(item(2, 5_000, 10));
    let first = queue.next_entry();
    assert!(numbers(&first).contains(&5_000));
    assert_eq!(numbers(&first)[..2], [0, 1]);
}

#[test]
fn queue_delay_is_independent_of_other_backlogs() {
    let entries_until = |loud_items: usize| {
        let mut queue = ProposalQueue::default();
        for class in 1..=3 {
            for number in 0..loud_items {
                queue.push(item(class, number, 1 << 10));
            }
        }
        let taken = queue.next_entry().len();
        queue.push(item(9, 99_999, 10));
        let quiet = |entry: &[Item<usize>]| numbers(entry).contains(&99_999);
        let entries = 1 + (0..).take_while(|_| !quiet(&queue.next_entry())).count();
        (taken, entries)
    };
    let (_, few) = entries_until(300);
    for much in [3_000, 30_000] {
        assert_eq!(entries_until(much).1, few);
    }
    assert_eq!(few, 1, "within the next entry");
}

#[test]
fn withdrawn_item_is_removed_and_order_kept() {
    let mut queue = ProposalQueue::default();
    let given: Vec<u64> = (0..4)
        .map(|number| queue.push(item(number as u64 % 2, number, 10)))
        .collect();
    assert_eq!(queue.withdraw(0, given[2]).map(|item| item.waiter), Some(2));
    assert!(queue.withdraw(0, given[2]).is_none(), "only once");
    assert!(queue.withdraw(1, given[0]).is_none(), "of its own class");
    assert!(queue.withdraw(5, given[0]).is_none());
    assert!(queue.withdraw(0, given[0]).is_some());
    assert_eq!(numbers(&queue.next_entry()), [1, 3]);
    assert!(queue.next_entry().is_empty());
    queue.push(item(0, 7, 10));
    assert_eq!(numbers(&queue.next_entry()), [7]);
}

#[test]
fn requeued_items_keep_their_order() {
    let mut queue = ProposalQueue::default();
    for number in 0..4 {
        queue.push(item(number as u64 % 2, number, 10));
    }
    let (mut first, mut second) = (queue.next_entry(), Vec::new());
    queue.push(item(0, 4, 10));
    second.extend(first.split_off(2));
    queue.requeue(first);
    queue.requeue(second);
    let mut again = numbers(&queue.next_entry());
    again.retain(|number| number % 2 == 0);
    assert_eq!(again, [0, 2, 4]);
}

proptest! {
    #[test]
    fn queue_yields_each_item_once_in_class_order(
        pushed in prop::collection::vec((0u64..4, 0usize..100_000), 0..60)
    ) {
        let mut queue = ProposalQueue::default();
        for (number, (class, len)) in pushed.iter().enumerate() {
            queue.push(item(*class, number, *len));
        }
        let mut out = Vec::new();
        loop {
            let entry = queue.next_entry();
            if entry.is_empty() {
                break;
            }
            let bytes: usize = entry.iter().map(|item| item.bytes).sum();
            prop_assert!(entry.len() == 1 || bytes <= ENTRY_BYTES_MAX);
            out.extend(entry);
        }
        for class in 0..4 {
            let expected: Vec<usize> = (0..pushed.len()).filter(|number| pushed[*number].0 == class).collect();
            let got: Vec<usize> = out.iter().filter(|item| item.class == class).map(|item| item.waiter).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
