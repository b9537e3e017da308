//! Manifest of a backup: what it has of each tenant, and the digest of each part. Written last: a folder without one is no
//! backup.
//!
//! Format 1 is a backup that stands for itself and is not encrypted; format 2 builds on others or is encrypted. Of an
//! encrypted one the manifest has the names, lengths and digests of its files only: what it has of tenants is one of them.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stead_types::Revision;

use super::{
    files::{Part, Sink, Source},
    place::Place,
    policy::RegionLoss,
    seal::{self, Key},
};
use crate::{
    exit::{Code, CommandError},
    output,
};

/// Format of a backup that versions without increments and encryption read, too.
const FORMAT_PLAIN: u32 = 1;
/// Newest format.
const FORMAT: u32 = 2;
pub(super) const FILE: &str = "manifest.json";
/// File with the digest of the manifest, by which a changed manifest is found.
const DIGEST_FILE: &str = "manifest.sha256";
/// File of an encrypted backup with what it has of each tenant.
const TENANTS_FILE: &str = "tenants.json.zst.sealed";

/// Content of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Version of the format.
    pub(super) format: u32,
    /// Name of the backup, its folder's.
    pub(super) id: String,
    /// Beginning and end, RFC 3339.
    pub(super) started: String,
    pub(super) ended: String,
    /// Jurisdiction of the place where it is kept, as its maker has said.
    pub(super) jurisdiction: Option<String>,
    /// Tenants by name; of an encrypted backup empty in the file.
    pub(super) tenants: BTreeMap<String, TenantBackup>,
    /// Backups that it builds on, by name, with the digest of their manifests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bases: BTreeMap<String, String>,
    /// Encryption, if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<Sealed>,
    /// SHA-256 of the file.
    #[serde(skip)]
    pub(super) digest: String,
    /// Whether what it has of tenants was decrypted.
    #[serde(skip)]
    is_opened: bool,
}

/// Encryption of a backup, and its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// Construction.
    pub(super) cipher: String,
    /// Id of the key.
    pub(super) key: String,
    /// File with what it has of each tenant.
    pub(super) tenants: Part,
    /// All other files.
    pub(super) parts: Vec<Part>,
}

/// One tenant at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TenantBackup {
    /// Number of the tenant: another tenant of this name has another number.
    pub(super) number: u64,
    /// Home region at the time.
    pub(super) home: String,
    /// Regions of its followers; `None`: all that its residency admits.
    pub(super) followers: Option<Vec<String>>,
    /// Jurisdictions in which it may be stored; empty: all.
    pub(super) residency: Vec<String>,
    /// Whether its writes wait for another region.
    pub(super) remote: bool,
    /// Labels.
    pub(super) labels: BTreeMap<String, String>,
    /// Its own limits by name, in their units.
    pub(super) limits: BTreeMap<String, u64>,
    /// Revision of all keys.
    pub(super) revision: String,
    /// Number of keys; 0 where it has changes only.
    pub(super) keys: u64,
    /// Bytes of all lines, uncompressed.
    pub(super) bytes: u64,
    /// Number of keys without a time to live; 0 where it has changes only.
    pub(super) lasting_keys: u64,
    /// SHA-256 of keys without a time to live and their values, in their order, each with its length before it; empty where
    /// it has changes only.
    pub(super) content: String,
    /// Files with the lines, in their order.
    pub(super) parts: Vec<Part>,
    /// Tenant time at the revision, in milliseconds; absent from backups of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<u64>,
    /// Whether its home goes on without a lease.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) continues_without_lease: bool,
    /// Policy for the loss of its home region; absent: an alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) region_loss: Option<RegionLoss>,
    /// Backup of which it has the changes since; absent: it has all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Since>,
    /// Number of changes, where it has changes only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) changes: u64,
    /// Reason for which it has all keys although changes were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) full_because: Option<String>,
}

/// Backup and revision on which changes build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Since {
    /// Name of the backup.
    pub(super) backup: String,
    /// Revision of the tenant in it.
    pub(super) revision: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl TenantBackup {
    /// Returns the revision.
    ///
    /// # Errors
    ///
    /// The manifest has none.
    pub(super) fn revision(&self) -> Result<Revision, CommandError> {
        let revision = self.revision.parse();
        revision.map_err(|_| {
            let what = format!("the manifest has no revision of the tenant: {:?}", self.revision);
            CommandError::new(Code::Failed, what)
        })
    }
}

impl Manifest {
    pub(super) fn new(id: String, started: String, jurisdiction: Option<String>) -> Self {
        Self {
            format: FORMAT_PLAIN,
            id,
            started,
            ended: String::new(),
            jurisdiction,
            tenants: BTreeMap::new(),
            bases: BTreeMap::new(),
            sealed: None,
            digest: String::new(),
            is_opened: false,
        }
    }

