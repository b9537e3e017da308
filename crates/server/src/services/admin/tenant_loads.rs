//! The tenants that load the nodes most, asked of all nodes.

use std::{collections::BTreeMap, time::Duration};

use stead_api::{
    convert,
    proto::admin::v1::{
        self as admin, HotKey, ListTenantLoadsRequest, ListTenantLoadsResponse, list_tenant_loads_request::Order,
        tenant_service_client::TenantServiceClient,
    },
};
use stead_state::authorization::{KeyAccess, KeyRange, Need};
use stead_types::{Error, NodeId, TenantName};
use tokio::time::Instant;

use crate::{
    admin_peers::{await_response, peer_request},
    auth::Access,
    host::Host,
    tenant_loads::{TenantLoad, WINDOW},
};

/// Default of `limit`, and its largest value.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 1_000;
/// Most hot keys of a tenant.
const HOT_KEYS_MAX: usize = 3;

/// Returns the largest loads; those of this node alone for another node that asks.
pub(super) async fn list(
    host: &Host,
    request: &ListTenantLoadsRequest,
    is_local: bool,
    access: &Access,
) -> Result<ListTenantLoadsResponse, Error> {
    let limit = match usize::try_from(request.limit) {
        Ok(0) => LIMIT_DEFAULT,
        Ok(limit) if limit <= LIMIT_MAX => limit,
        Ok(_) | Err(_) => {
            let message = format!("limit: 1 to {LIMIT_MAX}, not {}", request.limit);
            return Err(Error::invalid("limit", message));
        }
    };
    let order = Order::try_from(request.order)
        .map_err(|_| Error::invalid("order", "order: TIME, OPERATIONS, BYTES or ROWS".to_owned()))?;
    let (mut loads, silent_nodes) = if is_local {
        (here(host), Vec::new())
    } else {
        everywhere(host, request).await?
    };
    loads.retain(|load| is_visible(load, access));
    loads.iter_mut().for_each(|load| hide_keys(load, access));
    loads.sort_by(|one, other| figure(other, order).total_cmp(&figure(one, order)));
    loads.truncate(limit);
    Ok(ListTenantLoadsResponse {
        loads,
        window: Some(convert::read::duration(WINDOW)),
        silent_nodes,
    })
}

/// Tells whether the caller sees a tenant. Tenants that have gone meanwhile have no name by which that could be decided.
fn is_visible(load: &admin::TenantLoad, access: &Access) -> bool {
    match load.tenant.parse() {
        Ok(name) => access.allows(&Need::InspectTenant(&name)),
        Err(_) => access.allows(&Need::Inspect),
    }
}

/// Removes the keys that the caller may not read: whoever operates the cluster sees loads, but no keys.
fn hide_keys(load: &mut admin::TenantLoad, access: &Access) {
    let Ok(tenant) = load.tenant.parse::<TenantName>() else {
        return load.hot_keys.clear();
    };
    load.hot_keys.retain(|hot| {
        access.allows(&Need::Keys {
            tenant: &tenant,
            access: KeyAccess::Read,
            range: KeyRange::Key(&hot.key),
        })
    });
}

/// Returns the loads of this node.
fn here(host: &Host) -> Vec<admin::TenantLoad> {
    let loads = host.metrics.loads.last_window(Instant::now()).into_iter();
    loads
        .map(|(tenant, load)| message(tenant, host.config.node.id, load))
        .collect()
}

/// Asks all nodes, or those of one region, and sums the loads by tenant; returns the nodes that did not answer, too.
async fn everywhere(
    host: &Host,
    request: &ListTenantLoadsRequest,
) -> Result<(Vec<admin::TenantLoad>, Vec<u64>), Error> {
    let region = match request.region.as_str() {
        "" => None,
        name => Some(convert::id::region("region", name)?),
    };
    let nodes: Vec<NodeId> = host.directory_view.read(|view| {
        let nodes = view.nodes().filter(|node| !node.witness);
        let asked = nodes.filter(|node| region.as_ref().is_none_or(|region| *region == node.region));
        asked.map(|node| node.number).collect()
    });
    if nodes.is_empty() {
        let message = format!("region: there is no region {} with nodes", request.region);
        return Err(Error::invalid("region", message));
    }
    let answers = futures::future::join_all(nodes.iter().map(|node| loads_at(host, *node, request))).await;
    let (mut sums, mut silent) = (BTreeMap::new(), Vec::new());
    for (node, answer) in nodes.into_iter().zip(answers) {
        let Some(loads) = answer else {
            silent.push(node.get());
            continue;
        };
        for load in loads {
            match sums.get_mut(&load.tenant) {
                Some(sum) => add(sum, load),
                None => drop(sums.insert(load.tenant.clone(), load)),
            }
        }
    }
    Ok((sums.into_values().collect(), silent))
}

