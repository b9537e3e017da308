//! Pauses of writes while a tenant moves, seen by a client beside each of the two homes.
//!
//! The pause at the groups is measured by a watch in each region, which the nodes there answer from their own copies: all
//! clocks are this process's, and a commit is learned of without a trip between regions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use stead_client::{
    Admin, KeyRange, MoveSource, MoveTarget, OperationInfo, OperationOutcome, Tenant, TenantMove, WatchMessage,
    WatchOptions, Watcher,
};
use stead_types::Epoch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::load::{Acknowledgement, Load, LoadReport, out_of_order};

/// Longest wait for the end of a move.
const MOVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time of writes before and after a move that is measured.
const MARGIN: Duration = Duration::from_millis(300);
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Failure of a move, or of what measures it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] stead_client::Error),
    /// No writes from a region were acknowledged in time.
    #[error("no writes from {0} are acknowledged")]
    NoWrites(String),
    /// An operation did not end in time.
    #[error("{0} has not ended in time")]
    NotEnded(String),
    /// An operation did not move the tenant.
    #[error("{0} did not move the tenant: {1:?}")]
    Failed(String, Option<OperationOutcome>),
}

/// Longest times without writes, of one move, and its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// From the call that begins the move until its end is known.
    pub took: Duration,
    /// From the last commit under the epoch before to the first under the new one.
    pub groups: Duration,
    /// Between two acknowledgements of the client beside the home before.
    pub source: Duration,
    /// Between two acknowledgements of the client beside the new home.
    pub target: Duration,
}

/// Tenant that moves back and forth between two regions, with a load of writes in each.
#[derive(Debug)]
pub struct MovingTenant {
    admin: Admin,
    name: String,
    sides: [Side; 2],
    /// Side that is the home.
    home: usize,
}

#[derive(Debug)]
struct Side {
    region: String,
    load: Load,
    commits: Arc<Mutex<BTreeMap<Epoch, Seen>>>,
    /// Ends with its side.
    _watch: AbortOnDropHandle<()>,
}

/// Times at which the first and the last write of an epoch were seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Instant,
    last: Instant,
}

/// Result of the loads of both sides.
#[derive(Debug, Default)]
pub struct MovesReport {
    /// Number of acknowledged writes.
    pub acknowledged: usize,
    /// Number of acknowledged writes that are not stored.
    pub lost: usize,
    /// Number of writes that happened more than once.
    pub twice: usize,
    /// Number of writes whose revision is not above that of a write acknowledged before they were sent.
    pub out_of_order: usize,
    /// Errors of calls.
    pub errors: Vec<String>,
}

impl MovingTenant {
    /// Starts the loads, of this many writes a second each; one of the sides is the home.
    ///
    /// # Errors
    ///
    /// A watch cannot be opened.
    pub async fn start(admin: Admin, sides: [(&str, Tenant); 2], prefix: &str, per_second: u32) -> Result<Self, Error> {
        let name = sides[0].1.name().to_string();
        let home_region = admin.tenant(&name).await?.home_region;
        let home = usize::from(home_region != sides[0].0);
        let [source, target] = sides;
        let source = Side::start(source, prefix, per_second).await?;
        let target = Side::start(target, prefix, per_second).await?;
        Ok(Self {
            admin,
            name,
            sides: [source, target],
            home,
        })
    }

    /// Returns the region that is the home.
    pub fn home(&self) -> &str {
        &self.sides[self.home].region
    }

    /// Returns the region to which the next move goes.
    pub fn target(&self) -> &str {
        &self.sides[1 - self.home].region
    }

    /// Waits until both sides have been writing for a moment.
    ///
    /// # Errors
    ///
    /// No writes are acknowledged.
    pub async fn writes_go_on(&self) -> Result<(), Error> {
        for side in &self.sides {
            let from = Instant::now();
            let go_on = async {
                loop {
                    let newest = side.load.newest().await;
                    if newest.is_some_and(|write| write.sent >= from + MARGIN) {
                        break;
                    }
                    sleep(MARGIN / 10).await;
                }
            };
            timeout(MOVE_TIMEOUT, go_on)
                .await
                .map_err(|_| Error::NoWrites(side.region.clone()))?;
        }
        Ok(())
    }

    /// Returns the longest time in which neither side's client had an acknowledgement, since the last call.
    pub async fn take_gap(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for side in &self.sides {
            longest = longest.max(side.load.take_gap().await);
        }
        longest
    }

