//! Encryption of a backup's files: chunks of 64 KiB under ChaCha20-Poly1305 in the STREAM construction, as age has it.
//!
//! File: the magic bytes, a salt of 16 random bytes, then the chunks, each with its tag of 16 bytes behind it; the last one
//! may be shorter. Key of the file: HKDF-SHA-256 of the key with the salt, bound to the file's name. Nonce of a chunk: its
//! number, big-endian in 11 bytes, and one byte that is 1 for the last one.
//!
//! # Invariants
//!
//! 1. No nonce is used twice under one key: each file has its own key.
//! 2. A file that was changed, cut off, extended, or that stands under another name does not open.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};

use crate::{
    exit::{Code, CommandError},
    output,
    verbs::auth::secret_file,
};

/// Name of the construction in a manifest.
pub(super) const CIPHER: &str = "chacha20poly1305-stream-64k";
const MAGIC: &[u8; 8] = b"STEADBK1";
const SALT_LEN: usize = 16;
const CHUNK_LEN: usize = 64 << 10;
const KEY_LEN: usize = 32;
/// Word before the key in its file.
const KEY_WORD: &str = "STEAD-BACKUP-KEY-1";
/// Bytes of a key's id.
const ID_LEN: usize = 8;

/// Key of encrypted backups.
#[derive(Clone)]
pub(super) struct Key {
    bytes: [u8; KEY_LEN],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

impl Key {
    pub(super) fn generate() -> Self {
        Self { bytes: random() }
    }

    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// It cannot be read, others than its owner may read it, or it has no key.
    pub(super) fn read(path: &Path) -> Result<Self, CommandError> {
        let text = secret_file::read(path)?;
        Self::parse(&text).ok_or_else(|| {
            let error = CommandError::new(Code::Usage, format!("--key-file: {} has no key", path.display()));
            error.hint("`stead backup keygen FILE` makes one")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(KEY_WORD))?;
        let bytes = STANDARD.decode(line.trim()).ok()?.try_into().ok()?;
        Some(Self { bytes })
    }

    /// Returns the text of a key file.
    pub(super) fn text(&self) -> String {
        let key = STANDARD.encode(self.bytes);
        format!("# key {} of stead backups\n{KEY_WORD} {key}\n", self.id())
    }

    /// Returns the name of the key, which does not give it away.
    pub(super) fn id(&self) -> String {
        let mut id = [0; ID_LEN];
        self.derive(&[], b"stead backup key id", &mut id);
        output::hex(&id)
    }

    /// Encrypts a file; `name`: what it opens under.
    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Vec<u8> {
        let salt: [u8; SALT_LEN] = random();
        let key = self.file_key(&salt, name);
        let chunks = plain.len().div_ceil(CHUNK_LEN).max(1);
        let mut sealed = Vec::with_capacity(MAGIC.len() + SALT_LEN + plain.len() + chunks * MAX_TAG_LEN);
        sealed.extend(MAGIC);
        sealed.extend(salt);
        for number in 0..chunks {
            let rest = &plain[number * CHUNK_LEN..];
            let chunk = &rest[..rest.len().min(CHUNK_LEN)];
            let begin = sealed.len();
            sealed.extend(chunk);
            let nonce = nonce(number as u64, number + 1 == chunks);
            let tag = key
                .seal_in_place_separate_tag(nonce, Aad::empty(), &mut sealed[begin..])
                .expect("a chunk is shorter than the cipher's limit");
            sealed.extend(tag.as_ref());
        }
        sealed
    }

    /// Decrypts a file while it is read.
    pub(super) fn open<R: Read>(&self, name: &str, mut sealed: R) -> io::Result<Unsealed<R>> {
        let mut head = [0; MAGIC.len() + SALT_LEN];
        sealed
            .read_exact(&mut head)
            .map_err(|error| match error.kind() == io::ErrorKind::UnexpectedEof {
                true => damaged("it is too short for an encrypted file"),
                false => error,
            })?;
        let (magic, salt) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it is no encrypted file of a backup"));
        }
        Ok(Unsealed {
            key: self.file_key(salt, name),
            sealed,
            number: 0,
            chunk: Vec::new(),
            offset: 0,
            ahead: Vec::new(),
            is_over: false,
        })
    }

    fn file_key(&self, salt: &[u8], name: &str) -> LessSafeKey {
        let info = format!("stead backup file {name}");
        let mut bytes = [0; KEY_LEN];
        self.derive(salt, info.as_bytes(), &mut bytes);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).expect("the key has the cipher's length");
        LessSafeKey::new(key)
    }

