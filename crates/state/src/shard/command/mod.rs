//! Commands of a data group's log: one file for each family, encoded by hand.
//!
//! A command carries all that its guard needs: its proposer copies into it whatever the guard needs of the view or of
//! a feed session. A kind byte is never used for anything else again.

mod accept;
mod attach;
mod condition;
mod confirm_remote;
mod count;
mod create;
mod data;
mod delete_range;
mod erase;
mod expire;
mod follow;
mod fork;
mod heir;
mod lease_loss;
mod promotion;
mod relinquish;
mod replay;
mod retention_floor;
mod seed;
mod txn;
mod write;

pub use accept::{Accept, Baton};
pub use attach::{Attach, BeginAttach, Detach};
use bytes::Bytes;
pub use confirm_remote::ConfirmRemote;
pub use count::{Count, Uncount};
pub use create::Create;
pub use data::{Data, DataHeader, FeedRecords, Offset};
pub use delete_range::{DeleteRange, RANGE_KEYS_MAX, REMOVAL_WORK};
pub use erase::{Erase, Rejoin};
pub use expire::{EXPIRED_MAX, Expire};
pub use follow::Follow;
pub use fork::{ContinueRewind, DiscardFork};
pub use heir::{CancelHeir, Heir};
pub use lease_loss::SetLeaseLossPolicy;
pub use promotion::{Activate, Freeze, Pull, PullHeader};
pub use relinquish::{Refuse, Relinquish};
pub use replay::{Replay, ReplayClasses, ReplayEffect, ReplayedWrite};
pub use retention_floor::RetentionFloor;
pub use seed::{Chunk, ChunkContent, Seed, SeedWindows, Swap, WindowPart};
pub use stead_types::{Condition, Operand, Relation};
use stead_types::{DirectoryVersion, Epoch, FeedOffset, GroupId, Incarnation, Revision, Sequence, TenantNumber};
pub use txn::{Branches, Comparison, Step, Txn};
pub use write::{Effect, Increment, Operation, WindowLimits, Write};

use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    shard::record::{AttachNumber, LeaseLossPolicy, OperationId, SeedNumber},
};

/// Kind bytes of the commands.
pub mod kind {
    /// [`super::Write`].
    pub const WRITE: u8 = 1;
    /// [`super::Create`].
    pub const CREATE: u8 = 2;
    /// [`super::Follow`].
    pub const FOLLOW: u8 = 3;
    /// [`super::Attach`].
    pub const ATTACH: u8 = 4;
    /// [`super::Detach`].
    pub const DETACH: u8 = 5;
    /// [`super::Data`].
    pub const DATA: u8 = 6;
    /// [`super::Offset`].
    pub const OFFSET: u8 = 7;
    /// [`super::Seed`].
    pub const SEED: u8 = 8;
    /// [`super::Chunk`].
    pub const CHUNK: u8 = 9;
    /// [`super::Swap`].
    pub const SWAP: u8 = 10;
    /// [`super::Erase`].
    pub const ERASE: u8 = 11;
    /// [`super::Rejoin`].
    pub const REJOIN: u8 = 12;
    /// [`super::RetentionFloor`].
    pub const RETENTION_FLOOR: u8 = 13;
    /// [`super::Txn`].
    pub const TXN: u8 = 14;
    /// [`super::DeleteRange`].
    pub const DELETE_RANGE: u8 = 15;
    /// [`super::Expire`].
    pub const EXPIRE: u8 = 16;
    /// [`super::BeginAttach`].
    pub const BEGIN_ATTACH: u8 = 17;
    /// [`super::Heir`].
    pub const HEIR: u8 = 18;
    /// [`super::CancelHeir`].
    pub const CANCEL_HEIR: u8 = 19;
    /// [`super::Relinquish`].
    pub const RELINQUISH: u8 = 20;
    /// [`super::Refuse`].
    pub const REFUSE: u8 = 21;
    /// [`super::Accept`].
    pub const ACCEPT: u8 = 22;
    /// [`super::Uncount`].
    pub const UNCOUNT: u8 = 23;
    /// [`super::Count`].
    pub const COUNT: u8 = 24;
    /// [`super::Erase`] with the recorded epoch.
    pub const ERASE_FOLLOWER: u8 = 25;
    /// [`super::SetLeaseLossPolicy`].
    pub const SET_LEASE_LOSS_POLICY: u8 = 26;
    /// [`super::Freeze`].
    pub const FREEZE: u8 = 27;
    /// [`super::Pull`].
    pub const PULL: u8 = 28;
    /// [`super::Activate`].
    pub const ACTIVATE: u8 = 29;
    /// [`super::DiscardFork`].
    pub const DISCARD_FORK: u8 = 30;
    /// [`super::Replay`].
    pub const REPLAY: u8 = 31;
    /// [`super::ContinueRewind`].
    pub const CONTINUE_REWIND: u8 = 32;
    /// [`super::ConfirmRemote`].
    pub const CONFIRM_REMOTE: u8 = 33;
    /// [`super::SeedWindows`].
    pub const SEED_WINDOWS: u8 = 45;
}

