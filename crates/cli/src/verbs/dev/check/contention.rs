//! Step: many clients change one key while its home's leaders are killed. Nothing is lost, nothing happens twice.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use stead_client::{ErrorKind, Increment, Op, ReadOptions, Tenant, WriteOptions};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

const HOME: &str = "eu-west";
const CLIENTS: usize = 64;
const KILLS: usize = 5;
/// Time between two kills.
const REST: Duration = Duration::from_millis(1_500);
/// Timeout of one call: longer than any election.
const CALL: Duration = Duration::from_secs(30);

/// Kind of work that a client repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Increments a counter, in one round trip.
    Count,
    /// Reads, adds, writes on condition that nothing has changed.
    ReadModifyWrite,
    /// Moves a unit from one account to another, in a transaction.
    Move,
}

/// Outcomes of the calls.
#[derive(Debug, Default)]
struct CallTally {
    done: u64,
    /// Calls whose outcome is unknown.
    unknown: u64,
    errors: Vec<String>,
}

/// Transactions and read-modify-write.
pub(super) async fn txn(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let run = format!("txn/{}", world.run);
    let (record, counter) = (format!("{run}/record"), format!("{run}/counter"));
    let (from, to) = (format!("{run}/from"), format!("{run}/to"));
    let keys = [record.clone(), counter.clone(), from.clone(), to.clone()];
    let tallies = contend(world, &tenant, async |work, tenant: Tenant| match work {
        Work::Count => tenant
            .increment_with(keys[1].clone(), Increment::by(1), &patient())
            .await
            .map(drop),
        Work::ReadModifyWrite => tenant
            .update(keys[0].clone(), |item| Some(plus_one(item)))
            .await
            .map(drop),
        Work::Move => {
            let out = Op::increment(keys[2].clone(), Increment::by(-1));
            let txn = tenant
                .txn()
                .then(out)
                .then(Op::increment(keys[3].clone(), Increment::by(1)));
            txn.timeout(CALL).send().await.map(drop)
        }
    })
    .await?;
    let number = async |key: &String| number(&tenant, key).await;
    let mut verdict = Verdict::default();
    let mut calls = 0;
    for (work, key) in [
        (Work::Count, &counter),
        (Work::ReadModifyWrite, &record),
        (Work::Move, &to),
    ] {
        let tally = tallies.get(&work.place()).context("each kind of work was done")?;
        let (held, done) = (number(key).await?, tally.done);
        // A call with unknown outcome may have counted; each successful one has, once.
        let lost = done.saturating_sub(held);
        let twice = held.saturating_sub(done + tally.unknown);
        verdict = verdict
            .none(&format!("lost of {}", work.name()), lost as usize)
            .none("twice", twice as usize)
            .none("errors", tally.errors.len());
        calls += done;
        if let Some(error) = tally.errors.first() {
            verdict = verdict.note(error.clone());
        }
    }
    let unbalanced = sum(&tenant, [&from, &to]).await?;
    let unknown: u64 = tallies.values().map(|tally| tally.unknown).sum();
    Ok(verdict
        .none("units made or lost by moving", unbalanced.unsigned_abs() as usize)
        .note(format!(
            "{CLIENTS} clients, {KILLS} kills, {calls} calls, {unknown} unknown"
        )))
}

/// Appends to one key.
pub(super) async fn append(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let key = format!("append/{}", world.run);
    let until = Instant::now() + REST * KILLS as u32;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(append_until(tenant.clone(), key.clone(), client, until));
    }
    kill_leaders(world, &tenant).await?;
    let (mut appended, mut errors) = (Vec::new(), Vec::new());
    while let Some(done) = clients.join_next().await {
        let (records, error) = done?;
        appended.extend(records);
        errors.extend(error);
    }
    let value = tenant
        .get(key.clone())
        .await?
        .item
        .context("what was appended is gone")?
        .value;
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    for record in value.chunks(RECORD_LEN) {
        *counts.entry(record).or_default() += 1;
    }
    let lost = appended
        .iter()
        .filter(|record| !counts.contains_key(record.as_bytes()))
        .count();
    let twice = counts.values().filter(|count| **count > 1).count();
    let verdict = Verdict::default()
        .none("lost", lost)
        .none("twice", twice)
        .none("errors", errors.len())
        .note(format!(
            "{CLIENTS} clients, {KILLS} kills, {} appends to one key",
            appended.len()
        ));
    Ok(match errors.first() {
        Some(error) => verdict.note(error.clone()),
        None => verdict,
    })
}

