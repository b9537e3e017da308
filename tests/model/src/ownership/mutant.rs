//! Mutants of the ownership model: each breaks one rule of docs/protocol.md, by wrapping or bypassing the functions of
//! `stead_state` here in the model, and must make a property fail.

/// One rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    // --- Serving and acknowledging.
    /// A write is acknowledged without the serving check.
    AcknowledgesUnchecked,
    /// The serving check does not compare the fence.
    ServesFenced,
    /// A source serves after it has relinquished.
    ServesRelinquished,
    /// A REMOTE tenant's read does not wait for the remote watermark.
    ReadsBeforeRemote,
    /// A new owner takes its whole history as remote.
    OwnerStartsRemote,
    /// Acknowledgements of uncounted members count.
    CountsUncounted,

    // --- Moves.
    /// `Accept` does not compare the position with F, and the baton may overtake records.
    AcceptsBehind,
    /// `Accept` does not compare what the group has promised.
    AcceptsPromised,
    /// A baton at the position of the last change counts as one that was received.
    BatonHasNoPosition,
    /// `Accept` does not extend the current run of the lineage.
    AcceptKeepsRun,
    /// The baton does not carry the lease loss policy.
    BatonWithoutPolicy,
    /// An heir stays an heir when its move is over.
    HeirStays,
    /// An heir is cancelled by a view that does not know the move, and only an heir accepts.
    HeirCancelledByOlderView,
    /// A refused move is forgotten, and a source relinquishes without a lease.
    RefusalForgotten,
    /// The directory forgets a move as soon as it is aborted.
    AbortForgetsMove,
    /// The directory records an accepted move that is no longer in flight.
    RecordsAnyMove,

    // --- Promotions.
    /// A promotion uses the epoch after the recorded one, which a move may have been given.
    PromotionReusesEpoch,
    /// A promotion does not wait.
    PromotionDoesNotWait,
    /// A promotion that replaces or follows another one does not wait.
    SecondDoesNotWait,
    /// The wait is skipped once the recorded home alone has the fence in its log.
    FenceOfHomeIsEnough,
    /// The group is chosen before the wait is over.
    ChoosesBeforeWait,
    /// Only the chosen group is consulted.
    ConsultsPart,
    /// A silent group that was home before the recorded one is excused as well.
    ExcusesFormerHome,
    /// Followers are compared by the positions that they had when the promotion began.
    ComparesEarlierPositions,
    /// Followers are consulted without a `Freeze` in their log.
    ConsultsWithoutFreeze,
    /// A group whose whole copy became a fork, and that has not been seeded since, counts as one that held nothing.
    EmptyCopyIsHistory,
    /// The home's own history is not drained.
    HomeNotDrained,
    /// `Freeze` does not rewind.
    FreezeDoesNotRewind,
    /// `Freeze` rewinds revisions of epochs that the directory does not know yet.
    FreezeCutsUnrecorded,
    /// `Pull` keeps its own lineage.
    PullKeepsLineage,
    /// `Activate` does not compare the epoch with the one the group is frozen for.
    ActivatesOther,
    /// The directory extends its own lineage instead of taking the chosen group's.
    DirectoryKeepsLineage,
    /// A frozen group does not follow.
    FrozenForever,

    // --- Following.
    /// A group follows without rewinding.
    FollowDoesNotRewind,
    /// The tail that is cut is not kept.
    ForkDropped,
    /// A group follows a lower epoch than it has promised.
    FollowsLowerEpoch,
    /// Records after a gap are applied.
    GapIgnored,
    /// A follower takes records of an epoch below the one that it has promised.
    FeedBelowPromise,

    // --- The replica set.
    /// A member that leaves is removed at once.
    LeavesInOnePhase,
    /// A group that leaves erases before it is removed.
    ErasesWhileLeaving,
    /// A group that is out of the replica set erases before it has followed the recorded home.
    ErasesBeforeFollowing,
    /// A promotion does not ask what was acknowledged on account of members that are gone.
    ForgetsGoneMembers,
    /// `Erase` is applied though its view is older than what the record has seen.
    ErasesByOlderView,

    // --- Tokens.
    /// A token is compared by sequence only.
    TokenWithoutEpoch,
    /// A revision of an epoch that the view does not know is taken as cut.
    UnknownEpochIsCut,
    /// A token names the epoch of the server, not that of the revision.
    TokenOfServer,

    // --- Lease loss policy.
    /// The directory shows `stop` before the home has committed it.
    PolicyAtOnce,

    // --- Entries that are applied later than proposed.
    /// `Follow` is applied without its guard.
    FollowUnguarded,
    /// `Freeze` is applied without its guard.
    FreezeUnguarded,
    /// `Relinquish` is applied without its guard.
    RelinquishUnguarded,
    /// `Activate` is applied without its guard.
    ActivateUnguarded,
    /// `Heir` is applied without its guard.
    HeirUnguarded,

    // --- Freshness.
    /// A ping counts for a group that the view no longer names as home.
    PingOfAnyHome,
    /// A ping counts although a baton ended the epoch.
    PingIgnoresBaton,
}
