//! Session of one tenant: its route, its session token and its last known leader.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use stead_api::proto::v1;
use stead_types::{Epoch, NodeId, RegionName, Revision, SessionToken, TenantName, TenantNumber, TenantTime};
use tokio::sync::{Notify, watch};

use crate::response::{Header, Role};

/// Route of a tenant: its home and its followers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the tenant.
    pub tenant: TenantName,
    /// Number of the tenant; a name that is used again gets a new number.
    pub number: TenantNumber,
    /// Home region.
    pub home_region: RegionName,
    /// Group that is the home.
    pub home_group: u32,
    /// Epoch: number of times the home has changed.
    pub epoch: Epoch,
    /// Regions that hold an asynchronous copy.
    pub followers: Vec<String>,
}

impl Route {
    /// Returns the route of a message; `None` for names that only a newer node allows.
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

/// State that all handles of one tenant share.
#[derive(Debug)]
pub(crate) struct TenantSession {
    pub(crate) tenant: TenantName,
    route: ArcSwapOption<Route>,
    /// Newest number and epoch of all routes so far, those that were cleared included.
    newest: Mutex<Option<(TenantNumber, Epoch)>>,
    /// Whether the client watches the route. Only a name that has turned out to be a tenant's is watched: names may
    /// come from outside.
    is_watched: AtomicBool,
    /// Notified when the route is watched for the first time.
    watch_list_changed: Arc<Notify>,
    /// Notified when the route changes.
    route_changed: watch::Sender<()>,
    /// Node that answered as the leader last; 0: none.
    leader: AtomicU64,
    time: AtomicU64,
    token: Mutex<Option<SessionToken>>,
}

impl TenantSession {
    pub(crate) fn new(tenant: TenantName, watch_list_changed: Arc<Notify>) -> Self {
        Self {
            tenant,
            route: ArcSwapOption::empty(),
            newest: Mutex::new(None),
            is_watched: AtomicBool::new(false),
            watch_list_changed,
            route_changed: watch::Sender::new(()),
            leader: AtomicU64::new(0),
            time: AtomicU64::new(0),
            token: Mutex::new(None),
        }
    }

    pub(crate) fn route(&self) -> Guard<Option<Arc<Route>>> {
        self.route.load()
    }

    /// Sets the route; `None` clears one that is wrong. A route of an earlier epoch is ignored: a node that is behind
    /// may still send it.
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
            self.route_changed.send_replace(());
        }
    }

    /// Returns a receiver that is notified of every change of the route.
    pub(crate) fn route_changed(&self) -> watch::Receiver<()> {
        self.route_changed.subscribe()
    }

    /// Makes the client watch the route from now on.
    pub(crate) fn watch_route(&self) {
        if !self.is_watched.load(Ordering::Relaxed) && !self.is_watched.swap(true, Ordering::Relaxed) {
            self.watch_list_changed.notify_one();
        }
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// Tells whether nothing is known under this name, perhaps because no tenant has it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.route.load().is_none() && self.token.lock().is_none()
    }

    /// Learns route and token from a response; `from_leader`: only the home's leader can have given it.
    pub(crate) fn observe(&self, header: &Header, from_leader: bool) {
        self.watch_route();
        if from_leader && header.role == Role::Home && self.leader.load(Ordering::Relaxed) != header.node.get() {
            self.leader.store(header.node.get(), Ordering::Relaxed);
        }
        if let Some(token) = header.token {
            self.observe_token(token, header.tenant_time);
        }
    }

    /// Learns from a session token of a response: of one tenant number the higher revision counts, and tokens of a
    /// former number are ignored.
    pub(crate) fn observe_token(&self, token: SessionToken, time: TenantTime) {
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

    /// Brings the token to the last revision that a promotion has kept, if it is of what was cut: of the epoch of a revision
    /// that was cut or an earlier one, behind what was kept.
    pub(crate) fn replace_cut(&self, cut: Revision, kept: Revision) {
        if let Some(token) = &mut *self.token.lock() {
            let revision = token.revision;
            if revision.epoch() <= cut.epoch() && revision.sequence() > kept.sequence() {
                token.revision = kept;
            }
        }
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

    pub(crate) fn clear_leader(&self) {
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

    fn session() -> TenantSession {
        TenantSession::new("acme".parse().unwrap(), Arc::default())
    }

    #[test]
    fn route_of_earlier_epoch_is_ignored() {
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
        // The route that is set, and the route that is known afterwards.
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
    fn session_keeps_what_promotion_has_kept() {
        for (seen, cut, kept, expected) in [
            ("1.15", "1.15", "1.10", "1.10"),
            ("1.12", "1.15", "1.10", "1.10"),
            ("1.10", "1.15", "1.10", "1.10"),
            ("1.9", "1.15", "1.10", "1.9"),
            ("2.15", "1.15", "1.10", "2.15"),
            ("1.15", "2.15", "1.10", "1.10"),
            ("1.3", "1.3", "0.0", "0.0"),
        ] {
            let session = session();
            session.observe_token(token(7, seen), TenantTime(50));
            session.replace_cut(cut.parse().unwrap(), kept.parse().unwrap());
            assert_eq!(session.token(), Some(token(7, expected)), "{seen} {cut} {kept}");
        }
    }

    #[test]
    fn session_token_never_decreases_and_former_tenant_is_forgotten() {
        let session = session();
        session.observe_token(token(7, "1.5"), TenantTime(50));
        session.observe_token(token(7, "1.3"), TenantTime(30));
        assert_eq!(
            (session.token(), session.time()),
            (Some(token(7, "1.5")), TenantTime(50))
        );
        session.observe_token(token(8, "1.1"), TenantTime(10));
        assert_eq!(
            (session.token(), session.time()),
            (Some(token(8, "1.1")), TenantTime(10))
        );
        session.observe_token(token(7, "1.9"), TenantTime(90));
        assert_eq!(
            (session.token(), session.time()),
            (Some(token(8, "1.1")), TenantTime(10))
        );
    }
}
