//! Writes of one key, and of a range.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::{id::from_idempotency_key, read::duration},
    proto::v1,
};
use stead_types::{Error, IdempotencyKey};

use super::{Tenant, precondition};
use crate::{
    Appended, Deleted, DeletedRange, Durability, Increment, Incremented, KeyRange, Write, Written, answer::malformed,
    call::Errand,
};

impl Tenant {
    /// Writes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Written, Error> {
        self.put_with(key, value, &Write::default()).await
    }

    /// Writes one key. However often it is sent, it is written once.
    ///
    /// # Errors
    ///
    /// A refusal; or, when the time was over, that nothing happened, or that the outcome is unknown, with the key
    /// under which it was sent.
    pub async fn put_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        write: &Write,
    ) -> Result<Written, Error> {
        self.put_for(key.into(), value.into(), None, write).await
    }

    /// Writes one key that lives for so long, by the tenant's clock; whole milliseconds. A later put sets it anew,
    /// increments and appends leave it.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn put_expiring(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
        write: &Write,
    ) -> Result<Written, Error> {
        self.put_for(key.into(), value.into(), Some(ttl), write).await
    }

    pub(super) async fn put_for(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
        write: &Write,
    ) -> Result<Written, Error> {
        let request = v1::PutRequest {
            tenant: self.text(),
            key,
            value,
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key_of(write)),
            durability: Durability::message(write.durability),
            ttl: ttl.map(duration),
        };
        let answer = self.write(v1::operation::Request::Put(request), write.timeout).await?;
        let v1::answer::Response::Put(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Written::read(answer), true, |written| &written.header)
    }

    /// Removes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, Error> {
        self.delete_with(key, &Write::default()).await
    }

    /// Removes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn delete_with(&self, key: impl Into<Bytes>, write: &Write) -> Result<Deleted, Error> {
        let request = v1::DeleteRequest {
            tenant: self.text(),
            key: key.into(),
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key_of(write)),
            durability: Durability::message(write.durability),
        };
        let answer = self
            .write(v1::operation::Request::Delete(request), write.timeout)
            .await?;
        let v1::answer::Response::Delete(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Deleted::read(answer), true, |deleted| &deleted.header)
    }

    /// Adds to the number that a key holds; a key that does not exist holds 0.
    ///
    /// # Errors
    ///
    /// As [`Tenant::increment_with`].
    pub async fn increment(&self, key: impl Into<Bytes>, delta: i64) -> Result<Incremented, Error> {
        self.increment_with(key, Increment::by(delta), &Write::default()).await
    }

    /// Adds to the number that a key holds, unless a bound would be passed: then the answer is `admitted: false`, and
    /// nothing happened. However often it is sent, it counts once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; and where the key holds no number, or the sum is beyond 64 bits.
    pub async fn increment_with(
        &self,
        key: impl Into<Bytes>,
        increment: Increment,
        write: &Write,
    ) -> Result<Incremented, Error> {
        let request = v1::IncrementRequest {
            tenant: self.text(),
            key: key.into(),
            delta: increment.delta,
            floor: increment.floor,
            ceiling: increment.ceiling,
            window: increment.window.map(duration),
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key_of(write)),
            durability: Durability::message(write.durability),
        };
        let answer = self
            .write(v1::operation::Request::Increment(request), write.timeout)
            .await?;
        let v1::answer::Response::Increment(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Incremented::read(answer), true, |incremented| &incremented.header)
    }

    /// Adds bytes behind those that a key holds; a key that does not exist is made.
    ///
    /// # Errors
    ///
    /// As [`Tenant::append_with`].
    pub async fn append(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Appended, Error> {
        self.append_with(key, value, None, &Write::default()).await
    }

    /// Adds bytes behind those that a key holds, if the value stays within `length_max` bytes (1 MiB if absent or 0). However often
    /// it is sent, it is appended once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; and where the value would become too long.
    pub async fn append_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        length_max: Option<u32>,
        write: &Write,
    ) -> Result<Appended, Error> {
        let request = v1::AppendRequest {
            tenant: self.text(),
            key: key.into(),
            value: value.into(),
            max_length: length_max.unwrap_or(0),
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key_of(write)),
            durability: Durability::message(write.durability),
        };
        let answer = self
            .write(v1::operation::Request::Append(request), write.timeout)
            .await?;
        let v1::answer::Response::Append(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Appended::read(answer), true, |appended| &appended.header)
    }

    /// Removes the keys of a range: up to 512 at once, a larger range in several changes, between which others see a part
    /// of it gone. Keys that change after the first one stay. However often it is sent, it removes once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]. Once a part is gone, whatever stops the rest is an unknown outcome. A range that names
    /// nothing, other than [`KeyRange::all`], is refused.
    pub async fn delete_range(&self, range: &KeyRange) -> Result<DeletedRange, Error> {
        self.delete_range_within(range, None).await
    }

    /// Asks again for [`Tenant::delete_range`] under the key of an earlier call whose outcome is unknown.
    ///
    /// # Errors
    ///
    /// As [`Tenant::delete_range`].
    pub async fn delete_range_again(&self, range: &KeyRange, key: IdempotencyKey) -> Result<DeletedRange, Error> {
        self.delete_range_under(range, None, from_idempotency_key(key)).await
    }

    /// As [`Tenant::delete_range`], with a time of its own: a million keys take a while.
    ///
    /// # Errors
    ///
    /// As [`Tenant::delete_range`].
    pub async fn delete_range_within(
        &self,
        range: &KeyRange,
        timeout: Option<Duration>,
    ) -> Result<DeletedRange, Error> {
        self.delete_range_under(range, timeout, self.key()).await
    }

    async fn delete_range_under(
        &self,
        range: &KeyRange,
        timeout: Option<Duration>,
        key: v1::IdempotencyKey,
    ) -> Result<DeletedRange, Error> {
        let request = v1::DeleteRangeRequest {
            tenant: self.text(),
            start: range.start.clone(),
            end: range.end.clone(),
            prefix: range.prefix.clone(),
            all: range.is_all(),
            idempotency_key: Some(key),
            durability: Durability::message(None),
        };
        let inner = self.client.inner();
        let deadline = inner.deadline(timeout);
        let mut whole: Option<DeletedRange> = None;
        loop {
            // Its key was used: to execute it again as if it were new would remove what was written since.
            let errand = whole.as_ref().map_or(Errand::Led, |_| Errand::Begun);
            let request = v1::operation::Request::DeleteRange(request.clone());
            let answer = inner.operate(&self.session, errand, request, deadline).await?;
            let v1::answer::Response::DeleteRange(answer) = answer else {
                return Err(malformed("kind"));
            };
            let is_whole = !answer.incomplete;
            let part = self.seen(DeletedRange::read(answer), true, |deleted| &deleted.header)?;
            let so_far = match whole {
                Some(before) => before.and(part),
                None => part,
            };
            if is_whole {
                return Ok(so_far);
            }
            whole = Some(so_far);
        }
    }
}