    /// Writes it: then the backup is one.
    pub(super) fn store(&self, sink: &Sink) -> Result<(), CommandError> {
        let mut stored = self.clone();
        if let Some(key) = &sink.key {
            let tenants = serde_json::to_vec(&self.tenants).map_err(io::Error::from)?;
            let tenants = zstd::encode_all(&tenants[..], 0)?;
            stored.sealed = Some(Sealed {
                cipher: seal::CIPHER.to_owned(),
                key: key.id(),
                tenants: sink.write(TENANTS_FILE, tenants)?,
                parts: self.parts().cloned().collect(),
            });
            stored.tenants = BTreeMap::new();
        }
        if stored.sealed.is_some() || !stored.bases.is_empty() {
            stored.format = FORMAT;
        }
        let text = serde_json::to_vec_pretty(&stored).map_err(io::Error::from)?;
        let (place, id) = (&sink.place, &self.id);
        place.write(&format!("{id}/{DIGEST_FILE}"), digest(&text).into_bytes())?;
        place.write(&format!("{id}/{FILE}"), text)
    }

    /// Reads the manifest of a backup; of an encrypted one without tenants if there is no key.
    ///
    /// # Errors
    ///
    /// There is none, it has changed since it was written, another version has written it, or the key is another's.
    pub(super) fn load(place: &Place, id: &str, key: Option<&Key>) -> Result<Self, CommandError> {
        let file = format!("{id}/{FILE}");
        let failed = |what: String| CommandError::new(Code::Failed, format!("{}: {what}", place.address(&file)));
        let text = place.read(&file).map_err(|error| {
            if error.code() != Code::NotFound {
                return error;
            }
            let what = format!("{} is no backup, or one that was not finished", place.address(id));
            let error = CommandError::new(Code::NotFound, what);
            error.hint("`stead backup list --from PLACE` shows those that are")
        })?;
        let wanted = place.read(&format!("{id}/{DIGEST_FILE}"))?;
        if String::from_utf8_lossy(&wanted).trim() != digest(&text) {
            return Err(failed(format!(
                "it differs from its digest in {DIGEST_FILE}: one of the two is damaged"
            )));
        }
        let mut manifest: Self = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        if !(FORMAT_PLAIN..=FORMAT).contains(&manifest.format) {
            let what = format!(
                "it has format {}, and this version of stead reads formats {FORMAT_PLAIN} to {FORMAT}",
                manifest.format
            );
            return Err(failed(what));
        }
        if manifest.id != id {
            return Err(failed(format!(
                "it is that of backup {}: the folder was renamed",
                manifest.id
            )));
        }
        manifest.digest = digest(&text);
        if let (Some(sealed), Some(key)) = (&manifest.sealed, key) {
            manifest.check_key(sealed, key)?;
            let mut tenants = Vec::new();
            let source = manifest.source(place, Some(key));
            let read = source.open(&sealed.tenants)?.read_to_end(&mut tenants);
            read.map_err(|error| source.failed(&sealed.tenants, &error))?;
            manifest.is_opened = true;
            manifest.tenants =
                serde_json::from_slice(&tenants).map_err(|error| failed(format!("{TENANTS_FILE}: {error}")))?;
        }
        Ok(manifest)
    }

