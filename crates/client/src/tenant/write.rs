//! Write calls of a tenant: single keys and ranges.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::{id::from_idempotency_key, read::duration},
    proto::v1,
};
use stead_types::{Error, IdempotencyKey};

use super::{Tenant, precondition};
use crate::{
    AppendResponse, DeleteRangeResponse, DeleteResponse, Durability, Increment, IncrementResponse, KeyRange,
    WriteOptions, WriteResponse, call::RoutePreference, response::malformed,
};

impl Tenant {
    /// Writes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<WriteResponse, Error> {
        self.put_with(key, value, &WriteOptions::default()).await
    }

    /// Writes one key. However often it is sent, it is written once.
    ///
    /// # Errors
    ///
    /// An error response; or, when the deadline passed, that nothing happened, or that the outcome is unknown, with the
    /// idempotency key of the write.
    pub async fn put_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        write: &WriteOptions,
    ) -> Result<WriteResponse, Error> {
        self.put_for(key.into(), value.into(), None, write).await
    }

    /// Writes one key with a time to live, in whole milliseconds of the tenant's logged time. A later put sets it anew,
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
        write: &WriteOptions,
    ) -> Result<WriteResponse, Error> {
        self.put_for(key.into(), value.into(), Some(ttl), write).await
    }

    pub(super) async fn put_for(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
        write: &WriteOptions,
    ) -> Result<WriteResponse, Error> {
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
        self.observe(WriteResponse::read(answer), true, |written| &written.header)
    }

    /// Deletes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<DeleteResponse, Error> {
        self.delete_with(key, &WriteOptions::default()).await
    }

    /// Deletes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn delete_with(&self, key: impl Into<Bytes>, write: &WriteOptions) -> Result<DeleteResponse, Error> {
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
        self.observe(DeleteResponse::read(answer), true, |deleted| &deleted.header)
    }

    /// Increments the number of a key; a key that does not exist holds 0.
    ///
    /// # Errors
    ///
    /// As [`Tenant::increment_with`].
    pub async fn increment(&self, key: impl Into<Bytes>, delta: i64) -> Result<IncrementResponse, Error> {
        self.increment_with(key, Increment::by(delta), &WriteOptions::default())
            .await
    }

    /// Increments the number of a key, unless a bound would be passed: then the response has `admitted: false`, and
    /// nothing happened. However often it is sent, it counts once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; and where the key holds no number, or the sum is beyond 64 bits.
    pub async fn increment_with(
        &self,
        key: impl Into<Bytes>,
        increment: Increment,
        write: &WriteOptions,
    ) -> Result<IncrementResponse, Error> {
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
        self.observe(IncrementResponse::read(answer), true, |incremented| &incremented.header)
    }

    /// Appends bytes to the value of a key; a key that does not exist is created.
    ///
    /// # Errors
    ///
    /// As [`Tenant::append_with`].
    pub async fn append(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<AppendResponse, Error> {
        self.append_with(key, value, None, &WriteOptions::default()).await
    }

    /// Appends bytes to the value of a key, if it stays within `length_max` bytes (1 MiB if absent or 0). However often
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
        write: &WriteOptions,
    ) -> Result<AppendResponse, Error> {
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
        self.observe(AppendResponse::read(answer), true, |appended| &appended.header)
    }

    /// Deletes the keys of a range: up to 512 at once, a larger range in several changes, between which others see a
    /// part of it deleted. Keys that change after the first one stay. However often it is sent, it deletes once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]. Once a part is deleted, any failure is an unknown outcome. A range without bounds,
    /// other than [`KeyRange::all`], is refused.
    pub async fn delete_range(&self, range: &KeyRange) -> Result<DeleteRangeResponse, Error> {
        self.delete_range_within(range, None).await
    }

    /// Repeats [`Tenant::delete_range`] under the idempotency key of an earlier call whose outcome is unknown.
    ///
    /// # Errors
    ///
    /// As [`Tenant::delete_range`].
    pub async fn delete_range_again(
        &self,
        range: &KeyRange,
        key: IdempotencyKey,
    ) -> Result<DeleteRangeResponse, Error> {
        self.delete_range_under(range, None, from_idempotency_key(key)).await
    }

    /// As [`Tenant::delete_range`], with a timeout of its own: a million keys take a while.
    ///
    /// # Errors
    ///
    /// As [`Tenant::delete_range`].
    pub async fn delete_range_within(
        &self,
        range: &KeyRange,
        timeout: Option<Duration>,
    ) -> Result<DeleteRangeResponse, Error> {
        self.delete_range_under(range, timeout, self.key()).await
    }

    async fn delete_range_under(
        &self,
        range: &KeyRange,
        timeout: Option<Duration>,
        key: v1::IdempotencyKey,
    ) -> Result<DeleteRangeResponse, Error> {
        let request = v1::DeleteRangeRequest {
            tenant: self.text(),
            start: range.start.clone(),
            end: range.end.clone(),
            prefix: range.prefix.clone(),
            all: range.is_all(),
            idempotency_key: Some(key),
            durability: Durability::message(None),
        };
        let state = self.client.state();
        let deadline = state.deadline(timeout);
        let mut whole: Option<DeleteRangeResponse> = None;
        loop {
            // The key is used: executing it again as if it were new would delete keys that were written since.
            let preference = whole
                .as_ref()
                .map_or(RoutePreference::Leader, |_| RoutePreference::LeaderContinued);
            let request = v1::operation::Request::DeleteRange(request.clone());
            let answer = state.operate(&self.session, preference, request, deadline).await?;
            let v1::answer::Response::DeleteRange(answer) = answer else {
                return Err(malformed("kind"));
            };
            let is_whole = !answer.incomplete;
            let part = self.observe(DeleteRangeResponse::read(answer), true, |deleted| &deleted.header)?;
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
