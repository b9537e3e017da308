//! Holds answers to the staleness that they claim, and bounded reads to their bound.
//!
//! An answer that says "at most `s` behind" must show every change that was acknowledged `s` before the read was sent.
//! All simulated hosts have one clock, so this can be seen from outside; histories have none.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use stead_client::{Header, Revision};

/// Hosts are up to a step apart, and an answer is rounded.
const SLACK: Duration = Duration::from_millis(2);

/// What was acknowledged when, and which answers were older than they claimed. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    acknowledged: BTreeMap<String, Vec<(Duration, Revision)>>,
    wrong: Vec<String>,
    /// Answers that claimed something and were not given by the home.
    followers: u64,
}

impl Freshness {
    pub(crate) fn acknowledged(&self, tenant: &str, revision: Revision) {
        let mut inner = self.0.borrow_mut();
        let of_tenant = inner.acknowledged.entry(tenant.to_owned()).or_default();
        of_tenant.push((now(), revision));
    }

    /// Checks an answer to a read that was sent at `sent`, and may be this stale.
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

    /// Returns the answers that were older than they claimed, and how many answers of followers were checked.
    pub(crate) fn verdict(&self) -> (Vec<String>, u64) {
        let inner = self.0.borrow();
        (inner.wrong.clone(), inner.followers)
    }
}

/// Returns the simulation's time.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().expect("a simulated host asks")
}
