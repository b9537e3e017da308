//! Backups of a place, by their manifests.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::{bucket::BucketArgs, manifest::Manifest, place::Place, seal::Key};
use crate::exit::{Code, CommandError};

/// Backups of a place. Manifests are read when they are asked for, once.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) place: Place,
    pub(super) key: Option<Key>,
    manifests: RefCell<BTreeMap<String, Rc<Manifest>>>,
}

/// Backup of a place.
pub(super) struct Listed {
    /// Name of the backup.
    pub(super) id: String,
    /// Its manifest, or what is wrong with it.
    pub(super) manifest: Result<Rc<Manifest>, CommandError>,
}

impl Catalog {
    pub(super) fn new(place: Place, key: Option<Key>) -> Self {
        Self {
            place,
            key,
            manifests: RefCell::default(),
        }
    }

    /// Opens the place of `--from`.
    pub(super) fn open(
        from: &str,
        bucket: &BucketArgs,
        key_file: Option<&std::path::Path>,
    ) -> Result<Self, CommandError> {
        let key = key_file.map(Key::read).transpose()?;
        Ok(Self::new(Place::parse(from, bucket)?, key))
    }

    /// Returns the manifest of a backup.
    pub(super) fn get(&self, id: &str) -> Result<Rc<Manifest>, CommandError> {
        if let Some(manifest) = self.manifests.borrow().get(id) {
            return Ok(Rc::clone(manifest));
        }
        let manifest = Rc::new(Manifest::load(&self.place, id, self.key.as_ref())?);
        self.manifests.borrow_mut().insert(id.to_owned(), Rc::clone(&manifest));
        Ok(manifest)
    }

    /// Returns all backups by name, the oldest first; one that was not finished is left out, one that is damaged is an error
    /// beside its name.
    pub(super) fn all(&self) -> Result<Vec<Listed>, CommandError> {
        let mut all = Vec::new();
        for id in self.place.folders()? {
            match self.get(&id) {
                Err(error) if error.code() == Code::NotFound => {}
                // What is true of the whole place, or of the key, is no damage of one backup.
                Err(error) if error.code() == Code::NotAllowed => return Err(error),
                manifest => all.push(Listed { id, manifest }),
            }
        }
        Ok(all)
    }

    /// Returns a backup by its name; absent: the newest.
    pub(super) fn find(&self, id: Option<&str>) -> Result<Rc<Manifest>, CommandError> {
        if let Some(id) = id {
            return self.get(id);
        }
        for id in self.place.folders()?.iter().rev() {
            match self.get(id) {
                Err(error) if error.code() == Code::NotFound => {}
                found => return found,
            }
        }
        Err(CommandError::new(
            Code::NotFound,
            format!("{} has no backup", self.place),
        ))
    }

    /// Returns a backup on which another builds, by its name.
    ///
    /// # Errors
    ///
    /// It is missing, damaged, or another than the one that was there.
    pub(super) fn base(&self, of: &Manifest, id: &str) -> Result<Rc<Manifest>, CommandError> {
        let base = self.get(id).map_err(|error| {
            let what = match error.code() == Code::NotFound {
                true => format!("which is missing at {}", self.place.address(id)),
                false => format!("which cannot be read: {}", error.text()),
            };
            CommandError::new(Code::Failed, format!("backup {} builds on backup {id}, {what}", of.id))
        })?;
        if of.bases.get(id) != Some(&base.digest) {
            let what = format!(
                "backup {} builds on backup {id}, whose manifest is not the one that it was made from",
                of.id
            );
            return Err(CommandError::new(Code::Failed, what));
        }
        Ok(base)
    }
}