/// A command of a data group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A caller's write.
    Write(Write),
    /// A caller's transaction.
    Txn(Txn),
    /// A caller's range deletion.
    DeleteRange(DeleteRange),
    /// Removal of expired keys.
    Expire(Expire),
    /// Creation of a tenant.
    Create(Create),
    /// Change of the home that is followed.
    Follow(Follow),
    /// Start of an attempt to attach a tenant.
    BeginAttach(BeginAttach),
    /// Attach of a tenant to its home's feed.
    Attach(Attach),
    /// Detach of a tenant from its home's feed.
    Detach(Detach),
    /// Changes of one tenant from its home.
    Data(Data),
    /// Offset of a home's feed.
    Offset(Offset),
    /// Start of a seed.
    Seed(Seed),
    /// Start of a seed of idempotency windows alone.
    SeedWindows(SeedWindows),
    /// Chunk of a seed.
    Chunk(Chunk),
    /// Swap of a seeded copy.
    Swap(Swap),
    /// Erasure of a tenant from this group.
    Erase(Erase),
    /// Keeping of a tenant that was to be erased.
    Rejoin(Rejoin),
    /// Retention floor of a home's tenants.
    RetentionFloor(RetentionFloor),
    /// Readiness of a follower to take over by a move.
    Heir(Heir),
    /// End of that readiness.
    CancelHeir(CancelHeir),
    /// Handover of a tenant by its owner.
    Relinquish(Relinquish),
    /// Refusal of a move by the owner.
    Refuse(Refuse),
    /// Takeover of a tenant by the baton.
    Accept(Accept),
    /// End of counting a member's acknowledgements.
    Uncount(Uncount),
    /// Counting of a member's acknowledgements again.
    Count(Count),
    /// Change of what the owner does without a lease.
    SetLeaseLossPolicy(SetLeaseLossPolicy),
    /// Freeze of a member for a promotion.
    Freeze(Freeze),
    /// Changes of one tenant from another frozen group.
    Pull(Pull),
    /// Takeover of a tenant at the end of a promotion.
    Activate(Activate),
    /// Drop of a fork.
    DiscardFork(DiscardFork),
    /// Replay of a change that a promotion cut.
    Replay(Replay),
    /// Step of a rewind.
    ContinueRewind(ContinueRewind),
    /// Raise of the remote watermark.
    ConfirmRemote(ConfirmRemote),
}

