//! Operators' call that lists the tenants that load the nodes most.

use std::time::Duration;

use bytes::Bytes;
use stead_api::proto::admin::v1::{
    self, list_tenant_loads_request::Order, tenant_service_client::TenantServiceClient as Service,
};
use stead_types::{Error, NodeId};

use super::{Admin, promotion::duration};

/// Order of loads, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadOrder {
    /// By the time of operations at the nodes.
    #[default]
    Time,
    /// By the number of operations.
    Operations,
    /// By the bytes of requests and answers.
    Bytes,
    /// By the keys read and changed.
    Rows,
}

/// Loads of tenants in the last complete window of each node.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantLoads {
    /// The largest loads, in the requested order.
    pub loads: Vec<TenantLoad>,
    /// Length of the window.
    pub window: Duration,
    /// Nodes that did not answer: what they serve is missing.
    pub silent_nodes: Vec<NodeId>,
}

/// Load of a tenant, summed over the nodes that have answered its operations.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantLoad {
    /// Name of the tenant.
    pub tenant: String,
    /// Reads and scans a second.
    pub reads_per_second: f64,
    /// Writes a second.
    pub writes_per_second: f64,
    /// Bytes of requests and of the data in answers, a second.
    pub bytes_per_second: f64,
    /// Keys read and changed a second.
    pub rows_per_second: f64,
    /// Mean number of operations at the nodes at a time.
    pub in_flight: f64,
    /// Mean time from the arrival of an operation to its answer.
    pub mean_time: Duration,
    /// Node that has answered most of its operations.
    pub busiest_node: NodeId,
    /// Hottest keys, cut after 256 bytes, with the operations a second on each.
    pub hot_keys: Vec<(Bytes, f64)>,
}

impl Admin {
    /// Lists the tenants that load the nodes of a region most, or all nodes if it is empty; `limit` is 1 to 1000.
    ///
    /// # Errors
    ///
    /// An error response, or no node answers.
    pub async fn tenant_loads(&self, region: &str, order: LoadOrder, limit: u16) -> Result<TenantLoads, Error> {
        let order = match order {
            LoadOrder::Time => Order::Time,
            LoadOrder::Operations => Order::Operations,
            LoadOrder::Bytes => Order::Bytes,
            LoadOrder::Rows => Order::Rows,
        };
        let request = v1::ListTenantLoadsRequest {
            region: region.to_owned(),
            limit: limit.into(),
            order: order.into(),
        };
        let call = async |channel, request| Service::new(channel).list_tenant_loads(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), true, call).await?;
        Ok(TenantLoads {
            loads: answer.loads.into_iter().map(load).collect(),
            window: duration(answer.window).unwrap_or_default(),
            silent_nodes: answer.silent_nodes.into_iter().map(NodeId::new).collect(),
        })
    }
}

fn load(load: v1::TenantLoad) -> TenantLoad {
    TenantLoad {
        tenant: load.tenant,
        reads_per_second: load.reads_per_second,
        writes_per_second: load.writes_per_second,
        bytes_per_second: load.bytes_per_second,
        rows_per_second: load.rows_per_second,
        in_flight: load.in_flight,
        mean_time: duration(load.mean_time).unwrap_or_default(),
        busiest_node: NodeId::new(load.busiest_node),
        hot_keys: load
            .hot_keys
            .into_iter()
            .map(|key| (key.key, key.operations_per_second))
            .collect(),
    }
}