/// Asks one node; `None` if it does not answer.
async fn loads_at(host: &Host, node: NodeId, request: &ListTenantLoadsRequest) -> Option<Vec<admin::TenantLoad>> {
    if node == host.config.node.id {
        return Some(here(host));
    }
    let to = host.admin_address(node)?;
    let asked = ListTenantLoadsRequest {
        limit: i32::try_from(LIMIT_MAX).unwrap_or(i32::MAX),
        ..request.clone()
    };
    let mut client = TenantServiceClient::new(host.admin_peers.channel(&to)?);
    let answer = await_response(client.list_tenant_loads(peer_request(asked))).await?;
    Some(answer.loads)
}

/// Returns the figure by which loads are ordered.
fn figure(load: &admin::TenantLoad, order: Order) -> f64 {
    match order {
        Order::Unspecified | Order::Time => load.in_flight,
        Order::Operations => operations(load),
        Order::Bytes => load.bytes_per_second,
        Order::Rows => load.rows_per_second,
    }
}

fn operations(load: &admin::TenantLoad) -> f64 {
    load.reads_per_second + load.writes_per_second
}

/// Adds the load of another node.
fn add(sum: &mut admin::TenantLoad, other: admin::TenantLoad) {
    let largest = |load: &admin::TenantLoad| load.hot_keys.iter().map(|key| key.operations_per_second).sum::<f64>();
    if operations(&other) > operations(sum) {
        sum.busiest_node = other.busiest_node;
    }
    // One node leads the home, and most writes of a key are there.
    if largest(&other) > largest(sum) {
        sum.hot_keys = other.hot_keys;
    }
    sum.reads_per_second += other.reads_per_second;
    sum.writes_per_second += other.writes_per_second;
    sum.bytes_per_second += other.bytes_per_second;
    sum.rows_per_second += other.rows_per_second;
    sum.in_flight += other.in_flight;
    sum.mean_time = Some(mean_time(sum.in_flight, operations(sum)));
}

/// Returns the mean time of an operation, by Little's law.
fn mean_time(in_flight: f64, operations_per_second: f64) -> prost_types::Duration {
    let seconds = if operations_per_second > 0.0 {
        in_flight / operations_per_second
    } else {
        0.0
    };
    convert::read::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn message(tenant: String, node: NodeId, mut load: TenantLoad) -> admin::TenantLoad {
    let window = WINDOW.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate is a float")]
    let rate = |count: u64| count as f64 / window;
    let in_flight = load.time.as_secs_f64() / window;
    load.keys.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let hot_keys = load.keys.into_iter().take(HOT_KEYS_MAX).map(|(key, count)| HotKey {
        key: key.into(),
        operations_per_second: rate(count),
    });
    admin::TenantLoad {
        tenant,
        reads_per_second: rate(load.reads),
        writes_per_second: rate(load.writes),
        bytes_per_second: rate(load.bytes),
        rows_per_second: rate(load.rows),
        in_flight,
        mean_time: Some(mean_time(in_flight, rate(load.reads + load.writes))),
        busiest_node: node.get(),
        hot_keys: hot_keys.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_two_nodes_are_one() {
        let load = |writes, keys: &[(&[u8], u64)]| TenantLoad {
            writes,
            bytes: 1_000,
            rows: writes,
            time: Duration::from_secs(5),
            keys: keys.iter().map(|(key, count)| (key.to_vec(), *count)).collect(),
            ..TenantLoad::default()
        };
        let many = load(900, &[(b"a", 1), (b"b", 7), (b"c", 2), (b"d", 3)]);
        let mut sum = message("acme".into(), NodeId::new(1), load(100, &[(b"z", 9)]));
        add(&mut sum, message("acme".into(), NodeId::new(2), many));
        assert_eq!(
            (sum.busiest_node, sum.writes_per_second, sum.bytes_per_second),
            (2, 100.0, 200.0)
        );
        assert_eq!(sum.in_flight, 1.0);
        assert_eq!(sum.mean_time.unwrap().nanos, 10_000_000, "one of a hundred a second");
        let keys: Vec<_> = sum.hot_keys.iter().map(|key| key.key.as_ref()).collect();
        assert_eq!(keys, [b"b", b"d", b"c"]);
    }
}
