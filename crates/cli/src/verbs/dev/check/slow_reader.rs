//! Step: slow reader. 900 scans of 10,000 keys at a node that is not the leader, by a caller that reads nothing: memory is
//! bounded, what is too much is refused by the limit's name, leadership stays, and another tenant is served at the same
//! node.

use std::{future::Future, pin::Pin, task::Poll, time::Duration};

use anyhow::Context;
use futures::future::poll_fn;
use stead_api::{
    net::Keepalive,
    proto::v1::{GetRequest, PutRequest, ScanRequest, kv_service_client::KvServiceClient},
    status,
};
use stead_client::{Error, ErrorKind, Tenant};
use stead_testing::{load::percentile, process};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::{ClientChannel, World};

const HOME: &str = "eu-west";
const KEYS: usize = 10_000;
const VALUE_LEN: usize = 200;
const WRITERS: usize = 64;
const SCANS: usize = 900;
/// Time in which the caller reads nothing.
const UNREAD: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(5);
const MEMORY_MIB: f64 = 512.0;
/// Most factor by which the p99 of the other tenant's puts grows.
const TIMES_MAX: f64 = 3.0;
/// Longest time for one call of the other tenant.
const CALL_MAX: Duration = Duration::from_secs(10);

type KvClient = KvServiceClient<ClientChannel>;

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let loud = world.tenant("check-slow-reader", HOME, HOME).await?;
    let quiet = world.tenant("check-eu-west", HOME, HOME).await?;
    fill(&loud).await?;
    let leader = world.leader(&loud).await?;
    let node = follower(world, &leader).await?;
    let mut alone = calls(kv_at(world, &node).await?, &world.run, MEASURED).await?;
    let began = Instant::now();
    let scans = Unread::begin(kv_at(world, &node).await?).await;
    let mut beside = calls(
        kv_at(world, &node).await?,
        &world.run,
        UNREAD.saturating_sub(began.elapsed()),
    )
    .await;
    let memory = memory(world).await?;
    let stays = world.leader(&quiet).await? == leader;
    let Answers {
        served,
        refused,
        late,
        other,
    } = scans.read().await;
    let (before, after) = match &mut beside {
        Ok(beside) => (percentile(&mut alone, 0.99), percentile(beside, 0.99)),
        Err(_) => (Duration::from_millis(1), CALL_MAX),
    };
    let times = after.as_secs_f64() / before.as_secs_f64().max(1e-6);
    let verdict = Verdict::default()
        .none("changes of leader", usize::from(!stays))
        .none("scans that ended otherwise", other)
        .number("largest node", memory, MEMORY_MIB, "MiB")
        .number("p99 of another tenant", times, TIMES_MAX, "times that alone")
        .note(format!(
            "{served} of {SCANS} scans served, {refused} refused for a limit, {late} past their deadline, at {node}"
        ));
    Ok(match beside {
        Ok(_) => verdict,
        Err(error) => verdict.none("tenants that got nothing", 1).note(error.to_string()),
    })
}

async fn fill(tenant: &Tenant) -> anyhow::Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let tenant = tenant.clone();
        writers.spawn(async move {
            for at in (writer..KEYS).step_by(WRITERS) {
                tenant.put(format!("slow/{at:05}"), vec![b'v'; VALUE_LEN]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(wrote) = writers.join_next().await {
        wrote??;
    }
    Ok(())
}

/// Returns a node of the home that does not lead.
async fn follower(world: &World, leader: &str) -> anyhow::Result<String> {
    let cluster = world.cluster.lock().await;
    let mut of_home = cluster.nodes().iter().filter(|node| node.region == HOME);
    let node = of_home.find(|node| node.name != leader);
    Ok(node.context("the home has one node only")?.name.clone())
}

/// Returns a client of one node with a connection of its own.
async fn kv_at(world: &World, node: &str) -> anyhow::Result<KvClient> {
    let cluster = world.cluster.lock().await;
    let found = cluster.nodes().iter().find(|found| found.name == node);
    let address = &found.context("the node is gone")?.client;
    let channel = world.channel(HOME, address, Keepalive::CLIENT)?;
    Ok(KvServiceClient::new(channel).max_decoding_message_size(64 << 20))
}

/// Puts and gets of the other tenant, one after another; returns the latencies.
async fn calls(mut kv: KvClient, run: &str, lasts: Duration) -> anyhow::Result<Vec<Duration>> {
    let (end, mut took) = (Instant::now() + lasts, Vec::new());
    let key = format!("beside/{run}");
    while Instant::now() < end {
        let asked = Instant::now();
        let put = PutRequest {
            tenant: "check-eu-west".into(),
            key: key.clone().into(),
            value: "v".into(),
            ..PutRequest::default()
        };
        timeout(CALL_MAX, kv.put(put))
            .await
            .context("a put got no answer")?
            .map_err(|status| status::from_status(&status))?;
        let get = GetRequest {
            tenant: "check-eu-west".into(),
            key: key.clone().into(),
            ..GetRequest::default()
        };
        timeout(CALL_MAX, kv.get(get))
            .await
            .context("a get got no answer")?
            .map_err(|status| status::from_status(&status))?;
        took.push(asked.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    Ok(took)
}

/// Returns the memory of the largest node of the home, in MiB.
async fn memory(world: &World) -> anyhow::Result<f64> {
    let mut cluster = world.cluster.lock().await;
    let of_home: Vec<String> = cluster
        .nodes()
        .iter()
        .filter(|node| node.region == HOME)
        .map(|node| node.name.clone())
        .collect();
    let mut largest = 0;
    for name in of_home {
        let process = cluster.process(&name).context("a node is not running")?;
        largest = process::usage(process)?.resident.max(largest);
    }
    Ok(largest as f64 / f64::from(1 << 20))
}

type ScanCall = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Numbers of scans by how they ended.
#[derive(Default)]
struct Answers {
    served: usize,
    /// For a limit.
    refused: usize,
    /// Not begun within the deadline.
    late: usize,
    other: usize,
}

/// Scans that were sent, and whose answers nobody reads.
struct Unread(Vec<ScanCall>);

impl Unread {
    /// Sends the scans.
    async fn begin(kv: KvClient) -> Self {
        let scan = |mut kv: KvClient| async move {
            let request = ScanRequest {
                tenant: "check-slow-reader".into(),
                page_size: KEYS as i32,
                ..ScanRequest::default()
            };
            let scanned = kv.scan(request).await;
            scanned.map(drop).map_err(|status| status::from_status(&status))
        };
        let mut calls: Vec<ScanCall> = (0..SCANS).map(|_| Box::pin(scan(kv.clone())) as ScanCall).collect();
        // Polled until each is sent, and not until it is answered.
        for _ in 0..20 {
            poll_fn(|context| {
                calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            sleep(Duration::from_millis(20)).await;
        }
        Self(calls)
    }

    /// Reads the answers.
    async fn read(self) -> Answers {
        let mut answers = Answers {
            served: SCANS - self.0.len(),
            ..Answers::default()
        };
        for answer in futures::future::join_all(self.0).await {
            match answer.map_err(|error| error.kind) {
                Ok(()) => answers.served += 1,
                // By the room for answers that wait, or by the tenant's bytes per second.
                Err(ErrorKind::RateLimited { .. }) => answers.refused += 1,
                Err(ErrorKind::DeadlineExceeded) => answers.late += 1,
                Err(_) => answers.other += 1,
            }
        }
        answers
    }
}
