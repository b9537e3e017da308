//! Credentials of one side, which follow their files: a handshake uses what was loaded last.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustls_pki_types::UnixTime;

use crate::{certificate::Certificate, error::TlsError, files::TlsFiles, material::Material, name::CertificateName};

/// Least time between two looks at the files from a dial.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Credentials of one side. Clones are the same.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    /// Name that the own certificate must have.
    expected: Option<CertificateName>,
    material: ArcSwap<Material>,
    watch: Mutex<Watch>,
}

/// Content of the files as it was seen last.
struct Watch {
    /// Hash of what was loaded.
    loaded: u64,
    /// Hash of what was seen last and did not load; a change is read twice, for one that is being written.
    refused: Option<u64>,
    /// Whether the error of it was returned.
    is_reported: bool,
    looked: Instant,
}

/// Outcome of a look at the files.
#[derive(Debug)]
pub enum Reload {
    /// They are as they were, or they are being written.
    Unchanged,
    /// New material is in use.
    Loaded,
    /// New material does not load, and the old one is used on. It is returned once for each content.
    Failed(TlsError),
}

impl Credentials {
    /// Loads the files. `expected` is the name that the own certificate must have.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, and what to do.
    pub fn load(files: TlsFiles, expected: Option<CertificateName>) -> Result<Self, TlsError> {
        let content = files.read()?;
        let material = Material::new(&files, &content, expected.as_ref(), UnixTime::now())?;
        let watch = Watch {
            loaded: content.hash(),
            refused: None,
            is_reported: false,
            looked: Instant::now(),
        };
        Ok(Self(Arc::new(Inner {
            files,
            expected,
            material: ArcSwap::from_pointee(material),
            watch: Mutex::new(watch),
        })))
    }

    /// Returns the files.
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    /// Returns the certificates of CAs that are trusted.
    pub fn ca(&self) -> Vec<Certificate> {
        self.0.material.load().ca.clone()
    }

    /// Returns the own certificate.
    pub fn own(&self) -> Option<Certificate> {
        self.0.material.load().own.clone()
    }

    pub(crate) fn material(&self) -> Arc<Material> {
        self.0.material.load_full()
    }

    /// Looks at the files, and uses them if they have changed. Files are written one after another: a change that does not
    /// load is an error when it is found again.
    pub fn reload(&self) -> Reload {
        let mut watch = self.0.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.looked = Instant::now();
        let content = match self.0.files.read() {
            Ok(content) => content,
            Err(error) => return watch.refuse(0, error),
        };
        let hash = content.hash();
        if hash == watch.loaded {
            watch.refused = None;
            return Reload::Unchanged;
        }
        match Material::new(&self.0.files, &content, self.0.expected.as_ref(), UnixTime::now()) {
            Ok(material) => {
                self.0.material.store(Arc::new(material));
                watch.loaded = hash;
                watch.refused = None;
                Reload::Loaded
            }
            Err(error) => watch.refuse(hash, error),
        }
    }

    /// Looks at the files as [`Self::reload`] does, on a thread for blocking work: they may lie on a slow disk.
    pub async fn reload_in_background(&self) -> Reload {
        let credentials = self.clone();
        let looked = tokio::task::spawn_blocking(move || credentials.reload()).await;
        // The runtime is ending.
        looked.unwrap_or(Reload::Unchanged)
    }

    /// Looks at the files if that was not done for a while: for clients, which have no task for it.
    pub(crate) fn reload_if_due(&self) {
        let is_due = {
            let watch = self.0.watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.looked.elapsed() >= LOOK_INTERVAL
        };
        if is_due && let Reload::Failed(error) = self.reload() {
            tracing::warn!(%error, "new certificates do not load: the old ones are used on");
        }
    }
}

impl Watch {
    fn refuse(&mut self, hash: u64, error: TlsError) -> Reload {
        if self.refused != Some(hash) {
            self.refused = Some(hash);
            self.is_reported = false;
            return Reload::Unchanged;
        }
        if std::mem::replace(&mut self.is_reported, true) {
            return Reload::Unchanged;
        }
        Reload::Failed(error)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("files", &self.0.files)
            .finish_non_exhaustive()
    }
}
