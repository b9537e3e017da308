//! Contexts of a running cluster: one for each region, with the dial map to the others.

use std::{collections::BTreeMap, fs, path::PathBuf};

use stead_testing::Cluster;

use crate::{
    context::{Context, Contexts, DEV_FILE},
    exit::CommandError,
};

/// File of contexts, deleted when dropped.
#[derive(Debug)]
pub(super) struct ContextFile(Option<PathBuf>);

/// Writes `dev-us-east` and so on; the first is the default context.
pub(super) fn write(cluster: &Cluster, folder: Option<PathBuf>) -> Result<ContextFile, CommandError> {
    let Some(folder) = folder else {
        return Ok(ContextFile(None));
    };
    let mut context = BTreeMap::new();
    for region in cluster.regions() {
        let of_region = Context {
            endpoints: cluster.endpoints(&region.name),
            region: Some(region.name.clone()),
            dial: cluster.dial(&region.name).clone(),
        };
        context.insert(name(&region.name), of_region);
    }
    let current = cluster.regions().first().map(|region| name(&region.name));
    let text = toml::to_string(&Contexts { current, context }).map_err(anyhow::Error::from)?;
    let path = folder.join(DEV_FILE);
    fs::create_dir_all(&folder)?;
    fs::write(&path, text)?;
    Ok(ContextFile(Some(path)))
}

/// Returns the name of a region's context.
pub(super) fn name(region: &str) -> String {
    format!("dev-{region}")
}

impl ContextFile {
    /// Keeps the file when dropped: its folder is deleted with the cluster.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for ContextFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Another run may have replaced or removed it.
            let _ = fs::remove_file(path);
        }
    }
}
