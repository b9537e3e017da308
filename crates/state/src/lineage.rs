//! Lineage of a tenant: the revisions on its line of history, in runs.
//!
//! Adjacent epochs that no promotion separates are one run: within it nothing was ever cut, so that the list grows
//! with promotions, not with moves. The newest run is open: it has no last sequence yet.
//!
//! # Invariants
//!
//! 1. Epochs and last sequences grow from run to run; only the last run is open.
//! 2. There are at most [`RUNS_MAX`] runs; past that the oldest two become one closed run.

use std::ops::{Deref, DerefMut};

use stead_types::{Epoch, Revision, Sequence};

use crate::codec::{Malformed, Reader, Writer};

/// Most runs of a lineage.
pub const RUNS_MAX: usize = 64;

/// A run of adjacent epochs between which nothing was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// First epoch.
    pub first: Epoch,
    /// Last epoch.
    pub last: Epoch,
    /// Last sequence; [`Sequence::MAX`] while the run is open.
    pub end: Sequence,
    /// Whether runs were merged here: cuts between them are no longer known.
    pub closed: bool,
}

/// Status of a revision in a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionStatus {
    /// The revision is on the lineage, or its epoch is newer than the lineage and may be an unrecorded move.
    OnLineage,
    /// The revision was cut by a promotion: nothing after sequence `kept` of its epoch is on the lineage.
    Cut {
        /// Last sequence before the cut.
        kept: Sequence,
    },
    /// The revision lies in a closed run: too old to tell.
    TooOld,
}

/// Revisions that a promotion cut, as far as the one tells that a caller has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRevisions {
    /// First revision that was cut.
    pub first: Revision,
    /// Revision that the caller has seen: it was cut.
    pub last: Revision,
    /// Last revision on the lineage before `first`: what the caller has seen up to it still counts. Its sequence is that of
    /// the change; its epoch is the highest that the change can have.
    pub kept: Revision,
}

/// The runs of a tenant, oldest first; empty before the first epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lineage(Runs);

/// Runs of a lineage. One run, which most tenants have for ever, takes no memory of its own: every node holds the
/// lineage of each tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Runs {
    One([Run; 1]),
    /// None, or more than one.
    Many(Vec<Run>),
}

impl Default for Runs {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<Vec<Run>> for Runs {
    fn from(runs: Vec<Run>) -> Self {
        match runs.try_into() {
            Ok(one) => Self::One(one),
            Err(mut many) => {
                many.shrink_to_fit();
                Self::Many(many)
            }
        }
    }
}

impl Deref for Runs {
    type Target = [Run];

    fn deref(&self) -> &[Run] {
        match self {
            Self::One(run) => run,
            Self::Many(runs) => runs,
        }
    }
}

impl DerefMut for Runs {
    fn deref_mut(&mut self) -> &mut [Run] {
        match self {
            Self::One(run) => run,
            Self::Many(runs) => runs,
        }
    }
}

impl Lineage {
    /// Returns the lineage of a tenant whose first home has this epoch.
    pub fn starting(epoch: Epoch) -> Self {
        Self(Runs::One([Run {
            first: epoch,
            last: epoch,
            end: Sequence::MAX,
            closed: false,
        }]))
    }

    /// Returns the runs, oldest first.
    pub fn runs(&self) -> &[Run] {
        &self.0
    }

    /// Returns the newest epoch, or [`Epoch::NONE`].
    pub fn epoch(&self) -> Epoch {
        self.0.last().map_or(Epoch::NONE, |run| run.last)
    }

    /// Tells whether a promotion made this epoch, the newest one.
    pub fn begins_with_promotion(&self, epoch: Epoch) -> bool {
        epoch > Epoch::FIRST && self.0.last().is_some_and(|run| run.first == epoch)
    }

