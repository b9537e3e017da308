//! Actions of the ownership model: what may happen next.

use super::{entry::Proposal, state::Place};

/// One step of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes: every lease that was granted before has run out.
    Tick,
    /// A group's view reaches the next directory version.
    Advance(Place),
    /// A group's leader crashes; the next one starts from this directory version.
    Crash(Place, u8),

    /// A write commits at its owner; it is to be acknowledged at REGION, or at REMOTE.
    Write(Place, bool),
    /// A write is acknowledged.
    Acknowledge(Place),
    /// A linearizable read shows all that its group holds.
    Read(Place),
    /// The home logs that a follower holds all that it holds itself.
    LogRemote(Place, Place),

    /// A follower attaches to its home's feed.
    Attach(Place),
    /// The home sends the next record, or the baton.
    Send(Place),
    /// The home sends the baton ahead of records.
    SendBaton(Place),
    /// The message in flight arrives.
    Receive(Place),
    /// The message in flight is lost.
    Break(Place),
    /// An heir's report of readiness arrives at the source.
    Ready(Place),

    /// A follower sends a ping.
    Ping(Place),
    /// The home answers it.
    Pong,
    /// The answer counts at the follower.
    Proof,

    /// A group proposes an entry; it is applied at once where entries are never pending.
    Propose(Place, Proposal),
    /// A pending entry is applied.
    Apply(Place, u8),
    /// A frozen group copies what another one holds beyond it.
    Pull(Place, Place),

    /// An operator moves the tenant.
    Plan(Place),
    /// An operator aborts the move.
    Abort,
    /// The directory learns that the move was refused.
    RecordRefused,
    /// The directory learns that the target has accepted.
    RecordAccepted(Place),
    /// An operator promotes: the fence is recorded.
    Promote,
    /// The directory learns that no lease below the fence of the promotion runs any more.
    EndWait,
    /// The directory learns that the new home owns the tenant.
    RecordActivated,
    /// The directory chooses this group; with `--allow-loss` or without.
    Choose(Place, bool),
    /// An operator lets a follower leave.
    Leave(Place),
    /// The directory learns that the leaving member is uncounted.
    RecordUncounted(Place),
    /// The directory learns that a member has erased the tenant.
    RecordErased(Place),
    /// An operator takes a leaving member back.
    TakeBack(Place),
    /// An operator takes a group in again that has erased the tenant.
    TakeIn(Place),
    /// The directory learns that the member's log shows it.
    RecordRejoined(Place),
    /// An operator disables the tenant: it is fenced at infinity.
    Disable,
    /// An operator deletes the disabled tenant.
    Delete,
    /// An operator changes the lease loss policy to `stop`.
    ChangePolicy,
    /// The home logs the policy.
    LogPolicy(Place),
    /// The directory learns that the home has logged the policy.
    RecordPolicy,
}
