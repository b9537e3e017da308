//! Text encoding of session tokens: URL-safe base64 without padding. A token's 18 bytes are exactly 24 characters, so
//! that the text of several tokens is the concatenation of theirs.

use super::{LEN, SessionToken, SessionTokens};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Length of one token's text.
pub(super) const CHARACTERS: usize = LEN / 3 * 4;

/// Error of a text that does not encode session tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTokenText {
    /// The text was cut, or something was added.
    #[error("session tokens have {CHARACTERS} characters each, this text has {0}: send it back whole")]
    Length(usize),
    /// A character that is not part of the alphabet.
    #[error("session tokens have only A-Z, a-z, 0-9, - and _, character {at} of this text is {character:?}")]
    Character {
        /// The character.
        character: char,
        /// Its position, from 1.
        at: usize,
    },
    /// A token is not valid although its characters are.
    #[error("session token {at} of {of} is not valid or was changed: send it back unchanged")]
    Token {
        /// Its position, from 1.
        at: usize,
        /// Number of tokens.
        of: usize,
    },
    /// Several tokens where one is expected.
    #[error("one session token is expected, these are {0}")]
    Several(usize),
    /// More tokens than one request may carry.
    #[error("at most {max} session tokens together, these are {0}", max = SessionTokens::LEN_MAX)]
    TooMany(usize),
}

/// Encodes a token.
pub(super) fn encode(bytes: &[u8; LEN]) -> String {
    let four = |three: &[u8]| {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    };
    bytes.chunks(3).flat_map(four).collect()
}

/// Decodes all tokens of a text.
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
