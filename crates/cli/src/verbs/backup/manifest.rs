//! Manifest of a backup: what it has of each tenant, and the digest of each part. Written last: a folder without one is no
//! backup.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    exit::{Code, CommandError},
    output,
};

/// Version of the format.
const FORMAT: u32 = 1;
const FILE: &str = "manifest.json";
/// File with the digest of the manifest, by which a changed manifest is found.
const DIGEST_FILE: &str = "manifest.sha256";

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
    /// Tenants by name.
    pub(super) tenants: BTreeMap<String, TenantBackup>,
}

/// One tenant at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Number of keys.
    pub(super) keys: u64,
    /// Bytes of all lines, uncompressed.
    pub(super) bytes: u64,
    /// Number of keys without a time to live.
    pub(super) lasting_keys: u64,
    /// SHA-256 of keys without a time to live and their values, in their order, each with its length before it.
    pub(super) content: String,
    /// Files with the lines, in their order.
    pub(super) parts: Vec<Part>,
}

/// File of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Path in the backup's folder.
    pub(super) file: String,
    /// Length in bytes.
    pub(super) len: u64,
    /// SHA-256 of the file.
    pub(super) sha256: String,
}

impl Manifest {
    pub(super) fn new(id: String, started: String, jurisdiction: Option<String>) -> Self {
        Self {
            format: FORMAT,
            id,
            started,
            ended: String::new(),
            jurisdiction,
            tenants: BTreeMap::new(),
        }
    }

    /// Writes it into the backup's folder.
    pub(super) fn store(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_synced(&folder.join(DIGEST_FILE), digest(&text).as_bytes())?;
        let next = folder.join("manifest.new");
        write_synced(&next, &text)?;
        fs::rename(next, folder.join(FILE))
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    ///
    /// There is none, it has changed since it was written, or another version has written it.
    pub(super) fn load(folder: &Path) -> Result<Self, CommandError> {
        let path = folder.join(FILE);
        let failed = |what: String| CommandError::new(Code::Failed, format!("{}: {what}", path.display()));
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let error = CommandError::new(
                    Code::NotFound,
                    format!("{} is no backup, or one that was not finished", folder.display()),
                );
                return Err(error.hint("`stead backup list --from FOLDER` shows those that are"));
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let wanted =
            fs::read_to_string(folder.join(DIGEST_FILE)).map_err(|error| failed(format!("{DIGEST_FILE}: {error}")))?;
        if wanted.trim() != digest(&text) {
            return Err(failed(format!(
                "it differs from its digest in {DIGEST_FILE}: one of the two is damaged"
            )));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        if manifest.format != FORMAT {
            let what = format!(
                "it has format {}, and this version of stead reads format {FORMAT}",
                manifest.format
            );
            return Err(failed(what));
        }
        Ok(manifest)
    }

    /// Returns a tenant of it.
    pub(super) fn tenant(&self, name: &str) -> Result<&TenantBackup, CommandError> {
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

/// Returns the folders of finished backups, the oldest first.
pub(super) fn list(from: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let unreadable = |error: io::Error| CommandError::new(Code::Usage, format!("--from: {}: {error}", from.display()));
    let mut folders = Vec::new();
    for entry in fs::read_dir(from).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.join(FILE).exists() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Returns the folder of a backup by its name; absent: of the newest.
pub(super) fn find(from: &Path, id: Option<&str>) -> Result<PathBuf, CommandError> {
    if let Some(id) = id {
        return Ok(from.join(id));
    }
    let newest = list(from)?.pop();
    newest.ok_or_else(|| CommandError::new(Code::NotFound, format!("--from: {} has no backup", from.display())))
}

/// Returns the SHA-256 of bytes as text.
pub(super) fn digest(bytes: &[u8]) -> String {
    output::hex(&Sha256::digest(bytes))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_is_read_back_and_a_changed_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Manifest::load(folder.path()).unwrap_err();
        assert!(missing.text().contains("is no backup"), "{}", missing.text());
        let manifest = Manifest::new("one".to_owned(), "now".to_owned(), None);
        manifest.store(folder.path()).unwrap();
        assert_eq!(Manifest::load(folder.path()).unwrap(), manifest);
        let path = folder.path().join(FILE);
        let changed = fs::read_to_string(&path).unwrap().replace("now", "not");
        fs::write(&path, changed).unwrap();
        let damaged = Manifest::load(folder.path()).unwrap_err();
        assert!(
            damaged.text().contains("it differs from its digest"),
            "{}",
            damaged.text()
        );
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
