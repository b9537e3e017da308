//! Step: all nodes of a home are killed for longer than its keys live. Logged time stands still while nobody can renew
//! them: keys that are renewed survive, and a lock stays with its living holder.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures::future::join_all;
use stead_client::{Condition, Operand, Relation, Tenant, WriteOptions, recipes::Lock};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::{World, until};

const HOME: &str = "eu-west";
const KEYS: usize = 50;
const TTL: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(3);
const RETRY_WAIT: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_secs(7);
const OUTAGE: Duration = Duration::from_secs(15);
/// Most time until a key without a holder expires: its time to live, which may have been renewed just before, a tenth
/// slower at most.
const END: Duration = Duration::from_secs(14);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let prefix = format!("outage/{}", world.run);
    let (stop, stopped) = watch::channel(false);
    let names = (0..KEYS)
        .map(|at| format!("{prefix}/{at}"))
        .chain([format!("{prefix}/lock")]);
    let holders: Vec<JoinHandle<anyhow::Result<()>>> = names
        .map(|key| tokio::spawn(hold(home.clone(), key, stopped.clone())))
        .collect();
    sleep(WARM_UP).await;
    let contender = tokio::spawn(contend(home.clone(), format!("{prefix}/lock")));
    outage(world).await?;
    until("the home serves", async || {
        home.get(format!("{prefix}/0")).await?;
        Ok(true)
    })
    .await?;
    // As long again as nobody could renew.
    sleep(OUTAGE).await;
    let present = present(&home, &prefix).await?;
    let is_taken = contender.is_finished();
    // `stop` has receivers: the holders have not ended.
    stop.send(true).ok().context("nobody holds anything")?;
    let ended = join_all(holders).await;
    let lost = ended.into_iter().filter(|ended| !matches!(ended, Ok(Ok(())))).count();
    let let_go = Instant::now();
    let taken = contender.await?;
    let freed = let_go.elapsed();
    taken?;
    until("keys without a holder end", async || {
        Ok(self::present(&home, &prefix).await? == 0)
    })
    .await?;
    Ok(Verdict::default()
        .none("lost", lost.max(KEYS - present))
        .none("locks taken from their holder", usize::from(is_taken))
        .time("free when its holder is gone", freed, END)
        .time("all gone", let_go.elapsed(), END))
}

/// Creates a key, and renews it until it is stopped. Fails if the key has expired meanwhile.
async fn hold(home: Tenant, key: String, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let first = WriteOptions {
        precondition: Some(Condition::Absent),
        ..WriteOptions::default()
    };
    let token = home
        .put_expiring(key.clone(), "held", TTL, &first)
        .await?
        .header
        .revision;
    let mine = Condition::Compared(Relation::Equal, Operand::Created(token));
    let renewal = Arc::new(WriteOptions {
        precondition: Some(mine),
        ..WriteOptions::default()
    });
    let mut next = Instant::now() + RENEW_EVERY;
    while !*stopped.borrow() {
        sleep(RETRY_WAIT).await;
        if Instant::now() < next {
            continue;
        }
        match home.put_expiring(key.clone(), "held", TTL, &renewal).await {
            Ok(_) => next = Instant::now() + RENEW_EVERY,
            Err(error) if matches!(error.kind, stead_client::ErrorKind::ConditionFailed { .. }) => {
                return Err(error).context("it went while it was renewed");
            }
            // Retried soon.
            Err(_) => {}
        }
    }
    Ok(())
}

/// Waits for a held lock, and acquires it.
async fn contend(home: Tenant, key: String) -> anyhow::Result<()> {
    let lock = Lock::new(&home, key, TTL)?.acquire().await?;
    lock.release().await?;
    Ok(())
}

async fn outage(world: &World) -> anyhow::Result<()> {
    let nodes = world.cluster.lock().await.named(HOME)?;
    let mut cluster = world.cluster.lock().await;
    for node in &nodes {
        cluster.kill_node(node).await?;
    }
    drop(cluster);
    sleep(OUTAGE).await;
    world.cluster.lock().await.start_all()?;
    Ok(())
}

async fn present(home: &Tenant, prefix: &str) -> anyhow::Result<usize> {
    let mut present = 0;
    for at in 0..KEYS {
        let got = home.get(format!("{prefix}/{at}")).await?;
        present += usize::from(got.item.is_some());
    }
    Ok(present)
}
