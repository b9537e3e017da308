//! Checker of staleness: of the staleness that responses name, and of the bound of bounded reads.
//!
//! A response that says "at most `s` behind" must show every change that was acknowledged `s` before the read was sent.
//! All simulated hosts have one clock, so this can be checked from outside; histories have no such clock.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use stead_client::{Header, Revision};

/// Tolerance: hosts are up to a step apart, and a response is rounded.
const SLACK: Duration = Duration::from_millis(2);

/// Acknowledged changes with their times, and the responses that were older than they named. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreshnessChecker(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    acknowledged: BTreeMap<String, Vec<(Duration, Revision)>>,
    wrong: Vec<String>,
    /// Responses of followers that named their staleness.
    followers: u64,
}

impl FreshnessChecker {
    pub(crate) fn acknowledged(&self, tenant: &str, revision: Revision) {
        let mut inner = self.0.borrow_mut();
        let of_tenant = inner.acknowledged.entry(tenant.to_owned()).or_default();
        of_tenant.push((now(), revision));
    }

    /// Checks the response to a read that was sent at `sent`, and may be this stale.
    pub(crate) fn check(&self, tenant: &str, sent: Duration, header: &Header, bound: Option<Duration>) {
        let Some(staleness) = header.staleness.into_iter().chain(bound).min() else {
            return;
        };
        let mut inner = self.0.borrow_mut();
        inner.followers += u64::from(header.role == stead_client::Role::Follower);
        let before = sent.saturating_sub(staleness + SLACK);
        let of_tenant = inner.acknowledged.get(tenant).into_iter().flatten();
        let missing = of_tenant.filter(|(at, revision)| *at < before && *revision > header.revision);
        if let Some((at, revision)) = missing.max() {
            let wrong = format!(
                "{tenant}: a read sent at {sent:?} shows {} at most {staleness:?} stale, but {revision} was \
                 acknowledged at {at:?}: {header:?}",
                header.revision
            );
            inner.wrong.push(wrong);
        }
    }

    /// Returns the violations, and how many responses of followers were checked.
    pub(crate) fn verdict(&self) -> (Vec<String>, u64) {
        let inner = self.0.borrow();
        (inner.wrong.clone(), inner.followers)
    }
}

/// Returns the simulation's time.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().expect("a simulated host asks")
}
