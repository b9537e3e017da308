//! Step: evidence of what was sent of a tenant to which region, under which version of its record, and where it was erased,
//! beside what was really sent; also when the node that sends is killed.

use std::{collections::BTreeSet, time::SystemTime};

use anyhow::Context;
use stead_client::{
    Admin, Consistency, Followers, ReadOptions, ResidencyEvent, ResidencyRecord, SessionToken, TenantChange,
    TenantDeletion,
};
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::verbs::dev::world::{World, until};

const HOME: &str = "eu-west";
const STAYS: &str = "us-east";
const LEAVES: &str = "ap-south";
const VALUE_LEN: usize = 10_000;
/// Values that are written before the policy changes, after it, and before the node that sends them is killed.
const BEFORE: usize = 200;
const AFTER: usize = 100;
const KILLED: usize = 50;
/// Most that evidence may show beyond the counters of the nodes, where none was killed: batons and the like.
const EXTRA_PART: f64 = 0.02;

/// Sum of what was sent to a region under versions of the tenant's record from one on.
#[derive(Default)]
struct Sent {
    bytes: u64,
    records: usize,
}

fn sent(records: &[ResidencyRecord], region: &str, from: &Policy) -> Sent {
    let mut sum = Sent::default();
    for record in records.iter().filter(|record| record.region == region) {
        if let ResidencyEvent::Sent {
            policy_first, bytes, ..
        } = &record.event
            && Policy::parse(policy_first) >= *from
        {
            sum.bytes += bytes;
            sum.records += 1;
        }
    }
    sum
}

fn display(record: &ResidencyRecord) -> String {
    let region = &record.region;
    match &record.event {
        ResidencyEvent::Sent {
            policy_first, bytes, ..
        } => format!("{bytes} bytes to {region} under {policy_first}"),
        ResidencyEvent::Erased { group, .. } => format!("erased in g{group} of {region}"),
    }
}

fn erased(records: &[ResidencyRecord]) -> BTreeSet<&str> {
    let is_erased = |record: &&ResidencyRecord| matches!(record.event, ResidencyEvent::Erased { .. });
    records
        .iter()
        .filter(is_erased)
        .map(|record| &record.region[..])
        .collect()
}

/// Version of a tenant's record, in the order of its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Policy(u64, u64);

impl Policy {
    fn parse(text: &str) -> Self {
        let numbers = text.split_once('/');
        let parsed = numbers.and_then(|(one, other)| Some(Self(one.parse().ok()?, other.parse().ok()?)));
        parsed.unwrap_or_default()
    }
}

struct Evidence {
    name: String,
    admin: Admin,
}

impl Evidence {
    async fn records(&self) -> anyhow::Result<Vec<ResidencyRecord>> {
        Ok(self.admin.residency(&self.name).await?)
    }

    async fn policy(&self) -> anyhow::Result<Policy> {
        Ok(Policy::parse(&self.admin.tenant(&self.name).await?.etag))
    }

    /// Waits until the directory has evidence of so many bytes to a region under versions from one on.
    async fn wait_for(&self, region: &str, from: &Policy, bytes: usize) -> anyhow::Result<()> {
        until("evidence of what was sent", async || {
            Ok(sent(&self.records().await?, region, from).bytes >= bytes as u64)
        })
        .await
    }
}

/// Writes values at home, and returns once regions have them.
async fn write(world: &mut World, name: &str, count: usize, regions: &[&str]) -> anyhow::Result<()> {
    let home = world.tenant(name, HOME, HOME).await?;
    let mut token: Option<SessionToken> = None;
    for at in 0..count {
        // Random bytes, so that compression hides nothing.
        let value: Vec<u8> = (0..VALUE_LEN).map(|_| rand::random()).collect();
        token = home.put(format!("{count}/{at:04}"), value).await?.header.token;
    }
    let token = token.context("nothing was written")?;
    for region in regions {
        let tenant = world.tenant(name, HOME, region).await?;
        let read = ReadOptions::at(Consistency::Token(token));
        tenant.get_with(format!("{count}/0000"), &read).await?;
    }
    Ok(())
}

