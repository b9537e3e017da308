//! Client of a cluster: its state, and the tasks that keep it up to date.
//!
//! The calls are where their results are: [`Client::tenant`], [`Client::directory`], [`Client::admin`],
//! [`Client::home`] and the tokens are further `impl`s, so that nothing here knows a handle.

use std::{sync::Arc, time::Duration};

use stead_types::Error;
use tokio::task::AbortHandle;

use crate::{
    Config, Region, diagnose, directory_calls, probe, route_watch,
    state::{ClientState, deadline_after},
};

/// Client of a cluster; clones share everything.
#[derive(Clone, Debug)]
pub struct Client(Arc<Handle>);

/// State of a client with its tasks, which end with the last clone of the client or of a handle.
#[derive(Debug)]
struct Handle {
    state: Arc<ClientState>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Client {
    /// Connects: asks a node for the regions, so that wrong addresses are reported at once.
    ///
    /// # Errors
    ///
    /// No node of the configuration answers; the message says what does answer there.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let deadline = deadline_after(config.connect_timeout);
        let client = Self::lazy(config)?;
        let answered = tokio::select! {
            answered = directory_calls::list_regions(client.state(), deadline) => answered,
            error = diagnose::find_wrong_protocol(client.state()) => return Err(error),
        };
        match answered {
            Ok(regions) => client.state().update_regions(regions),
            Err(error) => return Err(diagnose::explain_error(client.state(), error).await),
        }
        Ok(client)
    }

    /// Returns a client that connects with its first call. It needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// An endpoint that is no address, or a certificate that cannot be used.
    pub fn lazy(mut config: Config) -> Result<Self, Error> {
        config.connect = config.connector()?;
        let state = Arc::new(ClientState::new(config)?);
        let watch = tokio::spawn(route_watch::watch_routes(state.clone())).abort_handle();
        let probe = tokio::spawn(probe::measure(state.clone())).abort_handle();
        Ok(Self(Arc::new(Handle {
            state,
            tasks: vec![watch, probe],
        })))
    }

    /// Returns the regions that the client knows, with the measured round trips.
    pub fn regions(&self) -> Vec<(Region, Option<Duration>)> {
        let map = self.state().map.load();
        let known = |region: &Region| (region.clone(), map.round_trips.get(&region.name).copied());
        map.regions.values().map(known).collect()
    }

    pub(crate) fn state(&self) -> &Arc<ClientState> {
        &self.0.state
    }
}
