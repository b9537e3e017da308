//! Mutants of the ownership model, with the configuration and the property in which each is caught.

use super::{
    bounds::{Bounds, Durability, Policy},
    catalogue::{BOTH, MOVE, NONE, PROMOTION, TWICE},
    mutant::Mutant,
};

/// Mutant with the configuration in which it is caught.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    /// The rule that is broken.
    pub mutant: Mutant,
    /// Events that may happen.
    pub bounds: Bounds,
    /// The property that catches it.
    pub caught_by: &'static str,
    /// Whether it is caught fast enough for every run of the tests.
    pub is_short: bool,
}

const fn quick(mutant: Mutant, bounds: Bounds, caught_by: &'static str) -> Mutation {
    Mutation {
        mutant,
        bounds,
        caught_by,
        is_short: true,
    }
}

const fn slow(mutant: Mutant, bounds: Bounds, caught_by: &'static str) -> Mutation {
    Mutation {
        mutant,
        bounds,
        caught_by,
        is_short: false,
    }
}

/// The mutants.
pub const MUTATIONS: &[Mutation] = &[
    quick(Mutant::AcknowledgesUnchecked, PROMOTION, "LATE"),
    quick(Mutant::ServesFenced, PROMOTION, "L1"),
    quick(Mutant::ServesRelinquished, MOVE, "M1"),
    quick(
        Mutant::ReadsBeforeRemote,
        Bounds {
            durability: Durability::Remote,
            reads: true,
            ..PROMOTION
        },
        "P1",
    ),
    slow(
        Mutant::OwnerStartsRemote,
        Bounds {
            durability: Durability::Remote,
            reads: true,
            ..TWICE
        },
        "P1",
    ),
    slow(
        Mutant::CountsUncounted,
        Bounds {
            leaves: 1,
            durability: Durability::Each,
            ..PROMOTION
        },
        "P1",
    ),
    quick(Mutant::AcceptsBehind, MOVE, "M2"),
    slow(Mutant::AcceptsPromised, BOTH, "STUCK"),
    quick(Mutant::BatonHasNoPosition, MOVE, "STUCK"),
    slow(Mutant::AcceptKeepsRun, BOTH, "TOKEN"),
    slow(
        Mutant::BatonWithoutPolicy,
        Bounds {
            policy: Policy::ContinueThenStop,
            ..BOTH
        },
        "L1",
    ),
    quick(
        Mutant::HeirStays,
        Bounds {
            heirs: true,
            aborts: 1,
            ..MOVE
        },
        "STUCK",
    ),
    quick(
        Mutant::HeirCancelledByOlderView,
        Bounds {
            heirs: true,
            aborts: 1,
            crashes: true,
            older_views: true,
            ..MOVE
        },
        "STUCK",
    ),
    quick(
        Mutant::RefusalForgotten,
        Bounds {
            aborts: 1,
            crashes: true,
            older_views: true,
            ..MOVE
        },
        "STUCK",
    ),
    quick(Mutant::AbortForgetsMove, Bounds { aborts: 1, ..MOVE }, "STUCK"),
    slow(Mutant::RecordsAnyMove, BOTH, "STUCK"),
    quick(Mutant::PromotionReusesEpoch, BOTH, "STUCK"),
    quick(Mutant::PromotionDoesNotWait, PROMOTION, "M1"),
    quick(
        Mutant::SecondDoesNotWait,
        Bounds {
            settles: false,
            ..TWICE
        },
        "M1",
    ),
    slow(Mutant::FenceOfHomeIsEnough, BOTH, "M1"),
    quick(Mutant::ChoosesBeforeWait, PROMOTION, "M1"),
    quick(
        Mutant::ConsultsPart,
        Bounds {
            durability: Durability::Each,
            ..PROMOTION
        },
        "P1",
    ),
    slow(
        Mutant::ExcusesFormerHome,
        Bounds {
            durability: Durability::Each,
            settles: false,
            ..TWICE
        },
        "P1",
    ),
    quick(
        Mutant::ComparesEarlierPositions,
        Bounds {
            durability: Durability::Each,
            ..PROMOTION
        },
        "P1",
    ),
    quick(
        Mutant::ConsultsWithoutFreeze,
        Bounds {
            durability: Durability::Each,
            policy: Policy::Continue,
            ..PROMOTION
        },
        "P1",
    ),
    quick(Mutant::HomeNotDrained, PROMOTION, "P1"),
    slow(
        Mutant::EmptyCopyIsHistory,
        Bounds {
            writes: 2,
            rewinds: false,
            replaces: false,
            durability: Durability::Each,
            settles: false,
            ..TWICE
        },
        "P1",
    ),
    slow(Mutant::FreezeDoesNotRewind, TWICE, "RESURRECT"),
    slow(Mutant::FreezeCutsUnrecorded, BOTH, "P2"),
    slow(Mutant::PullKeepsLineage, BOTH, "TOKEN"),
    slow(Mutant::ActivatesOther, TWICE, "STUCK"),
    slow(Mutant::DirectoryKeepsLineage, BOTH, "TOKEN"),
    quick(Mutant::FrozenForever, PROMOTION, "STUCK"),
    quick(Mutant::FollowDoesNotRewind, PROMOTION, "F2"),
    quick(Mutant::ForkDropped, PROMOTION, "P2"),
    slow(
        Mutant::FollowsLowerEpoch,
        Bounds {
            crashes: true,
            older_views: true,
            ..PROMOTION
        },
        "P2",
    ),
    quick(Mutant::GapIgnored, Bounds { writes: 2, ..MOVE }, "M3"),
    quick(
        Mutant::FeedBelowPromise,
        Bounds {
            durability: Durability::Each,
            policy: Policy::Continue,
            ..PROMOTION
        },
        "P1",
    ),
    slow(
        Mutant::LeavesInOnePhase,
        Bounds {
            leaves: 1,
            durability: Durability::Each,
            ..PROMOTION
        },
        "P1",
    ),
    slow(
        Mutant::ErasesWhileLeaving,
        Bounds {
            leaves: 1,
            durability: Durability::Each,
            ..PROMOTION
        },
        "P1",
    ),
    slow(Mutant::ErasesBeforeFollowing, Bounds { leaves: 1, ..PROMOTION }, "P2"),
    slow(
        Mutant::ForgetsGoneMembers,
        Bounds {
            members: 2,
            writes: 1,
            leaves: 1,
            returns: true,
            durability: Durability::Each,
            ..PROMOTION
        },
        "P1",
    ),
    slow(
        Mutant::ErasesByOlderView,
        Bounds {
            writes: 1,
            leaves: 1,
            returns: true,
            pending_entries: 2,
            durability: Durability::Each,
            ..NONE
        },
        "TWO",
    ),
    quick(Mutant::TokenWithoutEpoch, Bounds { writes: 2, ..PROMOTION }, "TOKEN"),
    quick(Mutant::UnknownEpochIsCut, MOVE, "TOKEN"),
    quick(Mutant::TokenOfServer, PROMOTION, "TOKEN"),
    quick(
        Mutant::PolicyAtOnce,
        Bounds {
            policy: Policy::ContinueThenStop,
            ..PROMOTION
        },
        "L1",
    ),
    slow(
        Mutant::FollowUnguarded,
        Bounds {
            pending_entries: 1,
            ..BOTH
        },
        "STUCK",
    ),
    quick(
        Mutant::FreezeUnguarded,
        Bounds {
            pending_entries: 2,
            ..PROMOTION
        },
        "STUCK",
    ),
    quick(
        Mutant::RelinquishUnguarded,
        Bounds {
            pending_entries: 2,
            aborts: 1,
            ..MOVE
        },
        "STUCK",
    ),
    slow(
        Mutant::ActivateUnguarded,
        Bounds {
            pending_entries: 2,
            ..TWICE
        },
        "STUCK",
    ),
    slow(
        Mutant::HeirUnguarded,
        Bounds {
            heirs: true,
            pending_entries: 2,
            ..BOTH
        },
        "STUCK",
    ),
    quick(
        Mutant::PingOfAnyHome,
        Bounds {
            pings: true,
            ..PROMOTION
        },
        "BOUNDED",
    ),
    slow(Mutant::PingIgnoresBaton, Bounds { pings: true, ..MOVE }, "BOUNDED"),
];
