//! Work of the directory's leader for promotions in flight: it waits until leases below a fence have run out, notices
//! which groups do not answer, and ends the time of planned moves. All of it follows from the directory, so that a new
//! leader begins anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use stead_state::{
    directory::{Command, Directory, PromotionAdvance, PromotionCounts, PromotionNeeds, PromotionState},
    lease::{
        grantor::AppliedFence,
        waiter::{FenceWait, PossibleOwners, WaitState},
    },
};
use stead_types::{DirectoryVersion, GroupId, NodeId};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{directory::LocalVoter, metrics::Metrics};

/// Time without any of the reports that are due after which a group counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Shortest time between two log lines about the progress of a promotion.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before a command is repeated that has changed nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Waits for leases, on the clock of a leader of the directory.
pub(crate) trait LeaseWaits {
    /// Begins the wait after a fence that is applied here; `None` if this node does not lead.
    fn begin_wait(&self, fence: &AppliedFence) -> Option<FenceWait>;
    /// Returns the state of a wait.
    fn wait_state(&self, wait: &FenceWait) -> WaitState;
    /// Returns how long ago voters of some groups have renewed their leases, of those groups whose renewals this node has
    /// seen since it leads.
    fn since_seen_renewals(&self, owners: &PossibleOwners) -> Vec<(GroupId, Duration)>;
}

impl LeaseWaits for LocalVoter {
    fn begin_wait(&self, fence: &AppliedFence) -> Option<FenceWait> {
        self.begin_fence_wait(fence)
    }

    fn wait_state(&self, wait: &FenceWait) -> WaitState {
        self.fence_wait_state(wait)
    }

    fn since_seen_renewals(&self, owners: &PossibleOwners) -> Vec<(GroupId, Duration)> {
        LocalVoter::since_seen_renewals(self, owners)
    }
}

/// Upkeep of promotions by one voter of the directory, while it leads.
pub(crate) struct PromotionUpkeep {
    metrics: Arc<Metrics>,
    state: Mutex<UpkeepState>,
}

#[derive(Default)]
struct UpkeepState {
    waits: BTreeMap<u64, LeaseWait>,
    /// Reports that are due from each group, and since when their number is the same.
    due: BTreeMap<(u64, GroupId), DueReports>,
    progress: BTreeMap<u64, LoggedProgress>,
    /// The last command of each operation.
    last: BTreeMap<u64, LastCommand>,
    /// Earliest time at which something is due by itself.
    next: Option<Instant>,
}

/// Wait of an operation for leases below its last fence.
struct LeaseWait {
    fence: DirectoryVersion,
    wait: FenceWait,
    began: Instant,
    is_told: bool,
}

/// Command with what was needed when it was proposed.
struct LastCommand {
    needs: PromotionNeeds,
    action: PromotionAdvance,
    at: Instant,
}

#[derive(Clone, Copy)]
struct DueReports {
    count: u64,
    since: Instant,
}

struct LoggedProgress {
    counts: PromotionCounts,
    at: Instant,
}

