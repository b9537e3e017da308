//! One granted lease: the pair of expiry and directory version.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

use super::{AttemptNumber, LeaseAnswer, Renewal, clock::NodeTime};
use crate::serving::{BootTime, Lease};

/// Attempt that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    /// Clocks before it was sent.
    pub(super) begun: NodeTime,
    /// Version of the view that it named.
    pub(super) view: DirectoryVersion,
    /// Groups that it named.
    pub(super) groups: BTreeSet<GroupId>,
}

impl Attempt {
    pub(super) fn new(begun: NodeTime, renewal: &Renewal) -> Self {
        Self {
            begun,
            view: renewal.view,
            groups: renewal.groups.clone(),
        }
    }
}

/// Granted lease. Its expiry and its version belong together: those of two are never combined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeasePair {
    pub(super) number: AttemptNumber,
    pub(super) attempt: Attempt,
    pub(super) expiry: BootTime,
    pub(super) version: DirectoryVersion,
    /// Whether it has counted.
    pub(super) has_counted: bool,
    /// Fence changes from the attempt's view to `version`.
    fences: Option<BTreeMap<TenantNumber, Epoch>>,
}

/// How far a lease may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Not at all: the view is behind, and the fence changes between are unknown.
    Pending,
    /// To serve: the view is behind, and the fence changes between came with the answer.
    Early,
    /// For everything: the view has reached its version.
    Full,
}

impl LeasePair {
    pub(super) fn new(attempt: Attempt, answer: LeaseAnswer) -> Self {
        Self {
            number: answer.attempt,
            expiry: attempt.begun.boot.after(answer.ttl),
            attempt,
            version: answer.version,
            has_counted: false,
            fences: answer.fences,
        }
    }

    pub(super) fn standing(&self, view: DirectoryVersion) -> Standing {
        if view.incarnation != self.version.incarnation {
            return Standing::Pending;
        }
        // The changes begin at the version that the attempt named: a view behind it would miss some.
        let begins = self.attempt.view;
        let joins = begins.incarnation == view.incarnation && begins <= view;
        match &self.fences {
            _ if self.version <= view => Standing::Full,
            Some(_) if joins => Standing::Early,
            Some(_) | None => Standing::Pending,
        }
    }

    pub(super) fn as_lease(&self) -> Lease {
        Lease::Until {
            expiry: self.expiry,
            version: self.version,
        }
    }

    /// Returns the fence of a tenant as far as this lease and a view behind it know. A fence that was lowered, of a
    /// tenant that was disabled and is enabled again, is lowered by the view alone.
    pub(super) fn fence(&self, tenant: TenantNumber, of_view: Epoch) -> Epoch {
        let changed = self.fences.as_ref().and_then(|fences| fences.get(&tenant));
        changed.map_or(of_view, |changed| of_view.max(*changed))
    }

    pub(super) fn left(&self, now: BootTime) -> Duration {
        self.expiry.since(now)
    }
}