    /// Returns the status of a revision. Sequence zero is before all history and always on the lineage.
    pub fn status_of(&self, revision: Revision) -> RevisionStatus {
        let (epoch, sequence) = (revision.epoch(), revision.sequence());
        if sequence == Sequence::ZERO || epoch > self.epoch() {
            return RevisionStatus::OnLineage;
        }
        let mut before = Sequence::ZERO;
        for run in self.runs() {
            if epoch <= run.last {
                let inside = run.first <= epoch && before < sequence && sequence <= run.end;
                return match (inside, run.closed) {
                    (true, true) => RevisionStatus::TooOld,
                    (true, false) => RevisionStatus::OnLineage,
                    (false, _) => RevisionStatus::Cut {
                        kept: if epoch < run.first {
                            before
                        } else {
                            run.end.min(sequence)
                        },
                    },
                };
            }
            before = run.end;
        }
        RevisionStatus::OnLineage
    }

    /// Returns what was lost with a revision, if it was cut.
    pub fn lost(&self, revision: Revision) -> Option<LostRevisions> {
        let RevisionStatus::Cut { kept } = self.status_of(revision) else {
            return None;
        };
        let epoch = revision.epoch();
        let run = self.runs().iter().find(|run| kept <= run.end);
        let first = Revision::new(epoch, kept.next().unwrap_or(Sequence::MAX));
        Some(LostRevisions {
            first: first.min(revision),
            last: revision,
            kept: match run {
                Some(run) if kept > Sequence::ZERO => Revision::new(epoch.min(run.last), kept),
                Some(_) | None => Revision::ZERO,
            },
        })
    }

    /// Records a move: extends the open run to this epoch.
    pub fn record_move(&mut self, epoch: Epoch) {
        match self.0.last_mut() {
            Some(run) => run.last = run.last.max(epoch),
            None => *self = Self::starting(epoch),
        }
    }

    /// Records a promotion: cuts after the last sequence `kept` and opens a run at this epoch.
    pub fn record_promotion(&mut self, epoch: Epoch, kept: Sequence) {
        let mut runs = self.0.to_vec();
        let mut before = Sequence::ZERO;
        runs.retain(|run| {
            let stays = before < kept;
            before = run.end;
            stays
        });
        if let Some(run) = runs.last_mut() {
            run.end = run.end.min(kept);
        }
        runs.extend_from_slice(&Self::starting(epoch).0);
        if runs.len() > RUNS_MAX {
            let oldest = runs.remove(0);
            runs[0].first = oldest.first;
            runs[0].closed = true;
        }
        self.0 = runs.into();
    }

    /// Returns the last sequence of the history that this lineage and another share.
    pub fn fork_point(&self, other: &Self) -> Sequence {
        let (mut mine, mut theirs) = (&self.0[..], &other.0[..]);
        match (mine.first(), theirs.first()) {
            (Some(a), Some(b)) if a.closed && *a != *b => theirs = after_closed(a, theirs),
            (Some(a), Some(b)) if b.closed && *a != *b => mine = after_closed(b, mine),
            (Some(_), Some(_)) => {}
            (None, _) | (_, None) => return Sequence::ZERO,
        }
        let skipped = |all: &[Run], rest: &[Run]| all.len() - rest.len();
        let mut agreed = Sequence::ZERO;
        if skipped(&self.0, mine) > 0 {
            agreed = other.0[0].end;
            theirs = &theirs[1..];
        } else if skipped(&other.0, theirs) > 0 {
            agreed = self.0[0].end;
            mine = &mine[1..];
        }
        for (a, b) in mine.iter().zip(theirs) {
            if a.first != b.first || a.closed != b.closed {
                break;
            }
            agreed = a.end.min(b.end);
            if a.end != b.end {
                break;
            }
        }
        agreed
    }

    /// Writes the runs.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(self.0.iter(), |w, run| {
            w.varint(u64::from(run.first.get())).varint(u64::from(run.last.get()));
            w.varint(run.end.get()).bool(run.closed);
        });
    }

    /// Reads what [`Lineage::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let runs = reader.list(|r| {
            Ok(Run {
                first: decode_epoch(r)?,
                last: decode_epoch(r)?,
                end: {
                    let end = r.varint()?;
                    Sequence::new(end).ok_or_else(|| r.malformed())?
                },
                closed: r.bool()?,
            })
        })?;
        if runs.len() > RUNS_MAX {
            return Err(reader.malformed());
        }
        Ok(Self(runs.into()))
    }
}

