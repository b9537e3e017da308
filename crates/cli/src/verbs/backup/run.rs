//! `stead backup run`: backups on a schedule, in the foreground of a process that a service manager starts.
//!
//! When the next one is due is told by the newest that is there, so a restart neither skips one nor makes one too early.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use super::{
    bucket::BucketArgs,
    catalog::{Catalog, Listed},
    create::Create,
    manifest::{self, Manifest},
    metrics::Metrics,
    place::Place,
};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output,
};

/// Pause before a backup that has failed is tried again, doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);
/// Age at which what was not finished is removed: nobody is still writing it.
const UNFINISHED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    create: Create,
    /// Time from the beginning of a backup to that of the next
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Number of newest backups that are kept, with those on which they build
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// With --incremental: each so many backups one has all keys
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    full_every: u32,
    /// File for Prometheus, such as one in the folder of the textfile collector of node_exporter
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

impl Run {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let place = Place::parse(&self.create.to, &self.create.bucket)?;
        place.prepare()?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = self.work(target) => return ended,
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        // A backup under way is left: without a manifest it is none.
        eprintln!("stopped");
        Ok(())
    }

    async fn work(&self, target: &Target) -> Result<(), CommandError> {
        let (mut metrics, mut retry) = (Metrics::default(), RETRY_FIRST);
        let catalog = self.catalog()?;
        // Faults of what was written on the command line end it at once; others may pass.
        self.store(&metrics, &catalog.all()?)?;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            let pause = match self.step(target, &mut metrics).await {
                Ok(pause) => {
                    retry = RETRY_FIRST;
                    pause
                }
                Err(error) => {
                    metrics.failures += 1;
                    eprintln!("{} backup failed: {}", now(), error.text());
                    let pause = retry.min(self.every);
                    retry = (retry * 2).min(RETRY_MAX);
                    pause
                }
            };
            if let Err(error) = self.catalog()?.all().and_then(|all| self.store(&metrics, &all)) {
                eprintln!("{} metrics: {}", now(), error.text());
            }
            sleep(pause).await;
        }
    }

    /// Makes a backup if it is due; returns the time until the next is.
    async fn step(&self, target: &Target, metrics: &mut Metrics) -> Result<Duration, CommandError> {
        let catalog = self.catalog()?;
        let all = catalog.all()?;
        let newest = all.iter().rev().find_map(|listed| listed.manifest.as_ref().ok());
        let wait = due(
            newest.and_then(|manifest| started(manifest)),
            self.every,
            SystemTime::now(),
        );
        if !wait.is_zero() {
            return Ok(wait);
        }
        let begun = Instant::now();
        let client = context::connect(target).await?;
        let incremental = self.create.incremental && !is_full_due(&all, self.full_every);
        let created = Box::pin(self.create.create(&client, &catalog, incremental, output::Output::Json)).await?;
        metrics.duration = Some(begun.elapsed());
        eprintln!("{} backup {} made", now(), created.manifest.id);
        let catalog = self.catalog()?;
        for id in superfluous(&catalog.all()?, self.keep as usize) {
            remove(&catalog.place, &id)?;
        }
        for id in unfinished(&catalog, SystemTime::now())? {
            remove(&catalog.place, &id)?;
        }
        Ok(self.every.saturating_sub(begun.elapsed()))
    }

    /// Opens the place anew: others may write there, too.
    fn catalog(&self) -> Result<Catalog, CommandError> {
        Catalog::open(&self.create.to, &self.create.bucket, self.create.key_file.as_deref())
    }

    fn store(&self, metrics: &Metrics, all: &[Listed]) -> Result<(), CommandError> {
        let Some(path) = &self.metrics_file else { return Ok(()) };
        let manifests: Vec<&Manifest> = all
            .iter()
            .filter_map(|listed| listed.manifest.as_deref().ok())
            .collect();
        let newest = manifests.last().copied();
        let text = metrics.text(newest, newest.and_then(started), manifests.len());
        metrics.store(path, &text)
    }
}

/// Returns what is wrong with the age of the newest backup of a place, if something is.
pub(in crate::verbs) fn age(from: &str, age_max: Duration) -> Option<String> {
    let catalog = match Catalog::open(from, &BucketArgs::from_env(), None) {
        Ok(catalog) => catalog,
        Err(error) => return Some(error.text().to_owned()),
    };
    match catalog.find(None) {
        Err(error) if error.code() == Code::NotFound => Some(format!(
            "there is no backup at {from}: `stead backup create --to {from}` makes one"
        )),
        Err(error) => Some(format!("the newest backup cannot be read: {}", error.text())),
        Ok(newest) => {
            let age = started(&newest).and_then(|started| SystemTime::now().duration_since(started).ok());
            let age = age.filter(|age| *age > age_max)?;
            Some(format!(
                "the newest backup {} is {} old, and may be {} old at most: see whether `stead backup run` runs",
                newest.id,
                humantime::format_duration(Duration::from_secs(age.as_secs())),
                humantime::format_duration(age_max)
            ))
        }
    }
}

/// Returns the time until a backup is due.
fn due(newest: Option<SystemTime>, every: Duration, now: SystemTime) -> Duration {
    let Some(newest) = newest else { return Duration::ZERO };
    // A clock that went back does not put the next one off for ever.
    let age = now.duration_since(newest).unwrap_or(every);
    every.saturating_sub(age)
}

