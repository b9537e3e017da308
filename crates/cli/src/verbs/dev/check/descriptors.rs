//! Step: descriptors. Connections that never begin to speak are closed, and others are served beside them.

use std::time::Duration;

use anyhow::Context;
use stead_client::dial;
use tokio::{
    io::AsyncReadExt,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

const HOME: &str = "eu-west";
/// Connections to one node that say nothing: this process has a descriptor for each, too.
const CONNECTIONS: usize = 700;
/// Time after which each is closed.
const CLOSED: Duration = Duration::from_secs(15);
const GIVEN_UP: Duration = Duration::from_secs(40);
const PUT: Duration = Duration::from_secs(1);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let leader = world.leader(&tenant).await?;
    let (connect, address) = {
        let cluster = world.cluster.lock().await;
        let node = cluster.nodes().iter().find(|node| node.name == leader);
        let address = node.context("the leader is gone")?.client.clone();
        (dial(cluster.dial(HOME).clone()), address)
    };
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = connect(address.clone()).await.context("cannot connect")?;
        connections.spawn(async move {
            // The node says nothing either, until it closes.
            let closed = timeout(GIVEN_UP, connection.read(&mut [0])).await;
            closed.is_ok().then(|| began.elapsed())
        });
    }
    let (mut slowest, mut failed) = (Duration::ZERO, 0);
    while began.elapsed() < CLOSED {
        let asked = Instant::now();
        failed += usize::from(tenant.put(format!("silent/{}", world.run), "v").await.is_err());
        slowest = slowest.max(asked.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    let (mut last, mut open) = (Duration::ZERO, 0);
    while let Some(closed) = connections.join_next().await {
        match closed? {
            Some(after) => last = last.max(after),
            None => open += 1,
        }
    }
    Ok(Verdict::default()
        .none("silent connections left open", open)
        .none("puts that failed", failed)
        .time("the last one closed", last, CLOSED)
        .time("slowest put", slowest, PUT)
        .note(format!("{CONNECTIONS} silent connections to {leader}")))
}
