//! Parts of a tenant's backup: compressed JSON lines. Those with all keys are as `stead kv export` writes them, in the order
//! of keys; each with changes is a sorted run.

use std::io::Write;

use sha2::{Digest, Sha256};
use stead_client::{Event, Item, Revision};
use stead_types::TenantTime;

use super::{
    change::{self, ChangeOrder},
    files::{Part, Sink},
};
use crate::{exit::CommandError, output, verbs::kv::item_line};

/// Bytes of lines after which a part ends.
const PART_BYTES: u64 = 64 << 20;
/// Compression: fast, as the disk is the bottleneck.
const LEVEL: i32 = 3;

/// Writer of one tenant's parts.
pub(super) struct PartsWriter<'a> {
    sink: &'a Sink,
    /// Folder of the tenant within the backup's.
    folder: String,
    /// First part: a later one of a tenant has another name than what was removed.
    parts: Vec<Part>,
    bytes: u64,
}

impl<'a> PartsWriter<'a> {
    /// `folder`: that of the tenant within the backup's.
    pub(super) fn new(sink: &'a Sink, folder: String) -> Self {
        Self {
            sink,
            folder,
            parts: Vec::new(),
            bytes: 0,
        }
    }

    /// Returns the parts, and the bytes of their lines.
    pub(super) fn finish(self) -> (Vec<Part>, u64) {
        (self.parts, self.bytes)
    }

    /// Removes what was written.
    pub(super) fn discard(&mut self) -> Result<(), CommandError> {
        self.bytes = 0;
        self.parts.drain(..).try_for_each(|part| self.sink.remove(&part))
    }

    fn write(&mut self, compressed: Vec<u8>, bytes: u64) -> Result<(), CommandError> {
        let ending = if self.sink.key.is_some() { ".sealed" } else { "" };
        let file = format!("{}/{:06}.jsonl.zst{ending}", self.folder, self.parts.len() + 1);
        self.parts.push(self.sink.write(&file, compressed)?);
        self.bytes += bytes;
        Ok(())
    }
}

/// Writer of all keys of a tenant.
pub(super) struct KeysWriter<'a> {
    parts: PartsWriter<'a>,
    current: Option<zstd::Encoder<'static, Vec<u8>>>,
    current_bytes: u64,
    keys: u64,
    content: ContentDigest,
}

/// Parts that were written of all keys.
#[derive(Debug)]
pub(super) struct WrittenKeys {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) lasting_keys: u64,
    pub(super) content: String,
    pub(super) parts: Vec<Part>,
}

impl<'a> KeysWriter<'a> {
    pub(super) fn new(parts: PartsWriter<'a>) -> Self {
        Self {
            parts,
            current: None,
            current_bytes: 0,
            keys: 0,
            content: ContentDigest::default(),
        }
    }

    /// Adds a key; `now`: the tenant's time at the revision.
    pub(super) fn push(&mut self, item: &Item, now: TenantTime) -> Result<(), CommandError> {
        let line = format!("{}\n", item_line(item, now));
        let encoder = match &mut self.current {
            Some(encoder) => encoder,
            None => self.current.insert(zstd::Encoder::new(Vec::new(), LEVEL)?),
        };
        encoder.write_all(line.as_bytes())?;
        self.content.push(&item.key, &item.value, item.expires.is_some());
        self.keys += 1;
        self.current_bytes += line.len() as u64;
        if self.current_bytes >= PART_BYTES {
            self.end_part()?;
        }
        Ok(())
    }

    /// Ends the last part.
    pub(super) fn finish(mut self) -> Result<WrittenKeys, CommandError> {
        self.end_part()?;
        let (parts, bytes) = self.parts.finish();
        let (lasting_keys, content) = self.content.finish();
        Ok(WrittenKeys {
            keys: self.keys,
            bytes,
            lasting_keys,
            content,
            parts,
        })
    }

    fn end_part(&mut self) -> Result<(), CommandError> {
        let Some(encoder) = self.current.take() else {
            return Ok(());
        };
        self.parts
            .write(encoder.finish()?, std::mem::take(&mut self.current_bytes))
    }
}

/// Writer of a tenant's changes, in runs that are sorted by key, then by revision, so that they can be merged.
pub(super) struct ChangesWriter<'a> {
    pub(super) parts: PartsWriter<'a>,
    run: Vec<(ChangeOrder, String)>,
    run_bytes: u64,
    changes: u64,
}

impl<'a> ChangesWriter<'a> {
    pub(super) fn new(parts: PartsWriter<'a>) -> Self {
        Self {
            parts,
            run: Vec::new(),
            run_bytes: 0,
            changes: 0,
        }
    }

