//! Steps: reads of followers, and reads with the writer's token.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{Consistency, ReadOptions, Role, Tenant};
use tokio::{task::JoinSet, time::Instant};

use super::verdict::Verdict;
use crate::verbs::dev::world::{World, until};
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const READS: usize = 300;
/// Tokens, and concurrent pairs of a writer and a reader.
const TOKENS: usize = 10_000;
const PAIRS: usize = 40;
/// As a write at home.
const LOCAL: Duration = Duration::from_micros(1_500);
/// Most time of a wait for a token beside the latency of the link.
const WAITING: Duration = Duration::from_millis(20);

pub(super) async fn follower(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let us = world.tenant("check-eu-west", HOME, "us-east").await?;
    let key = format!("follower/{}", world.run);
    home.put(key.clone(), "v").await?;
    let read = ReadOptions::at(Consistency::Local);
    until("us-east has followed", async || {
        Ok(us.get_with(key.clone(), &read).await?.item.is_some())
    })
    .await?;
    let links = {
        let cluster = world.cluster.lock().await;
        [cluster.link("us-east", HOME)?, cluster.link("us-east", "ap-south")?]
    };
    // A read that left the region would wait for ever.
    links.iter().for_each(stead_testing::Link::cut);
    let taken = reads(&us, &key, &read).await;
    links.iter().for_each(stead_testing::Link::heal);
    let mut taken = taken?;
    Ok(Verdict::default().time("p50, cut off from the others,", percentile(&mut taken, 0.5), LOCAL))
}

async fn reads(tenant: &Tenant, key: &str, read: &ReadOptions) -> anyhow::Result<Vec<Duration>> {
    let mut taken = Vec::with_capacity(READS);
    for _ in 0..READS {
        let asked = Instant::now();
        let got = tenant.get_with(key.to_owned(), read).await?;
        taken.push(asked.elapsed());
        ensure!(got.header.role == Role::Follower, "a node that is no follower answered");
        ensure!(got.item.is_some(), "what had been there is gone");
    }
    Ok(taken)
}

pub(super) async fn session_token(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let ap = world.tenant("check-eu-west", HOME, "ap-south").await?;
    let half = world.cluster.lock().await.link(HOME, "ap-south")?.round_trip() / 2;
    let mut pairs = JoinSet::new();
    for pair in 0..PAIRS {
        let key = format!("token/{}/{pair}", world.run);
        pairs.spawn(write_and_read(home.clone(), ap.clone(), key));
    }
    let (mut taken, mut missed, mut by_follower) = (Vec::new(), 0, 0);
    while let Some(pair) = pairs.join_next().await {
        let reads_done = pair??;
        taken.extend(reads_done.taken);
        missed += reads_done.missed;
        by_follower += reads_done.by_follower;
    }
    let reads_done = taken.len();
    let verdict = Verdict::default().time("p99 of a wait", percentile(&mut taken, 0.99), half + WAITING);
    Ok(verdict
        .none("reads without the write", missed)
        .note(format!("{by_follower} of {reads_done} by the follower")))
}

/// Results of reads with one writer's tokens.
#[derive(Default)]
struct TokenReads {
    taken: Vec<Duration>,
    missed: usize,
    by_follower: usize,
}

/// Writes at home and reads with each token in another region.
async fn write_and_read(home: Tenant, reader: Tenant, key: String) -> anyhow::Result<TokenReads> {
    let mut reads_done = TokenReads::default();
    for at in 0..TOKENS / PAIRS {
        let written = home.put(key.clone(), at.to_string()).await?;
        let token = written.header.token.context("the answer to a put has no token")?;
        let asked = Instant::now();
        let got = reader
            .get_with(key.clone(), &ReadOptions::at(Consistency::Token(token)))
            .await?;
        reads_done.taken.push(asked.elapsed());
        reads_done.missed += usize::from(got.item.is_none_or(|item| item.value != at.to_string()));
        reads_done.by_follower += usize::from(got.header.role == Role::Follower);
    }
    Ok(reads_done)
}
