//! Load: clients that write and read, each with a session of its own, and record their histories.

use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_client::{Client, Config, Consistency, Error, Header, Item, ReadOptions, ScanOptions, Tenant, WriteOptions};
use stead_tests::history::{self, Call, Level, PendingCall, Recorder};
use tokio::sync::watch;

use crate::{
    cluster::{self, NODES_PER_REGION, REGIONS},
    freshness::{self, FreshnessChecker},
    leases::LeaseChecker,
    ledger::{self, CounterLedger},
    network,
};

/// The tenants and the region that is home to each.
pub(crate) const TENANTS: [(&str, usize); 4] = [("acme", 0), ("globex", 1), ("initech", 2), ("umbrella", 0)];
/// The tenant that only one other region follows, and that region: a source may leave its replica set.
pub(crate) const FEW_FOLLOWERS: (&str, usize) = ("initech", 0);
/// The tenant whose writes are acknowledged once another region has them: a promotion may not lose one of these, nor what a
/// read has shown, however long its home was silent.
pub(crate) const REMOTE_TENANT: &str = "umbrella";
/// Keys of each tenant that are never deleted.
const KEYS: [&str; 4] = ["a/1", "a/2", "b/1", "b/2"];
/// Key that is also deleted: checking it takes longest, so it is used seldom.
const REMOVED_KEY: &str = "c/1";
/// Timeouts of calls: with the first some fail before another node is asked, with the second they outlast every fault.
pub(crate) const CALL_MAX: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];
/// Staleness bound of bounded reads.
const BOUND: Duration = Duration::from_millis(500);
const PAUSE_MS_MAX: u64 = 80;
/// One in so many calls goes to the [`CounterLedger`].
const LEDGER_ONE_IN: u32 = 6;

/// Phase of a run, which says what the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Wait for the tenants.
    Starting,
    /// Write and read.
    Working,
    /// Finish.
    Ending,
}

/// One client in one region.
pub(crate) struct Worker {
    pub(crate) session: u32,
    pub(crate) region: usize,
    pub(crate) seed: u64,
    pub(crate) recorder: Recorder,
    pub(crate) freshness: FreshnessChecker,
    pub(crate) leases: LeaseChecker,
    pub(crate) ledger: CounterLedger,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// Returns the configuration of a client in a region.
pub(crate) fn config(region: usize, seed: u64) -> Config {
    let nodes = region * NODES_PER_REGION..(region + 1) * NODES_PER_REGION;
    Config {
        region: Some(REGIONS[region].0.parse().unwrap()),
        timeout: CALL_MAX[0],
        connect: network::connect(),
        seed: Some(seed),
        ..Config::new(nodes.map(cluster::client_address))
    }
}

impl Worker {
    pub(crate) async fn run(mut self) -> turmoil::Result {
        self.phase.wait_for(|phase| *phase != Phase::Starting).await?;
        let mut random = StdRng::seed_from_u64(self.seed);
        let client = Client::lazy(config(self.region, self.seed))?;
        let tenants: Vec<Tenant> = TENANTS
            .iter()
            .map(|(name, _)| client.tenant(name))
            .collect::<Result<_, _>>()?;
        let mut number = 0;
        while *self.phase.borrow() == Phase::Working {
            number += 1;
            // Half of a client's calls go to one tenant, so that its session has many of them.
            let mine = random.random_range(0..2) == 0;
            let tenant = if mine {
                self.session as usize
            } else {
                random.random_range(0..TENANTS.len())
            };
            let session = TenantSession {
                recorder: &self.recorder,
                freshness: &self.freshness,
                leases: &self.leases,
                session: self.session,
                tenant: &tenants[tenant % TENANTS.len()],
                within: CALL_MAX[random.random_range(0..CALL_MAX.len())],
            };
            if random.random_range(0..LEDGER_ONE_IN) == 0 {
                let (tenant, within) = (session.tenant, session.within);
                self.ledger.act(tenant, self.session, within, &mut random).await;
            } else {
                session.act(number, &mut random).await;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..PAUSE_MS_MAX))).await;
        }
        Ok(())
    }
}

/// Recorded session of a client with one tenant.
pub(crate) struct TenantSession<'a> {
    pub(crate) recorder: &'a Recorder,
    pub(crate) freshness: &'a FreshnessChecker,
    pub(crate) leases: &'a LeaseChecker,
    pub(crate) session: u32,
    pub(crate) tenant: &'a Tenant,
    /// Timeout of each call.
    pub(crate) within: Duration,
}

