//! Handle of the directory: lookups, regions and watches.

use stead_types::Error;

use crate::{
    Client, Region, Route,
    directory_calls::{self, DirectoryWatch},
};

/// Reads and watches the directory: which region is home to which tenant.
#[derive(Clone, Debug)]
pub struct Directory(Client);

impl Client {
    /// Returns the calls that read the directory.
    pub fn directory(&self) -> Directory {
        Directory(self.clone())
    }
}

impl Directory {
    /// Looks up the route of a tenant.
    ///
    /// # Errors
    ///
    /// No such tenant, or no node answers.
    pub async fn lookup(&self, tenant: &str) -> Result<Route, Error> {
        directory_calls::lookup(self.0.state(), tenant).await
    }

    /// Returns the regions and the addresses of their nodes.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn regions(&self) -> Result<Vec<Region>, Error> {
        let state = self.0.state();
        directory_calls::list_regions(state, state.deadline(None)).await
    }

    /// Watches the routes of tenants, or of all if none is named. The watch ends with its connection.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn watch(&self, tenants: Vec<String>) -> Result<DirectoryWatch, Error> {
        directory_calls::watch(self.0.state(), tenants).await
    }
}
