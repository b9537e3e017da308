//! Checker of leases: a region that has been cut off from the directory for longer than a lease lasts serves nothing as a
//! home.
//!
//! All simulated hosts have one clock, so it is known from outside from when on no node of the region can have a lease.

use std::{cell::RefCell, rc::Rc, time::Duration};

use stead_client::{Error, ErrorKind, Header, Role};

use crate::{
    cluster::{NODES_PER_REGION, REGIONS},
    freshness::now,
};

/// Lease ttl of runs with a fault that outlasts leases: the shortest one.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(15);
/// Time for a cut to take effect after the operator has asked for it.
const SLACK: Duration = Duration::from_millis(10);

/// The region that is cut off, and what it served all the same. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaseChecker(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    cut: Option<Cut>,
    wrong: Vec<String>,
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

    /// Records a failed call.
    pub(crate) fn failed(&self, error: &Error) {
        self.0.borrow_mut().refused += u64::from(error.kind == ErrorKind::NoLease);
    }

    /// Returns the violations, and how many calls were refused for lack of a lease.
    pub(crate) fn verdict(&self) -> (Vec<String>, u64) {
        let inner = self.0.borrow();
        (inner.wrong.clone(), inner.refused)
    }
}
