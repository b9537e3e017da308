//! Acceptance step of `stead backup`: under load each backup of a chain has exactly one revision, plain and encrypted; it is
//! restored beside the live tenant, also to a revision between two backups; and a flipped bit of any file is found and named.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use stead_client::{Client, Consistency, ErrorKind, Op, ReadOptions, Revision, ScanOptions, Tenant};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Verdict, command_line::CommandLine};
use crate::verbs::dev::world::{World, ensure_tenant};

const TENANT: &str = "acme";
/// Keys that a transaction writes together: at one revision they are equal.
const KEYS: usize = 100;
/// Keys that nobody writes meanwhile, so that a backup takes several pages.
const OTHER_KEYS: usize = 20_000;
const KEYS_OF_TRANSACTION: usize = 500;
const KEY_FILE: &str = "backup.key";

/// Chain of backups of one tenant.
struct Chain {
    /// Folder of backups in the working folder.
    place: &'static str,
    is_encrypted: bool,
    /// Output of `stead backup create`, the oldest first.
    created: Vec<Value>,
}

/// Content of a tenant at one revision.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    keys: usize,
    /// Number of different values of the keys that are written together.
    values: usize,
    digest: Vec<u8>,
}

pub(super) async fn run(world: &mut World, data: &Path) -> anyhow::Result<Verdict> {
    let home = "eu-west";
    let client = world.client(home).await?;
    let source = format!("{TENANT}-{}", world.run);
    ensure_tenant(client.clone(), source.clone(), home).await?;
    let tenant = client.tenant(&source)?;
    fill(&tenant).await?;
    let command_line = CommandLine::prepare(world, data, "backup").await?;
    command_line.run(&["backup", "keygen", KEY_FILE]).await?;
    let stop = CancellationToken::new();
    let load = tokio::spawn(write_together(tenant.clone(), stop.clone()));
    let started = Instant::now();
    let plain = Chain::create(&command_line, "plain", &source).await;
    let encrypted = Chain::create(&command_line, "encrypted", &source).await;
    let took = started.elapsed();
    stop.cancel();
    let written = load.await??;
    let chains = [plain?, encrypted?];
    // Contents are compared while history still has their revisions.
    let mut restored = Vec::new();
    for chain in &chains {
        chain.verify(&command_line, None).await?;
        let newest = format!("{source}-{}", chain.place);
        restored.push(chain.restore(&command_line, &client, &source, &newest, None).await?);
    }
    let between = chains[0].revision_between(&restored[0].0)?;
    let name = format!("{source}-between");
    restored.push(
        chains[0]
            .restore(&command_line, &client, &source, &name, Some(between))
            .await?,
    );
    let mut verdict = Verdict::default();
    for chain in &chains {
        let (files, unnamed) = chain.flip_bits(&command_line).await?;
        let made = chain.restore_damaged(&command_line, &client, &source).await?;
        verdict = verdict
            .note(format!(
                "{files} files of {} {} backups",
                chain.created.len(),
                chain.place
            ))
            .none("damages not named", unnamed)
            .none("tenants made of a damaged backup", made);
    }
    let others = restored
        .iter()
        .filter(|(_, source, copy)| source != copy || copy.values != 1)
        .count();
    let missing = restored
        .iter()
        .map(|(_, _, copy)| (KEYS + OTHER_KEYS).abs_diff(copy.keys))
        .sum();
    Ok(verdict
        .note(format!(
            "{} keys, 6 backups in {:.1} s beside {written} writes",
            KEYS + OTHER_KEYS,
            took.as_secs_f64()
        ))
        .none("keys missing", missing)
        .none("other contents", others))
}

impl Chain {
    /// Makes a backup of all keys and two with the changes since.
    async fn create(command_line: &CommandLine, place: &'static str, source: &str) -> anyhow::Result<Self> {
        let mut chain = Self {
            place,
            is_encrypted: place == "encrypted",
            created: Vec::new(),
        };
        for number in 0..3 {
            let mut args = vec!["backup", "create", "--to", place, "--tenant", source, "-o", "json"];
            args.extend(chain.key());
            args.extend((number > 0).then_some("--incremental"));
            let created: Value = serde_json::from_str(&command_line.run(&args).await?)?;
            let bases = created["bases"].as_array().map_or(0, Vec::len);
            ensure!(
                bases == usize::from(number > 0),
                "a backup builds on {bases} others: {created}"
            );
            chain.created.push(created);
        }
        Ok(chain)
    }

