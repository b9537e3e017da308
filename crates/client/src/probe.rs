//! Latency probe: measures the round trip to each region, unless the configuration names the client's region.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stead_api::proto::v1::{self, directory_service_client::DirectoryServiceClient};
use stead_types::RegionName;
use tokio::time::{Instant, sleep, timeout};

use crate::{node::Node, state::ClientState};

/// Interval between two measurements; between two looks at whether there is something to measure.
const MEASURE_INTERVAL: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests per measurement: the first one opens the connection; the fastest of the others counts.
const EXCHANGES: u32 = 3;

pub(crate) async fn measure(state: Arc<ClientState>) {
    if state.config.region.is_some() {
        return;
    }
    loop {
        let regions: Vec<RegionName> = state.map.load().regions.keys().cloned().collect();
        if regions.is_empty() {
            sleep(POLL_INTERVAL).await;
            continue;
        }
        let measured = regions.iter().map(|region| measure_region(&state, region));
        let round_trips: BTreeMap<RegionName, Duration> = futures::future::join_all(measured)
            .await
            .into_iter()
            .flatten()
            .collect();
        state.update_round_trips(round_trips);
        sleep(MEASURE_INTERVAL).await;
    }
}

async fn measure_region(state: &ClientState, region: &RegionName) -> Option<(RegionName, Duration)> {
    let nodes = state.map.load().nodes_of(region).to_vec();
    for node in nodes {
        if let Ok(Some(round_trip)) = timeout(RESPONSE_TIMEOUT, measure_node(&node)).await {
            return Some((region.clone(), round_trip));
        }
    }
    None
}

async fn measure_node(node: &Node) -> Option<Duration> {
    let mut fastest = None;
    for exchange in 0..EXCHANGES {
        let started = Instant::now();
        let request = v1::ListRegionsRequest {
            page_size: 1,
            page_token: String::new(),
        };
        DirectoryServiceClient::new(node.channel.clone())
            .list_regions(request)
            .await
            .ok()?;
        if exchange > 0 {
            fastest = fastest.into_iter().chain([started.elapsed()]).min();
        }
    }
    fastest
}
