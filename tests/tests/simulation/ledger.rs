//! Ledger of calls that register histories do not cover: increments, transactions over two keys, keys with a TTL.
//!
//! Their keys are apart from those of the histories. At the end each number is at least the sum of the acknowledged
//! calls, and at most that plus those of unknown outcome; transfers between two keys keep their sum; no key outlives
//! its TTL.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use rand::{Rng, rngs::StdRng};
use stead_client::{
    Client, Condition, Error, ErrorKind, Increment, Op, Operand, ReadOptions, Relation, ScanOptions, Tenant,
    WriteOptions,
};
use tokio::time::{Instant, sleep_until};

/// Prefix of all its keys.
pub(crate) const PREFIX: &str = "n/";
const COUNT: &str = "n/count";
const FROM: &str = "n/from";
const TO: &str = "n/to";
const SHORT: &str = "n/short/";
/// Key that is written at the end, to see who serves.
pub(crate) const SERVED: &str = "n/served";
/// Longest time for the final read.
const CHECK_MAX: Duration = Duration::from_secs(20);
/// TTL of the keys of [`SHORT`].
const TTL: Duration = Duration::from_millis(600);
/// When such a key is read, and until when it must exist: logged time goes at most a tenth faster than a clock, and the
/// time of a tenant that was moved to a group with a later clock a tenth faster than that.
const LOOKED_AT: Duration = Duration::from_millis(350);
const THERE_UNTIL: Duration = Duration::from_millis(490);
const SWAPPED: &str = "n/swapped";
const BIG: &str = "n/big/";
/// Length of values that make logs and snapshots long.
const BIG_LEN: std::ops::Range<usize> = 10_000..60_000;
/// Number of keys with such values.
const BIG_KEYS: u32 = 3;

/// Outcomes of calls, by tenant. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct CounterLedger(Rc<RefCell<BTreeMap<String, Tally>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    counted: Calls,
    moved: Calls,
    swapped: Calls,
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

    /// Returns whether a number can be the sum of these calls.
    fn admit(self, number: i64) -> bool {
        (self.done..=self.done + self.unknown).contains(&number)
    }
}

impl CounterLedger {
    /// Makes one random call.
    pub(crate) async fn act(&self, tenant: &Tenant, session: u32, within: Duration, random: &mut StdRng) {
        let write = WriteOptions {
            timeout: Some(within),
            ..WriteOptions::default()
        };
        match random.random_range(0..10) {
            0..2 => {
                let outcome = tenant.increment_with(COUNT, Increment::by(1), &write).await;
                self.tally(tenant, |tally| tally.counted.note(&outcome));
            }
            2..4 => {
                let out = Op::increment(FROM, Increment::by(-1));
                let txn = tenant.txn().then(out).then(Op::increment(TO, Increment::by(1)));
                let outcome = txn.timeout(within).send().await;
                self.tally(tenant, |tally| tally.moved.note(&outcome));
            }
            4..7 => self.swap(tenant, within).await,
            7 => {
                let value = vec![b'x'; random.random_range(BIG_LEN)];
                let key = format!("{BIG}{}", session % BIG_KEYS);
                let _ = tenant.put_with(key, value, &write).await;
            }
            _ => self.expire(tenant, session, &write).await,
        }
    }

    /// Writes a key with a TTL, and reads it before its end: no clock expires it too early.
    async fn expire(&self, tenant: &Tenant, session: u32, write: &WriteOptions) {
        let key = format!("{SHORT}{session}");
        let sent = Instant::now();
        // It may take effect after its deadline: it expires all the same.
        let put = tenant.put_expiring(key.clone(), "x", TTL, write).await;
        if put.is_err() {
            return;
        }
        sleep_until(sent + LOOKED_AT).await;
        if let Ok(got) = tenant.get(key).await
            && sent.elapsed() < THERE_UNTIL
        {
            assert!(got.item.is_some(), "{} has lost a key before its TTL", tenant.name());
        }
    }

    /// Increments a key by compare-and-swap: a read, and a transaction on condition that the key is unchanged.
    async fn swap(&self, tenant: &Tenant, within: Duration) {
        let Ok(got) = tenant.get(SWAPPED).await else { return };
        let (condition, next) = match &got.item {
            None => (Condition::Absent, 1),
            Some(item) => {
                let held = Condition::Compared(Relation::Equal, Operand::Value(item.value.clone()));
                (
                    held,
                    std::str::from_utf8(&item.value).unwrap().parse::<i64>().unwrap() + 1,
                )
            }
        };
        let txn = tenant.txn().when(SWAPPED, condition);
        let outcome = txn
            .then(Op::put(SWAPPED, next.to_string()))
            .timeout(within)
            .send()
            .await;
        if !matches!(&outcome, Ok(done) if !done.succeeded) {
            self.tally(tenant, |tally| tally.swapped.note(&outcome));
        }
    }

    fn tally(&self, tenant: &Tenant, note: impl FnOnce(&mut Tally)) {
        note(self.0.borrow_mut().entry(tenant.name().to_string()).or_default());
    }

    /// Compares a tenant's final state with the recorded outcomes.
    pub(crate) async fn check(&self, client: &Client, tenant: &str) {
        let tally = self.0.borrow().get(tenant).copied().unwrap_or_default();
        let scan = ScanOptions {
            prefix: PREFIX.into(),
            read: ReadOptions::default(),
            ..ScanOptions::default()
        };
        let until = Instant::now() + CHECK_MAX;
        let page = loop {
            match client.tenant(tenant).unwrap().scan(&scan).await {
                Ok(page) => break page,
                Err(error) => assert!(Instant::now() < until, "{tenant} cannot be read at the end: {error}"),
            }
        };
        let number = |key: &str| -> i64 {
            let item = page.items.iter().find(|item| item.key == key);
            item.map_or(0, |item| std::str::from_utf8(&item.value).unwrap().parse().unwrap())
        };
        let (count, from, to) = (number(COUNT), number(FROM), number(TO));
        let swapped = number(SWAPPED);
        assert!(
            tally.swapped.admit(swapped),
            "{tenant} has swapped {swapped}: {tally:?}"
        );
        assert!(tally.counted.admit(count), "{tenant} has counted {count}: {tally:?}");
        assert!(tally.moved.admit(to), "{tenant} has moved {to}: {tally:?}");
        assert_eq!(from + to, 0, "the sum of {tenant}'s transfers has changed");
        let short: Vec<_> = page
            .items
            .iter()
            .filter(|item| item.key.starts_with(SHORT.as_bytes()))
            .collect();
        assert!(short.is_empty(), "{tenant} has keys that outlive their TTL: {short:?}");
    }
}
