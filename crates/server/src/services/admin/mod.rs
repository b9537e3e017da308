//! Services for operators.

pub(crate) mod audit;
pub(crate) mod group;
pub(crate) mod node;
pub(crate) mod region;
pub(crate) mod tenant;

use stead_api::status;
use stead_state::directory::By;
use stead_types::{DirectoryVersion, Error};
use tonic::{Request, Status};

/// Entries of a page when the caller names no size, and at most.
pub(crate) const PAGE_DEFAULT: u32 = 100;
/// Most entries of a page.
pub(crate) const PAGE_MAX: u32 = 1_000;

/// Who asks, for the audit: without identities, the address that the caller says it has.
pub(crate) fn by<T>(request: &Request<T>, reason: &str) -> By {
    let who = request.metadata().get("x-stead-who").and_then(|who| who.to_str().ok());
    By {
        who: who.unwrap_or("unauthenticated").to_owned(),
        reason: reason.to_owned(),
    }
}

/// Turns an error into a status.
pub(crate) fn refuse(error: &Error) -> Status {
    status::to_status(error)
}

/// Writes the version of a record as its etag.
pub(crate) fn etag(version: DirectoryVersion) -> String {
    version.to_string()
}

/// Reads what [`etag`] wrote; empty: none.
pub(crate) fn parse_etag(text: &str) -> Result<Option<DirectoryVersion>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.split_once('/').and_then(|(incarnation, index)| {
        let incarnation = stead_types::Incarnation(incarnation.parse().ok()?);
        Some(DirectoryVersion {
            incarnation,
            index: index.parse().ok()?,
        })
    });
    let invalid = || {
        Error::invalid(
            "etag",
            format!("etag: {text:?} was not made by this store: send back what was read"),
        )
    };
    parsed.map(Some).ok_or_else(invalid)
}