impl Command {
    /// Reads a command of this kind.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "shard command");
        let command = match kind {
            kind::WRITE => Self::Write(Write::decode(&mut r)?),
            kind::CREATE => Self::Create(Create::decode(&mut r)?),
            kind::FOLLOW => Self::Follow(Follow::decode(&mut r)?),
            kind::ATTACH => Self::Attach(Attach::decode(&mut r)?),
            kind::DETACH => Self::Detach(Detach::decode(&mut r)?),
            kind::DATA => Self::Data(Data::decode(&mut r)?),
            kind::OFFSET => Self::Offset(Offset::decode(&mut r)?),
            kind::SEED => Self::Seed(Seed::decode(&mut r)?),
            kind::CHUNK => Self::Chunk(Chunk::decode(&mut r)?),
            kind::SWAP => Self::Swap(Swap::decode(&mut r)?),
            kind::ERASE => Self::Erase(Erase::decode(&mut r)?),
            kind::ERASE_FOLLOWER => Self::Erase(Erase::decode_follower(&mut r)?),
            kind::REJOIN => Self::Rejoin(Rejoin::decode(&mut r)?),
            kind::RETENTION_FLOOR => Self::RetentionFloor(RetentionFloor::decode(&mut r)?),
            kind::TXN => Self::Txn(Txn::decode(&mut r)?),
            kind::DELETE_RANGE => Self::DeleteRange(DeleteRange::decode(&mut r)?),
            kind::EXPIRE => Self::Expire(Expire::decode(&mut r)?),
            kind::BEGIN_ATTACH => Self::BeginAttach(BeginAttach::decode(&mut r)?),
            kind::HEIR => Self::Heir(Heir::decode(&mut r)?),
            kind::CANCEL_HEIR => Self::CancelHeir(CancelHeir::decode(&mut r)?),
            kind::RELINQUISH => Self::Relinquish(Relinquish::decode(&mut r)?),
            kind::REFUSE => Self::Refuse(Refuse::decode(&mut r)?),
            kind::ACCEPT => Self::Accept(Accept::decode(&mut r)?),
            kind::UNCOUNT => Self::Uncount(Uncount::decode(&mut r)?),
            kind::COUNT => Self::Count(Count::decode(&mut r)?),
            kind::SET_LEASE_LOSS_POLICY => Self::SetLeaseLossPolicy(SetLeaseLossPolicy::decode(&mut r)?),
            kind::FREEZE => Self::Freeze(Freeze::decode(&mut r)?),
            kind::PULL => Self::Pull(Pull::decode(&mut r)?),
            kind::ACTIVATE => Self::Activate(Activate::decode(&mut r)?),
            kind::DISCARD_FORK => Self::DiscardFork(DiscardFork::decode(&mut r)?),
            kind::CONTINUE_REWIND => Self::ContinueRewind(ContinueRewind::decode(&mut r)?),
            kind::REPLAY => Self::Replay(Replay::decode(&mut r)?),
            kind::CONFIRM_REMOTE => Self::ConfirmRemote(ConfirmRemote::decode(&mut r)?),
            kind::SEED_WINDOWS => Self::SeedWindows(SeedWindows::decode(&mut r)?),
            0 | 34..=44 | 46.. => return Err(r.malformed()),
        };
        r.end()?;
        Ok(command)
    }

    /// Returns the tenant of the command; `None` if it has none or many.
    pub fn tenant(&self) -> Option<TenantNumber> {
        match self {
            Self::Write(command) => Some(command.tenant),
            Self::Txn(command) => Some(command.tenant),
            Self::DeleteRange(command) => Some(command.tenant),
            Self::Expire(command) => Some(command.tenant),
            Self::Create(command) => Some(command.tenant),
            Self::Follow(command) => Some(command.tenant),
            Self::BeginAttach(command) => Some(command.tenant),
            Self::Attach(command) => Some(command.tenant),
            Self::Detach(command) => Some(command.tenant),
            Self::Data(command) => Some(command.head.tenant),
            Self::Seed(command) => Some(command.tenant),
            Self::SeedWindows(command) => Some(command.tenant),
            Self::Chunk(command) => Some(command.tenant),
            Self::Swap(command) => Some(command.tenant),
            Self::Erase(command) => Some(command.tenant),
            Self::Rejoin(command) => Some(command.tenant),
            Self::Heir(command) => Some(command.tenant),
            Self::CancelHeir(command) => Some(command.tenant),
            Self::Relinquish(command) => Some(command.tenant),
            Self::Refuse(command) => Some(command.tenant),
            Self::Accept(command) => Some(command.head.tenant),
            Self::Uncount(command) => Some(command.tenant),
            Self::Count(command) => Some(command.tenant),
            Self::SetLeaseLossPolicy(command) => Some(command.tenant),
            Self::Freeze(command) => Some(command.tenant),
            Self::Pull(command) => Some(command.head.tenant),
            Self::Activate(command) => Some(command.tenant),
            Self::DiscardFork(command) => Some(command.tenant),
            Self::Replay(command) => Some(command.tenant),
            Self::ContinueRewind(command) => Some(command.tenant),
            Self::ConfirmRemote(command) => Some(command.tenant),
            Self::Offset(_) | Self::RetentionFloor(_) => None,
        }
    }
}