    /// Returns all parts of tenants: of an encrypted backup without key those that the file names.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        let sealed = self.sealed.iter().flat_map(|sealed| &sealed.parts);
        let of_tenants = self.tenants.values().flat_map(|tenant| &tenant.parts);
        sealed.chain(of_tenants.filter(|_| self.sealed.is_none()))
    }

    /// Returns all files beside the manifest.
    pub(super) fn files(&self) -> impl Iterator<Item = &Part> {
        self.sealed.iter().map(|sealed| &sealed.tenants).chain(self.parts())
    }

    /// Returns what opens its files.
    pub(super) fn source(&self, place: &Place, key: Option<&Key>) -> Source {
        let key = key.filter(|_| self.sealed.is_some());
        Source::new(place.clone(), self.id.clone(), key.cloned())
    }

    /// Tells whether its tenants are known.
    pub(super) fn is_open(&self) -> bool {
        self.sealed.is_none() || self.is_opened
    }

    /// Refuses an encrypted backup without its key.
    pub(super) fn check_open(&self) -> Result<(), CommandError> {
        match &self.sealed {
            Some(sealed) if !self.is_open() => {
                let what = format!("backup {} is encrypted with key {}", self.id, sealed.key);
                Err(CommandError::new(Code::NotAllowed, what).hint("--key-file names the file with the key"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_key(&self, sealed: &Sealed, key: &Key) -> Result<(), CommandError> {
        if sealed.cipher != seal::CIPHER {
            let what = format!(
                "backup {} is encrypted as {}, which this version cannot read",
                self.id, sealed.cipher
            );
            return Err(CommandError::new(Code::Failed, what));
        }
        if sealed.key != key.id() {
            let what = format!(
                "backup {} is encrypted with key {}, and --key-file has key {}",
                self.id,
                sealed.key,
                key.id()
            );
            return Err(CommandError::new(Code::NotAllowed, what));
        }
        Ok(())
    }

    /// Returns a tenant of it.
    pub(super) fn tenant(&self, name: &str) -> Result<&TenantBackup, CommandError> {
        self.check_open()?;
        self.tenants.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.tenants.keys().map(String::as_str).take(NAMES_SHOWN_MAX).collect();
            let error = CommandError::new(Code::NotFound, format!("backup {} has no tenant {name}", self.id));
            error.hint(format!(
                "it has {} tenants, such as {}",
                self.tenants.len(),
                names.join(", ")
            ))
        })
    }
}

/// Most names of tenants in an error.
const NAMES_SHOWN_MAX: usize = 5;

/// Returns the SHA-256 of bytes as text.
pub(super) fn digest(bytes: &[u8]) -> String {
    output::hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(folder: &std::path::Path, key: Option<Key>) -> Sink {
        Sink {
            place: Place::Folder(folder.to_owned()),
            id: "one".to_owned(),
            key,
        }
    }

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new("one".to_owned(), "now".to_owned(), None);
        manifest.tenants.insert("acme".to_owned(), TenantBackup::default());
        manifest
    }

    #[test]
    fn manifest_is_read_back_and_a_changed_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sink = sink(folder.path(), None);
        let missing = Manifest::load(&sink.place, "one", None).unwrap_err();
        assert!(missing.text().contains("is no backup"), "{}", missing.text());
        manifest().store(&sink).unwrap();
        let loaded = Manifest::load(&sink.place, "one", None).unwrap();
        assert_eq!((loaded.format, &loaded.tenants), (FORMAT_PLAIN, &manifest().tenants));
        let path = folder.path().join("one").join(FILE);
        let changed = std::fs::read_to_string(&path).unwrap().replace("now", "not");
        std::fs::write(&path, changed).unwrap();
        let damaged = Manifest::load(&sink.place, "one", None).unwrap_err();
        assert!(
            damaged.text().contains("it differs from its digest"),
            "{}",
            damaged.text()
        );
    }

    /// As a version has written it that knew neither increments nor encryption.
    #[test]
    fn manifest_of_the_first_version_is_read() {
        let text = r#"{"format":1,"id":"old","started":"a","ended":"b","jurisdiction":null,"tenants":{"acme":{"number":7,
            "home":"eu","followers":null,"residency":[],"remote":false,"labels":{},"limits":{},"revision":"1.9","keys":1,
            "bytes":9,"lasting_keys":1,"content":"00","parts":[{"file":"acme/000001.jsonl.zst","len":1,"sha256":"0"}]}}}"#;
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("old");
        std::fs::create_dir(&old).unwrap();
        std::fs::write(old.join(FILE), text).unwrap();
        std::fs::write(old.join(DIGEST_FILE), digest(text.as_bytes())).unwrap();
        let place = Place::Folder(folder.path().to_owned());
        let manifest = Manifest::load(&place, "old", None).unwrap();
        let acme = manifest.tenant("acme").unwrap();
        assert_eq!((acme.number, acme.since.as_ref(), acme.time), (7, None, None));
        assert_eq!(acme.revision().unwrap().to_string(), "1.9");
    }

    #[test]
    fn encrypted_manifest_names_no_tenant_and_opens_with_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::generate();
        let sink = sink(folder.path(), Some(key.clone()));
        manifest().store(&sink).unwrap();
        let text = std::fs::read_to_string(folder.path().join("one").join(FILE)).unwrap();
        assert!(!text.contains("acme") && text.contains(&key.id()), "{text}");
        let closed = Manifest::load(&sink.place, "one", None).unwrap();
        let refused = closed.tenant("acme").unwrap_err();
        assert_eq!(refused.text(), format!("backup one is encrypted with key {}", key.id()));
        let open = Manifest::load(&sink.place, "one", Some(&key)).unwrap();
        assert_eq!(open.tenants, manifest().tenants);
        let wrong = Manifest::load(&sink.place, "one", Some(&Key::generate())).unwrap_err();
        assert!(wrong.text().contains("and --key-file has key"), "{}", wrong.text());
    }

    #[test]
    fn tenant_that_is_not_there_is_refused_with_those_that_are() {
        let manifest = Manifest::new("one".to_owned(), "now".to_owned(), None);
        assert_eq!(
            manifest.tenant("acme").unwrap_err().text(),
            "backup one has no tenant acme"
        );
    }
}
