//! Mutants of the lease model.

/// One rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// An answer counts from its arrival.
    CountsFromAnswer,
    /// An answer counts from the last attempt's send.
    CountsFromLastAttempt,
    /// An answer prolongs the lease that counts, though its own version is not reached.
    MergesPairs,
    /// A lease counts before the view has reached its version, without the fences in between.
    CountsBeforeView,
    /// The directory answers with a version older than the request.
    AnswersOlderVersion,
    /// The wait is the ttl in force now, whatever was granted before.
    WaitsNewTtl,
    /// The wait leaves no room for drift.
    WaitsWithoutDrift,
    /// A clock stands still while its node is suspended.
    ClockStops,
    /// The wait is shortened by the last grant to the home only.
    ShortensByHome,
    /// The wait is shortened by the last grant to leaders only.
    ShortensByLeaders,
    /// The wait is shortened without the targets of moves that promotions have replaced.
    ForgetsReplacedTargets,
    /// A grant is noted when its answer leaves.
    NotesGrantAtAnswer,
    /// A new leader of the directory takes what it does not know for not granted.
    NewLeaderKnowsNoGrant,
    /// An answer carries only fences of tenants that the group is home to.
    CarriesHomedOnly,
    /// An answer carries no fences of tenants whose move to the group was replaced.
    CarriesNoReplaced,
    /// Versions of two incarnations are compared by their index.
    IgnoresIncarnation,
}
