//! `stead backup verify`: every file of a backup, and of those on which it builds.

use std::{collections::BTreeMap, rc::Rc};

use clap::Args;
use serde_json::json;

use super::{catalog::Catalog, chain::Chain, from::FromArgs, manifest::Manifest};
use crate::{
    args::Target,
    exit::{Code, CommandError},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    from: FromArgs,
    /// Backup; else the newest
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// Findings of a verification.
#[derive(Debug, Default)]
struct Findings {
    /// Number of files that were compared.
    files: u64,
    damaged: Vec<String>,
}

impl Verify {
    pub(super) fn run(self, target: &Target) -> Result<(), CommandError> {
        let catalog = self.from.catalog()?;
        let manifest = catalog.find(self.id.as_deref())?;
        let mut backups = BTreeMap::new();
        let mut findings = Findings::default();
        collect(&catalog, &manifest, &mut backups, &mut findings);
        for backup in backups.values() {
            files(&catalog, backup, &mut findings);
        }
        if findings.damaged.is_empty() {
            chains(&catalog, &manifest, &mut findings);
        }
        let Findings { files, damaged } = findings;
        if !damaged.is_empty() {
            let what = format!("{} damages, {files} files: {}", damaged.len(), damaged.join("; "));
            return Err(CommandError::new(Code::Unhealthy, what));
        }
        let closed = manifest.sealed.is_some() && !manifest.is_open();
        if target.output == Output::Json {
            return output::json(&json!({
                "id": manifest.id,
                "parts": files,
                "backups": backups.len(),
                "opened": !closed,
            }));
        }
        let more = match backups.len() {
            1 => String::new(),
            count => format!(
                " with the {} that it builds on",
                output::count(count as u64 - 1, "backup")
            ),
        };
        let opened = match closed {
            true => "; nothing was decrypted, as no --key-file is given",
            false => "",
        };
        output::line(&format!(
            "backup {}{more}: {} whole{opened}",
            manifest.id,
            output::count(files, "file")
        ))
    }
}

/// Finds a backup and all on which it builds.
fn collect(
    catalog: &Catalog,
    manifest: &Rc<Manifest>,
    backups: &mut BTreeMap<String, Rc<Manifest>>,
    findings: &mut Findings,
) {
    let mut open = vec![Rc::clone(manifest)];
    while let Some(manifest) = open.pop() {
        if backups.insert(manifest.id.clone(), Rc::clone(&manifest)).is_some() {
            continue;
        }
        for id in manifest.bases.keys() {
            match catalog.base(&manifest, id) {
                Ok(base) => open.push(base),
                Err(error) => findings.damaged.push(error.text().to_owned()),
            }
        }
    }
}

fn files(catalog: &Catalog, manifest: &Manifest, findings: &mut Findings) {
    let key = catalog.key.as_ref().filter(|_| manifest.is_open());
    let source = manifest.source(&catalog.place, key);
    for part in manifest.files() {
        findings.files += 1;
        if let Err(error) = source.verify(part) {
            findings.damaged.push(error.text().to_owned());
        }
    }
}

/// Checks that the links of each tenant fit.
fn chains(catalog: &Catalog, manifest: &Rc<Manifest>, findings: &mut Findings) {
    for tenant in manifest.tenants.keys() {
        if let Err(error) = Chain::load(catalog, manifest, tenant) {
            findings.damaged.push(error.text().to_owned());
        }
    }
}
