//! Deficit round robin over tenants, weighed by bytes: what one tenant has queued does not stand in front of another's.

use std::collections::{BTreeMap, VecDeque};

use stead_types::TenantNumber;

/// Bytes that a tenant may take in one turn.
const QUANTUM: usize = 64 << 10;

/// Items of tenants, each with its length in bytes. Its bound is that of the operations in flight.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// Tenants with items, the one whose turn it is first.
    turns: VecDeque<TenantNumber>,
    tenants: BTreeMap<TenantNumber, TenantQueue<T>>,
    len: usize,
}

#[derive(Debug)]
struct TenantQueue<T> {
    /// Bytes that the tenant may still take in its turn.
    deficit: usize,
    items: VecDeque<Item<T>>,
}

#[derive(Debug)]
struct Item<T> {
    len: usize,
    value: T,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            tenants: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Returns the number of items.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Tells whether there is no item.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item of a tenant, of a length in bytes.
    pub(crate) fn push(&mut self, tenant: TenantNumber, len: usize, value: T) {
        self.len += 1;
        let queue = self.tenants.entry(tenant).or_insert_with(|| {
            self.turns.push_back(tenant);
            TenantQueue {
                deficit: QUANTUM,
                items: VecDeque::new(),
            }
        });
        queue.items.push_back(Item { len, value });
    }

    /// Takes the next item: of the tenant whose turn it is, in its order.
    pub(crate) fn pop(&mut self) -> Option<T> {
        loop {
            let alone = self.turns.len() == 1;
            let tenant = *self.turns.front()?;
            let queue = self.tenants.get_mut(&tenant)?;
            let len = queue.items.front()?.len;
            if queue.deficit >= len || alone {
                queue.deficit = queue.deficit.saturating_sub(len);
                let item = queue.items.pop_front()?;
                if queue.items.is_empty() {
                    self.tenants.remove(&tenant);
                    self.turns.pop_front();
                }
                self.len -= 1;
                return Some(item.value);
            }
            queue.deficit += QUANTUM;
            self.turns.rotate_left(1);
        }
    }

    /// Replaces each item by what `retain` makes of it, and removes those of which it makes nothing.
    pub(crate) fn filter_map(&mut self, mut retain: impl FnMut(T) -> Option<T>) {
        for queue in self.tenants.values_mut() {
            let items = std::mem::take(&mut queue.items).into_iter();
            let retained = items.filter_map(|Item { len, value }| retain(value).map(|value| Item { len, value }));
            queue.items = retained.collect();
        }
        self.tenants.retain(|_, queue| !queue.items.is_empty());
        self.turns.retain(|tenant| self.tenants.contains_key(tenant));
        self.len = self.tenants.values().map(|queue| queue.items.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: TenantNumber = TenantNumber::new(1);
    const QUIET: TenantNumber = TenantNumber::new(2);

    fn drained(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn small_item_passes_the_large_ones_of_another_tenant() {
        let mut queue = FairQueue::default();
        for _ in 0..900 {
            queue.push(LOUD, 2 << 20, "loud");
        }
        assert_eq!(queue.pop(), Some("loud"));
        queue.push(QUIET, 100, "quiet");
        let before = drained(&mut queue).iter().position(|item| *item == "quiet");
        assert_eq!(before, Some(0));
        assert!(queue.is_empty());
    }

    /// Tenants with equal items get equal shares, and each keeps its order.
    #[test]
    fn tenants_share_by_bytes_in_their_order() {
        let mut queue = FairQueue::default();
        for at in 0..20 {
            queue.push(LOUD, QUANTUM, at);
            queue.push(QUIET, QUANTUM / 4, 100 + at);
        }
        let first: Vec<i32> = std::iter::from_fn(|| queue.pop()).take(20).collect();
        let loud: Vec<_> = first.iter().copied().filter(|item| *item < 100).collect();
        assert!((3..=5).contains(&loud.len()), "{first:?}");
        assert_eq!(loud, (0..loud.len() as i32).collect::<Vec<_>>());
    }

    #[test]
    fn filtered_items_leave_the_others_in_order() {
        let mut queue = FairQueue::default();
        for item in ["a", "b", "c"] {
            queue.push(LOUD, 1, item);
            queue.push(QUIET, 1, "d");
        }
        queue.filter_map(|item| (item != "b" && item != "d").then_some(item));
        assert_eq!(queue.len(), 2);
        assert_eq!(drained(&mut queue), ["a", "c"]);
    }
}
