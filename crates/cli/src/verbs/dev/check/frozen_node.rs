//! Step: a follower of the home is frozen while callers without routes use its nodes in turn, as stock gRPC clients do.
//! Its unfinished calls are retried at the next node under their keys, and no outcome stays unknown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use stead_api::{
    net::Keepalive,
    proto::v1::{IdempotencyKey, IncrementRequest, ResponseHeader, kv_service_client::KvServiceClient},
    status,
};
use stead_client::{Error, ErrorKind};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::{ClientChannel, World};
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
const PER_SECOND: u32 = 700;
const TICK: Duration = Duration::from_millis(10);
/// Times before the node is frozen, while it is, and afterwards.
const WARM_UP: Duration = Duration::from_secs(2);
const FROZEN: Duration = Duration::from_secs(14);
const COOL_DOWN: Duration = Duration::from_secs(2);
/// Timeout of `proto/service_config.json`, and the keepalive that `proto/README.md` recommends.
const ATTEMPT: Duration = Duration::from_secs(10);
const KEEPALIVE: Keepalive = Keepalive {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
};
/// Longest time in which a write is retried: its outcome is remembered for a minute.
const RETRY_WINDOW: Duration = Duration::from_secs(55);
const RETRY_WAIT: Duration = Duration::from_millis(20);
const P99: Duration = Duration::from_secs(3);

type KvClient = KvServiceClient<ClientChannel>;

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let key = format!("frozen/{}", world.run);
    let put = tenant.put(key.clone(), "0").await?;
    let leader = world.leader(&tenant).await?;
    let nodes = nodes(world).await?;
    let follower = nodes.iter().map(|(name, _)| name).find(|name| **name != leader);
    let follower = follower.context("the home has no follower")?.clone();
    let caller = Caller {
        nodes: nodes.into_iter().map(|(_, service)| service).collect(),
        key: key.clone(),
        client: rand::random(),
        seen: Arc::new(AtomicU64::new(put.header.tenant_time.0)),
    };
    let calls = tokio::spawn(load(caller, WARM_UP + FROZEN + COOL_DOWN));
    sleep(WARM_UP).await;
    world.cluster.lock().await.freeze_node(&follower)?;
    sleep(FROZEN).await;
    world.cluster.lock().await.thaw_node(&follower)?;
    let mut calls = calls.await?;
    world.ready().await?;

    let item = tenant.get(key).await?.item.context("the counter is gone")?;
    let held: usize = std::str::from_utf8(&item.value)?.parse()?;
    let done = calls.took.len();
    let verdict = Verdict::default()
        .none("unknown", calls.unknown)
        .none("lost", done.saturating_sub(held))
        .none("twice", held.saturating_sub(done + calls.unknown))
        .none("errors", calls.errors.len())
        .time("p99", percentile(&mut calls.took, 0.99), P99)
        .note(format!(
            "{done} increments of one client, {} answered by their first outcome, {follower} frozen for {} s",
            calls.repeated,
            FROZEN.as_secs()
        ));
    Ok(match calls.errors.first() {
        Some(error) => verdict.note(error.clone()),
        None => verdict,
    })
}

/// Returns the nodes of the home by name, each with a connection of its own.
async fn nodes(world: &World) -> anyhow::Result<Vec<(String, KvClient)>> {
    let cluster = world.cluster.lock().await;
    let of_home = cluster.nodes().iter().filter(|node| node.region == HOME);
    let open = |node: &stead_testing::cluster::Node| -> anyhow::Result<(String, KvClient)> {
        let channel = world.channel(HOME, &node.client, KEEPALIVE)?;
        Ok((node.name.clone(), KvServiceClient::new(channel)))
    };
    of_home.map(open).collect()
}

/// Outcomes of the calls.
#[derive(Default)]
struct CallOutcomes {
    took: Vec<Duration>,
    repeated: usize,
    unknown: usize,
    errors: Vec<String>,
}

async fn load(caller: Caller, lasts: Duration) -> CallOutcomes {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut sent, mut under_way, mut calls) = (Instant::now(), 0, JoinSet::new(), CallOutcomes::default());
    while began.elapsed() < lasts {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(PER_SECOND)) as u64;
        while sent < due {
            sent += 1;
            under_way.spawn(caller.clone().increment(sent));
        }
    }
    while let Some(ended) = under_way.join_next().await {
        match ended {
            Ok(Ok((took, repeated))) => {
                calls.took.push(took);
                calls.repeated += usize::from(repeated);
            }
            Ok(Err(None)) => calls.unknown += 1,
            Ok(Err(Some(error))) => calls.errors.push(error.to_string()),
            Err(error) => calls.errors.push(error.to_string()),
        }
    }
    calls
}

/// Client that sends each call to the next of several nodes.
#[derive(Clone)]
struct Caller {
    nodes: Vec<KvClient>,
    key: String,
    client: [u8; 16],
    /// Highest tenant time of all responses.
    seen: Arc<AtomicU64>,
}

impl Caller {
    /// Increments once, with retries. Returns the latency, and whether the response was the outcome of an earlier
    /// attempt; `Err(None)` for an unknown outcome.
    async fn increment(self, sequence: u64) -> Result<(Duration, bool), Option<Error>> {
        let request = IncrementRequest {
            tenant: "check-eu-west".into(),
            key: self.key.clone().into(),
            delta: 1,
            idempotency_key: Some(IdempotencyKey {
                client_id: self.client.to_vec().into(),
                sequence,
                first_sent_ms: self.seen.load(Ordering::Relaxed),
            }),
            ..IncrementRequest::default()
        };
        let began = Instant::now();
        let turns = self.nodes.iter().cycle().skip(sequence as usize % self.nodes.len());
        for service in turns {
            if began.elapsed() > RETRY_WINDOW {
                break;
            }
            let answer = timeout(ATTEMPT, service.clone().increment(request.clone())).await;
            match answer {
                Ok(Ok(counted)) => {
                    let counted = counted.into_inner();
                    let time = counted.header.map_or(0, |header: ResponseHeader| header.tenant_time_ms);
                    self.seen.fetch_max(time, Ordering::Relaxed);
                    return Ok((began.elapsed(), counted.repeated_outcome));
                }
                Ok(Err(refusal)) => {
                    let error = status::from_status(&refusal);
                    if matches!(error.kind, ErrorKind::IdempotencyExpired { .. }) {
                        return Err(None);
                    }
                    if let ErrorKind::RateLimited { wait, .. } = error.kind {
                        sleep(wait).await;
                    } else if error.is_transient() || !error.has_no_effect() {
                        sleep(RETRY_WAIT).await;
                    } else {
                        return Err(Some(error));
                    }
                }
                Err(_) => {}
            }
        }
        Err(None)
    }
}
