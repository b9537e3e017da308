//! The contexts of a cluster that is up: one for each region, with the way to the others.

use std::{collections::BTreeMap, fs, path::PathBuf};

use stead_testing::Cluster;

use crate::{
    context::{Context, Contexts, DEV},
    exit::Failure,
};

/// Contexts that are there for as long as this value is.
#[derive(Debug)]
pub(super) struct Written(Option<PathBuf>);

/// Writes `dev-us-east` and so on; the first is what commands use if no other is current.
pub(super) fn write(cluster: &Cluster, folder: Option<PathBuf>) -> Result<Written, Failure> {
    let Some(folder) = folder else {
        return Ok(Written(None));
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
    let path = folder.join(DEV);
    fs::create_dir_all(&folder)?;
    fs::write(&path, text)?;
    Ok(Written(Some(path)))
}

/// Returns the name of a region's context.
pub(super) fn name(region: &str) -> String {
    format!("dev-{region}")
}

impl Written {
    /// Leaves them where they are: their folder goes with the cluster.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may have been taken over or removed by another run.
            let _ = fs::remove_file(path);
        }
    }
}