/// Reads an epoch that was written as a varint.
pub(crate) fn decode_epoch(reader: &mut Reader) -> Result<Epoch, Malformed> {
    let number = reader.varint_u32()?;
    Epoch::new(number).ok_or_else(|| reader.malformed())
}

/// Returns the runs after a closed run of the other lineage, or all of them where none ends where it ends.
fn after_closed<'a>(closed: &Run, runs: &'a [Run]) -> &'a [Run] {
    match runs.iter().position(|run| run.end == closed.end) {
        Some(last) => &runs[last + 1..],
        None => runs,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    fn sequence(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn lineage(promotions: &[(u32, u64)]) -> Lineage {
        let mut lineage = Lineage::starting(Epoch::FIRST);
        for (n, kept) in promotions {
            lineage.record_promotion(epoch(*n), sequence(*kept));
        }
        lineage
    }

    #[test]
    fn promotion_cuts_and_move_does_not() {
        let mut l = lineage(&[(3, 10)]);
        l.record_move(epoch(5));
        for (revision, standing) in [
            ("1.10", RevisionStatus::OnLineage),
            ("1.11", RevisionStatus::Cut { kept: sequence(10) }),
            ("2.11", RevisionStatus::Cut { kept: sequence(10) }),
            ("3.11", RevisionStatus::OnLineage),
            ("3.9", RevisionStatus::Cut { kept: sequence(9) }),
            ("5.99", RevisionStatus::OnLineage),
            ("6.1", RevisionStatus::OnLineage),
            ("4.0", RevisionStatus::OnLineage),
        ] {
            assert_eq!(l.status_of(revision.parse().unwrap()), standing, "{revision}");
        }
    }

    #[test]
    fn later_promotion_may_cut_earlier_one() {
        let l = lineage(&[(3, 10), (4, 20), (7, 5)]);
        assert_eq!(l.runs().len(), 2);
        assert_eq!(
            l.status_of("3.11".parse().unwrap()),
            RevisionStatus::Cut { kept: sequence(5) }
        );
        assert_eq!(l.status_of("1.5".parse().unwrap()), RevisionStatus::OnLineage);
        assert_eq!(l.status_of("7.6".parse().unwrap()), RevisionStatus::OnLineage);
    }

    #[test]
    fn fork_point_is_first_cut_that_one_lacks() {
        assert_eq!(lineage(&[]).fork_point(&lineage(&[(3, 10)])), sequence(10));
        assert_eq!(lineage(&[(3, 10)]).fork_point(&lineage(&[(4, 8)])), sequence(8));
        assert_eq!(
            lineage(&[(3, 10)]).fork_point(&lineage(&[(3, 10), (5, 40)])),
            sequence(40)
        );
        assert_eq!(lineage(&[(3, 10)]).fork_point(&Lineage::default()), Sequence::ZERO);
        assert_eq!(lineage(&[(3, 10)]).fork_point(&lineage(&[(3, 10)])), Sequence::MAX);
    }

    #[test]
    fn runs_beyond_limit_merge_into_closed_run() {
        let promotions: Vec<_> = (0..80).map(|i| (2 + i, u64::from(i + 1) * 10)).collect();
        let all = lineage(&promotions);
        assert_eq!(all.runs().len(), RUNS_MAX);
        assert_eq!(all.status_of("1.5".parse().unwrap()), RevisionStatus::TooOld);
        let older = lineage(&promotions[..40]);
        let point = sequence(410);
        assert_eq!(
            all.fork_point(&older),
            point,
            "the older one was not cut before it ended"
        );
        assert_eq!(older.fork_point(&all), point);
        assert_eq!(
            lineage(&promotions[..3]).fork_point(&all),
            Sequence::ZERO,
            "ends inside the closed run"
        );
    }

    proptest! {
        #[test]
        fn lineage_round_trips(cuts in prop::collection::vec((1u32..5, 1u64..100), 0..70)) {
            let mut l = Lineage::starting(Epoch::FIRST);
            for (step, kept) in cuts {
                l.record_promotion(epoch(l.epoch().get() + step), sequence(kept));
            }
            let mut writer = Writer::default();
            l.encode(&mut writer);
            let mut reader = Reader::new(writer.finish(), "lineage");
            prop_assert_eq!(Lineage::decode(&mut reader), Ok(l));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
