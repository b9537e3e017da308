//! Contexts of a running cluster: one for each region, with the dial map to the others.
//!
//! Clusters that run at the same time have a file each, and prefixes of their own: `dev-us-east` of the first,
//! `dev2-us-east` of the second. A file belongs to the run that holds its lock.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use stead_testing::Cluster;

use crate::{
    context::{Context, Contexts, DEV_CLUSTERS_MAX, dev_file},
    exit::{Code, CommandError},
};

/// File of contexts, deleted when dropped.
#[derive(Debug)]
pub(super) struct ContextFile {
    path: PathBuf,
    prefix: String,
    /// Locked as long as the contexts are those of a running cluster.
    file: File,
    is_kept: bool,
}

/// Writes one context for each region; the first region's is the default.
pub(super) fn write(cluster: &Cluster, folder: &Path) -> Result<ContextFile, CommandError> {
    fs::create_dir_all(folder)?;
    let mut claimed = claim(folder)?;
    let mut context = BTreeMap::new();
    let tls = cluster.tls();
    for region in cluster.regions() {
        let of_region = Context {
            token_file: cluster.credentials().map(|credentials| credentials.operator_token()),
            endpoints: cluster.endpoints(&region.name),
            region: Some(region.name.clone()),
            ca: tls.as_ref().map(|tls| tls.ca.clone()),
            certificate: tls.as_ref().and_then(|tls| tls.certificate.clone()),
            key: tls.as_ref().and_then(|tls| tls.key.clone()),
            dial: cluster.dial(&region.name).clone(),
        };
        context.insert(claimed.name(&region.name), of_region);
    }
    let current = cluster.regions().first().map(|region| claimed.name(&region.name));
    let text = toml::to_string(&Contexts { current, context }).map_err(anyhow::Error::from)?;
    claimed.file.set_len(0)?;
    claimed.file.write_all(text.as_bytes())?;
    Ok(claimed)
}

/// Claims the first file that no running cluster has.
fn claim(folder: &Path) -> Result<ContextFile, CommandError> {
    for number in 1..=DEV_CLUSTERS_MAX {
        let path = folder.join(dev_file(number));
        // Not truncated before it is locked: it may be another cluster's.
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        // A run that has just ended may have removed it meanwhile.
        let is_in_place = |file: &File| matches!((file.metadata(), path.metadata()), (Ok(held), Ok(there)) if held.ino() == there.ino());
        if file.try_lock().is_ok() && is_in_place(&file) {
            return Ok(ContextFile {
                path,
                prefix: if number == 1 {
                    "dev".into()
                } else {
                    format!("dev{number}")
                },
                file,
                is_kept: false,
            });
        }
    }
    let message = format!("{DEV_CLUSTERS_MAX} clusters of this user run already: end one of them first");
    Err(CommandError::new(Code::Failed, message))
}

impl ContextFile {
    /// Returns the name of a region's context.
    pub(super) fn name(&self, region: &str) -> String {
        format!("{}-{region}", self.prefix)
    }

    /// Keeps the file when dropped: its folder is deleted with the cluster.
    pub(super) fn keep(mut self) -> Self {
        self.is_kept = true;
        self
    }
}

impl Drop for ContextFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Somebody may have removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_clusters_have_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [(); 2].map(|()| claim(folder.path()).unwrap());
        assert_eq!(first.name("eu"), "dev-eu");
        assert_eq!(second.name("eu"), "dev2-eu");
        drop(first);
        assert!(second.path.exists());
        assert_eq!(claim(folder.path()).unwrap().name("eu"), "dev-eu");
    }
}
