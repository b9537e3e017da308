//! Reports of what this node has sent of tenants, as residency evidence for the directory.

use std::{convert::Infallible, sync::Arc, time::Duration};

use stead_state::directory::Command;
use stead_store::{Store, data_dir::DataDir, sent_log::SentLog};
use tokio_util::sync::CancellationToken;

use crate::{config::ValidatedConfig, environment::Environment, host::Host, supervisor::Supervisor};

/// Interval of reports; each has a bounded number of rows, and what is sent meanwhile goes into the next one.
const REPORT_INTERVAL: Duration = Duration::from_secs(20);

/// Opens the ledger of what the node has sent, in its data directory if it has one.
///
/// # Errors
///
/// The file cannot be read or written.
pub(crate) fn open_log(
    store: &Store,
    config: &ValidatedConfig,
    environment: &Environment,
) -> Result<Arc<SentLog>, std::io::Error> {
    let (node, now_ms) = (config.node.id, (environment.clocks.wall)());
    let log = match store.dir.as_ref().map(DataDir::sent) {
        Some(path) => SentLog::open(path, node, now_ms, environment.health.clone())?,
        None => SentLog::in_memory(node, now_ms),
    };
    Ok(Arc::new(log))
}

/// Spawns the task that reports.
pub(crate) fn spawn(host: &Arc<Host>, log: Arc<SentLog>, supervisor: &mut Supervisor) {
    let host = host.clone();
    supervisor.spawn("reports of what was sent", |stop| report(host, log, stop));
}

async fn report(host: Arc<Host>, log: Arc<SentLog>, stop: CancellationToken) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REPORT_INTERVAL) => {}
        }
        // Older voters cannot read the command.
        if !host.directory_view.read(|view| view.settings().has_roles()) {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = report_once(&host, &log) => {}
        }
    }
}

/// Reports what the directory does not have; what it does not take is repeated later.
async fn report_once(host: &Host, log: &SentLog) {
    let report = match log.next_report((host.wall)()).await {
        Ok(Some(report)) => report,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, "cannot record a report of what was sent: it is made later");
            return;
        }
    };
    let number = report.number;
    if let Err(error) = host.directory.propose(&Command::RecordSent(report)).await {
        tracing::debug!(%error, number, "the directory has not taken a report of what was sent: it is repeated");
        return;
    }
    if let Err(error) = log.end_report(number, (host.wall)()).await {
        tracing::warn!(%error, number, "cannot record the end of a report of what was sent: it is repeated");
    }
}
