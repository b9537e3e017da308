//! What a watch asks for, checked once.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::{self, range},
    proto::v1::{EventType, WatchCreate, watch_create::From as Message},
};
use stead_state::{rows::change::Cause, shard::read::Ranges};
use stead_types::{Error, Revision, SessionToken, TenantName, TenantNumber, limits::WATCH_RANGES_MAX};

/// How often a quiet watch says how far it is, unless it asks for another time.
const PROGRESS_DEFAULT: Duration = Duration::from_secs(10);
/// The shortest that it can ask for.
const PROGRESS_MIN: Duration = Duration::from_millis(100);

/// A watch that keeps every limit.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) tenant: TenantName,
    pub(super) ranges: Ranges,
    pub(super) initial_state: bool,
    pub(super) previous: bool,
    pub(super) progress: Duration,
    begin: Begin,
    exclude: Vec<EventType>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
enum Begin {
    Now,
    After(Revision),
    Token(SessionToken),
}

impl Ask {
    /// Returns the revision behind which it begins; `None`: from now on.
    pub(super) fn after(&self) -> Option<Revision> {
        match self.begin {
            Begin::Now => None,
            Begin::After(revision) => Some(revision),
            Begin::Token(token) => Some(token.revision),
        }
    }

    /// Returns the field that says where it begins.
    pub(super) fn begin_field(&self) -> &'static str {
        match self.begin {
            Begin::Now | Begin::After(_) => "after_revision",
            Begin::Token(_) => "resume_token",
        }
    }

    /// Fails if it begins at a token of another tenant.
    pub(super) fn is_of(&self, tenant: TenantNumber) -> Result<(), Error> {
        match self.begin {
            Begin::Token(token) if token.tenant != tenant => {
                let message =
                    "resume_token: is of another tenant, or of one that had this name before: watch without it";
                Err(Error::invalid("resume_token", message))
            }
            Begin::Now | Begin::After(_) | Begin::Token(_) => Ok(()),
        }
    }

    /// Tells whether it wants events of this type.
    pub(super) fn wants(&self, kind: EventType) -> bool {
        !self.exclude.contains(&kind)
    }
}

/// Returns the type of the event that a change makes.
pub(super) fn kind(is_delete: bool, cause: Cause) -> EventType {
    match (is_delete, cause) {
        (false, _) => EventType::Put,
        (true, Cause::Write) => EventType::Delete,
        (true, Cause::Expiry) => EventType::Expire,
    }
}

/// Reads a watch.
///
/// # Errors
///
/// The first field that breaks a limit.
pub(super) fn parse(create: &WatchCreate) -> Result<Ask, Error> {
    let tenant = convert::id::tenant("tenant", &create.tenant)?;
    let begin = match &create.from {
        None => Begin::Now,
        Some(_) if create.initial_state => {
            let message =
                "initial_state: begins with the newest state; leave out after_revision and resume_token with it";
            return Err(Error::invalid("initial_state", message));
        }
        Some(Message::AfterRevision(revision)) => Begin::After(convert::id::revision("after_revision", *revision)?),
        Some(Message::ResumeToken(token)) => {
            let invalid = |_| {
                let message =
                    "resume_token: not a token of this store: send back what a watch or an answer gave, unchanged";
                Error::invalid("resume_token", message)
            };
            Begin::Token(SessionToken::from_bytes(token).map_err(invalid)?)
        }
    };
    Ok(Ask {
        tenant,
        ranges: ranges(create)?,
        initial_state: create.initial_state,
        previous: create.want_previous,
        progress: progress(create)?,
        begin,
        exclude: exclude(create)?,
    })
}

fn ranges(create: &WatchCreate) -> Result<Ranges, Error> {
    let len = create.ranges.len();
    if len > WATCH_RANGES_MAX {
        let message = format!("ranges: at most {WATCH_RANGES_MAX} a watch, not {len}; watch in parts");
        return Err(Error::invalid("ranges", message));
    }
    if len == 0 {
        return Ok(Ranges::all());
    }
    let read = |(at, asked): (usize, &stead_api::proto::v1::KeyRange)| -> Result<(Bytes, Option<Bytes>), Error> {
        let field = format!("ranges[{at}]");
        let (start, end) = range::bounds(&format!("{field}."), (&asked.start, &asked.end), &asked.prefix)?;
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Err(Error::invalid(&field, format!("{field}: ends before it begins")));
        }
        Ok((start, end))
    };
    let ranges = create.ranges.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Ranges::new(ranges))
}

fn progress(create: &WatchCreate) -> Result<Duration, Error> {
    let Some(asked) = create.progress_interval else {
        return Ok(PROGRESS_DEFAULT);
    };
    let asked = Duration::try_from(asked).ok().filter(|asked| *asked >= PROGRESS_MIN);
    asked.ok_or_else(|| {
        let millis = PROGRESS_MIN.as_millis();
        let message = format!("progress_interval: at least {millis} ms; leave it out for every 10 s");
        Error::invalid("progress_interval", message)
    })
}

fn exclude(create: &WatchCreate) -> Result<Vec<EventType>, Error> {
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
