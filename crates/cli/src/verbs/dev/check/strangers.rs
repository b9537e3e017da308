//! Step: a thousand connections a second that do not belong, beside a tenant that works.

use std::{pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use stead_client::{Connect, Io, Tenant, dial};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;
use stead_testing::load::percentile;

const HOME: &str = "eu-west";
/// Connections a second, half of them noise, half of them a real beginning of a handshake that goes no further.
const PER_SECOND: u64 = 1_000;
const LASTS: Duration = Duration::from_secs(10);
/// Most connections of strangers at once, and the longest time of one.
const OPEN_MAX: usize = 400;
const STRANGER_MAX: Duration = Duration::from_secs(1);
/// Factor by which the 99th percentile may grow, and a time below which nobody notices.
const FACTOR: u32 = 2;
const UNNOTICED: Duration = Duration::from_millis(40);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-eu-west", HOME, HOME).await?;
    let leader = world.leader(&tenant).await?;
    let node = {
        let cluster = world.cluster.lock().await;
        ensure!(
            cluster.tls().is_some(),
            "this cluster speaks plain text: run it without --plain"
        );
        let node = cluster.nodes().iter().find(|node| node.name == leader);
        node.context("the leader is gone")?.clone()
    };
    let greeting = greeting(world).await?;
    let refused_before = refused(&node.metrics().await?);
    let key = format!("strangers/{}", world.run);
    let (mut alone, _) = puts(&tenant, &key, LASTS / 2).await;
    let strangers = tokio::spawn(attack(node.client.clone(), greeting));
    let (mut beside, failed) = puts(&tenant, &key, LASTS).await;
    let made = strangers.await??;
    let refused_now = refused(&node.metrics().await?) - refused_before;
    ensure!(refused_now > 0.0, "no connection was refused");
    let (before, during) = (percentile(&mut alone, 0.99), percentile(&mut beside, 0.99));
    Ok(Verdict::default()
        .none("puts that failed", failed)
        .time("p99 beside strangers", during, (before * FACTOR).max(UNNOTICED))
        .note(format!(
            "{made} connections of strangers in {} s, {refused_now} refused by name",
            LASTS.as_secs()
        )))
}

/// Returns the first bytes of a real handshake.
async fn greeting(world: &World) -> anyhow::Result<Arc<Vec<u8>>> {
    let (near, mut far) = duplex(64 << 10);
    let near = Arc::new(std::sync::Mutex::new(Some(near)));
    let mut config = world.client_config(HOME)?;
    let pipe: Connect = Arc::new(move |_| {
        let near = near.lock().ok().and_then(|mut near| near.take());
        Box::pin(async move {
            let near = near.ok_or(std::io::ErrorKind::ConnectionRefused)?;
            Ok(Box::pin(near) as Pin<Box<dyn Io>>)
        })
    });
    config.connect = pipe;
    let connect = config.connector()?;
    let handshake = tokio::spawn(async move { connect("127.0.0.1:1".into()).await.map(drop) });
    let mut greeting = vec![0; 4096];
    let read = far.read(&mut greeting).await?;
    handshake.abort();
    greeting.truncate(read);
    Ok(Arc::new(greeting))
}

/// Connects again and again; returns how often.
async fn attack(address: String, greeting: Arc<Vec<u8>>) -> anyhow::Result<u64> {
    let connect = dial(std::collections::BTreeMap::new());
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut made, mut open) = (Instant::now(), 0, JoinSet::new());
    while began.elapsed() < LASTS {
        ticks.tick().await;
        for _ in 0..PER_SECOND / 100 {
            if open.len() >= OPEN_MAX {
                open.join_next().await;
            }
            made += 1;
            let (connect, address, greeting) = (connect.clone(), address.clone(), greeting.clone());
            let is_noise = made % 2 == 0;
            open.spawn(async move {
                let stranger = async {
                    let mut stream = connect(address).await?;
                    let bytes: &[u8] = if is_noise {
                        b"\x16\x03\x01\0\x05noise"
                    } else {
                        &greeting
                    };
                    stream.write_all(bytes).await?;
                    // It goes away after the first answer, whatever that is.
                    stream.read_u8().await.map(drop)
                };
                // A stranger's errors are of no interest.
                let _ended: Result<Result<(), std::io::Error>, _> = timeout(STRANGER_MAX, stranger).await;
            });
        }
        while open.try_join_next().is_some() {}
    }
    Ok(made)
}

/// Puts one after another; returns their latencies, and how many failed.
async fn puts(tenant: &Tenant, key: &str, lasts: Duration) -> (Vec<Duration>, usize) {
    let (began, mut took, mut failed) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < lasts {
        let asked = Instant::now();
        match tenant.put(key.to_owned(), "v").await {
            Ok(_) => took.push(asked.elapsed()),
            Err(_) => failed += 1,
        }
    }
    (took, failed)
}

/// Returns how many connections a node's client listener has refused.
fn refused(metrics: &str) -> f64 {
    let is_counted = |line: &&str| line.starts_with("stead_tls_refused_total{") && line.contains("listener=\"client\"");
    let counted = metrics.lines().filter(is_counted);
    counted
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
