//! What registers do not show: numbers that are counted on, transactions over two keys, keys with an end.
//!
//! These keys stand apart from those of the histories. At the end each number is at least what was acknowledged, and at
//! most that and what was left unknown; what moves between two keys is never made or lost; no key outlives its end.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use rand::{Rng, rngs::StdRng};
use stead_client::{Client, Error, ErrorKind, Increment, Op, Read, Scan, Tenant, Write};

/// What all of its keys begin with.
pub(crate) const PREFIX: &str = "n/";
const COUNT: &str = "n/count";
const FROM: &str = "n/from";
const TO: &str = "n/to";
const SHORT: &str = "n/short/";
/// How long such a key lives.
const TTL: Duration = Duration::from_millis(300);

/// What became of calls. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Rc<RefCell<BTreeMap<String, Tally>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    counted: Calls,
    moved: Calls,
}

#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    done: i64,
    unknown: i64,
}

impl Calls {
    fn note<T>(&mut self, outcome: &Result<T, Error>) {
        match outcome {
            Ok(_) => self.done += 1,
            Err(error) if matches!(error.kind, ErrorKind::OutcomeUnknown { .. }) || !error.has_no_effect() => {
                self.unknown += 1;
            }
            Err(_) => {}
        }
    }

    /// Tells whether a number can be the sum of these calls.
    fn admit(self, number: i64) -> bool {
        (self.done..=self.done + self.unknown).contains(&number)
    }
}

impl Ledger {
    /// Does one of the three.
    pub(crate) async fn act(&self, tenant: &Tenant, session: u32, within: Duration, random: &mut StdRng) {
        let write = Write {
            timeout: Some(within),
            ..Write::default()
        };
        match random.random_range(0..3) {
            0 => {
                let outcome = tenant.increment_with(COUNT, Increment::by(1), &write).await;
                self.tally(tenant, |tally| tally.counted.note(&outcome));
            }
            1 => {
                let out = Op::increment(FROM, Increment::by(-1));
                let txn = tenant.txn().then(out).then(Op::increment(TO, Increment::by(1)));
                let outcome = txn.timeout(within).send().await;
                self.tally(tenant, |tally| tally.moved.note(&outcome));
            }
            _ => {
                // It may happen after its answer was given up: its end comes all the same.
                let _ = tenant.put_expiring(format!("{SHORT}{session}"), "x", TTL, &write).await;
            }
        }
    }

    fn tally(&self, tenant: &Tenant, note: impl FnOnce(&mut Tally)) {
        note(self.0.borrow_mut().entry(tenant.name().to_string()).or_default());
    }

    /// Holds what a tenant has at the end against what was told.
    pub(crate) async fn check(&self, client: &Client, tenant: &str) {
        let told = self.0.borrow().get(tenant).copied().unwrap_or_default();
        let scan = Scan {
            prefix: PREFIX.into(),
            read: Read::default(),
            ..Scan::default()
        };
        let page = client.tenant(tenant).unwrap().scan(&scan).await.unwrap();
        let number = |key: &str| -> i64 {
            let item = page.items.iter().find(|item| item.key == key);
            item.map_or(0, |item| std::str::from_utf8(&item.value).unwrap().parse().unwrap())
        };
        let (count, from, to) = (number(COUNT), number(FROM), number(TO));
        assert!(told.counted.admit(count), "{tenant} has counted {count}: {told:?}");
        assert!(told.moved.admit(to), "{tenant} has moved {to}: {told:?}");
        assert_eq!(from + to, 0, "{tenant} has made or lost what it moved");
        let short: Vec<_> = page
            .items
            .iter()
            .filter(|item| item.key.starts_with(SHORT.as_bytes()))
            .collect();
        assert!(short.is_empty(), "{tenant} has keys that outlive their end: {short:?}");
    }
}
