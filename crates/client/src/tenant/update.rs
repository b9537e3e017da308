//! Read, modify, write.

use std::time::Duration;

use bytes::Bytes;
use stead_types::{Condition, Error, ErrorKind};
use tokio::time::Instant;

use super::Tenant;
use crate::{Item, Read, Write, Written, retry::after_conflict};

impl Tenant {
    /// Changes a key by a function of what it holds, and loses nobody else's change: it reads, asks the function, and
    /// writes on condition that nothing has changed since; if something has, it begins again, until the client's timeout.
    ///
    /// The function is given the key as it is, `None` if it does not exist, and returns its new value, or `None` to leave
    /// it as it is. It may be called several times.
    ///
    /// A key that would expire does not expire any more once it was changed: [`Tenant::update_expiring`] gives it a time.
    ///
    /// Returns what was written; `None` if the function left the key as it was.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; `Conflict` where others were faster until the time was over: nothing happened.
    pub async fn update(
        &self,
        key: impl Into<Bytes>,
        change: impl FnMut(Option<&Item>) -> Option<Bytes>,
    ) -> Result<Option<Written>, Error> {
        self.update_for(key.into(), None, change).await
    }

    /// As [`Tenant::update`]; a key that was changed lives for so long from then on, by the tenant's clock; whole
    /// milliseconds. One that the function leaves as it is keeps its time.
    ///
    /// # Errors
    ///
    /// As [`Tenant::update`].
    pub async fn update_expiring(
        &self,
        key: impl Into<Bytes>,
        ttl: Duration,
        change: impl FnMut(Option<&Item>) -> Option<Bytes>,
    ) -> Result<Option<Written>, Error> {
        self.update_for(key.into(), Some(ttl), change).await
    }

    async fn update_for(
        &self,
        key: Bytes,
        ttl: Option<Duration>,
        mut change: impl FnMut(Option<&Item>) -> Option<Bytes>,
    ) -> Result<Option<Written>, Error> {
        let inner = self.client.inner();
        let deadline = inner.deadline(None);
        let mut lost = 0;
        loop {
            let left = || Some(deadline.saturating_duration_since(Instant::now()));
            let read = Read {
                timeout: left(),
                ..Read::default()
            };
            let got = self.get_with(key.clone(), &read).await?;
            let Some(value) = change(got.item.as_ref()) else {
                return Ok(None);
            };
            let unchanged = got
                .item
                .map_or(Condition::Absent, |item| Condition::modified(item.modified));
            let write = Write {
                precondition: Some(unchanged),
                timeout: left(),
                ..Write::default()
            };
            match self.put_for(key.clone(), value, ttl, &write).await {
                Ok(written) => return Ok(Some(written)),
                Err(error) if matches!(error.kind, ErrorKind::ConditionFailed { .. }) => {}
                Err(error) => return Err(error),
            }
            lost += 1;
            if !inner.wait(inner.jitter(after_conflict(lost)), deadline).await {
                let message = format!("others changed the key first, {lost} times; nothing was written");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
    }
}
