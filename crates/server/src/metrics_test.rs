//! The names of metrics against the document that lists them.

use std::collections::BTreeSet;

use stead_replication::RemoteWait;
use stead_store::latency::LatencySnapshot;
use stead_types::{FeedOffset, NodeId};

use super::*;
use crate::{process_metrics::ProcessSample, readiness_metrics::tests::set_sample, seed_metrics::tests::sample_seed};

/// Returns the names in the first cells of the tables of a document.
fn documented(text: &str) -> BTreeSet<String> {
    let cells = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let names = cells.map(|(name, _)| name.to_owned());
    names
        .filter(|name| name.starts_with("stead_") || name.starts_with("process_"))
        .collect()
}

fn sample_remote(metrics: &RemoteMetrics) {
    metrics.record_wait(Duration::from_millis(70), RemoteWait::Confirmed);
    metrics.record_wait(Duration::from_secs(9), RemoteWait::TimedOut);
    metrics.set_tenants(GroupId::new(1), None);
}

fn node(region: &stead_types::RegionName) -> NodeConfig {
    NodeConfig {
        id: NodeId::new(1),
        name: "eu-west-1".into(),
        region: region.clone(),
        client: String::new(),
        peer: String::new(),
        http: String::new(),
        witness: false,
        engine: String::new(),
    }
}

#[test]
fn metrics_match_operations_document() {
    let region: stead_types::RegionName = "eu-west".parse().unwrap();
    let metrics = Metrics::of(&node(&region), Arc::default());
    metrics.request(OperationLabel::Read, ServedFrom::Home);
    metrics.tls.use_all();
    metrics.refused("keys");
    metrics.retries("sending a snapshot", 2);
    metrics.group(GroupSample {
        group: 1,
        is_leader: true,
        term: 1,
        applied: 1,
        durable: 1,
        purged: 0,
        snapshot_received: 0,
        differs: false,
    });
    metrics.lease(GroupId::new(1), Duration::from_secs(45));
    metrics.forks(GroupId::new(1), 0);
    metrics.bulk_moves("paused", 1);
    metrics.promotions.set(std::iter::empty());
    set_sample(&metrics.readiness, &region);
    sample_remote(&metrics.remote);
    let pair = RegionPair {
        from: region.clone(),
        to: region,
    };
    metrics.traffic(&pair, TrafficBytes { raw: 2, wire: 1 });
    metrics.lag(
        GroupId::new(2),
        &Lag {
            home: GroupId::new(1),
            connected: true,
            offset: FeedOffset::ZERO,
            staleness: Some(Duration::from_millis(5)),
            attached: 1,
            detached: 0,
            unreadable: 0,
        },
    );
    metrics.seeds.set([(GroupId::new(1), sample_seed())].into_iter());
    let report = ClockReport {
        logged: Some(-3),
        clocks: [(NodeId::new(1), 5)].into(),
        ..ClockReport::default()
    };
    metrics.clocks(GroupId::new(1), &report);
    metrics
        .latencies
        .operation(OperationLabel::Read, ServedFrom::Home, Duration::from_millis(3));
    metrics
        .latencies
        .set_group(GroupId::new(1), LatencySnapshot::default(), LatencySnapshot::default());
    metrics.process.set(ProcessSample::read(), 1_024);
    metrics.peers(&PeerAlarms::default());
    metrics.view(1, 1);
    metrics.ready(true);
    let text = metrics.text();
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let name = |kind: &str| match kind.split_once(' ') {
        Some((name, "counter")) => format!("{name}_total"),
        Some((name, "info")) => format!("{name}_info"),
        Some((name, _)) => name.to_owned(),
        None => kind.to_owned(),
    };
    let there: BTreeSet<String> = kinds.map(name).collect();
    assert_eq!(there, documented(include_str!("../../../docs/operations.md")));
    assert!(
        text.contains(r#"stead_requests_total{op="read",served_from="home"} 1"#),
        "{text}"
    );
}