const RECORD_LEN: usize = 8;
/// A key holds 1 MiB: this many records of each client stay well below.
const APPENDS_MAX: usize = 1_000;

async fn append_until(tenant: Tenant, key: String, client: usize, until: Instant) -> (Vec<String>, Option<String>) {
    let mut appended = Vec::new();
    for number in 0..APPENDS_MAX {
        if Instant::now() >= until {
            break;
        }
        let record = format!("{client:02}:{number:04};");
        match tenant.append_with(key.clone(), record.clone(), None, &patient()).await {
            Ok(_) => appended.push(record),
            Err(error) => return (appended, Some(error.to_string())),
        }
    }
    (appended, None)
}

/// Lets a third of the clients do each kind of work until the leaders are killed.
async fn contend(
    world: &mut World,
    tenant: &Tenant,
    call: impl AsyncFn(Work, Tenant) -> Result<(), stead_client::Error>,
) -> anyhow::Result<BTreeMap<usize, CallTally>> {
    let until = Instant::now() + REST * KILLS as u32;
    let client = async |number: usize| {
        let work = [Work::Count, Work::ReadModifyWrite, Work::Move][number % 3];
        let mut tally = CallTally::default();
        while Instant::now() < until {
            match call(work, tenant.clone()).await {
                Ok(()) => tally.done += 1,
                Err(error) if matches!(error.kind, ErrorKind::OutcomeUnknown { .. }) => tally.unknown += 1,
                // Conflicts until the timeout: nothing happened.
                Err(error) if matches!(error.kind, ErrorKind::Conflict) => {}
                Err(error) => {
                    tally.errors.push(error.to_string());
                    break;
                }
            }
        }
        (work.place(), tally)
    };
    let clients = futures::future::join_all((0..CLIENTS).map(client));
    let (tallies, killed) = tokio::join!(clients, kill_leaders(world, tenant));
    killed?;
    let mut together: BTreeMap<usize, CallTally> = BTreeMap::new();
    for (work, tally) in tallies {
        let sum = together.entry(work).or_default();
        sum.done += tally.done;
        sum.unknown += tally.unknown;
        sum.errors.extend(tally.errors);
    }
    Ok(together)
}

/// Kills the home's leader again and again; each comes back before the next one is killed.
pub(super) async fn kill_leaders(world: &World, tenant: &Tenant) -> anyhow::Result<()> {
    for _ in 0..KILLS {
        sleep(REST).await;
        let leader = world.leader(tenant).await?;
        world.cluster.lock().await.kill_node(&leader).await?;
        // The others go on meanwhile; a read shows that they do.
        tenant
            .get_with(
                "leader",
                &ReadOptions {
                    timeout: Some(CALL),
                    ..ReadOptions::default()
                },
            )
            .await?;
        world.cluster.lock().await.start_node(&leader)?;
        world.ready().await?;
    }
    Ok(())
}

fn patient() -> WriteOptions {
    WriteOptions {
        timeout: Some(CALL),
        ..WriteOptions::default()
    }
}

fn plus_one(item: Option<&stead_client::Item>) -> bytes::Bytes {
    let number: u64 = item
        .and_then(|item| std::str::from_utf8(&item.value).ok()?.parse().ok())
        .unwrap_or(0);
    (number + 1).to_string().into()
}

async fn number(tenant: &Tenant, key: &str) -> anyhow::Result<u64> {
    let item = tenant.get(key.to_owned()).await?.item;
    let item = item.with_context(|| format!("{key} is gone"))?;
    Ok(std::str::from_utf8(&item.value)?.parse()?)
}

async fn sum(tenant: &Tenant, keys: [&String; 2]) -> anyhow::Result<i64> {
    let both = tenant
        .batch_get(keys.map(|key| key.clone().into()).into(), &ReadOptions::default())
        .await?;
    ensure!(both.items.len() == 2, "a key is missing");
    let mut sum = 0;
    for item in both.items.into_iter().flatten() {
        sum += std::str::from_utf8(&item.value)?.parse::<i64>()?;
    }
    Ok(sum)
}

impl Work {
    fn place(self) -> usize {
        match self {
            Self::Count => 0,
            Self::ReadModifyWrite => 1,
            Self::Move => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Count => "counting",
            Self::ReadModifyWrite => "read-modify-write",
            Self::Move => "moving",
        }
    }
}