impl TenantSession<'_> {
    async fn act(&self, number: u32, random: &mut StdRng) {
        let removed = random.random_range(0..16) == 0;
        let key = if removed {
            REMOVED_KEY
        } else {
            KEYS[random.random_range(0..KEYS.len())]
        };
        // A local read may show what is cut later.
        let local = if self.name() == REMOTE_TENANT {
            Level::Linearizable
        } else {
            Level::Local
        };
        match random.random_range(0..100) {
            0..40 if removed && number.is_multiple_of(2) => self.delete(key).await,
            0..40 => self.put(key, format!("{}-{number}", self.session)).await,
            40..60 => self.get(key, Level::Linearizable).await,
            60..75 => self.get(key, Level::Session).await,
            75..80 => self.get(key, Level::Bounded).await,
            80..90 => self.get(key, local).await,
            90..94 => self.scan(&key[..2], Level::Session).await,
            94..97 => self.scan("", local).await,
            _ => self.scan(&key[..2], Level::Linearizable).await,
        }
    }

    async fn put(&self, key: &'static str, value: String) {
        let value = Bytes::from(value);
        let (key, value) = (Bytes::from_static(key.as_bytes()), value);
        let sent = freshness::now();
        let pending = self.invoke(Call::Put {
            key: key.clone(),
            value: value.clone(),
        });
        match self.tenant.put_with(key, value, &self.write()).await {
            Ok(written) => {
                let header = written.header;
                tracing::info!(session = self.session, revision = %header.revision, written.repeated, "put");
                self.freshness.acknowledged(self.name(), header.revision);
                self.leases.check(self.name(), sent, &header);
                pending.complete_write(header.revision, true);
            }
            Err(error) => self.failed(pending, &error),
        }
    }

    async fn delete(&self, key: &'static str) {
        let sent = freshness::now();
        let pending = self.invoke(Call::Delete { key: key.into() });
        match self.tenant.delete_with(key, &self.write()).await {
            Ok(deleted) => {
                self.leases.check(self.name(), sent, &deleted.header);
                let revision = deleted.header.revision;
                tracing::info!(session = self.session, %revision, deleted.existed, "deleted");
                pending.complete_write(revision, deleted.existed);
            }
            Err(error) => self.failed(pending, &error),
        }
    }

    pub(crate) async fn get(&self, key: &'static str, level: Level) {
        let pending = self.invoke(Call::Get { key: key.into(), level });
        let sent = freshness::now();
        match self.tenant.get_with(key, &self.read_at(level)).await {
            Ok(got) => {
                self.check_freshness(sent, &got.header, level);
                self.read(pending, &got.header, got.item.into_iter().collect());
            }
            Err(error) => self.failed_read(pending, &error),
        }
    }

    pub(crate) async fn scan(&self, prefix: &'static str, level: Level) {
        let prefix = Bytes::from_static(prefix.as_bytes());
        let pending = self.invoke(Call::Scan {
            prefix: prefix.clone(),
            level,
        });
        let scan = ScanOptions {
            prefix,
            read: self.read_at(level),
            ..ScanOptions::default()
        };
        let sent = freshness::now();
        match self.tenant.scan(&scan).await {
            Ok(page) => {
                self.check_freshness(sent, &page.header, level);
                self.read(pending, &page.header, page.items);
            }
            Err(error) => self.failed_read(pending, &error),
        }
    }

    fn invoke(&self, call: Call) -> PendingCall {
        self.recorder.invoke(self.name(), self.session, call)
    }

    fn write(&self) -> WriteOptions {
        WriteOptions {
            timeout: Some(self.within),
            ..WriteOptions::default()
        }
    }

    fn read_at(&self, level: Level) -> ReadOptions {
        let consistency = match level {
            Level::Linearizable => Consistency::Linearizable,
            Level::Session => Consistency::Session,
            Level::Bounded => Consistency::Bounded(BOUND),
            Level::Local => Consistency::Local,
        };
        ReadOptions {
            timeout: Some(self.within),
            ..ReadOptions::at(consistency)
        }
    }

    fn name(&self) -> &str {
        self.tenant.name().as_str()
    }

    fn check_freshness(&self, sent: Duration, header: &Header, level: Level) {
        let bound = (level == Level::Bounded).then_some(BOUND);
        self.freshness.check(self.name(), sent, header, bound);
        if level == Level::Linearizable {
            self.leases.check(self.name(), sent, header);
        }
    }

    fn read(&self, pending: PendingCall, header: &Header, items: Vec<Item>) {
        tracing::info!(session = self.session, revision = %header.revision, node = %header.node, header.forwarded, "read");
        let of_histories = items
            .into_iter()
            .filter(|item| !item.key.starts_with(ledger::PREFIX.as_bytes()));
        pending.complete_read(header.revision, of_histories.map(item).collect());
    }

    fn failed(&self, pending: PendingCall, error: &Error) {
        let no_effect = error.has_no_effect();
        tracing::info!(session = self.session, no_effect, %error, "a write failed");
        self.leases.failed(error);
        if no_effect {
            pending.discard();
        }
    }

    fn failed_read(&self, pending: PendingCall, error: &Error) {
        tracing::info!(session = self.session, %error, "a read failed");
        self.leases.failed(error);
        pending.discard();
    }
}

fn item(item: Item) -> history::Item {
    history::Item {
        key: item.key,
        value: item.value,
        created: item.created,
        modified: item.modified,
        version: item.version,
    }
}
