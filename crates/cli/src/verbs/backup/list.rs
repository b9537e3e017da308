//! `stead backup list` and `stead backup verify`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    manifest::{self, Manifest},
    parts,
};
use crate::{
    args::Target,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable},
};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Folder of backups
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
}

impl List {
    pub(super) fn run(self, target: &Target) -> Result<(), CommandError> {
        let mut table = OutputTable::new(&["ID", "ENDED", "TENANTS", "KEYS", "SIZE"], 5);
        for folder in manifest::list(&self.from)? {
            let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(manifest) = Manifest::load(&folder) else {
                let cells = vec![
                    id.clone(),
                    "damaged".to_owned(),
                    String::new(),
                    String::new(),
                    String::new(),
                ];
                table.push(cells, json!({ "id": id, "damaged": true }));
                continue;
            };
            let keys: u64 = manifest.tenants.values().map(|tenant| tenant.keys).sum();
            let parts = manifest.tenants.values().flat_map(|tenant| &tenant.parts);
            let bytes: u64 = parts.map(|part| part.len).sum();
            let tenants = manifest.tenants.len();
            let json = json!({
                "id": id,
                "startTime": manifest.started,
                "endTime": manifest.ended,
                "tenants": tenants,
                "keys": keys.to_string(),
                "bytes": bytes.to_string(),
                "jurisdiction": manifest.jurisdiction,
            });
            let cells = vec![
                id,
                manifest.ended,
                tenants.to_string(),
                keys.to_string(),
                output::size(bytes),
            ];
            table.push(cells, json);
        }
        table.print(target.output)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Folder of backups
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// Backup; else the newest
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

impl Verify {
    pub(super) fn run(self, target: &Target) -> Result<(), CommandError> {
        let folder = manifest::find(&self.from, self.id.as_deref())?;
        let manifest = Manifest::load(&folder)?;
        let (mut count, mut damaged) = (0_u64, Vec::new());
        for part in manifest.tenants.values().flat_map(|tenant| &tenant.parts) {
            count += 1;
            if let Err(error) = parts::verify(&folder, part) {
                damaged.push(error.text().to_owned());
            }
        }
        if !damaged.is_empty() {
            let what = format!("{} of {count} parts damaged: {}", damaged.len(), damaged.join("; "));
            return Err(CommandError::new(Code::Unhealthy, what));
        }
        if target.output == Output::Json {
            return output::json(&json!({ "id": manifest.id, "parts": count }));
        }
        output::line(&format!(
            "backup {}: {} whole",
            manifest.id,
            output::count(count, "part")
        ))
    }
}