    /// Adds the events of whole revisions up to `last`.
    pub(super) fn push(&mut self, events: &[Event], last: Revision) -> Result<(), CommandError> {
        for event in events.iter().filter(|event| event.item.modified <= last) {
            let line = format!("{}\n", change::line(event));
            self.run_bytes += line.len() as u64;
            self.changes += 1;
            let order = (event.item.key.clone(), event.item.modified);
            self.run.push((order, line));
        }
        // A revision is in one run: its changes of one key keep their order.
        if self.run_bytes >= PART_BYTES {
            self.end_run()?;
        }
        Ok(())
    }

    /// Ends the last run; returns the number of changes, the bytes of their lines and the parts.
    pub(super) fn finish(mut self) -> Result<(u64, u64, Vec<Part>), CommandError> {
        self.end_run()?;
        let (parts, bytes) = self.parts.finish();
        Ok((self.changes, bytes, parts))
    }

    fn end_run(&mut self) -> Result<(), CommandError> {
        let mut run = std::mem::take(&mut self.run);
        if run.is_empty() {
            return Ok(());
        }
        run.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        for (_, line) in &run {
            encoder.write_all(line.as_bytes())?;
        }
        self.parts.write(encoder.finish()?, std::mem::take(&mut self.run_bytes))
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
    pub(super) fn push(&mut self, key: &[u8], value: &[u8], expires: bool) {
        if expires {
            return;
        }
        self.keys += 1;
        for field in [key, value] {
            self.digest.update((field.len() as u64).to_be_bytes());
            self.digest.update(field);
        }
    }

    /// Returns the number of keys and the digest.
    pub(super) fn finish(self) -> (u64, String) {
        (self.keys, output::hex(&self.digest.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{
        super::{files::Source, place::Place, seal::Key},
        *,
    };

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

    fn sink(folder: &std::path::Path, key: Option<Key>) -> Sink {
        Sink {
            place: Place::Folder(folder.to_owned()),
            id: "one".to_owned(),
            key,
        }
    }

    fn write(sink: &Sink, keys: &[&str]) -> WrittenKeys {
        let mut writer = KeysWriter::new(PartsWriter::new(sink, "acme".to_owned()));
        for key in keys {
            writer.push(&item(key), TenantTime(0)).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn keys_that_expire_are_not_part_of_the_content() {
        let (mut with, mut without) = (ContentDigest::default(), ContentDigest::default());
        with.push(b"a", b"v", false);
        with.push(b"b", b"v", true);
        without.push(b"a", b"v", false);
        assert_eq!(with.finish(), without.finish());
    }

    /// Also of an encrypted backup without its key: the digests are those of the files.
    #[test]
    fn every_flipped_bit_of_a_part_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for key in [None, Some(Key::generate())] {
            let sink = sink(folder.path(), key);
            let written = write(&sink, &["a", "b"]);
            assert_eq!((written.keys, written.parts.len()), (2, 1));
            let part = &written.parts[0];
            let source = Source::new(sink.place.clone(), "one".to_owned(), None);
            source.verify(part).unwrap();
            let path = folder.path().join("one").join(&part.file);
            let whole = std::fs::read(&path).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut changed = whole.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, changed).unwrap();
                let error = source.verify(part).unwrap_err();
                let named = format!("{}: its bytes differ", part.file);
                assert!(error.text().contains(&named), "{}", error.text());
            }
            std::fs::write(&path, &whole[1..]).unwrap();
            let short = source.verify(part).unwrap_err();
            assert!(short.text().contains("bytes, and was written"), "{}", short.text());
        }
    }

    #[test]
    fn encrypted_part_is_read_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::generate();
        let sink = sink(folder.path(), Some(key.clone()));
        let written = write(&sink, &["secret"]);
        let stored = std::fs::read(folder.path().join("one").join(&written.parts[0].file)).unwrap();
        assert!(stored.starts_with(b"STEADBK1"));
        let source = Source::new(sink.place, "one".to_owned(), Some(key));
        source.verify(&written.parts[0]).unwrap();
        let mut text = String::new();
        source
            .open(&written.parts[0])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.contains("secret"), "{text}");
    }

    #[test]
    fn discarded_parts_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let sink = sink(folder.path(), None);
        let mut parts = PartsWriter::new(&sink, "acme".to_owned());
        parts.write(b"x".to_vec(), 1).unwrap();
        parts.discard().unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("one/acme")).unwrap().count(), 0);
        assert_eq!(parts.finish().1, 0);
    }
}
