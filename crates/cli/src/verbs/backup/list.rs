//! `stead backup list`.

use clap::Args;
use serde_json::json;

use super::{catalog::Listed, from::FromArgs, manifest::Manifest};
use crate::{
    args::Target,
    exit::CommandError,
    output::{self, OutputTable},
};

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    from: FromArgs,
}

impl List {
    pub(super) fn run(self, target: &Target) -> Result<(), CommandError> {
        let columns = &["ID", "ENDED", "TENANTS", "KEYS", "CHANGES", "SIZE", "BUILDS ON", "KEY"];
        let mut table = OutputTable::new(columns, 7);
        for Listed { id, manifest } in self.from.catalog()?.all()? {
            let Ok(manifest) = manifest else {
                let mut cells = vec![String::new(); columns.len()];
                cells[0] = id.clone();
                cells[1] = "damaged".to_owned();
                table.push(cells, json!({ "id": id, "damaged": true }));
                continue;
            };
            push(&mut table, &manifest);
        }
        table.print(target.output)
    }
}

fn push(table: &mut OutputTable, manifest: &Manifest) {
    // Without its key an encrypted backup tells nothing of its tenants.
    let of_tenants = |value: u64| manifest.is_open().then(|| value.to_string());
    let tenants = manifest.tenants.values();
    let keys = of_tenants(tenants.clone().map(|tenant| tenant.keys).sum());
    let changes = of_tenants(tenants.map(|tenant| tenant.changes).sum());
    let count = of_tenants(manifest.tenants.len() as u64);
    let bytes: u64 = manifest.files().map(|part| part.len).sum();
    let bases: Vec<&str> = manifest.bases.keys().map(String::as_str).collect();
    let key = manifest.sealed.as_ref().map(|sealed| sealed.key.clone());
    let json = json!({
        "id": manifest.id,
        "startTime": manifest.started,
        "endTime": manifest.ended,
        "tenants": manifest.is_open().then_some(manifest.tenants.len()),
        "keys": keys,
        "changes": changes,
        "bytes": bytes.to_string(),
        "jurisdiction": manifest.jurisdiction,
        "bases": bases,
        "key": key,
    });
    let hidden = |value: Option<String>| value.unwrap_or_else(|| "encrypted".to_owned());
    let cells = vec![
        manifest.id.clone(),
        manifest.ended.clone(),
        hidden(count),
        hidden(keys),
        hidden(changes),
        output::size(bytes),
        bases.join(", "),
        key.unwrap_or_default(),
    ];
    table.push(cells, json);
}