impl PromotionUpkeep {
    /// Returns the upkeep of a voter that does not lead yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            state: Mutex::default(),
        }
    }

    /// Forgets everything: this voter does not lead.
    pub(crate) fn clear(&self) {
        *self.state.lock() = UpkeepState::default();
    }

    /// Returns when something is due that does not follow from a change of the directory.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.state.lock().next
    }

    /// Returns the next command for promotions in flight. `needs` are read from the directory as it is applied here; `now`
    /// is its logged time.
    pub(crate) fn command(
        &self,
        waits: &dyn LeaseWaits,
        needs: Vec<PromotionNeeds>,
        now: u64,
        unreachable: &[NodeId],
    ) -> Option<Command> {
        let mut state = self.state.lock();
        state.next = None;
        let in_flight: BTreeSet<u64> = needs.iter().map(|needs| needs.operation).collect();
        state.waits.retain(|operation, _| in_flight.contains(operation));
        state.due.retain(|(operation, _), _| in_flight.contains(operation));
        state.last.retain(|operation, _| in_flight.contains(operation));
        for needs in needs {
            let silent = state.silent(&needs);
            let renewals = renewals(waits, &needs, now);
            let wait_over = needs.fence.as_ref().and_then(|fence| {
                let over = state.wait(waits, needs.operation, fence)?;
                if let Some(took) = over.took {
                    info!(
                        operation = needs.operation,
                        seconds = took.as_secs_f64(),
                        "leases below the fence have run out"
                    );
                    self.metrics.promotions.set_wait(took);
                }
                Some(over.fence)
            });
            let Some(action) = state.action(&needs, renewals, wait_over, silent, now, unreachable) else {
                continue;
            };
            if state.is_repeated(&needs, &action) {
                continue;
            }
            let operation = needs.operation;
            let last = LastCommand {
                needs,
                action: action.clone(),
                at: Instant::now(),
            };
            state.last.insert(operation, last);
            return Some(Command::AdvancePromotion { operation, action });
        }
        None
    }

    /// Logs how far promotions are.
    pub(crate) fn log_progress(&self, directory: &Directory) {
        let mut state = self.state.lock();
        let operations = directory.operations();
        let mut known = std::mem::take(&mut state.progress);
        for id in operations.promotions().in_flight() {
            let Some(promotion) = operations.promotion(id) else {
                continue;
            };
            let counts = promotion.counts;
            let before = known.remove(&id);
            let is_due = before
                .as_ref()
                .is_none_or(|before| before.counts != counts && before.at.elapsed() >= LOG_INTERVAL);
            if is_due {
                log(id, &counts, "promotion in flight");
                if before.map_or(0, |before| before.counts.blocked) < counts.blocked {
                    warn_blocked(id, directory);
                }
                let at = Instant::now();
                state.progress.insert(id, LoggedProgress { counts, at });
            } else if let Some(before) = before {
                state.progress.insert(id, before);
            }
        }
        for id in known.into_keys() {
            if let Some(promotion) = operations.promotion(id) {
                log(id, &promotion.counts, "promotion over");
            }
        }
    }
}

/// Returns the last renewals that are to be told of the owners of a fence, by logged time.
fn renewals(waits: &dyn LeaseWaits, needs: &PromotionNeeds, now: u64) -> Vec<(GroupId, u64)> {
    let Some(fence) = needs.fence.as_ref().filter(|_| needs.tells_renewals) else {
        return Vec::new();
    };
    let ms = |since: Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let seen = waits.since_seen_renewals(&fence.owners).into_iter();
    seen.map(|(group, since)| (group, now.saturating_sub(ms(since))))
        .collect()
}

fn log(operation: u64, counts: &PromotionCounts, what: &'static str) {
    info!(
        operation,
        waiting = counts.waiting + counts.moving,
        fenced = counts.fenced,
        freezing = counts.freezing,
        blocked = counts.blocked,
        pulling = counts.pulling,
        activating = counts.activating,
        promoted = counts.promoted,
        moved = counts.moved,
        replaced = counts.replaced,
        failed = counts.failed,
        "{what}"
    );
}

/// Warns of one tenant that waits for an operator: those beside it usually wait for the same reason.
fn warn_blocked(operation: u64, directory: &Directory) {
    let blocked = directory
        .operations()
        .promotions()
        .open(operation)
        .find_map(|(_, item)| {
            let PromotionState::Blocked { reason } = &item.state else {
                return None;
            };
            Some((&item.name, reason))
        });
    if let Some((tenant, reason)) = blocked {
        warn!(
            operation,
            %tenant,
            %reason,
            command = format!("stead operation report {operation}"),
            "promotion blocked"
        );
    }
}

/// Lease wait that is over.
struct WaitEnd {
    fence: DirectoryVersion,
    /// How long it took; `None` where that was told before.
    took: Option<Duration>,
}

