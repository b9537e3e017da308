//! Page tokens of scans.

use bytes::Bytes;
use stead_types::{Revision, TenantNumber};
use xxhash_rust::xxh3::xxh3_64;

use super::Scan;
use crate::{
    codec::{Malformed, Reader, Writer},
    rows::Order,
};

const FORMAT: u8 = 1;

/// Page token: the position at which a scan continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// Revision of all pages of the scan.
    pub revision: Revision,
    /// Last key of the page before.
    pub after: Bytes,
    /// [`arguments_hash`] of the scan: a token is valid for no other.
    pub arguments: u64,
}

/// Error of bytes that are not a page token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page_token was not made by this scan: send back next_page_token unchanged, with the same arguments")]
pub struct InvalidPageToken;

/// Returns the hash of the arguments that must stay the same from page to page.
pub fn arguments_hash(tenant: TenantNumber, scan: &Scan) -> u64 {
    let mut w = Writer::with_capacity(64);
    w.u64(tenant.get()).bytes(&scan.start);
    w.option(scan.end.as_ref(), |w, end| {
        w.bytes(end);
    });
    w.bool(scan.order == Order::Descending).bool(scan.keys_only);
    xxh3_64(&w.finish())
}

impl PageToken {
    /// Returns the token as opaque bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut w = Writer::with_capacity(28 + self.after.len());
        w.u8(FORMAT)
            .u64(self.revision.to_u64())
            .u64(self.arguments)
            .bytes(&self.after);
        w.finish()
    }

    /// Reads what [`PageToken::to_bytes`] wrote for the same arguments.
    pub fn from_bytes(bytes: Bytes, arguments: u64) -> Result<Self, InvalidPageToken> {
        let token = Self::parse(bytes).map_err(|_| InvalidPageToken)?;
        if token.arguments != arguments {
            return Err(InvalidPageToken);
        }
        Ok(token)
    }

    fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "page token");
        if r.u8()? != FORMAT {
            return Err(r.malformed());
        }
        let revision = Revision::from_u64(r.u64()?);
        let arguments = r.u64()?;
        let after = r.bytes()?;
        r.end()?;
        Ok(Self {
            revision,
            after,
            arguments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_token_is_valid_for_its_scan_only() {
        let scan = Scan {
            start: Bytes::from_static(b"a"),
            end: None,
            order: Order::Ascending,
            keys_only: false,
            at: None,
            after: None,
            keys_max: 10,
            len_max: 100,
        };
        let hash = |scan: &Scan, tenant| arguments_hash(TenantNumber::new(tenant), scan);
        let token = PageToken {
            revision: "1.7".parse().unwrap(),
            after: Bytes::from_static(b"b"),
            arguments: hash(&scan, 1),
        };
        let bytes = token.to_bytes();
        assert_eq!(PageToken::from_bytes(bytes.clone(), hash(&scan, 1)), Ok(token));
        let other = Scan {
            order: Order::Descending,
            ..scan.clone()
        };
        for arguments in [hash(&scan, 2), hash(&other, 1)] {
            assert_eq!(PageToken::from_bytes(bytes.clone(), arguments), Err(InvalidPageToken));
        }
        assert_eq!(
            PageToken::from_bytes(bytes.slice(1..), hash(&scan, 1)),
            Err(InvalidPageToken)
        );
    }
}
