//! Page sizes and page tokens.
//!
//! A token is base64url text: a fingerprint of all request fields that must stay the same from page to page, then the
//! position of the next page. A token of another request is refused, never misread.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use stead_types::Error;

const FORMAT: u8 = 1;

/// Reads a page size: 0 means `default`, above `max` means `max`, a negative one is refused.
pub fn size(asked: i32, default: u32, max: u32) -> Result<u32, Error> {
    match u32::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(max)),
        Err(_) => Err(Error::invalid(
            "page_size",
            format!("page_size: a page has 1 to {max} entries, not {asked}; 0 means {default}"),
        )),
    }
}

/// Returns a token that is valid with the same `request` only.
pub fn token(request: &[u8], position: &[u8]) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&fingerprint(request).to_be_bytes());
    bytes.extend_from_slice(position);
    URL_SAFE_NO_PAD.encode(&bytes)
}

/// Reads the position from a token; `None` for the first page.
pub fn position(request: &[u8], token: &str) -> Result<Option<Vec<u8>>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let invalid = |what| Err(Error::invalid("page_token", format!("page_token: {what}")));
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let Some(bytes) = bytes.filter(|bytes| bytes.len() >= 9 && bytes[0] == FORMAT) else {
        return invalid("not a token of this store: send back next_page_token unchanged");
    };
    let (head, position) = bytes.split_at(9);
    if head[1..] != fingerprint(request).to_be_bytes() {
        return invalid("of another request: only page_size may change from page to page");
    }
    Ok(Some(position.to_vec()))
}

/// FNV-1a hash of a request: detects tokens of other requests by mistake, not by intent.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
