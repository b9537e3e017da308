//! Scans of key ranges, a page at a time, all pages at one revision.
//!
//! A page is read in short steps, between which the rows may change: applying waits during a step only.

use std::ops::Range;

use bytes::Bytes;
use stead_types::Revision;

use super::{DeadRange, ReadError, TenantReader, Version};
use crate::rows::{Order, current, kind};

/// Most rows that one step examines.
const STEP_ROWS_MAX: usize = 256;
/// Bytes of keys and values after which a step ends.
const STEP_LEN_MAX: usize = 256 << 10;
/// Number of rows for which a skipped range counts: it costs another search for the next row.
const SKIP_ROWS: usize = 8;
/// Fewest tombstones for which a range is worth remembering.
const DEAD_ROWS_MIN: usize = 32;

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

/// A page of a scan, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPage {
    /// Revision of all pages of this scan.
    pub revision: Revision,
    /// Keys and their versions, in the scan's order.
    pub entries: Vec<(Bytes, Version)>,
    /// Key after which the next page begins; `None` at the end.
    pub next: Option<Bytes>,
    /// Number of rows that were examined.
    pub examined: usize,
    /// Bytes of the rows that were examined and are not among the entries.
    pub skipped_len: u64,
    /// Ranges that were found without a live key.
    pub dead: Vec<DeadRange>,
}

/// Finds a known range without a live key at a position, for a scan in this order.
pub type FindDeadRange<'a> = &'a dyn Fn(&[u8], Order) -> Option<DeadRange>;

/// Place among the rows. A scan passes one at each row and needs the key of few.
enum Place {
    /// At a row.
    At(Bytes),
    /// Right after a row.
    After(Bytes),
}

impl Place {
    /// Returns the least key that is not before the place.
    fn into_key(self) -> Bytes {
        match self {
            Self::At(row) => row,
            Self::After(row) => successor(&row),
        }
    }
}

/// Tombstones that a scan has passed since the last live key.
struct DeadRun {
    /// Place where the run begins; in descending order where it ends.
    begin: Place,
    /// Highest revision of a tombstone.
    revision: Revision,
    rows: usize,
}

impl DeadRun {
    fn begin(at: Place) -> Self {
        Self {
            begin: at,
            revision: Revision::from_u64(0),
            rows: 0,
        }
    }

    /// Returns the range up to a place, if it is worth remembering.
    fn range(self, to: Place, order: Order) -> Option<DeadRange> {
        if self.rows < DEAD_ROWS_MIN {
            return None;
        }
        let (begin, to) = (self.begin.into_key(), to.into_key());
        let (start, end) = match order {
            Order::Ascending => (begin, to),
            Order::Descending => (to, begin),
        };
        Some(DeadRange {
            start,
            end,
            revision: self.revision,
        })
    }
}

/// Step of a scan under way.
struct Step<'a> {
    reader: TenantReader<'a>,
    scan: &'a Scan,
    known: FindDeadRange<'a>,
    /// Rows that were not examined yet.
    left: Range<Bytes>,
    page: ScanPage,
    /// Bytes of the entries.
    len: usize,
    run: DeadRun,
}

/// Reason why a step examines no more rows.
enum Stop {
    /// The range has no more.
    End,
    /// The page, or the step, is full.
    Full,
    /// A known range begins, without a live key.
    Dead(DeadRange),
}

impl TenantReader<'_> {
    /// Returns the next step of a page of a range of keys.
    ///
    /// # Errors
    ///
    /// A revision that the copy does not have.
    pub fn scan(&self, scan: &Scan) -> Result<ScanPage, ReadError> {
        self.scan_beyond(scan, &|_, _| None)
    }

    /// Returns the next step of a page; known ranges without a live key are skipped.
    ///
    /// # Errors
    ///
    /// A revision that the copy does not have.
    pub fn scan_beyond(&self, scan: &Scan, known: FindDeadRange<'_>) -> Result<ScanPage, ReadError> {
        let page = ScanPage {
            revision: self.resolve(scan.at)?,
            entries: Vec::new(),
            next: None,
            examined: 0,
            skipped_len: 0,
            dead: Vec::new(),
        };
        let left = self.bounds(scan);
        let begin = match scan.order {
            Order::Ascending => left.start.clone(),
            Order::Descending => left.end.clone(),
        };
        let step = Step {
            reader: *self,
            scan,
            known,
            left,
            page,
            len: 0,
            run: DeadRun::begin(Place::At(begin)),
        };
        step.run()
    }

    fn bounds(&self, scan: &Scan) -> Range<Bytes> {
        let mut start = current::key(self.copy, &scan.start);
        let mut end = match &scan.end {
            Some(end) => current::key(self.copy, end),
            None => self.copy.range(kind::CURRENT).end,
        };
        if let Some(after) = &scan.after {
            let at = current::key(self.copy, after);
            match scan.order {
                Order::Ascending => start = start.max(successor(&at)),
                Order::Descending => end = end.min(at),
            }
        }
        start..end
    }
}

