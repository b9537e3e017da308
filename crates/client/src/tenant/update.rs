//! Read-modify-write of one key.

use std::time::Duration;

use bytes::Bytes;
use stead_types::{Condition, Error, ErrorKind};
use tokio::time::Instant;

use super::Tenant;
use crate::{Item, ReadOptions, WriteOptions, WriteResponse, retry::after_conflict};

impl Tenant {
    /// Updates a key by a function of its value, without losing concurrent changes: it reads, calls the function, and
    /// writes on condition that the key has not changed since; on a conflict it begins again, until the client's
    /// timeout.
    ///
    /// The function gets the current key, `None` if it does not exist, and returns its new value, or `None` to leave
    /// it. It may be called several times.
    ///
    /// A key with a time to live loses it when it is updated: [`Tenant::update_expiring`] sets one.
    ///
    /// Returns the response of the write; `None` if the function left the key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; `Conflict` after conflicts until the timeout: nothing happened.
    pub async fn update(
        &self,
        key: impl Into<Bytes>,
        change: impl FnMut(Option<&Item>) -> Option<Bytes>,
    ) -> Result<Option<WriteResponse>, Error> {
        self.update_for(key.into(), None, change).await
    }

    /// As [`Tenant::update`]; an updated key gets this time to live, in whole milliseconds of the tenant's logged time.
    /// A key that the function leaves keeps its own.
    ///
    /// # Errors
    ///
    /// As [`Tenant::update`].
    pub async fn update_expiring(
        &self,
        key: impl Into<Bytes>,
        ttl: Duration,
        change: impl FnMut(Option<&Item>) -> Option<Bytes>,
    ) -> Result<Option<WriteResponse>, Error> {
        self.update_for(key.into(), Some(ttl), change).await
    }

    async fn update_for(
        &self,
        key: Bytes,
        ttl: Option<Duration>,
        mut change: impl FnMut(Option<&Item>) -> Option<Bytes>,
    ) -> Result<Option<WriteResponse>, Error> {
        let state = self.client.state();
        let deadline = state.deadline(None);
        let mut lost = 0;
        loop {
            let left = || Some(deadline.saturating_duration_since(Instant::now()));
            let read = ReadOptions {
                timeout: left(),
                ..ReadOptions::default()
            };
            let got = self.get_with(key.clone(), &read).await?;
            let Some(value) = change(got.item.as_ref()) else {
                return Ok(None);
            };
            let unchanged = got
                .item
                .map_or(Condition::Absent, |item| Condition::modified_at(item.modified));
            let write = WriteOptions {
                precondition: Some(unchanged),
                timeout: left(),
                ..WriteOptions::default()
            };
            match self.put_for(key.clone(), value, ttl, &write).await {
                Ok(written) => return Ok(Some(written)),
                Err(error) if matches!(error.kind, ErrorKind::ConditionFailed { .. }) => {}
                Err(error) => return Err(error),
            }
            lost += 1;
            if !state.wait(state.jitter(after_conflict(lost)), deadline).await {
                let message = format!(
                    "the key was changed by others {lost} times before it could be written; nothing was written"
                );
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
    }
}
