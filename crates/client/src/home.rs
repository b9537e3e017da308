//! Home of a tenant, for a service that routes the tenant's own traffic there too.

use std::sync::Arc;

use stead_types::Error;

use crate::{Client, Route, Tenant};

/// Home of one tenant, which the client keeps up to date. The example `home_region` forwards HTTP requests by it.
///
/// It is the route of the client's own calls: updated by the directory when it changes, and wrong for a moment after a
/// move, which does no harm: any region serves any tenant, from further away.
#[derive(Debug)]
pub struct Home {
    client: Client,
    tenant: Tenant,
    route_changed: tokio::sync::watch::Receiver<()>,
    last_returned: Option<Arc<Route>>,
}

impl Client {
    /// Returns the home of a tenant and its later changes. The client watches the route of a tenant that it has found:
    /// names that no tenant has leave nothing behind, so that they may come from outside.
    ///
    /// # Errors
    ///
    /// A name that no tenant can have.
    pub fn home(&self, tenant: &str) -> Result<Home, Error> {
        let tenant = self.tenant(tenant)?;
        let route_changed = tenant.session().route_changed();
        Ok(Home {
            client: self.clone(),
            last_returned: tenant.home(),
            tenant,
            route_changed,
        })
    }
}

impl Home {
    /// Returns the tenant's route: the one the client knows, otherwise the directory's. Only the first call costs a
    /// lookup.
    ///
    /// # Errors
    ///
    /// As [`crate::Directory::lookup`].
    pub async fn now(&self) -> Result<Arc<Route>, Error> {
        if let Some(route) = self.tenant.home() {
            return Ok(route);
        }
        let route = Arc::new(self.client.directory().lookup(self.tenant.name().as_str()).await?);
        self.tenant.watch_route();
        // A route that the watch has set meanwhile is no older.
        let known = self.tenant.home();
        Ok(known.unwrap_or_else(|| {
            self.tenant.session().set_route(Some(route.clone()));
            route
        }))
    }

    /// Waits until the home differs from the one that was returned last, and returns it. Of several changes in between
    /// only the last is returned. Cancel-safe.
    pub async fn changed(&mut self) -> Arc<Route> {
        self.tenant.watch_route();
        loop {
            self.route_changed.borrow_and_update();
            if let Some(route) = self.tenant.home().filter(|route| self.is_new(route)) {
                self.last_returned = Some(route.clone());
                return route;
            }
            // The sender lives as long as the tenant's session, which this holds.
            if self.route_changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn is_new(&self, route: &Route) -> bool {
        let place = |route: &Route| (route.number, route.epoch, route.home_group);
        self.last_returned.as_deref().map(place) != Some(place(route))
    }
}

#[cfg(test)]
mod tests {
    use stead_types::{Epoch, TenantNumber};
    use tokio::time::timeout;

    use super::*;
    use crate::Config;

    fn route(region: &str, epoch: u32) -> Option<Arc<Route>> {
        Some(Arc::new(Route {
            tenant: "acme".parse().unwrap(),
            number: TenantNumber::new(1),
            home_region: region.parse().unwrap(),
            home_group: 1,
            epoch: Epoch::new(epoch).unwrap(),
            followers: Vec::new(),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn home_reports_only_moves() {
        let client = Client::lazy(Config::new(["127.0.0.1:1"])).unwrap();
        let mut home = client.home("acme").unwrap();
        let session = client.tenant("acme").unwrap().session().clone();
        session.set_route(route("eu-west", 1));
        assert_eq!(home.now().await.unwrap().home_region.as_str(), "eu-west");
        assert_eq!(home.changed().await.epoch, Epoch::FIRST, "it was not known before");
        // Cleared and set again: the same home is no change.
        session.set_route(None);
        session.set_route(route("eu-west", 1));
        let quiet = std::time::Duration::from_millis(10);
        timeout(quiet, home.changed()).await.unwrap_err();
        session.set_route(route("us-east", 2));
        session.set_route(route("ap-south", 3));
        assert_eq!(home.changed().await.home_region.as_str(), "ap-south");
        assert_eq!(home.now().await.unwrap().epoch.get(), 3);
    }
}
