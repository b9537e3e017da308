//! Scans of key ranges, a page at a time, all pages at one revision.

use bytes::Bytes;
use stead_types::Revision;

use super::{ReadError, TenantReader, Version};
use crate::rows::{Order, current, kind};

/// Most rows that one page examines: where many keys are deleted, a page ends early with a position to continue at.
const ROWS_MAX: usize = 50_000;

/// Arguments of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// First key.
    pub start: Bytes,
    /// First key after the range; `None` for the end of the tenant.
    pub end: Option<Bytes>,
    /// Order of the keys.
    pub order: Order,
    /// Whether values are left out.
    pub keys_only: bool,
    /// Revision to read at; `None` for the copy's own.
    pub at: Option<Revision>,
    /// Key after which the page begins: the position of the page before.
    pub after: Option<Bytes>,
    /// Most keys of the page.
    pub keys_max: usize,
    /// Most bytes of the page; it has at least one key even so.
    pub len_max: usize,
}

/// A page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPage {
    /// Revision of all pages of this scan.
    pub revision: Revision,
    /// Keys and their versions, in the scan's order.
    pub entries: Vec<(Bytes, Version)>,
    /// Key after which the next page begins; `None` at the end.
    pub next: Option<Bytes>,
}

impl TenantReader<'_> {
    /// Returns a page of a range of keys.
    pub fn scan(&self, scan: &Scan) -> Result<ScanPage, ReadError> {
        let revision = self.resolve(scan.at)?;
        let mut page = ScanPage {
            revision,
            entries: Vec::new(),
            next: None,
        };
        let (start, end) = self.bounds(scan);
        if start >= end {
            return Ok(page);
        }
        let mut len = 0;
        for (seen, row) in self.rows.range(&start..&end, scan.order).enumerate() {
            let (row, value) = row?;
            let key = current::parse_key(&row);
            if page.entries.len() >= scan.keys_max || len >= scan.len_max {
                page.next = page.entries.last().map(|(key, _)| key.clone());
                break;
            }
            let now = current::decode(value)?;
            let version = self.version_of(&now, revision, scan.keys_only)?;
            if let Some(version) = version {
                len += key.len() + version.value.bytes.len();
                page.entries.push((key.clone(), version));
            }
            if seen + 1 == ROWS_MAX {
                page.next = Some(key);
                break;
            }
        }
        Ok(page)
    }

    fn bounds(&self, scan: &Scan) -> (Bytes, Bytes) {
        let mut start = current::key(self.copy, &scan.start);
        let mut end = match &scan.end {
            Some(end) => current::key(self.copy, end),
            None => self.copy.range(kind::CURRENT).end,
        };
        if let Some(after) = &scan.after {
            let at = current::key(self.copy, after);
            match scan.order {
                // The next possible key is this one with a zero byte appended.
                Order::Ascending => start = start.max([&at[..], &[0]].concat().into()),
                Order::Descending => end = end.min(at),
            }
        }
        (start, end)
    }

    fn version_of(
        &self,
        now: &current::CurrentVersion,
        at: Revision,
        keys_only: bool,
    ) -> Result<Option<Version>, ReadError> {
        if now.revision <= at {
            let Some(live) = now.live else { return Ok(None) };
            if keys_only {
                let value = super::change::Value {
                    create: live.create,
                    version: live.version,
                    expires: live.expires,
                    bytes: Bytes::new(),
                };
                let revision = now.revision;
                return Ok(Some(Version { revision, value }));
            }
        }
        let mut version = super::as_of(self.rows, self.copy, now, at)?;
        if let Some(version) = version.as_mut().filter(|_| keys_only) {
            version.value.bytes = Bytes::new();
        }
        Ok(version)
    }
}