impl UpkeepState {
    fn wake_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Begins or continues the wait for leases below a fence; returns its end.
    fn wait(&mut self, waits: &dyn LeaseWaits, operation: u64, fence: &AppliedFence) -> Option<WaitEnd> {
        let now = Instant::now();
        let version = fence.version;
        let known = self.waits.get_mut(&operation).filter(|known| known.fence == version);
        let state = known.as_ref().map(|known| waits.wait_state(&known.wait));
        match (state, known) {
            (Some(WaitState::Over), Some(known)) => {
                let is_told = std::mem::replace(&mut known.is_told, true);
                let took = (!is_told).then(|| now - known.began);
                Some(WaitEnd { fence: version, took })
            }
            (Some(WaitState::Left(left)), _) => {
                self.wake_at(now + left);
                None
            }
            (Some(WaitState::Over | WaitState::Void) | None, _) => {
                let wait = waits.begin_wait(fence)?;
                let left = match waits.wait_state(&wait) {
                    WaitState::Left(left) => left,
                    WaitState::Over | WaitState::Void => Duration::ZERO,
                };
                let seconds = left.as_secs_f64();
                info!(operation, fence = %version, seconds, "waiting until leases below the fence have run out");
                let wait = LeaseWait {
                    fence: version,
                    wait,
                    began: now,
                    is_told: false,
                };
                self.waits.insert(operation, wait);
                self.wake_at(now + left);
                None
            }
        }
    }

    /// Returns the groups of an operation that do not answer: none of the reports that are due from them has come for
    /// [`SILENT_AFTER`].
    fn silent(&mut self, needs: &PromotionNeeds) -> Vec<GroupId> {
        let (now, operation) = (Instant::now(), needs.operation);
        self.due
            .retain(|(of, group), _| *of != operation || needs.due.contains_key(group));
        let mut silent = Vec::new();
        for (group, count) in &needs.due {
            let (count, since) = (*count, now);
            let known = self
                .due
                .entry((operation, *group))
                .or_insert(DueReports { count, since });
            if known.count != count {
                *known = DueReports { count, since };
            }
            let until = known.since + SILENT_AFTER;
            if until <= now {
                silent.push(*group);
            } else {
                self.wake_at(until);
            }
        }
        silent
    }

    /// Returns what an operation needs next.
    fn action(
        &mut self,
        needs: &PromotionNeeds,
        renewals: Vec<(GroupId, u64)>,
        wait_over: Option<DirectoryVersion>,
        silent: Vec<GroupId>,
        now: u64,
        unreachable: &[NodeId],
    ) -> Option<PromotionAdvance> {
        if !renewals.is_empty() {
            return Some(PromotionAdvance::Renewals(renewals));
        }
        if let Some(fence) = wait_over {
            return Some(PromotionAdvance::WaitOver { fence });
        }
        if let Some(until) = needs.graceful_until {
            if until <= now {
                return Some(PromotionAdvance::GracefulOver);
            }
            self.wake_at(Instant::now() + Duration::from_millis(until - now));
        }
        if needs.moves {
            return Some(PromotionAdvance::Move(unreachable.to_vec()));
        }
        let is_news = !silent.iter().eq(needs.silent.iter());
        // As long as moves are tried there is nothing to examine.
        let is_due = is_news || (needs.examines && needs.graceful_until.is_none());
        is_due.then_some(PromotionAdvance::Silent(silent))
    }

    /// Tells whether a command was proposed just now for the same need, so that it is repeated only after a pause.
    fn is_repeated(&mut self, needs: &PromotionNeeds, action: &PromotionAdvance) -> bool {
        let Some(last) = self.last.get(&needs.operation) else {
            return false;
        };
        let again = last.at + RETRY_PAUSE;
        let is_repeated = (&last.needs, &last.action) == (needs, action) && Instant::now() < again;
        if is_repeated {
            self.wake_at(again);
        }
        is_repeated
    }
}

#[cfg(test)]
#[path = "promotion_upkeep_test.rs"]
mod promotion_upkeep_test;
