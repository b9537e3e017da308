//! Reads.

use bytes::Bytes;
use stead_api::{convert::id, proto::v1};
use stead_types::Error;

use super::{ScanStream, Tenant, led};
use crate::{Batch, Got, Page, Read, Scan, answer::malformed};

impl Tenant {
    /// Reads one key, linearizably.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Got, Error> {
        self.get_with(key, &Read::default()).await
    }

    /// Reads one key.
    ///
    /// # Errors
    ///
    /// A refusal, or the last failure when the time was over.
    pub async fn get_with(&self, key: impl Into<Bytes>, read: &Read) -> Result<Got, Error> {
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
        self.seen(Got::read(answer), led(read), |got| &got.header)
    }

    /// Reads many keys at one revision.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn batch_get(&self, keys: Vec<Bytes>, read: &Read) -> Result<Batch, Error> {
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
        self.seen(Batch::read(answer), led(read), |batch| &batch.header)
    }

    /// Reads one page of keys.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn scan(&self, scan: &Scan) -> Result<Page, Error> {
        let request = v1::ScanRequest {
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
        let answer = self.read(v1::operation::Request::Scan(request), &scan.read).await?;
        let v1::answer::Response::Scan(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Page::read(answer), led(&scan.read), |page| &page.header)
    }

    /// Reads all keys of a range, page after page, at one revision; it goes on by itself where a connection breaks. The
    /// scan's pages and its `count_only` do not matter; each page may take as long as a call.
    pub fn scan_stream(&self, scan: &Scan) -> ScanStream {
        ScanStream::new(self.clone(), scan.clone())
    }
}
