//! Parts of a tenant's backup: compressed JSON lines, as `stead kv export` writes them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use stead_client::Item;
use stead_types::TenantTime;

use super::manifest::{Part, TenantBackup};
use crate::{
    exit::{Code, CommandError},
    output,
    verbs::kv::item_line,
};

/// Bytes of lines after which a part ends.
const PART_BYTES: u64 = 64 << 20;
/// Compression: fast, as the disk is the bottleneck.
const LEVEL: i32 = 3;

/// Writer of one tenant's parts.
pub(super) struct PartsWriter {
    /// Folder of the backup.
    folder: PathBuf,
    /// Folder of the tenant within it.
    tenant: String,
    parts: Vec<Part>,
    current: Option<zstd::Encoder<'static, Counted>>,
    current_bytes: u64,
    keys: u64,
    bytes: u64,
    content: ContentDigest,
}

/// File whose bytes are counted and digested.
struct Counted {
    file: File,
    len: u64,
    digest: Sha256,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl PartsWriter {
    pub(super) fn create(folder: &Path, tenant: &str) -> io::Result<Self> {
        std::fs::create_dir_all(folder.join(tenant))?;
        Ok(Self {
            folder: folder.to_owned(),
            tenant: tenant.to_owned(),
            parts: Vec::new(),
            current: None,
            current_bytes: 0,
            keys: 0,
            bytes: 0,
            content: ContentDigest::default(),
        })
    }

    /// Adds a key; `now`: the tenant's time at the revision.
    pub(super) fn push(&mut self, item: &Item, now: TenantTime) -> io::Result<()> {
        let line = format!("{}\n", item_line(item, now));
        let encoder = match &mut self.current {
            Some(encoder) => encoder,
            None => {
                let path = self.folder.join(self.file());
                let file = File::create(path)?;
                let counted = Counted {
                    file,
                    len: 0,
                    digest: Sha256::new(),
                };
                self.current.insert(zstd::Encoder::new(counted, LEVEL)?)
            }
        };
        encoder.write_all(line.as_bytes())?;
        self.content.push(item);
        self.keys += 1;
        self.bytes += line.len() as u64;
        self.current_bytes += line.len() as u64;
        if self.current_bytes >= PART_BYTES {
            self.end_part()?;
        }
        Ok(())
    }

    /// Ends the last part, and fills in what the tenant's backup has.
    pub(super) fn finish(mut self, backup: &mut TenantBackup) -> io::Result<()> {
        self.end_part()?;
        backup.keys = self.keys;
        backup.bytes = self.bytes;
        (backup.lasting_keys, backup.content) = self.content.finish();
        backup.parts = self.parts;
        Ok(())
    }

    fn file(&self) -> String {
        format!("{}/{:06}.jsonl.zst", self.tenant, self.parts.len() + 1)
    }

    fn end_part(&mut self) -> io::Result<()> {
        let file = self.file();
        let Some(encoder) = self.current.take() else {
            return Ok(());
        };
        let counted = encoder.finish()?;
        counted.file.sync_all()?;
        self.parts.push(Part {
            file,
            len: counted.len,
            sha256: output::hex(&counted.digest.finalize()),
        });
        self.current_bytes = 0;
        Ok(())
    }
}

/// SHA-256 of keys and values in their order, each with its length before it. Keys with a time to live are left out: they
/// may be gone before a restored tenant is compared.
#[derive(Debug, Default)]
pub(super) struct ContentDigest {
    digest: Sha256,
    keys: u64,
}

impl ContentDigest {
    pub(super) fn push(&mut self, item: &Item) {
        if item.expires.is_some() {
            return;
        }
        self.keys += 1;
        for field in [&item.key, &item.value] {
            self.digest.update((field.len() as u64).to_be_bytes());
            self.digest.update(field);
        }
    }

