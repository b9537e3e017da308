//! `stead kv export`: the keys of a tenant at one revision, streamed to a file or to standard output.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Map, Value};
use stead_client::{Error, ErrorKind, Item, Revision, ScanStream};
use stead_types::TenantTime;

use super::{import::BASE64_SUFFIX, read::ReadArgs};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output,
};

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Tenant of the keys
    tenant: String,
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: OsString,
    /// File to be written, which must not exist; else standard output
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
}

impl Export {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
        let scan = stead_client::ScanOptions {
            prefix: self.prefix.into_vec().into(),
            read: self.read.read()?,
            ..stead_client::ScanOptions::default()
        };
        let mut items = tenant.scan_stream(&scan);
        let (count, revision) = match &self.file {
            None => copy(&mut items, &mut BufWriter::new(io::stdout().lock())).await?,
            Some(path) => {
                let unwritable =
                    |error: io::Error| CommandError::new(Code::Failed, format!("{}: {error}", path.display()));
                if path.exists() {
                    let error = CommandError::new(Code::Usage, format!("{} exists", path.display()));
                    return Err(error.hint("name another file, or remove it"));
                }
                // A file with the wanted name is whole.
                let part = path.with_added_extension("part");
                let mut file = BufWriter::new(File::create(&part).map_err(unwritable)?);
                let written = copy(&mut items, &mut file).await?;
                file.get_ref().sync_all().map_err(unwritable)?;
                std::fs::rename(&part, path).map_err(unwritable)?;
                written
            }
        };
        let at = revision.map_or_else(String::new, |revision| format!(" at revision {revision}"));
        eprintln!("{}{at}", output::count(count, "key"));
        Ok(())
    }
}

/// Writes all items as JSON lines; returns their number and revision.
async fn copy(items: &mut ScanStream, to: &mut impl Write) -> Result<(u64, Option<Revision>), CommandError> {
    let mut count = 0;
    while let Some(item) = items.next().await.map_err(|error| ended_early(error, count))? {
        writeln!(to, "{}", line(&item, items.time().unwrap_or_default()))?;
        count += 1;
    }
    to.flush()?;
    Ok((count, items.revision()))
}

/// Returns the error of an export that has ended after so many keys.
fn ended_early(error: Error, count: u64) -> CommandError {
    let is_compacted = matches!(error.kind, ErrorKind::Compacted { .. });
    let error = CommandError::from(error);
    if !is_compacted {
        return error;
    }
    let count = output::count(count, "key");
    error
        .map_message(|message| format!("after {count} the tenant's history no longer has the export's revision: {message}"))
        .hint(
            "history has to last as long as the export: raise the tenant's limit history-age, and storage.history_bytes_max of \
             the nodes where writers make more in that time; or export parts, with --prefix, each at a revision of its own",
        )
}

/// Returns an item as `stead kv import --key key --value value --ttl ttl_ms` reads it; `now`: the time of the revision.
pub(in crate::verbs) fn line(item: &Item, now: TenantTime) -> Value {
    let mut object = Map::new();
    for (name, bytes) in [("key", &item.key), ("value", &item.value)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => object.insert(name.to_owned(), text.into()),
            Err(_) => object.insert(format!("{name}{BASE64_SUFFIX}"), STANDARD.encode(bytes).into()),
        };
    }
    object.insert("created".to_owned(), item.created.to_string().into());
    object.insert("modified".to_owned(), item.modified.to_string().into());
    object.insert("version".to_owned(), item.version.into());
    if let Some(expires) = item.expires {
        // A key at its end is gone with the next write.
        let left = expires.0.saturating_sub(now.0).max(1);
        object.insert("ttl_ms".to_owned(), left.into());
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_that_history_outran_says_so_and_what_helps() {
        let kind = ErrorKind::Compacted { oldest: Revision::ZERO };
        let ended = ended_early(Error::new(kind, "revision: history begins at 1.9"), 3);
        assert!(
            ended.text().starts_with("after 3 keys the tenant's history"),
            "{}",
            ended.text()
        );
        let other = ended_early(Error::new(ErrorKind::NoLeader, "none"), 3);
        assert_eq!(other.text(), "none");
    }

    #[test]
    fn exported_line_has_text_or_base64_and_what_is_left_of_the_ttl() {
        let mut item = Item {
            key: "k".into(),
            value: vec![255].into(),
            created: Revision::ZERO,
            modified: Revision::ZERO,
            version: 3,
            expires: None,
        };
        let without = line(&item, TenantTime(5)).to_string();
        assert_eq!(
            without,
            r#"{"created":"0.0","key":"k","modified":"0.0","value_base64":"/w==","version":3}"#
        );
        item.expires = Some(TenantTime(12));
        assert_eq!(line(&item, TenantTime(5))["ttl_ms"], 7);
        assert_eq!(line(&item, TenantTime(50))["ttl_ms"], 1);
    }
}
