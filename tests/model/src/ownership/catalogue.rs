//! Configurations of the ownership model.

use super::bounds::{Bounds, Durability, Policy};

/// Configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// Its name.
    pub name: &'static str,
    /// Events that may happen.
    pub bounds: Bounds,
    /// Whether it is small enough for every run of the tests.
    pub is_short: bool,
}

/// Nothing but writes.
pub(super) const NONE: Bounds = Bounds::NONE;
/// A move with one write.
pub(super) const MOVE: Bounds = Bounds {
    writes: 1,
    moves: 1,
    settles: true,
    ..NONE
};
/// A promotion with one write.
pub(super) const PROMOTION: Bounds = Bounds {
    writes: 1,
    promotions: 1,
    settles: true,
    ..NONE
};
/// A move and a promotion, with one write.
pub(super) const BOTH: Bounds = Bounds {
    writes: 1,
    moves: 1,
    promotions: 1,
    settles: true,
    ..NONE
};
/// Two promotions with one write.
pub(super) const TWICE: Bounds = Bounds {
    writes: 1,
    promotions: 2,
    settles: true,
    ..NONE
};

const fn short(name: &'static str, bounds: Bounds) -> Configuration {
    Configuration {
        name,
        bounds,
        is_short: true,
    }
}

const fn long(name: &'static str, bounds: Bounds) -> Configuration {
    Configuration {
        name,
        bounds,
        is_short: false,
    }
}

/// The configurations.
pub const CONFIGURATIONS: &[Configuration] = &[
    short(
        "move",
        Bounds {
            heirs: true,
            aborts: 1,
            crashes: true,
            ..MOVE
        },
    ),
    short(
        "promotion",
        Bounds {
            durability: Durability::Each,
            ..PROMOTION
        },
    ),
    short(
        "promotion-whole-forks",
        Bounds {
            rewinds: false,
            ..PROMOTION
        },
    ),
    short("move-promotion-empty", Bounds { writes: 0, ..BOTH }),
    long(
        "move-reads",
        Bounds {
            heirs: true,
            aborts: 1,
            crashes: true,
            breaks: true,
            reads: true,
            ..MOVE
        },
    ),
    long(
        "move-2-writes",
        Bounds {
            writes: 2,
            heirs: true,
            aborts: 1,
            crashes: true,
            durability: Durability::Each,
            ..MOVE
        },
    ),
    long(
        "moves-2",
        Bounds {
            moves: 2,
            heirs: true,
            aborts: 1,
            crashes: true,
            breaks: true,
            ..MOVE
        },
    ),
    long(
        "move-older-views",
        Bounds {
            heirs: true,
            aborts: 1,
            crashes: true,
            older_views: true,
            ..MOVE
        },
    ),
    long(
        "move-pending",
        Bounds {
            heirs: true,
            aborts: 1,
            pending_entries: 1,
            crashes: true,
            ..MOVE
        },
    ),
    long(
        "move-source-leaves",
        Bounds {
            source_leaves: true,
            ..MOVE
        },
    ),
    long(
        "move-joins",
        Bounds {
            members: 2,
            aborts: 1,
            ..MOVE
        },
    ),
    long(
        "promotion-2-writes",
        Bounds {
            writes: 2,
            durability: Durability::Each,
            crashes: true,
            reads: true,
            ..PROMOTION
        },
    ),
    long(
        "promotion-older-views",
        Bounds {
            crashes: true,
            older_views: true,
            ..PROMOTION
        },
    ),
    long(
        "promotion-remote",
        Bounds {
            durability: Durability::Remote,
            reads: true,
            crashes: true,
            ..PROMOTION
        },
    ),
    long(
        "promotion-continue",
        Bounds {
            policy: Policy::Continue,
            durability: Durability::Each,
            ..PROMOTION
        },
    ),
    long(
        "promotion-pings",
        Bounds {
            pings: true,
            ..PROMOTION
        },
    ),
    long(
        "promotion-leave",
        Bounds {
            leaves: 1,
            durability: Durability::Each,
            ..PROMOTION
        },
    ),
    long(
        "promotion-leave-return",
        Bounds {
            leaves: 1,
            returns: true,
            durability: Durability::Each,
            ..PROMOTION
        },
    ),
    long(
        "promotion-delete",
        Bounds {
            deletes: true,
            durability: Durability::Each,
            ..PROMOTION
        },
    ),
    long(
        "move-delete",
        Bounds {
            deletes: true,
            heirs: true,
            aborts: 1,
            ..MOVE
        },
    ),
    long(
        "promotion-pending",
        Bounds {
            pending_entries: 2,
            ..PROMOTION
        },
    ),
    long(
        "promotions-2",
        Bounds {
            durability: Durability::Each,
            ..TWICE
        },
    ),
    long("promotions-2-crashes", Bounds { crashes: true, ..TWICE }),
    long(
        "promotions-2-whole-forks",
        Bounds {
            rewinds: false,
            durability: Durability::Each,
            ..TWICE
        },
    ),
    long(
        "promotions-2-writes-2",
        Bounds {
            writes: 2,
            replaces: false,
            durability: Durability::Each,
            settles: false,
            ..TWICE
        },
    ),
    long(
        "promotions-2-writes-2-whole-forks",
        Bounds {
            writes: 2,
            rewinds: false,
            replaces: false,
            durability: Durability::Each,
            settles: false,
            ..TWICE
        },
    ),
    long(
        "promotions-2-remote",
        Bounds {
            durability: Durability::Remote,
            reads: true,
            ..TWICE
        },
    ),
    long("move-promotion", BOTH),
    long(
        "move-promotion-heirs",
        Bounds {
            heirs: true,
            aborts: 1,
            ..BOTH
        },
    ),
    long(
        "move-promotion-remote",
        Bounds {
            durability: Durability::Each,
            crashes: true,
            ..BOTH
        },
    ),
    long(
        "move-promotion-2-writes",
        Bounds {
            writes: 2,
            settles: false,
            ..BOTH
        },
    ),
    long("move-promotion-whole-forks", Bounds { rewinds: false, ..BOTH }),
    long(
        "move-promotion-policy",
        Bounds {
            policy: Policy::ContinueThenStop,
            ..BOTH
        },
    ),
    long("move-promotion-pings", Bounds { pings: true, ..BOTH }),
    long(
        "move-promotion-pending",
        Bounds {
            pending_entries: 1,
            ..BOTH
        },
    ),
    long(
        "move-promotions-2",
        Bounds {
            promotions: 2,
            replaces: false,
            settles: false,
            ..BOTH
        },
    ),
];