    /// Returns the number of keys and the digest.
    pub(super) fn finish(self) -> (u64, String) {
        (self.keys, output::hex(&self.digest.finalize()))
    }
}

/// Compares a part with its length and digest.
pub(super) fn verify(folder: &Path, part: &Part) -> Result<(), CommandError> {
    let path = folder.join(&part.file);
    let damaged = |what: String| CommandError::new(Code::Failed, format!("{}: {what}", path.display()));
    let mut file = File::open(&path).map_err(|error| damaged(error.to_string()))?;
    let (mut digest, mut len, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(|error| damaged(error.to_string()))?;
        if read == 0 {
            break;
        }
        len += read as u64;
        digest.update(&buffer[..read]);
    }
    if len != part.len {
        return Err(damaged(format!(
            "it has {len} bytes, and was written with {}",
            part.len
        )));
    }
    if output::hex(&digest.finalize()) != part.sha256 {
        return Err(damaged("its bytes differ from those that were written".to_owned()));
    }
    Ok(())
}

/// Opens the lines of all parts, one after the other, after the first `skip` bytes.
pub(super) fn lines(folder: &Path, parts: &[Part], skip: u64) -> io::Result<Box<dyn BufRead>> {
    let mut chain: Box<dyn Read> = Box::new(io::empty());
    for part in parts {
        let decoder = zstd::Decoder::new(File::open(folder.join(&part.file))?)?;
        chain = Box::new(chain.chain(decoder));
    }
    let mut reader = BufReader::with_capacity(1 << 20, chain);
    io::copy(&mut (&mut reader).take(skip), &mut io::sink())?;
    Ok(Box::new(reader))
}

#[cfg(test)]
mod tests {
    use stead_client::Revision;

    use super::*;

    fn item(key: &str) -> Item {
        Item {
            key: key.as_bytes().to_vec().into(),
            value: "v".into(),
            created: Revision::ZERO,
            modified: Revision::ZERO,
            version: 1,
            expires: None,
        }
    }

    fn backup() -> TenantBackup {
        TenantBackup {
            number: 1,
            home: "eu".to_owned(),
            followers: None,
            residency: Vec::new(),
            remote: false,
            labels: std::collections::BTreeMap::new(),
            limits: std::collections::BTreeMap::new(),
            revision: String::new(),
            keys: 0,
            bytes: 0,
            lasting_keys: 0,
            content: String::new(),
            parts: Vec::new(),
        }
    }

    #[test]
    fn keys_that_expire_are_not_part_of_the_content() {
        let (mut with, mut without) = (ContentDigest::default(), ContentDigest::default());
        with.push(&item("a"));
        with.push(&Item {
            expires: Some(TenantTime(9)),
            ..item("b")
        });
        without.push(&item("a"));
        assert_eq!(with.finish(), without.finish());
    }

    #[test]
    fn every_flipped_bit_of_a_part_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = PartsWriter::create(folder.path(), "acme").unwrap();
        parts.push(&item("a"), TenantTime(0)).unwrap();
        parts.push(&item("b"), TenantTime(0)).unwrap();
        let mut backup = backup();
        parts.finish(&mut backup).unwrap();
        assert_eq!((backup.keys, backup.parts.len()), (2, 1));
        verify(folder.path(), &backup.parts[0]).unwrap();
        let path = folder.path().join(&backup.parts[0].file);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, changed).unwrap();
            let error = verify(folder.path(), &backup.parts[0]).unwrap_err();
            assert!(
                error.text().contains("000001.jsonl.zst: its bytes differ"),
                "{}",
                error.text()
            );
        }
        std::fs::write(&path, &whole[1..]).unwrap();
        assert!(
            verify(folder.path(), &backup.parts[0])
                .unwrap_err()
                .text()
                .contains("bytes, and was written")
        );
    }

    #[test]
    fn lines_are_read_from_any_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = PartsWriter::create(folder.path(), "acme").unwrap();
        for key in ["a", "b", "c"] {
            parts.push(&item(key), TenantTime(0)).unwrap();
            parts.end_part().unwrap();
        }
        let mut backup = backup();
        parts.finish(&mut backup).unwrap();
        assert_eq!(backup.parts.len(), 3);
        let read = |skip: u64| {
            let mut text = String::new();
            lines(folder.path(), &backup.parts, skip)
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            text
        };
        let whole = read(0);
        assert_eq!(whole.lines().count(), 3);
        assert_eq!(read(10), whole[10..]);
        assert_eq!(whole.len() as u64, backup.bytes);
    }
}