    fn key(&self) -> Vec<&'static str> {
        match self.is_encrypted {
            true => vec!["--key-file", KEY_FILE],
            false => Vec::new(),
        }
    }

    /// Verifies the newest backup; `refused`: what has to be named as damaged. Returns whether it is.
    async fn verify(&self, command_line: &CommandLine, refused: Option<&str>) -> anyhow::Result<bool> {
        let mut args = vec!["backup", "verify", "--from", self.place];
        args.extend(self.key());
        match refused {
            None => command_line.run(&args).await.map(|_| true),
            Some(damaged) => {
                let with_key = command_line.refused(&args).await?;
                // The digests of encrypted files are compared without the key, too.
                let without_key = command_line.refused(&args[..4]).await?;
                Ok(with_key.contains(damaged) && without_key.contains(damaged))
            }
        }
    }

    /// Restores the tenant beside the live one; returns its revision, and what both have at it.
    async fn restore(
        &self,
        command_line: &CommandLine,
        client: &Client,
        source: &str,
        name: &str,
        at: Option<String>,
    ) -> anyhow::Result<(Revision, Content, Content)> {
        let mut args = vec![
            "backup", "restore", source, "--from", self.place, "--as", name, "-o", "json",
        ];
        args.extend(self.key());
        args.extend(at.iter().flat_map(|at| ["--at-revision", at]));
        let restored: Value = serde_json::from_str(&command_line.run(&args).await?)?;
        let revision = restored["revision"].as_str().context("a restore tells no revision")?;
        ensure!(
            at.as_ref().is_none_or(|at| at == revision),
            "{at:?} was asked for: {restored}"
        );
        let revision = revision.parse().context("a restore tells no revision")?;
        let source = content(&client.tenant(source)?, Some(revision)).await?;
        let copy = content(&client.tenant(name)?, None).await?;
        Ok((revision, source, copy))
    }

    /// Returns a revision in the middle of the last increment.
    fn revision_between(&self, newest: &Revision) -> anyhow::Result<String> {
        let changes = self.created[2]["changes"]
            .as_str()
            .context("a backup tells no changes")?;
        let transactions = changes.parse::<u64>()? / KEYS as u64;
        ensure!(transactions > 1, "the last increment has {changes} changes only");
        let sequence = newest.sequence().get() - transactions / 2;
        Ok(format!("{}.{sequence}", newest.epoch().get()))
    }

    /// Flips a bit in the middle of every file, one after the other; returns how many there are, and of how many the damage
    /// was not named.
    async fn flip_bits(&self, command_line: &CommandLine) -> anyhow::Result<(usize, usize)> {
        let mut files = Vec::new();
        for created in &self.created {
            let folder = created["folder"].as_str().context("the backup has no folder")?;
            find_files(&command_line.folder.join(folder), &mut files)?;
        }
        let mut unnamed = 0;
        for file in &files {
            let whole = std::fs::read(file)?;
            flip_bit(file, &whole)?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let folder = file
                .parent()
                .and_then(Path::file_name)
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // A manifest and its digest are named by the manifest.
            let name = match name.starts_with("manifest.") {
                true => "manifest.json".to_owned(),
                false => format!("{folder}/{name}"),
            };
            unnamed += usize::from(!self.verify(command_line, Some(&name)).await?);
            std::fs::write(file, whole)?;
        }
        self.verify(command_line, None).await?;
        Ok((files.len(), unnamed))
    }

    /// Restores of a chain whose first backup is damaged; returns the number of tenants that were made.
    async fn restore_damaged(
        &self,
        command_line: &CommandLine,
        client: &Client,
        source: &str,
    ) -> anyhow::Result<usize> {
        let folder = self.created[0]["folder"].as_str().context("the backup has no folder")?;
        let mut files = Vec::new();
        find_files(&command_line.folder.join(folder), &mut files)?;
        let part = files.iter().find(|file| file.to_string_lossy().contains(".jsonl.zst"));
        let part = part.context("the backup has no part")?;
        flip_bit(part, &std::fs::read(part)?)?;
        let again = format!("{source}-again");
        let mut args = vec!["backup", "restore", source, "--from", self.place, "--as", &again];
        args.extend(self.key());
        command_line.refused(&args).await?;
        let is_missing = matches!(
            client.admin().tenant(&again).await,
            Err(error) if matches!(error.kind, ErrorKind::TenantNotFound | ErrorKind::NotFound)
        );
        Ok(usize::from(!is_missing))
    }
}

async fn fill(tenant: &Tenant) -> anyhow::Result<()> {
    for first in (0..OTHER_KEYS).step_by(KEYS_OF_TRANSACTION) {
        let puts = (first..first + KEYS_OF_TRANSACTION).map(|key| Op::put(format!("other/{key:06}"), vec![b'v'; 100]));
        puts.fold(tenant.txn(), stead_client::Txn::then).send().await?;
    }
    Ok(())
}

/// Writes the same number to all keys, one transaction after the other; returns how many.
async fn write_together(tenant: Tenant, stop: CancellationToken) -> anyhow::Result<u64> {
    for number in 0_u64.. {
        let puts = (0..KEYS).map(|key| {
            // The first and the last key of all are among them.
            let name = if key % 2 == 0 { "a" } else { "z" };
            Op::put(format!("{name}/{key:03}"), number.to_string())
        });
        puts.fold(tenant.txn(), stead_client::Txn::then).send().await?;
        if stop.is_cancelled() {
            return Ok(number);
        }
    }
    Ok(0)
}

/// Reads all keys, at a revision or as they are.
async fn content(tenant: &Tenant, revision: Option<Revision>) -> anyhow::Result<Content> {
    let scan = ScanOptions {
        read: ReadOptions {
            revision,
            ..ReadOptions::at(Consistency::Linearizable)
        },
        ..ScanOptions::default()
    };
    let (mut keys, mut values) = (0, std::collections::BTreeSet::<Bytes>::new());
    let mut digest = Sha256::new();
    let mut items = tenant.scan_stream(&scan);
    while let Some(item) = items.next().await? {
        keys += 1;
        for field in [&item.key, &item.value] {
            digest.update((field.len() as u64).to_be_bytes());
            digest.update(field);
        }
        if !item.key.starts_with(b"other/") {
            values.insert(item.value);
        }
    }
    Ok(Content {
        keys,
        values: values.len(),
        digest: digest.finalize().to_vec(),
    })
}

fn find_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => find_files(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

/// Flips one bit in the middle of a file.
fn flip_bit(file: &Path, whole: &[u8]) -> anyhow::Result<()> {
    ensure!(!whole.is_empty(), "{} is empty", file.display());
    let mut bytes = whole.to_vec();
    bytes[whole.len() / 2] ^= 1;
    std::fs::write(file, bytes)?;
    Ok(())
}
