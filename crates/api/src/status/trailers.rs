//! Limit of the trailers in which an error is sent.

use http::HeaderMap;
use stead_types::{Error, ErrorKind};
use tonic::Status;

/// Most bytes of an error's trailers. Stock clients accept 8 KiB: instead of more, grpcio reports `RESOURCE_EXHAUSTED`
/// without the reason, at random up to 16 KiB and always beyond.
pub(super) const LEN_MAX: usize = 4 << 10;
/// Bytes to which each text of an error is cut if its trailers are too long: percent-encoded, in base64 and sent
/// twice, all texts of a kind fit.
const TEXT_LEN_MAX: usize = 384;
/// Bytes that HTTP/2 adds for each header.
const HEADER_OVERHEAD: usize = 32;
/// Upper bound of the names of the trailers, and of the values without a text.
const FIXED_LEN_MAX: usize = 512;

/// Tells whether a status fits into its trailers.
pub(super) fn fit(status: &Status) -> bool {
    let len_max = 3 * status.message().len() + 4 * status.details().len().div_ceil(3) + FIXED_LEN_MAX;
    len_max <= LEN_MAX || len(status) <= LEN_MAX
}

/// Returns the length of a status's trailers as HTTP/2 counts them.
pub(super) fn len(status: &Status) -> usize {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        return usize::MAX;
    }
    let headers = trailers.iter();
    headers
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD)
        .sum()
}

/// Returns the error with its texts cut, so that its trailers fit.
pub(super) fn shorten(error: &Error) -> Error {
    let mut kind = error.kind.clone();
    if let ErrorKind::Invalid { field: text }
    | ErrorKind::RateLimited { limit: text, .. }
    | ErrorKind::QuotaExceeded { limit: text }
    | ErrorKind::Residency { region: text, .. } = &mut kind
    {
        *text = cut(text);
    }
    if let ErrorKind::NotHome { endpoints: list, .. } | ErrorKind::Residency { allowed: list, .. } = &mut kind {
        cut_list(list);
    }
    Error::new(kind, cut(&error.message))
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_LEN_MAX {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(TEXT_LEN_MAX)])
}

/// Removes what is behind the first items of a list that fit, whole ones.
fn cut_list(list: &mut Vec<String>) {
    let mut len = 0;
    let fits = |item: &String| {
        len += item.len() + 1;
        len <= TEXT_LEN_MAX
    };
    let kept = list.iter().map(fits).take_while(|fits| *fits).count();
    list.truncate(kept);
}