    fn derive(&self, salt: &[u8], info: &[u8], output: &mut [u8]) {
        let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.bytes);
        let info = [info];
        let okm = pseudorandom.expand(&info, Len(output.len()));
        let filled = okm.and_then(|okm| okm.fill(output));
        filled.expect("the output is short, and has the length that was asked for");
    }
}

/// Bytes that are derived.
struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// Reader of an encrypted file's content.
pub(super) struct Unsealed<R> {
    key: LessSafeKey,
    sealed: R,
    /// Number of the next chunk.
    number: u64,
    /// Content of the last chunk, and how much of it was read.
    chunk: Vec<u8>,
    offset: usize,
    /// Byte of the next chunk: only by it a chunk is known not to be the last.
    ahead: Vec<u8>,
    is_over: bool,
}

impl<R: Read> Unsealed<R> {
    fn next_chunk(&mut self) -> io::Result<()> {
        const SEALED_LEN: usize = CHUNK_LEN + MAX_TAG_LEN;
        let mut sealed = std::mem::take(&mut self.ahead);
        let wanted = SEALED_LEN + 1 - sealed.len();
        self.sealed.by_ref().take(wanted as u64).read_to_end(&mut sealed)?;
        let is_last = sealed.len() <= SEALED_LEN;
        if !is_last {
            self.ahead = sealed.split_off(SEALED_LEN);
        }
        let nonce = nonce(self.number, is_last);
        let opened = self.key.open_in_place(nonce, Aad::empty(), &mut sealed);
        let Ok(content) = opened.map(|content| content.len()) else {
            let what = format!(
                "chunk {} does not open: it was changed, or belongs to another file or key",
                self.number
            );
            return Err(damaged(&what));
        };
        sealed.truncate(content);
        (self.chunk, self.offset) = (sealed, 0);
        self.number += 1;
        self.is_over = is_last;
        Ok(())
    }
}

impl<R: Read> Read for Unsealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.offset == self.chunk.len() && !self.is_over {
            self.next_chunk()?;
        }
        let rest = &self.chunk[self.offset..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.offset += len;
        Ok(len)
    }
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = is_last.into();
    Nonce::assume_unique_for_key(nonce)
}

fn random<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.expect("the system has random numbers");
    bytes
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(key: &Key, name: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        let reader = key.open(name, sealed).map_err(|error| error.to_string())?;
        let mut reader = reader;
        reader.read_to_end(&mut content).map_err(|error| error.to_string())?;
        Ok(content)
    }

    #[test]
    fn file_of_any_length_is_read_back() {
        let key = Key::generate();
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
            let plain: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let sealed = key.seal("a", &plain);
            assert_eq!(opened(&key, "a", &sealed).unwrap(), plain, "{len}");
            assert_ne!(sealed, key.seal("a", &plain), "the salt is random");
        }
    }

    #[test]
    fn changed_or_cut_file_and_another_name_or_key_do_not_open() {
        let key = Key::generate();
        let sealed = key.seal("a", b"content");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&key, "a", &changed).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(opened(&key, "a", &sealed[..len]).is_err(), "{len} bytes");
        }
        assert!(
            opened(&key, "b", &sealed)
                .unwrap_err()
                .contains("chunk 0 does not open")
        );
        assert!(opened(&Key::generate(), "a", &sealed).is_err());
        let long = key.seal("a", &vec![7; 2 * CHUNK_LEN]);
        let head = MAGIC.len() + SALT_LEN;
        // Whole chunks that are left out at the end, swapped, or appended.
        let chunk = CHUNK_LEN + MAX_TAG_LEN;
        assert!(opened(&key, "a", &long[..head + chunk]).is_err());
        let swapped = [&long[..head], &long[head + chunk..], &long[head..head + chunk]].concat();
        assert!(opened(&key, "a", &swapped).is_err());
        let extended = [&long[..], &long[head..head + chunk]].concat();
        assert!(opened(&key, "a", &extended).is_err());
    }

    #[test]
    fn key_is_read_back_from_its_file_which_others_may_not_read() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = Key::generate();
        secret_file::create(&path, &key.text()).unwrap();
        assert_eq!(Key::read(&path).unwrap().id(), key.id());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Key::read(&path).unwrap_err().text().contains("others than its owner"));
        assert!(!format!("{key:?}").contains(&STANDARD.encode(key.bytes)));
        assert!(Key::parse("text").is_none());
    }
}