/// Tells whether the next backup has to have all keys.
fn is_full_due(all: &[Listed], full_every: u32) -> bool {
    let newest_first = all.iter().rev().map(|listed| &listed.manifest);
    let increments = newest_first.take_while(|manifest| {
        let bases = manifest.as_ref().map(|manifest| manifest.bases.len());
        bases.is_ok_and(|bases| bases > 0)
    });
    all.is_empty() || increments.count() as u64 + 1 >= u64::from(full_every)
}

/// Returns the backups that are neither among the newest nor needed by one of them.
fn superfluous(all: &[Listed], keep: usize) -> Vec<String> {
    let mut needed = BTreeSet::new();
    for (place, listed) in all.iter().rev().enumerate() {
        let Ok(manifest) = &listed.manifest else {
            // What cannot be read is looked at by people.
            needed.insert(listed.id.clone());
            continue;
        };
        // The newest come first, so that all that need it have been seen.
        if place < keep || needed.contains(&listed.id) {
            needed.insert(listed.id.clone());
            needed.extend(manifest.bases.keys().cloned());
        }
    }
    let ids = all.iter().map(|listed| &listed.id);
    ids.filter(|id| !needed.contains(*id)).cloned().collect()
}

/// Returns folders of backups that were begun long ago and not finished.
fn unfinished(catalog: &Catalog, now: SystemTime) -> Result<Vec<String>, CommandError> {
    let finished: BTreeSet<String> = catalog.all()?.into_iter().map(|listed| listed.id).collect();
    let since = now.checked_sub(UNFINISHED_KEPT).unwrap_or(SystemTime::UNIX_EPOCH);
    let since = humantime::format_rfc3339_seconds(since)
        .to_string()
        .replace(['-', ':'], "");
    let folders = catalog.place.folders()?.into_iter();
    Ok(folders
        .filter(|id| !finished.contains(id) && is_name(id) && *id < since)
        .collect())
}

/// Tells whether a folder has the name of a backup: others are nobody's to remove.
fn is_name(id: &str) -> bool {
    let bytes = id.as_bytes();
    let is_digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    is_digits(0..8) && bytes.get(8) == Some(&b'T') && is_digits(9..15) && id.contains("Z-")
}

/// Removes a backup: first its manifest, so that it is none from then on.
fn remove(place: &Place, id: &str) -> Result<(), CommandError> {
    place.remove(&format!("{id}/{}", manifest::FILE))?;
    place.remove_folder(id)?;
    eprintln!("{} backup {id} removed", now());
    Ok(())
}

fn started(manifest: &Manifest) -> Option<SystemTime> {
    humantime::parse_rfc3339(&manifest.started).ok()
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn listed(id: &str, bases: &[&str]) -> Listed {
        let mut manifest = Manifest::new(id.to_owned(), String::new(), None);
        manifest.bases = bases.iter().map(|base| ((*base).to_owned(), String::new())).collect();
        Listed {
            id: id.to_owned(),
            manifest: Ok(Rc::new(manifest)),
        }
    }

    #[test]
    fn backup_is_due_after_its_interval_from_the_newest() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let every = Duration::from_secs(100);
        assert_eq!(due(None, every, at(500)), Duration::ZERO);
        assert_eq!(due(Some(at(450)), every, at(500)), Duration::from_secs(50));
        assert_eq!(due(Some(at(300)), every, at(500)), Duration::ZERO);
        assert_eq!(
            due(Some(at(900)), every, at(500)),
            Duration::ZERO,
            "the clock went back"
        );
    }

    #[test]
    fn bases_of_kept_backups_are_kept() {
        let all = [
            listed("1", &[]),
            listed("2", &["1"]),
            listed("3", &[]),
            listed("4", &["3"]),
            listed("5", &["4"]),
        ];
        assert_eq!(superfluous(&all, 1), ["1", "2"]);
        assert_eq!(superfluous(&all, 4), [""; 0], "2 builds on 1");
        let independent = [listed("1", &[]), listed("2", &[]), listed("3", &[])];
        assert_eq!(superfluous(&independent, 2), ["1"]);
    }

    #[test]
    fn each_so_many_backups_one_has_all_keys() {
        assert!(is_full_due(&[], 3));
        assert!(!is_full_due(&[listed("1", &[])], 3));
        assert!(!is_full_due(&[listed("1", &[]), listed("2", &["1"])], 3));
        assert!(is_full_due(
            &[listed("1", &[]), listed("2", &["1"]), listed("3", &["2"])],
            3
        ));
        assert!(is_full_due(&[listed("1", &[])], 1));
    }

    #[test]
    fn only_old_folders_with_the_name_of_a_backup_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["20200101T000000.000Z-1", "20300101T000000.000Z-2", "photos", "20200101"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let catalog = Catalog::new(Place::Folder(folder.path().to_owned()), None);
        let found = unfinished(&catalog, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        assert_eq!(found, ["20200101T000000.000Z-1"]);
    }

    #[test]
    fn backup_that_is_missing_or_too_old_is_a_finding() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().display().to_string();
        let age_of = |hours: u64| age(&from, Duration::from_secs(hours * 3600));
        assert!(age_of(1).unwrap().contains("there is no backup"));
        let sink = super::super::files::Sink {
            place: Place::Folder(folder.path().to_owned()),
            id: "one".to_owned(),
            key: None,
        };
        let begun = SystemTime::now() - Duration::from_secs(3 * 3600);
        let begun = humantime::format_rfc3339_seconds(begun).to_string();
        Manifest::new("one".to_owned(), begun, None).store(&sink).unwrap();
        assert_eq!(age_of(4), None);
        assert!(age_of(2).unwrap().contains("the newest backup one is"));
    }
}