/// Starts a command about a tenant.
fn start(kind: u8, tenant: TenantNumber, room: usize) -> Writer {
    let mut w = Writer::with_capacity(10 + room);
    w.u8(kind).varint(tenant.get());
    w
}

fn tenant(r: &mut Reader) -> Result<TenantNumber, Malformed> {
    Ok(TenantNumber::new(r.varint()?))
}

fn write_version(w: &mut Writer, version: DirectoryVersion) {
    w.varint(u64::from(version.incarnation.0)).varint(version.index);
}

fn version(r: &mut Reader) -> Result<DirectoryVersion, Malformed> {
    Ok(DirectoryVersion {
        incarnation: Incarnation(r.varint_u32()?),
        index: r.varint()?,
    })
}

fn write_group(w: &mut Writer, group: GroupId) {
    w.varint(u64::from(group.get()));
}

fn group(r: &mut Reader) -> Result<GroupId, Malformed> {
    Ok(GroupId::new(r.varint_u32()?))
}

fn write_epoch(w: &mut Writer, epoch: Epoch) {
    w.varint(u64::from(epoch.get()));
}

fn epoch(r: &mut Reader) -> Result<Epoch, Malformed> {
    decode_epoch(r)
}

fn revision(r: &mut Reader) -> Result<Revision, Malformed> {
    Ok(Revision::from_u64(r.varint()?))
}

fn sequence(r: &mut Reader) -> Result<Sequence, Malformed> {
    let number = r.varint()?;
    Sequence::new(number).ok_or_else(|| r.malformed())
}

fn attach_number(r: &mut Reader) -> Result<AttachNumber, Malformed> {
    Ok(AttachNumber(r.varint()?))
}

fn seed_number(r: &mut Reader) -> Result<SeedNumber, Malformed> {
    Ok(SeedNumber(r.varint()?))
}

fn operation(r: &mut Reader) -> Result<OperationId, Malformed> {
    Ok(OperationId(r.varint()?))
}

fn write_policy(w: &mut Writer, policy: LeaseLossPolicy) {
    w.bool(policy == LeaseLossPolicy::Continue);
}

fn policy(r: &mut Reader) -> Result<LeaseLossPolicy, Malformed> {
    Ok(if r.bool()? {
        LeaseLossPolicy::Continue
    } else {
        LeaseLossPolicy::Stop
    })
}

fn write_offset(w: &mut Writer, offset: FeedOffset) {
    w.varint(u64::from(offset.incarnation.0)).varint(offset.index);
}

fn offset(r: &mut Reader) -> Result<FeedOffset, Malformed> {
    Ok(FeedOffset {
        incarnation: Incarnation(r.varint_u32()?),
        index: r.varint()?,
    })
}

#[cfg(test)]
mod command_test;
