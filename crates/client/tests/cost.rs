//! CPU cost of a put, client and mock node together: a measurement, run with `cargo test --release -p stead-client
//! --test cost -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "this test needs a part of it")]
mod mock;

use std::time::{Duration, Instant};

use mock::Cluster;
use stead_client::{Client, Config};

const CALLERS: usize = 64;
const PUTS: usize = 2_000;

/// Returns the CPU time of this process, which runs client and server.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn put_by_64_callers_costs_less_than_20_us() {
    let cluster = Cluster::start(&["eu"]).await;
    let client = Client::connect(Config::new(cluster.addresses())).await.unwrap();
    client.tenant("acme").unwrap().put("warm", "up").await.unwrap();
    let (started, before) = (Instant::now(), cpu());
    let callers = (0..CALLERS).map(|caller| {
        let acme = client.tenant("acme").unwrap();
        tokio::spawn(async move {
            let value = bytes::Bytes::from(vec![7; 100]);
            for at in 0..PUTS {
                acme.put(format!("{caller}/{at}"), value.clone()).await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let puts = (CALLERS * PUTS) as u32;
    let (took, cost) = (started.elapsed(), cpu() - before);
    println!(
        "{:.0} puts/s, {:?} of CPU each",
        f64::from(puts) / took.as_secs_f64(),
        cost / puts
    );
    assert!(
        cfg!(debug_assertions) || cost / puts < Duration::from_micros(20),
        "{:?}",
        cost / puts
    );
}
