//! `stead tenant move` of many tenants: by label, or by a file of tenants and regions.

use std::path::Path;

use stead_client::{Admin, BulkMoveOptions, MoveSource, TenantSelection};

use crate::{
    args::Target,
    exit::{Code, CommandError},
    verbs::operation::bulk::{self, BulkArgs},
};

/// Moves the tenants with a label, written `key=value`, to a region.
pub(super) async fn by_label(
    target: &Target,
    args: &BulkArgs,
    source: MoveSource,
    label: &str,
    to: &str,
) -> Result<(), CommandError> {
    let (key, value) = label.split_once('=').ok_or_else(|| {
        let message = format!("--label {label:?} is no label: one is written key=value, such as tier=gold");
        CommandError::new(Code::Usage, message)
    })?;
    let selection = TenantSelection::Label {
        key: key.to_owned(),
        value: value.to_owned(),
        to: to.to_owned(),
    };
    run(target, args, source, selection).await
}

/// Moves the tenants of a file, each to its region.
pub(super) async fn by_file(
    target: &Target,
    args: &BulkArgs,
    source: MoveSource,
    file: &Path,
) -> Result<(), CommandError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let message = format!("cannot read {}: {error}", file.display());
        CommandError::new(Code::Usage, message)
    })?;
    let moves = read(&text).map_err(|why| CommandError::new(Code::Usage, format!("{}: {why}", file.display())))?;
    run(target, args, source, TenantSelection::Named(moves)).await
}

async fn run(
    target: &Target,
    args: &BulkArgs,
    source: MoveSource,
    selection: TenantSelection,
) -> Result<(), CommandError> {
    let begin = async |admin: &Admin, options: BulkMoveOptions| admin.move_tenants(selection.clone(), options).await;
    bulk::run(target, args, source, None, begin).await
}

/// Reads lines `tenant,region`; a first line `tenant,home`, empty lines and those that begin with # are left out.
fn read(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let mut moves = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields: Vec<&str> = record.iter().collect();
        match fields[..] {
            ["tenant", "home" | "region" | "to"] if moves.is_empty() => {}
            [tenant, region] if !tenant.is_empty() && !region.is_empty() => {
                moves.push((tenant.to_owned(), region.to_owned()));
            }
            _ => {
                let found = record.iter().collect::<Vec<_>>().join(",");
                return Err(format!(
                    "line {line}: {found:?} is no move: write tenant,region such as acme,us-east"
                ));
            }
        }
    }
    if moves.is_empty() {
        return Err("it names no tenant: write lines of tenant,region such as acme,us-east".to_owned());
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_moves_has_one_tenant_a_line() {
        let text = "tenant,home\n# back to Europe\nacme, eu-west\n\nbolt,us-east\n";
        let pair = |tenant: &str, to: &str| (tenant.to_owned(), to.to_owned());
        assert_eq!(read(text), Ok(vec![pair("acme", "eu-west"), pair("bolt", "us-east")]));
        for (wrong, line) in [
            ("acme\n", "line 1"),
            ("a,eu\nb,eu,us\n", "line 2"),
            ("a,eu\n,us\n", "line 2"),
        ] {
            let why = read(wrong).unwrap_err();
            assert!(why.starts_with(line), "{why}");
        }
        assert!(read("tenant,home\n").unwrap_err().contains("names no tenant"));
    }
}
