//! Ranges of keys, a page at a time, all pages at one revision.

use bytes::Bytes;
use stead_types::Revision;

use super::{Reading, Refused, Version};
use crate::rows::{Order, current, kind};

/// Most rows that one page looks at: where many keys are gone, a page ends early and says where to go on.
const ROWS_MAX: usize = 50_000;

/// What to scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// First key.
    pub start: Bytes,
    /// Behind the last key; `None` for the end of the tenant.
    pub end: Option<Bytes>,
    /// Which end comes first.
    pub order: Order,
    /// Whether values are left out.
    pub keys_only: bool,
    /// At which revision; `None` for the copy's own.
    pub at: Option<Revision>,
    /// Goes on behind this key, which a page named.
    pub after: Option<Bytes>,
    /// Most keys of the page.
    pub keys_max: usize,
    /// Most bytes of the page; it has at least one key even so.
    pub len_max: usize,
}

/// A page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The revision of all pages of this scan.
    pub revision: Revision,
    /// Keys and their versions, in the scan's order.
    pub entries: Vec<(Bytes, Version)>,
    /// Behind which key the next page goes on; `None` at the end.
    pub next: Option<Bytes>,
}

impl Reading<'_> {
    /// Returns a page of a range of keys.
    pub fn scan(&self, scan: &Scan) -> Result<Page, Refused> {
        let revision = self.resolve(scan.at)?;
        let mut page = Page {
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
                // The smallest key behind it is the one with a zero byte more.
                Order::Ascending => start = start.max([&at[..], &[0]].concat().into()),
                Order::Descending => end = end.min(at),
            }
        }
        (start, end)
    }

    fn version_of(&self, now: &current::Current, at: Revision, keys_only: bool) -> Result<Option<Version>, Refused> {
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
