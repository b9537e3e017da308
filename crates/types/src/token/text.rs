//! Tokens as text: URL-safe base64 without padding. A token's 18 bytes are exactly 24 characters, so that the text of
//! several tokens is theirs, one behind the other.

use super::{LEN, SessionToken, SessionTokens};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters of one token.
pub(super) const CHARACTERS: usize = LEN / 3 * 4;

/// A text that is not what this store wrote for session tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTokenText {
    /// It was cut, or something was added.
    #[error("session tokens have {CHARACTERS} characters each, this text has {0}: send it back whole")]
    Length(usize),
    /// A character that the text never has.
    #[error("session tokens have only A-Z, a-z, 0-9, - and _, character {at} of this text is {character:?}")]
    Character {
        /// The character.
        character: char,
        /// Where it stands, from 1.
        at: usize,
    },
    /// The characters are right and what they say is not.
    #[error("session token {at} of {of} was not made by this store, or was changed: send it back as it was")]
    Token {
        /// Which, from 1.
        at: usize,
        /// Of so many.
        of: usize,
    },
    /// Where one is expected.
    #[error("one session token is expected, these are {0}")]
    Several(usize),
    /// More than one request may carry.
    #[error("at most {max} session tokens together, these are {0}", max = SessionTokens::LEN_MAX)]
    TooMany(usize),
}

/// Writes bytes, of which there are three or a multiple of it.
pub(super) fn encode(bytes: &[u8; LEN]) -> String {
    let four = |three: &[u8]| {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    };
    bytes.chunks(3).flat_map(four).collect()
}

/// Reads tokens, as many as there are.
pub(super) fn decode(text: &str) -> Result<Vec<SessionToken>, InvalidTokenText> {
    let six = |(at, character): (usize, char)| {
        let bits = ALPHABET.iter().position(|other| char::from(*other) == character);
        bits.ok_or(InvalidTokenText::Character { character, at: at + 1 })
    };
    let sixes: Vec<usize> = text.chars().enumerate().map(six).collect::<Result<_, _>>()?;
    let of = sixes.len() / CHARACTERS;
    if of > SessionTokens::LEN_MAX {
        return Err(InvalidTokenText::TooMany(of));
    }
    if of * CHARACTERS != sixes.len() {
        return Err(InvalidTokenText::Length(sixes.len()));
    }
    let token = |(at, sixes): (usize, &[usize])| {
        let bytes: Vec<u8> = sixes.chunks(4).flat_map(three).collect();
        SessionToken::from_bytes(&bytes).map_err(|_| InvalidTokenText::Token { at: at + 1, of })
    };
    sixes.chunks(CHARACTERS).enumerate().map(token).collect()
}

fn three(four: &[usize]) -> [u8; 3] {
    let bits = four.iter().fold(0, |bits, six| bits << 6 | six);
    [16, 8, 0].map(|shift| (bits >> shift & 0xff) as u8)
}
