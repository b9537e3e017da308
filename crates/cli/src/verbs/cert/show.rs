//! `stead cert show`: names and times of validity of certificates.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::json;
use stead_tls::{Certificate, read_certificates};

use super::{Folder, failed};
use crate::{
    exit::CommandError,
    output::{Output, OutputTable},
};

/// Seconds of a day.
const DAY_S: u64 = 86_400;

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Files to show; all of the folder if none is named
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    folder: Folder,
}

impl Show {
    pub(super) fn run(self, output: Output) -> Result<(), CommandError> {
        let files = match self.files.is_empty() {
            true => self.folder.open().files().map_err(failed)?,
            false => self.files,
        };
        let mut table = OutputTable::new(&["FILE", "NAME", "EXPIRES", "HOSTS", "ISSUER", "SERIAL"], 4);
        for file in files {
            for certificate in read_certificates(&file).map_err(failed)? {
                push(&mut table, &file, &certificate);
            }
        }
        table.print(output)
    }
}

fn push(table: &mut OutputTable, file: &Path, certificate: &Certificate) {
    let name = certificate
        .name()
        .map_or_else(|| certificate.subject.clone(), |name| name.to_string());
    let addresses = certificate.addresses.iter().map(ToString::to_string);
    let hosts: Vec<String> = certificate.dns.iter().cloned().chain(addresses).collect();
    let file = file.display().to_string();
    table.push(
        vec![
            file.clone(),
            name.clone(),
            expiry(certificate.not_after),
            hosts.join(","),
            certificate.issuer.clone(),
            certificate.serial.clone(),
        ],
        json!({
            "file": file,
            "name": name,
            "isCa": certificate.is_ca,
            "hosts": hosts,
            "issuer": certificate.issuer,
            "serial": certificate.serial,
            "notBefore": certificate.not_before,
            "notAfter": certificate.not_after,
        }),
    );
}

/// Returns when a certificate expires, as people say it.
fn expiry(not_after: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let left = not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    let text = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        // Days are enough beyond two of them.
        match seconds / DAY_S {
            days @ 2.. => format!("{days} days"),
            _ => humantime::format_duration(Duration::from_secs(seconds / 60 * 60)).to_string(),
        }
    };
    match left {
        0.. => format!("in {}", text(left)),
        _ => format!("{} ago", text(-left)),
    }
}