/// Returns the next possible key: this one with a zero byte appended.
fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

impl Step<'_> {
    fn run(mut self) -> Result<ScanPage, ReadError> {
        let order = self.scan.order;
        while self.left.start < self.left.end {
            let position = match order {
                Order::Ascending => &self.left.start,
                Order::Descending => &self.left.end,
            };
            let stop = match self.known(position) {
                Some(range) => Stop::Dead(range),
                None => self.examine()?,
            };
            match stop {
                Stop::End => break,
                Stop::Full => return Ok(self.page),
                Stop::Dead(range) => self.skip(range),
            }
        }
        let end = match order {
            Order::Ascending => self.left.start.max(self.left.end),
            Order::Descending => self.left.start.min(self.left.end),
        };
        self.page.dead.extend(self.run.range(Place::At(end), order));
        Ok(self.page)
    }

    /// Returns a range at a position in which this scan finds nothing.
    fn known(&self, position: &[u8]) -> Option<DeadRange> {
        (self.known)(position, self.scan.order).filter(|range| range.revision <= self.page.revision)
    }

    fn skip(&mut self, range: DeadRange) {
        self.page.examined += SKIP_ROWS;
        self.run.rows += DEAD_ROWS_MIN;
        self.run.revision = self.run.revision.max(range.revision);
        let left = &mut self.left;
        match self.scan.order {
            Order::Ascending => left.start = range.end,
            Order::Descending => left.end = range.start,
        }
    }

    /// Examines rows until there is a reason to stop.
    fn examine(&mut self) -> Result<Stop, ReadError> {
        let (rows, left) = (self.reader.rows, self.left.clone());
        for row in rows.range(&left.start..&left.end, self.scan.order) {
            let (row, value) = row?;
            if self.is_full() {
                self.page.next = self.page.entries.last().map(|(key, _)| key.clone());
                return Ok(Stop::Full);
            }
            let (at, after) = (|| Place::At(row.clone()), || Place::After(row.clone()));
            let (near, far): (&dyn Fn() -> Place, &dyn Fn() -> Place) = match self.scan.order {
                Order::Ascending => (&at, &after),
                Order::Descending => (&after, &at),
            };
            let now = current::decode(value)?;
            if now.live.is_none() && now.revision <= self.page.revision {
                if let Some(range) = self.known(&near().into_key()) {
                    return Ok(Stop::Dead(range));
                }
                self.run.rows += 1;
                self.run.revision = self.run.revision.max(now.revision);
                self.page.skipped_len += row.len() as u64;
            } else {
                self.end_run(near(), far());
                self.take(&row, &now)?;
            }
            self.page.examined += 1;
            // Of a full page the next row tells whether it is the last one.
            if !self.is_full() && (self.page.examined >= STEP_ROWS_MAX || self.len >= STEP_LEN_MAX) {
                self.end_run(far(), far());
                self.page.next = Some(current::parse_key(&row));
                return Ok(Stop::Full);
            }
        }
        Ok(Stop::End)
    }

    fn is_full(&self) -> bool {
        self.page.entries.len() >= self.scan.keys_max || self.len >= self.scan.len_max
    }

    /// Ends the run of rows without a live one, and begins the next.
    fn end_run(&mut self, to: Place, next: Place) {
        let run = std::mem::replace(&mut self.run, DeadRun::begin(next));
        self.page.dead.extend(run.range(to, self.scan.order));
    }

    /// Takes the version of a key as of the scan's revision, if the key existed.
    fn take(&mut self, row: &Bytes, now: &current::CurrentVersion) -> Result<(), ReadError> {
        let key = current::parse_key(row);
        let version = self.reader.version_of(now, self.page.revision, self.scan.keys_only)?;
        match version {
            Some(version) => {
                self.len += key.len() + version.value.bytes.len();
                self.page.entries.push((key, version));
            }
            None => self.page.skipped_len += row.len() as u64,
        }
        Ok(())
    }
}

impl TenantReader<'_> {
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