/// Returns the bytes before compression that nodes have counted from the home's region to another.
async fn counted(world: &World, to: &str) -> anyhow::Result<u64> {
    let nodes = world.cluster.lock().await.nodes().to_vec();
    let (from, to) = (format!("from_region=\"{HOME}\""), format!("to_region=\"{to}\""));
    let mut sum = 0;
    for node in nodes {
        let metrics = node.metrics().await?;
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("stead_feed_raw_bytes_total{"));
        let lines = lines.filter(|line| line.contains(&from) && line.contains(&to));
        sum += lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-evidence-{}", world.run);
    let began = Instant::now();
    world.tenant(&name, HOME, HOME).await?;
    let evidence = Evidence {
        admin: world.client(HOME).await?.admin(),
        name: name.clone(),
    };
    let (all, counted_before) = (Policy::default(), counted(world, STAYS).await?);
    write(world, &name, BEFORE, &[STAYS, LEAVES]).await?;
    for region in [STAYS, LEAVES] {
        evidence.wait_for(region, &all, BEFORE * VALUE_LEN).await?;
    }
    let named = TenantChange {
        name: name.clone(),
        followers: Some(Followers::Regions(vec![STAYS.to_owned()])),
        reason: "dev --check".to_owned(),
        ..TenantChange::default()
    };
    evidence.admin.update_tenant(named).await?;
    let changed = evidence.policy().await?;
    until("the region that was left has erased the tenant", async || {
        Ok(erased(&evidence.records().await?).contains(LEAVES))
    })
    .await?;
    write(world, &name, AFTER, &[STAYS]).await?;
    evidence.wait_for(STAYS, &changed, AFTER * VALUE_LEN).await?;
    let records = evidence.records().await?;
    let (shown, really) = (
        sent(&records, STAYS, &all).bytes,
        counted(world, STAYS).await? - counted_before,
    );
    let written = ((BEFORE + AFTER) * VALUE_LEN) as u64;
    let difference = (shown as f64 - really as f64) / really as f64;
    let left = sent(&records, LEAVES, &changed);
    let killed = kill_sender(world, &evidence).await?;
    let everywhere = erase(&evidence).await?;
    let shown_records: Vec<String> = records.iter().map(display).collect();
    Ok(Verdict::default()
        .none("bytes that are missing", written.saturating_sub(shown) as usize)
        .number("more than counted", difference * 100.0, EXTRA_PART * 100.0, "%")
        .none("sent to the region that was left", left.records)
        .none("bytes that are missing after a kill", killed)
        .none("regions without their erasure", 3 - everywhere)
        .note(format!(
            "{}; {shown} bytes in evidence for {STAYS}, {really} counted, {written} written, in {} s",
            shown_records.join(", "),
            began.elapsed().as_secs()
        )))
}

/// Kills the node that sends what was just written, before it has reported that; returns how many bytes are missing in the
/// end.
async fn kill_sender(world: &mut World, evidence: &Evidence) -> anyhow::Result<usize> {
    let all = Policy::default();
    let before = sent(&evidence.records().await?, STAYS, &all).bytes;
    let home = world.tenant(&evidence.name, HOME, HOME).await?;
    let leader = world.leader(&home).await?;
    write(world, &evidence.name, KILLED, &[STAYS]).await?;
    world.cluster.lock().await.kill_node(&leader).await?;
    world.cluster.lock().await.start_node(&leader)?;
    world.ready().await?;
    let expected = before + (KILLED * VALUE_LEN) as u64;
    let shows_all = until("evidence after a kill", async || {
        Ok(sent(&evidence.records().await?, STAYS, &all).bytes >= expected)
    });
    shows_all.await?;
    let after = sent(&evidence.records().await?, STAYS, &all).bytes;
    Ok(expected.saturating_sub(after) as usize)
}

/// Erases the tenant; returns in how many regions evidence shows that.
async fn erase(evidence: &Evidence) -> anyhow::Result<usize> {
    for erase in [false, true] {
        let deletion = TenantDeletion {
            name: evidence.name.clone(),
            erase,
            reason: "dev --check".to_owned(),
            ..TenantDeletion::default()
        };
        evidence.admin.delete_tenant(deletion).await?;
    }
    until("the tenant is erased everywhere", async || {
        Ok(erased(&evidence.records().await?).len() == 3)
    })
    .await?;
    let records = evidence.records().await?;
    let now = SystemTime::now();
    let is_past = |record: &ResidencyRecord| match record.event {
        ResidencyEvent::Erased { time, .. } => time <= now,
        ResidencyEvent::Sent { first, last, .. } => first <= last,
    };
    anyhow::ensure!(
        records.iter().all(is_past),
        "evidence shows times that are not past: {records:?}"
    );
    Ok(erased(&records).len())
}
