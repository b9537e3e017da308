//! Checker of leases: a region that has been cut off from the directory for longer than a lease lasts serves nothing as a
//! home.
//!
//! All simulated hosts have one clock, so it is known from outside from when on no node of the region can have a lease.

use std::{cell::RefCell, rc::Rc, time::Duration};

use stead_client::{Client, Error, ErrorKind, Header, ReadOptions, Role};
use tokio::{sync::watch, time::sleep};

use crate::{
    cluster::{NODES_PER_REGION, REGIONS},
    freshness::now,
    load::{self, Phase, TENANTS},
};

/// Lease ttl of runs with a fault that outlasts leases: the shortest one.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(15);
/// Time for a cut to take effect after the operator has asked for it.
const SLACK: Duration = Duration::from_millis(10);
/// Pause between two rounds of a prober, and the timeout of its calls: longer than a node waits for a lease.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// The region that is cut off, and what it served all the same. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaseChecker(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    cut: Option<Cut>,
    wrong: Vec<String>,
    probes: u64,
    refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    region: usize,
    /// From here on no node of the region has a lease.
    lost_at: Duration,
}

impl LeaseChecker {
    /// Records that a region is cut off from now on.
    pub(crate) fn begin(&self, region: usize) {
        let lost_at = now() + LEASE_TTL + SLACK;
        self.0.borrow_mut().cut = Some(Cut { region, lost_at });
    }

    /// Records that the region is about to be connected again.
    pub(crate) fn end(&self) {
        self.0.borrow_mut().cut = None;
    }

    /// Checks a response that has just arrived to a call that was sent at `sent`.
    pub(crate) fn check(&self, tenant: &str, sent: Duration, header: &Header) {
        let mut inner = self.0.borrow_mut();
        let Some(cut) = inner.cut.filter(|cut| sent >= cut.lost_at) else {
            return;
        };
        let node = usize::try_from(header.node.get()).unwrap() - 1;
        if header.role == Role::Home && node / NODES_PER_REGION == cut.region {
            let (region, _) = REGIONS[cut.region];
            let wrong =
                format!("{tenant}: {region} served a call of {sent:?} as the home, without a lease: {header:?}");
            inner.wrong.push(wrong);
        }
    }

    /// Tells whether a region has lost its leases.
    fn is_lost(&self, region: usize) -> bool {
        let cut = self.0.borrow().cut;
        cut.is_some_and(|cut| cut.region == region && now() >= cut.lost_at)
    }

    /// Records a failed call.
    pub(crate) fn failed(&self, error: &Error) {
        self.0.borrow_mut().refused += u64::from(error.kind == ErrorKind::NoLease);
    }

    /// Returns the violations, and a summary for people.
    pub(crate) fn verdict(&self) -> (Vec<String>, String) {
        let inner = self.0.borrow();
        let (probes, refused) = (inner.probes, inner.refused);
        let summary = format!("{probes} probes of regions without leases; {refused} calls were refused with NO_LEASE");
        (inner.wrong.clone(), summary)
    }
}

/// Reads every tenant from a region, linearizably, as long as the region has lost its leases. These reads are in no
/// history.
pub(crate) async fn probe(
    region: usize,
    seed: u64,
    leases: LeaseChecker,
    phase: watch::Receiver<Phase>,
) -> turmoil::Result {
    let client = Client::lazy(load::config(region, seed))?;
    while *phase.borrow() != Phase::Ending {
        sleep(PROBE_PAUSE).await;
        if !leases.is_lost(region) {
            continue;
        }
        let probes = TENANTS.iter().map(|(name, _)| probe_tenant(&client, name, &leases));
        futures::future::join_all(probes).await;
    }
    Ok(())
}

async fn probe_tenant(client: &Client, name: &str, leases: &LeaseChecker) {
    let read = ReadOptions {
        timeout: Some(PROBE_TIMEOUT),
        ..ReadOptions::default()
    };
    let sent = now();
    leases.0.borrow_mut().probes += 1;
    match client.tenant(name).unwrap().get_with("a/1", &read).await {
        Ok(got) => leases.check(name, sent, &got.header),
        Err(error) => {
            tracing::info!(name, %error, "a region without leases does not serve");
            leases.failed(&error);
        }
    }
}
