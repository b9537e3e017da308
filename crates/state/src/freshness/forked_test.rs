//! `FORKED` is exact in both directions: random histories of moves and promotions, and every token that was ever given out
//! against what is live.

use stead_types::{Epoch, ErrorKind, GroupId, Revision, Sequence, TenantNumber};

use super::gate::{FreshnessLevel, ReadDecision, ReplicaState, decide, is_cut};
use crate::directory::Tenant;

/// Tokens that are checked at least.
const TOKENS_MIN: usize = 100_000;

/// Linear congruential generator: the same tokens in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Revision that was acknowledged, and what of its history is live: all of it, or what precedes a cut.
#[derive(Clone, Copy)]
struct Made {
    revision: Revision,
    kept: Option<usize>,
}

/// History of one tenant, told without a lineage.
struct World {
    tenant: Tenant,
    live: Vec<Revision>,
    made: Vec<Made>,
}

impl World {
    fn new(random: &mut Random, steps: usize) -> Self {
        let mut world = Self {
            tenant: Tenant::new(TenantNumber::new(1), "acme".parse().unwrap(), GroupId::new(1)),
            live: Vec::new(),
            made: Vec::new(),
        };
        for _ in 0..steps {
            match random.below(8) {
                0 => world.promote(random),
                1 => world.change_home(random, |tenant, epoch| tenant.lineage.record_move(epoch)),
                _ => world.write(1 + random.below(20)),
            }
        }
        world
    }

    fn write(&mut self, count: u64) {
        for _ in 0..count {
            let sequence = Sequence::new(self.live.len() as u64 + 1).unwrap();
            let revision = Revision::new(self.tenant.epoch, sequence);
            self.live.push(revision);
            self.made.push(Made { revision, kept: None });
        }
    }

    fn change_home(&mut self, random: &mut Random, record: impl Fn(&mut Tenant, Epoch)) {
        let epoch = self.tenant.epoch.get() + 1 + random.below(3) as u32;
        let epoch = Epoch::new(epoch).unwrap();
        record(&mut self.tenant, epoch);
        self.tenant.epoch = epoch;
    }

    fn promote(&mut self, random: &mut Random) {
        // Mostly a short tail is cut, sometimes nothing, sometimes what earlier promotions had kept.
        let tail = match random.below(4) {
            0 => 0,
            1 => random.below(self.live.len() as u64 + 1),
            _ => random.below(15.min(self.live.len() as u64 + 1)),
        };
        let kept = self.live.len() - tail as usize;
        for made in &mut self.made {
            let is_cut = made.kept.is_some() || made.revision.sequence().get() > kept as u64;
            made.kept = is_cut.then(|| made.kept.map_or(kept, |before| before.min(kept)));
        }
        self.live.truncate(kept);
        let sequence = Sequence::new(kept as u64).unwrap();
        self.change_home(random, |tenant, epoch| tenant.lineage.record_promotion(epoch, sequence));
    }

    /// Decides about a token at a replica that has this many changes of what is live.
    fn decide(&self, token: Revision, reached: usize) -> ReadDecision {
        let replica = ReplicaState {
            revision: reached.checked_sub(1).map_or(Revision::ZERO, |last| self.live[last]),
            lineage: &self.tenant.lineage,
            staleness: None,
        };
        decide(FreshnessLevel::Session(token), None, &self.tenant, replica)
    }

    fn check(&self, token: Made, reached: usize) {
        let Made { revision, kept } = token;
        assert_eq!(is_cut(revision, &self.tenant), kept.is_some(), "{revision}");
        match (self.decide(revision, reached), kept) {
            (ReadDecision::Serve, None) => assert!(revision.sequence().get() <= reached as u64),
            (ReadDecision::WaitFor(_), None) => assert!(revision.sequence().get() > reached as u64),
            (ReadDecision::Refuse(error), Some(kept)) => self.check_error(&error.kind, revision, kept, reached),
            (other, _) => panic!("{revision}, cut after {kept:?}: {other:?}"),
        }
    }

    /// Checks what is told of a cut, and that a session that goes on from there reads exactly what it still counts on.
    fn check_error(&self, kind: &ErrorKind, revision: Revision, expected: usize, reached: usize) {
        let ErrorKind::Forked {
            epoch,
            first,
            last,
            kept,
        } = *kind
        else {
            panic!("{kind:?}");
        };
        assert_eq!((epoch, last), (revision.epoch(), revision));
        assert_eq!(first.sequence().get(), expected as u64 + 1, "{revision}");
        assert_eq!(kept.sequence().get(), expected as u64, "{revision}");
        if let Some(at) = expected.checked_sub(1) {
            assert!(self.live[at] <= kept, "{kept} is before {}", self.live[at]);
        }
        if let Some(next) = self.live.get(expected) {
            assert!(kept < *next, "{kept} is not before {next}");
        }
        let goes_on = self.decide(kept, reached);
        if expected <= reached {
            assert_eq!(goes_on, ReadDecision::Serve, "{kept} at {reached}");
        } else {
            assert_eq!(goes_on, ReadDecision::WaitFor(kept));
        }
    }
}

#[test]
fn forked_is_exact_for_every_token_of_random_histories() {
    let mut random = Random(7);
    let (mut checked, mut cut) = (0, 0);
    while checked < TOKENS_MIN {
        let steps = 5 + random.below(150) as usize;
        let world = World::new(&mut random, steps);
        // Beyond that the oldest runs are one, and it is told that they are too old.
        if world.tenant.lineage.runs().iter().any(|run| run.closed) {
            continue;
        }
        for token in &world.made {
            world.check(*token, random.below(world.live.len() as u64 + 1) as usize);
            cut += usize::from(token.kept.is_some());
        }
        checked += world.made.len();
    }
    assert!(cut > TOKENS_MIN / 20 && cut < checked, "{cut} of {checked} were cut");
}
