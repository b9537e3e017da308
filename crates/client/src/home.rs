//! Where a tenant lives, for who sends the tenant's own traffic there too.

use std::sync::Arc;

use stead_types::Error;

use crate::{Client, Route, Tenant};

/// Where one tenant lives, as the client knows it and keeps knowing it. The example `home_region` forwards HTTP
/// requests with it.
///
/// It is what the client sends its own calls by: told by the directory when it changes, and wrong for a moment after a
/// move, which does no harm: any region serves any tenant, from further away.
#[derive(Debug)]
pub struct Home {
    client: Client,
    tenant: Tenant,
    rerouted: tokio::sync::watch::Receiver<()>,
    told: Option<Arc<Route>>,
}

impl Client {
    /// Returns where a tenant lives, now and from now on. The client follows the route of a tenant that it has found:
    /// names that are nobody's leave nothing behind, so that they may come from outside.
    ///
    /// # Errors
    ///
    /// A name that no tenant can have.
    pub fn home(&self, tenant: &str) -> Result<Home, Error> {
        let tenant = self.tenant(tenant)?;
        let rerouted = tenant.session().rerouted();
        Ok(Home {
            client: self.clone(),
            told: tenant.home(),
            tenant,
            rerouted,
        })
    }
}

impl Home {
    /// Returns where the tenant lives: what the client knows, else what the directory says. Costs nothing but the first
    /// time.
    ///
    /// # Errors
    ///
    /// As [`crate::Directory::lookup`].
    pub async fn now(&self) -> Result<Arc<Route>, Error> {
        if let Some(route) = self.tenant.home() {
            return Ok(route);
        }
        let route = Arc::new(self.client.directory().lookup(self.tenant.name().as_str()).await?);
        self.tenant.follow();
        // What was told meanwhile is no older.
        let known = self.tenant.home();
        Ok(known.unwrap_or_else(|| {
            self.tenant.session().set_route(Some(route.clone()));
            route
        }))
    }

    /// Waits until the tenant lives elsewhere than when this was asked last, or made, and returns where. Of several changes
    /// in between only the last is told. It may be dropped while it waits; nothing is lost.
    pub async fn changed(&mut self) -> Arc<Route> {
        self.tenant.follow();
        loop {
            self.rerouted.borrow_and_update();
            if let Some(route) = self.tenant.home().filter(|route| self.is_news(route)) {
                self.told = Some(route.clone());
                return route;
            }
            // The sender lives as long as the tenant's session, which this holds.
            if self.rerouted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn is_news(&self, route: &Route) -> bool {
        let place = |route: &Route| (route.number, route.epoch, route.home_group);
        self.told.as_deref().map(place) != Some(place(route))
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
    async fn a_home_tells_moves_and_only_moves() {
        let client = Client::lazy(Config::new(["127.0.0.1:1"])).unwrap();
        let mut home = client.home("acme").unwrap();
        let session = client.tenant("acme").unwrap().session().clone();
        session.set_route(route("eu-west", 1));
        assert_eq!(home.now().await.unwrap().home_region.as_str(), "eu-west");
        assert_eq!(home.changed().await.epoch, Epoch::FIRST, "it was not known before");
        // Forgotten and found again: it lives where it lived.
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
