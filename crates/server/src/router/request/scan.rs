//! Scans: ranges of keys, read page by page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use stead_api::{
    convert::{self, range},
    proto::v1,
};
use stead_state::{
    rows::Order,
    shard::read::{PageToken, Scan, arguments_hash},
};
use stead_types::{
    Error, Revision, TenantNumber,
    limits::{PAGE_KEYS_DEFAULT, PAGE_KEYS_MAX, PAGE_LEN_MAX},
};

/// A range of keys to scan page by page.
#[derive(Debug)]
pub(crate) struct Range {
    start: Bytes,
    end: Option<Bytes>,
    order: Order,
    keys_only: bool,
    page_size: u32,
    page_token: Option<Bytes>,
    /// Whether only the number of keys is requested.
    pub(crate) count_only: bool,
}

pub(super) fn range(scan: &v1::ScanRequest) -> Result<Range, Error> {
    let (start, end) = range::bounds("", &scan.start, &scan.end, &scan.prefix)?;
    let page_token = match scan.page_token.as_str() {
        "" => None,
        token => Some(URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid_token())?.into()),
    };
    Ok(Range {
        start,
        end,
        order: if scan.reverse {
            Order::Descending
        } else {
            Order::Ascending
        },
        keys_only: scan.keys_only || scan.count_only,
        page_size: convert::page::size(scan.page_size, PAGE_KEYS_DEFAULT, PAGE_KEYS_MAX)?,
        page_token,
        count_only: scan.count_only,
    })
}

fn invalid_token() -> Error {
    let message = "page_token: not of this scan: send back next_page_token unchanged, with the same arguments";
    Error::invalid("page_token", message)
}

impl Range {
    /// Returns first key and end of the range, on whatever page.
    pub(crate) fn bounds(&self) -> (&[u8], Option<&[u8]>) {
        (&self.start, self.end.as_deref())
    }

    /// Returns first key and end of the range, if its first page is requested.
    pub(crate) fn first_page(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let whole = (self.start.as_ref(), self.end.as_deref());
        self.page_token.is_none().then_some(whole)
    }

    /// Returns the scan of the next page, of a tenant whose number is known now.
    pub(crate) fn scan(&self, tenant: TenantNumber, at: Option<Revision>) -> Result<Scan, Error> {
        let mut scan = Scan {
            start: self.start.clone(),
            end: self.end.clone(),
            order: self.order,
            keys_only: self.keys_only,
            at,
            after: None,
            keys_max: self.page_size as usize,
            len_max: PAGE_LEN_MAX,
        };
        if let Some(token) = &self.page_token {
            let arguments = arguments_hash(tenant, &scan);
            let token = PageToken::from_bytes(token.clone(), arguments).map_err(|_| invalid_token())?;
            scan.at = Some(token.revision);
            scan.after = Some(token.after);
        }
        Ok(scan)
    }

    /// Encodes the token of the page that follows a key.
    pub(crate) fn token(tenant: TenantNumber, scan: &Scan, revision: Revision, after: Bytes) -> String {
        let token = PageToken {
            revision,
            after,
            arguments: arguments_hash(tenant, scan),
        };
        URL_SAFE_NO_PAD.encode(token.to_bytes())
    }
}
