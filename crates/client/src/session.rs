//! What a client remembers of one tenant: its home, and what has been seen of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use stead_api::proto::v1;
use stead_types::{Epoch, NodeId, RegionName, SessionToken, TenantName, TenantNumber, TenantTime};
use tokio::sync::{Notify, watch};

use crate::answer::{Header, Role};

/// Where a tenant lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub tenant: TenantName,
    /// Its number; a name used again gets another one.
    pub number: TenantNumber,
    /// Its home.
    pub home_region: RegionName,
    /// The group that is its home.
    pub home_group: u32,
    /// How often the home has changed.
    pub epoch: Epoch,
    /// Regions that hold an asynchronous copy.
    pub followers: Vec<String>,
}

impl Route {
    /// `None`: names that a newer node allows.
    pub(crate) fn read(route: v1::Route) -> Option<Self> {
        Some(Self {
            tenant: route.tenant.parse().ok()?,
            number: TenantNumber::new(route.tenant_number),
            home_region: route.home_region.parse().ok()?,
            home_group: route.home_group,
            epoch: Epoch::new(route.epoch)?,
            followers: route.follower_regions,
        })
    }
}

/// Shared by all handles of one tenant.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) tenant: TenantName,
    route: ArcSwapOption<Route>,
    /// The newest number and epoch of all routes, those that were dropped included.
    newest: Mutex<Option<(TenantNumber, Epoch)>>,
    /// The route is wanted, and the name is not just any that came from outside.
    is_followed: AtomicBool,
    /// Told when it is followed first.
    newly_followed: Arc<Notify>,
    /// Told when the route is another one.
    rerouted: watch::Sender<()>,
    /// The node that answered as home last; 0: none.
    leader: AtomicU64,
    time: AtomicU64,
    token: Mutex<Option<SessionToken>>,
}

impl Session {
    pub(crate) fn new(tenant: TenantName, newly_followed: Arc<Notify>) -> Self {
        Self {
            tenant,
            route: ArcSwapOption::empty(),
            newest: Mutex::new(None),
            is_followed: AtomicBool::new(false),
            newly_followed,
            rerouted: watch::Sender::new(()),
            leader: AtomicU64::new(0),
            time: AtomicU64::new(0),
            token: Mutex::new(None),
        }
    }

    pub(crate) fn route(&self) -> Guard<Option<Arc<Route>>> {
        self.route.load()
    }

    /// Takes over where the tenant lives; `None` if what was known is wrong. A node that is behind may still tell an
    /// earlier home: that is no news.
    pub(crate) fn set_route(&self, route: Option<Arc<Route>>) {
        let mut newest = self.newest.lock();
        if let Some(route) = &route {
            let age = Some((route.number, route.epoch));
            if age < *newest {
                return;
            }
            *newest = age;
        }
        let before = self.route.swap(route.clone());
        if before != route {
            self.rerouted.send_replace(());
        }
    }

    /// Returns what is told of every other route.
    pub(crate) fn rerouted(&self) -> watch::Receiver<()> {
        self.rerouted.subscribe()
    }

    /// Makes the client follow the route from now on.
    pub(crate) fn follow(&self) {
        if !self.is_followed.load(Ordering::Relaxed) && !self.is_followed.swap(true, Ordering::Relaxed) {
            self.newly_followed.notify_one();
        }
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Relaxed)
    }

    /// Tells whether nothing is known under this name, perhaps because it is no tenant's.
    pub(crate) fn is_blank(&self) -> bool {
        self.route.load().is_none() && self.token.lock().is_none()
    }

    /// Learns from an answer, of a tenant that there is; `led`: only the home's leader can have given it.
    pub(crate) fn saw(&self, header: &Header, led: bool) {
        self.follow();
        if led && header.role == Role::Home && self.leader.load(Ordering::Relaxed) != header.node.get() {
            self.leader.store(header.node.get(), Ordering::Relaxed);
        }
        if let Some(token) = header.token {
            self.learn(token, header.tenant_time);
        }
    }

    /// Learns from a token that an answer has shown: the higher revision of one number counts, and tokens of a former number do not.
    pub(crate) fn learn(&self, token: SessionToken, time: TenantTime) {
        let mut kept = self.token.lock();
        match &mut *kept {
            Some(kept) if kept.tenant == token.tenant => kept.revision = kept.revision.max(token.revision),
            // A name used again is another tenant, with a clock of its own; its number is higher.
            Some(kept) if kept.tenant > token.tenant => return,
            Some(_) | None => {
                *kept = Some(token);
                self.time.store(0, Ordering::Relaxed);
            }
        }
        self.time.fetch_max(time.0, Ordering::Relaxed);
    }

    pub(crate) fn token(&self) -> Option<SessionToken> {
        *self.token.lock()
    }

    pub(crate) fn time(&self) -> TenantTime {
        TenantTime(self.time.load(Ordering::Relaxed))
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(self.leader.load(Ordering::Relaxed))
            .filter(|node| *node != 0)
            .map(NodeId::new)
    }

    pub(crate) fn forget_leader(&self) {
        self.leader.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64, revision: &str) -> SessionToken {
        SessionToken {
            tenant: TenantNumber::new(number),
            revision: revision.parse().unwrap(),
        }
    }

    fn session() -> Session {
        Session::new("acme".parse().unwrap(), Arc::default())
    }

    #[test]
    fn a_route_never_goes_back_to_an_earlier_home() {
        let session = session();
        let route = |number: u64, epoch: u32| {
            Some(Arc::new(Route {
                tenant: "acme".parse().unwrap(),
                number: TenantNumber::new(number),
                home_region: "eu".parse().unwrap(),
                home_group: epoch,
                epoch: Epoch::new(epoch).unwrap(),
                followers: Vec::new(),
            }))
        };
        // Each is set; after it this is known.
        let steps = [
            (route(7, 2), route(7, 2)),
            (route(7, 1), route(7, 2)),
            (None, None),
            (route(7, 1), None),
            (route(7, 2), route(7, 2)),
            (route(8, 1), route(8, 1)),
            (route(7, 9), route(8, 1)),
        ];
        for (set, known) in steps {
            session.set_route(set);
            assert_eq!(*session.route(), known);
        }
    }

    #[test]
    fn a_session_never_goes_back_and_forgets_a_former_tenant_of_the_name() {
        let session = session();
        session.learn(token(7, "1.5"), TenantTime(50));
        session.learn(token(7, "1.3"), TenantTime(30));
        assert_eq!(
            (session.token(), session.time()),
            (Some(token(7, "1.5")), TenantTime(50))
        );
        session.learn(token(8, "1.1"), TenantTime(10));
        assert_eq!(
            (session.token(), session.time()),
            (Some(token(8, "1.1")), TenantTime(10))
        );
        session.learn(token(7, "1.9"), TenantTime(90));
        assert_eq!(
            (session.token(), session.time()),
            (Some(token(8, "1.1")), TenantTime(10))
        );
    }
}