    /// Begins a move to the other side, and returns the name of its operation.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub async fn begin(&self) -> Result<String, Error> {
        begin(&self.admin, &self.name, self.target(), MoveSource::Follow).await
    }

    /// Waits for the end of a move, and takes note of the new home.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub async fn ended(&mut self, operation: &str) -> Result<OperationInfo, Error> {
        let ended = ended(&self.admin, operation).await?;
        if matches!(ended.outcome, Some(OperationOutcome::Moved { .. })) {
            self.home = 1 - self.home;
        }
        Ok(ended)
    }

    /// Moves the tenant to the other side, and measures.
    ///
    /// # Errors
    ///
    /// The move fails, or no writes are acknowledged before or after it.
    pub async fn move_once(&mut self) -> Result<Pause, Error> {
        self.writes_go_on().await?;
        let (source, target) = (self.home, 1 - self.home);
        let mut from = [0; 2];
        for (from, side) in from.iter_mut().zip(&self.sides) {
            *from = side.load.acknowledged().await.saturating_sub(1);
        }
        let begun = Instant::now();
        let operation = self.begin().await?;
        let ended = self.ended(&operation).await?;
        let took = begun.elapsed();
        if self.home != target {
            return Err(Error::Failed(operation, ended.outcome));
        }
        self.writes_go_on().await?;
        let groups = self
            .pause_at_groups(source, target)
            .ok_or_else(|| Error::NoWrites(self.sides[target].region.clone()))?;
        let writes_of = async |side: usize| self.sides[side].load.acknowledged_since(from[side]).await;
        Ok(Pause {
            took,
            groups,
            source: longest_gap(&writes_of(source).await),
            target: longest_gap(&writes_of(target).await),
        })
    }

    /// Returns the time from the last commit of the last epoch but one, at its home, to the first of the last, at its own.
    fn pause_at_groups(&self, source: usize, target: usize) -> Option<Duration> {
        let (epoch, after) = self.sides[target]
            .commits
            .lock()
            .last_key_value()
            .map(|(epoch, seen)| (*epoch, *seen))?;
        let before = *self.sides[source].commits.lock().range(..epoch).next_back()?.1;
        Some(after.first.saturating_duration_since(before.last))
    }

    /// Stops the loads, reads all writes back, and counts.
    ///
    /// # Errors
    ///
    /// The writes cannot be read back.
    pub async fn finish(self) -> Result<MovesReport, Error> {
        let mut report = MovesReport::default();
        let mut writes = Vec::new();
        for side in self.sides {
            let LoadReport {
                acknowledged,
                lost,
                missing: _,
                twice,
                errors,
            } = side.load.finish().await?;
            report.acknowledged += acknowledged.len();
            report.lost += lost;
            report.twice += twice;
            report.errors.extend(errors);
            writes.extend(acknowledged);
        }
        report.out_of_order = out_of_order(writes);
        Ok(report)
    }
}

impl Side {
    async fn start((region, tenant): (&str, Tenant), prefix: &str, per_second: u32) -> Result<Self, Error> {
        let prefix = format!("{prefix}/{region}");
        let commits: Arc<Mutex<BTreeMap<Epoch, Seen>>> = Arc::default();
        let watch = WatchOptions {
            ranges: vec![KeyRange::all()],
            ..WatchOptions::default()
        };
        let watcher = tenant.watch(watch).await?;
        let watch = tokio::spawn(note_commits(watcher, commits.clone()));
        Ok(Self {
            region: region.to_owned(),
            load: Load::start(tenant, prefix, per_second),
            commits,
            _watch: AbortOnDropHandle::new(watch),
        })
    }
}

async fn note_commits(mut watcher: Watcher, commits: Arc<Mutex<BTreeMap<Epoch, Seen>>>) {
    while let Ok(message) = watcher.next().await {
        let WatchMessage::Changes(events) = message else {
            continue;
        };
        let now = Instant::now();
        let mut commits = commits.lock();
        for event in events {
            let first = Seen { first: now, last: now };
            commits.entry(event.item.modified.epoch()).or_insert(first).last = now;
        }
    }
}

/// Moves a tenant to a region.
///
/// # Errors
///
/// It is refused, or fails.
pub async fn move_to(admin: &Admin, tenant: &str, region: &str, source: MoveSource) -> Result<u32, Error> {
    let operation = begin(admin, tenant, region, source).await?;
    let ended = ended(admin, &operation).await?;
    match ended.outcome {
        Some(OperationOutcome::Moved { epoch, .. }) => Ok(epoch),
        outcome => Err(Error::Failed(operation, outcome)),
    }
}

/// Begins to move a tenant to a region, and returns the name of the operation.
///
/// # Errors
///
/// It is refused.
pub async fn begin(admin: &Admin, tenant: &str, region: &str, source: MoveSource) -> Result<String, Error> {
    let request = TenantMove {
        name: tenant.to_owned(),
        etag: String::new(),
        to: MoveTarget::Region(region.to_owned()),
        source,
        reason: "measured".into(),
        dry_run: false,
    };
    Ok(admin.move_tenant(request).await?.name)
}

/// Waits for the end of an operation; the watch is opened again where it breaks.
///
/// # Errors
///
/// It does not end in time.
pub async fn ended(admin: &Admin, operation: &str) -> Result<OperationInfo, Error> {
    ended_within(admin, operation, MOVE_TIMEOUT).await
}

/// As [`ended`], with a deadline of the caller's.
///
/// # Errors
///
/// It does not end in time.
pub async fn ended_within(admin: &Admin, operation: &str, limit: Duration) -> Result<OperationInfo, Error> {
    let watched = async {
        loop {
            if let Ok(mut watch) = admin.watch_operation(operation).await {
                while let Ok(Some(state)) = watch.next().await {
                    if state.outcome.is_some() {
                        return state;
                    }
                }
            }
            sleep(REOPEN_PAUSE).await;
        }
    };
    timeout(limit, watched)
        .await
        .map_err(|_| Error::NotEnded(operation.to_owned()))
}

fn longest_gap(writes: &[Acknowledgement]) -> Duration {
    let mut times: Vec<Instant> = writes.iter().map(|write| write.acknowledged).collect();
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0]));
    gaps.max().unwrap_or_default()
}
