//! `stead tenant top`.

use clap::{Args, ValueEnum};
use serde_json::json;
use stead_client::{LoadOrder, TenantLoad};

use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{self, Output, OutputTable},
};

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Only nodes of this region
    #[arg(long = "of", value_name = "REGION", default_value = "")]
    region: String,
    /// Order of the tenants, the largest first
    #[arg(long, value_enum, default_value_t, value_name = "FIGURE")]
    by: OrderArg,
    /// Most tenants to show, 1 to 1000
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

/// Figure by which tenants are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OrderArg {
    /// Time of operations at the nodes
    #[default]
    Time,
    /// Operations
    Operations,
    /// Bytes of requests and answers
    Bytes,
    /// Keys read and changed
    Rows,
}

impl From<OrderArg> for LoadOrder {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Time => Self::Time,
            OrderArg::Operations => Self::Operations,
            OrderArg::Bytes => Self::Bytes,
            OrderArg::Rows => Self::Rows,
        }
    }
}

impl Top {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let loads = admin.tenant_loads(&self.region, self.by.into(), self.limit).await?;
        let silent: Vec<String> = loads.silent_nodes.iter().map(ToString::to_string).collect();
        if target.output == Output::Json {
            return output::json(&json!({
                "loads": loads.loads.iter().map(value).collect::<Vec<_>>(),
                "windowSeconds": loads.window.as_secs(),
                "silentNodes": silent,
            }));
        }
        table(&loads.loads).print(target.output)?;
        output::line(&format!("each node's last {}", output::duration(loads.window)))?;
        if !silent.is_empty() {
            output::line(&format!("without nodes {}, which do not answer", silent.join(", ")))?;
        }
        Ok(())
    }
}

fn table(loads: &[TenantLoad]) -> OutputTable {
    let columns = &[
        "TENANT",
        "READS/S",
        "WRITES/S",
        "BYTES/S",
        "ROWS/S",
        "IN FLIGHT",
        "TIME",
        "NODE",
        "HOTTEST KEYS",
    ];
    let mut table = OutputTable::new(columns, columns.len());
    for load in loads {
        let key = |(key, rate): &(bytes::Bytes, f64)| format!("{} {rate:.1}/s", output::display_bytes(key, 40));
        let cells = vec![
            load.tenant.clone(),
            format!("{:.1}", load.reads_per_second),
            format!("{:.1}", load.writes_per_second),
            output::size(load.bytes_per_second as u64),
            format!("{:.1}", load.rows_per_second),
            format!("{:.2}", load.in_flight),
            output::duration(load.mean_time),
            load.busiest_node.to_string(),
            load.hot_keys.iter().map(key).collect::<Vec<_>>().join(", "),
        ];
        table.push(cells, value(load));
    }
    table
}

fn value(load: &TenantLoad) -> serde_json::Value {
    let key = |(key, rate): &(bytes::Bytes, f64)| json!({"key": output::base64(key), "operationsPerSecond": rate});
    json!({
        "tenant": load.tenant,
        "readsPerSecond": load.reads_per_second,
        "writesPerSecond": load.writes_per_second,
        "bytesPerSecond": load.bytes_per_second,
        "rowsPerSecond": load.rows_per_second,
        "inFlight": load.in_flight,
        "meanTimeMs": load.mean_time.as_secs_f64() * 1e3,
        "busiestNode": load.busiest_node.to_string(),
        "hotKeys": load.hot_keys.iter().map(key).collect::<Vec<_>>(),
    })
}
