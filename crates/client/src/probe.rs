//! How far away each region is: measured, unless the configuration says where the client stands.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stead_api::proto::v1::{self, directory_service_client::DirectoryServiceClient};
use stead_types::RegionName;
use tokio::time::{Instant, sleep, timeout};

use crate::{client::Inner, node::Node};

/// Between two measurements; between two looks at whether there is something to measure.
const EVERY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The first exchange opens the connection; the fastest of the others counts.
const EXCHANGES: u32 = 3;

pub(crate) async fn measure(inner: Arc<Inner>) {
    if inner.config.region.is_some() {
        return;
    }
    loop {
        let regions: Vec<RegionName> = inner.map.load().regions.keys().cloned().collect();
        if regions.is_empty() {
            sleep(LOOK_EVERY).await;
            continue;
        }
        let measured = regions.iter().map(|region| of_region(&inner, region));
        let round_trips: BTreeMap<RegionName, Duration> = futures::future::join_all(measured)
            .await
            .into_iter()
            .flatten()
            .collect();
        inner.measured(round_trips);
        sleep(EVERY).await;
    }
}

async fn of_region(inner: &Inner, region: &RegionName) -> Option<(RegionName, Duration)> {
    let nodes = inner.map.load().nodes_of(region).to_vec();
    for node in nodes {
        if let Ok(Some(round_trip)) = timeout(ANSWER_WITHIN, of_node(&node)).await {
            return Some((region.clone(), round_trip));
        }
    }
    None
}

async fn of_node(node: &Node) -> Option<Duration> {
    let mut fastest = None;
    for exchange in 0..EXCHANGES {
        let asked = Instant::now();
        let request = v1::ListRegionsRequest {
            page_size: 1,
            page_token: String::new(),
        };
        DirectoryServiceClient::new(node.channel.clone())
            .list_regions(request)
            .await
            .ok()?;
        if exchange > 0 {
            fastest = fastest.into_iter().chain([asked.elapsed()]).min();
        }
    }
    fastest
}
