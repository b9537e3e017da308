//! Pauses of writes while a tenant moves back and forth between two regions, under load and with a check of each write.
//!
//! `STEAD_BIN=target/release/stead cargo bench -p stead-benches --bench moves` starts two regions of three nodes and a
//! third region of one, 80 ms apart, and prints a table in Markdown; `-- --moves 100` makes fewer moves, and
//! `--svg FILE` writes a histogram.

mod histogram;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use stead_testing::{
    Fixture, SyncProbe,
    load::percentile,
    moves::{MovingTenant, Pause},
};

const REGIONS: [(&str, usize); 3] = [("eu-west", 3), ("us-east", 3), ("ap-south", 1)];
const ROUND_TRIP: Duration = Duration::from_millis(80);
const TENANT: &str = "acme";
/// From the side of each home.
const WRITES_PER_SECOND: u32 = 200;
const SHARES: [f64; 4] = [0.5, 0.9, 0.99, 1.0];

#[derive(Debug, Parser)]
struct Options {
    /// Number of moves
    #[arg(long, default_value_t = 1_000)]
    moves: usize,
    /// File for a histogram of the pauses
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(&options))
}

async fn bench(options: &Options) -> Result<()> {
    let mut builder = Fixture::builder();
    for (region, nodes) in REGIONS {
        builder = builder.region(region, nodes);
    }
    for (at, (region, _)) in REGIONS.iter().enumerate() {
        for (other, _) in &REGIONS[at + 1..] {
            builder = builder.round_trip(region, other, ROUND_TRIP);
        }
    }
    let cluster = builder.start().await?;
    let [(source, _), (target, _), _] = REGIONS;
    cluster.create_tenant(TENANT, source).await?;
    let source_client = cluster.client(source).await?;
    let target_client = cluster.client(target).await?;
    let sides = [
        (source, source_client.tenant(TENANT)?),
        (target, target_client.tenant(TENANT)?),
    ];
    let probe = SyncProbe::start(cluster.folder())?;
    let mut moving = MovingTenant::start(source_client.admin(), sides, "moves", WRITES_PER_SECOND).await?;
    let mut pauses = Vec::with_capacity(options.moves);
    for number in 1..=options.moves {
        pauses.push(moving.move_once().await?);
        if number.is_multiple_of(100) {
            eprintln!("{number} moves");
        }
    }
    let fdatasync_p99 = probe.p99().await;
    let report = moving.finish().await?;
    print(&pauses, fdatasync_p99);
    println!(
        "\n{} writes: {} lost, {} twice, {} out of order, {} errors",
        report.acknowledged,
        report.lost,
        report.twice,
        report.out_of_order,
        report.errors.len()
    );
    for error in report.errors.iter().take(3) {
        println!("{error}");
    }
    if let Some(path) = &options.svg {
        let groups: Vec<Duration> = pauses.iter().map(|pause| pause.groups).collect();
        std::fs::write(path, histogram::svg(&groups, ROUND_TRIP))?;
    }
    let wrong = report.lost + report.twice + report.out_of_order + report.errors.len();
    ensure!(wrong == 0, "{wrong} writes went wrong");
    Ok(())
}

fn print(pauses: &[Pause], fdatasync_p99: Duration) {
    println!(
        "{} moves over {} ms, {WRITES_PER_SECOND} writes a second from each side; fdatasync p99 {:.1} ms\n",
        pauses.len(),
        ROUND_TRIP.as_millis(),
        millis(fdatasync_p99)
    );
    println!("| pause, ms | p50 | p90 | p99 | longest |");
    println!("| --- | --- | --- | --- | --- |");
    let taken = |of: fn(&Pause) -> Duration| -> Vec<Duration> { pauses.iter().map(of).collect() };
    for (place, mut taken) in [
        ("at the groups", taken(|pause| pause.groups)),
        ("client beside the home before", taken(|pause| pause.source)),
        ("client beside the new home", taken(|pause| pause.target)),
    ] {
        let figures = SHARES.map(|share| format!("{:.1}", millis(percentile(&mut taken, share))));
        println!("| {place} | {} |", figures.join(" | "));
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
