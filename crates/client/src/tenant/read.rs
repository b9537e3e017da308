//! Read calls of a tenant.

use bytes::Bytes;
use stead_api::{convert::id, proto::v1};
use stead_types::Error;

use super::{ScanStream, Tenant, needs_leader};
use crate::{BatchGetResponse, GetResponse, Page, ReadOptions, ScanOptions, response::malformed};

impl Tenant {
    /// Reads one key, linearizably.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<GetResponse, Error> {
        self.get_with(key, &ReadOptions::default()).await
    }

    /// Reads one key.
    ///
    /// # Errors
    ///
    /// An error response, or the last failure before the deadline.
    pub async fn get_with(&self, key: impl Into<Bytes>, read: &ReadOptions) -> Result<GetResponse, Error> {
        let request = v1::GetRequest {
            tenant: self.text(),
            key: key.into(),
            consistency: self.consistency(read),
            revision: read.revision.map(id::from_revision),
        };
        let answer = self.read(v1::operation::Request::Get(request), read).await?;
        let v1::answer::Response::Get(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.observe(GetResponse::read(answer), needs_leader(read), |got| &got.header)
    }

    /// Reads several keys at one revision.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn batch_get(&self, keys: Vec<Bytes>, read: &ReadOptions) -> Result<BatchGetResponse, Error> {
        let request = v1::BatchGetRequest {
            tenant: self.text(),
            keys,
            consistency: self.consistency(read),
            revision: read.revision.map(id::from_revision),
        };
        let answer = self.read(v1::operation::Request::BatchGet(request), read).await?;
        let v1::answer::Response::BatchGet(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.observe(BatchGetResponse::read(answer), needs_leader(read), |batch| {
            &batch.header
        })
    }

    /// Reads one page of keys. It has a key if there is one: a node that has passed very many removed keys without finding
    /// one is asked to go on.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn scan(&self, scan: &ScanOptions) -> Result<Page, Error> {
        let mut request = v1::ScanRequest {
            tenant: self.text(),
            start: scan.start.clone(),
            end: scan.end.clone(),
            prefix: scan.prefix.clone(),
            reverse: scan.reverse,
            page_size: i32::try_from(scan.page_size).unwrap_or(i32::MAX),
            page_token: scan.page_token.clone(),
            keys_only: scan.keys_only,
            count_only: scan.count_only,
            consistency: self.consistency(&scan.read),
            revision: scan.read.revision.map(id::from_revision),
        };
        loop {
            let asked = v1::operation::Request::Scan(request.clone());
            let v1::answer::Response::Scan(answer) = self.read(asked, &scan.read).await? else {
                return Err(malformed("kind"));
            };
            let page = self.observe(Page::read(answer), needs_leader(&scan.read), |page| &page.header)?;
            match &page.next {
                Some(next) if page.items.is_empty() => request.page_token.clone_from(next),
                Some(_) | None => return Ok(page),
            }
        }
    }

    /// Returns a stream of all keys of a range at one revision, read page by page; it resumes by itself where a
    /// connection breaks. The scan's page size, page token and `count_only` are ignored; each page may take as long as
    /// a call.
    pub fn scan_stream(&self, scan: &ScanOptions) -> ScanStream {
        ScanStream::new(self.clone(), scan.clone())
    }
}
