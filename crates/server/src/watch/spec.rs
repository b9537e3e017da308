//! Parsing of watch requests: every field is checked once.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::{self, range},
    proto::v1::{EventType, WatchCreate, watch_create::From as Message},
};
use stead_state::{
    authorization::{KeyAccess, KeyRange, Need},
    rows::change::Cause,
    shard::read::KeyRanges,
};
use stead_types::{Error, Revision, SessionToken, TenantName, TenantNumber, limits::WATCH_RANGES_MAX};

use crate::auth::Access;

/// Default interval of progress messages of a quiet watch.
const PROGRESS_DEFAULT: Duration = Duration::from_secs(10);
/// Shortest interval of progress messages.
const PROGRESS_MIN: Duration = Duration::from_millis(100);
/// Longest interval; a longer one is cut to it: no time is added to a clock that could overflow.
const PROGRESS_MAX: Duration = Duration::from_secs(24 * 3600);

/// A valid watch request.
#[derive(Debug)]
pub(super) struct WatchSpec {
    pub(super) tenant: TenantName,
    pub(super) ranges: KeyRanges,
    pub(super) initial_state: bool,
    pub(super) previous: bool,
    pub(super) progress_interval: Duration,
    start: StartPoint,
    exclude: Vec<EventType>,
}

/// Start point of a watch.
#[derive(Clone, Copy, Debug)]
enum StartPoint {
    Now,
    After(Revision),
    Token(SessionToken),
}

impl WatchSpec {
    /// Returns the revision after which it starts; `None`: now.
    pub(super) fn after(&self) -> Option<Revision> {
        match self.start {
            StartPoint::Now => None,
            StartPoint::After(revision) => Some(revision),
            StartPoint::Token(token) => Some(token.revision),
        }
    }

    /// Returns the name of the request field with the start point.
    pub(super) fn start_field(&self) -> &'static str {
        match self.start {
            StartPoint::Now | StartPoint::After(_) => "after_revision",
            StartPoint::Token(_) => "resume_token",
        }
    }

    /// Fails if it starts at a resume token of another tenant.
    pub(super) fn check_tenant(&self, tenant: TenantNumber) -> Result<(), Error> {
        match self.start {
            StartPoint::Token(token) if token.tenant != tenant => {
                let message =
                    "resume_token: belongs to another tenant, or to one that had this name before: watch without it";
                Err(Error::invalid("resume_token", message))
            }
            StartPoint::Now | StartPoint::After(_) | StartPoint::Token(_) => Ok(()),
        }
    }

    /// Checks that a caller may read all keys of its ranges.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED` or `PERMISSION_DENIED`.
    pub(super) fn check_access(&self, access: &Access) -> Result<(), Error> {
        self.ranges.iter().try_for_each(|(start, end)| {
            access.check(&Need::Keys {
                tenant: &self.tenant,
                access: KeyAccess::Read,
                range: KeyRange::Range(start, end.as_deref()),
            })
        })
    }

    /// Tells whether events of this type are included.
    pub(super) fn includes(&self, kind: EventType) -> bool {
        !self.exclude.contains(&kind)
    }
}

/// Returns the type of the event that a change makes.
pub(super) fn event_type(is_delete: bool, cause: Cause) -> EventType {
    match (is_delete, cause) {
        (false, _) => EventType::Put,
        (true, Cause::Write) => EventType::Delete,
        (true, Cause::Expiry) => EventType::Expire,
    }
}

/// Parses a watch request.
///
/// # Errors
///
/// The first field that breaks a limit.
pub(super) fn parse(create: &WatchCreate) -> Result<WatchSpec, Error> {
    let tenant = convert::id::tenant("tenant", &create.tenant)?;
    let start = match &create.from {
        None => StartPoint::Now,
        Some(_) if create.initial_state => {
            let message =
                "initial_state: begins with the newest state; leave out after_revision and resume_token with it";
            return Err(Error::invalid("initial_state", message));
        }
        Some(Message::AfterRevision(revision)) => {
            StartPoint::After(convert::id::revision("after_revision", *revision)?)
        }
        Some(Message::ResumeToken(token)) => {
            let invalid = |_| {
                let message =
                    "resume_token: not a token of this store: send back the token of a watch or a response, unchanged";
                Error::invalid("resume_token", message)
            };
            StartPoint::Token(SessionToken::from_bytes(token).map_err(invalid)?)
        }
    };
    Ok(WatchSpec {
        tenant,
        ranges: parse_ranges(create)?,
        initial_state: create.initial_state,
        previous: create.want_previous,
        progress_interval: parse_progress_interval(create)?,
        start,
        exclude: parse_exclude(create)?,
    })
}

fn parse_ranges(create: &WatchCreate) -> Result<KeyRanges, Error> {
    let len = create.ranges.len();
    if len > WATCH_RANGES_MAX {
        let message = format!("ranges: at most {WATCH_RANGES_MAX} a watch, not {len}; watch in parts");
        return Err(Error::invalid("ranges", message));
    }
    if len == 0 {
        return Ok(KeyRanges::all());
    }
    let read = |(at, requested): (usize, &stead_api::proto::v1::KeyRange)| -> Result<(Bytes, Option<Bytes>), Error> {
        let field = format!("ranges[{at}]");
        let (start, end) = range::bounds(
            &format!("{field}."),
            &requested.start,
            &requested.end,
            &requested.prefix,
        )?;
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Err(Error::invalid(&field, format!("{field}: ends before it begins")));
        }
        Ok((start, end))
    };
    let ranges = create.ranges.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(KeyRanges::new(ranges))
}

fn parse_progress_interval(create: &WatchCreate) -> Result<Duration, Error> {
    let Some(requested) = create.progress_interval else {
        return Ok(PROGRESS_DEFAULT);
    };
    let requested = convert::read::to_duration(requested).filter(|requested| *requested >= PROGRESS_MIN);
    requested.map(|requested| requested.min(PROGRESS_MAX)).ok_or_else(|| {
        let millis = PROGRESS_MIN.as_millis();
        let message = format!("progress_interval: at least {millis} ms; leave it out for every 10 s");
        Error::invalid("progress_interval", message)
    })
}

fn parse_exclude(create: &WatchCreate) -> Result<Vec<EventType>, Error> {
    let read = |(at, number): (usize, &i32)| {
        let known = EventType::try_from(*number)
            .ok()
            .filter(|kind| *kind != EventType::Unspecified);
        known.ok_or_else(|| {
            let field = format!("exclude[{at}]");
            let message = format!("{field}: there is no type of event {number}");
            Error::invalid(field, message)
        })
    };
    create.exclude.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn progress_interval_of_any_size_is_bounded() {
        let parsed = |seconds, nanos| {
            let create = WatchCreate {
                progress_interval: Some(prost_types::Duration { seconds, nanos }),
                ..WatchCreate::default()
            };
            parse_progress_interval(&create)
        };
        assert_eq!(parsed(0, 100_000_000), Ok(PROGRESS_MIN));
        assert_eq!(parsed(i64::MAX, 999_999_999), Ok(PROGRESS_MAX));
        let mut interval = tokio::time::interval(parsed(i64::MAX, 0).unwrap());
        interval.reset();
        for (seconds, nanos) in [(0, 0), (0, 99_999_999), (-1, 0), (i64::MIN, -1)] {
            assert!(parsed(seconds, nanos).is_err(), "{seconds} s {nanos} ns");
        }
    }
}
