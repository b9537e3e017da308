//! CHANGE: one MVCC version of one key, by revision. The only source of feed, watches, forks and incremental backup.
//!
//! Key: kind, group, install, tenant, copy, sequence u64, effect u16 (a change of many keys has an effect for each).
//! Value: flags, epoch varint, tenant time varint, previous revision of the key u64, its effect varint and the
//! change's version chain (rows::chain), where there is one; create revision u64 and version varint, unless it is a
//! delete, and the tenant time of expiry, where it expires; the idempotency outcome, where the write had an
//! idempotency key; where more flags follow, these flags, the operation and the origin; the key after its length; the
//! value up to the end.

use bytes::Bytes;
use stead_types::{
    ClientId, Epoch, GroupId, Revision, Sequence, TenantTime,
    limits::{KEY_LEN_MAX, VALUE_LEN_MAX},
};

use super::{
    COPY_PREFIX_LEN, CopyPrefix,
    chain::{VersionChain, VersionId},
    kind,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    shard::command::Increment,
};

const DELETE: u8 = 1;
const HAS_PREVIOUS: u8 = 1 << 1;
const HAS_OUTCOME: u8 = 1 << 2;
/// Flag: more effects of the same change follow.
const MORE: u8 = 1 << 3;
/// Flag: the key expires.
const EXPIRES: u8 = 1 << 4;
/// Flag: a delete by expiry.
const EXPIRED: u8 = 1 << 5;
/// Flag: more flags follow. No change has it that a cluster below feature level 4 has made.
const EXTENDED: u8 = 1 << 6;
const KNOWN: u8 = DELETE | HAS_PREVIOUS | HAS_OUTCOME | MORE | EXPIRES | EXPIRED | EXTENDED;

const HAS_INCREMENT: u8 = 1;
const HAS_APPEND: u8 = 1 << 1;
const HAS_ORIGIN: u8 = 1 << 2;
/// Flag: a replay over what others had changed since.
const OVER_OTHERS: u8 = 1 << 3;
const EXTENSIONS_KNOWN: u8 = HAS_INCREMENT | HAS_APPEND | HAS_ORIGIN | OVER_OTHERS;

/// Most effects of one change.
pub const EFFECTS_MAX: usize = 512;
/// Most bytes of a row's value beside the key and the value.
pub const HEAD_LEN_MAX: usize = 512;
/// Most bytes of a change in a feed batch or a chunk beside those of its row: sequence, effect, length.
pub const FEED_HEAD_LEN_MAX: usize = 32;
/// Longest value of a row.
pub const ROW_LEN_MAX: usize = HEAD_LEN_MAX + KEY_LEN_MAX + VALUE_LEN_MAX;

/// One effect of a change: one MVCC version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Revision of the change.
    pub revision: Revision,
    /// Index of the effect in the change.
    pub effect: u16,
    /// Whether more effects of the same change follow.
    pub more: bool,
    /// Cause of the change.
    pub cause: Cause,
    /// Tenant time of the change.
    pub time: TenantTime,
    /// Previous version of the key in this copy: older versions are found by following these.
    pub previous: Option<VersionId>,
    /// Version chain of the key in this copy.
    pub chain: VersionChain,
    /// Idempotency outcome, if the write had an idempotency key; carried by the first effect.
    pub outcome: Option<IdempotencyOutcome>,
    /// Operation that made the value from the one before, where it was noted: it can be done again upon another value.
    pub operation: Option<NotedOperation>,
    /// Change of a fork that this one has written again, if it is a replay; all its effects carry it.
    pub origin: Option<ReplayOrigin>,
    /// The key.
    pub key: Bytes,
    /// New value of the key; `None` for a delete.
    pub value: Option<Value>,
}

/// Cause of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// A caller's write.
    #[default]
    Write,
    /// Expiry of the key.
    Expiry,
}

/// Operation that made a value from the one before it. Noted from feature level 4 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotedOperation {
    /// An increment of a counter.
    Increment(Increment),
    /// An append: the last `len` bytes of the value.
    Append {
        /// Number of bytes that were appended.
        len: u32,
        /// Length limit of the value.
        len_max: u32,
    },
}

/// Origin of a replayed change: the change of a fork that it has written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayOrigin {
    /// Revision of the change that a promotion cut. It identifies the change, whichever groups have it in their forks.
    pub revision: Revision,
    /// Group whose fork it was read from.
    pub group: GroupId,
    /// Number of that fork.
    pub fork: u32,
    /// Whether others had changed this effect's key since the fork point when it was replayed.
    pub over_others: bool,
}

/// Content of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Revision of the change that created the key.
    pub create: Revision,
    /// Number of changes since the key was created; 1 is the first.
    pub version: u64,
    /// Expiry of the key, if it has one.
    pub expires: Option<TenantTime>,
    /// Bytes of the value.
    pub bytes: Bytes,
}

/// Outcome of a write with an idempotency key: the record to add to the client's idempotency window, and the
/// evictions that the owner decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyOutcome {
    /// Client that wrote.
    pub client: ClientId,
    /// Sequence of the write.
    pub sequence: u64,
    /// Hash of the request: the same key with another request is a caller's error.
    pub request: u64,
    /// Number of this client's oldest outcomes that are evicted with it.
    pub evicted: u32,
    /// Other clients and the numbers of their oldest outcomes that are evicted with it; a client is removed with its
    /// last one.
    pub others: Vec<(ClientId, u32)>,
}

/// Returns the key of a row.
pub fn key(copy: CopyPrefix, sequence: Sequence, effect: u16) -> Bytes {
    let mut key = copy.key(kind::CHANGE, 10);
    key.u64(sequence.get()).raw(&effect.to_be_bytes()).finish()
}

/// Parses sequence and effect from a row's key.
pub fn parse_key(key: Bytes) -> Result<(Sequence, u16), Malformed> {
    let mut r = Reader::new(key, "change key");
    r.raw(COPY_PREFIX_LEN)?;
    let sequence = r.u64()?;
    let effect = u16::from_be_bytes([r.u8()?, r.u8()?]);
    r.end()?;
    Ok((Sequence::new(sequence).ok_or_else(|| r.malformed())?, effect))
}

/// Writes a row's value.
pub fn encode(change: &Change) -> Bytes {
    let value_len = change.value.as_ref().map_or(0, |value| value.bytes.len());
    let mut w = Writer::with_capacity(64 + change.key.len() + value_len);
    encode_into(&mut w, change);
    w.finish()
}

fn encode_into(w: &mut Writer, change: &Change) {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let expires = change.value.as_ref().and_then(|value| value.expires);
    w.u8(flag(change.value.is_none(), DELETE)
        | flag(change.previous.is_some(), HAS_PREVIOUS)
        | flag(change.outcome.is_some(), HAS_OUTCOME)
        | flag(change.more, MORE)
        | flag(expires.is_some(), EXPIRES)
        | flag(change.cause == Cause::Expiry, EXPIRED)
        | flag(change.operation.is_some() || change.origin.is_some(), EXTENDED));
    w.varint(u64::from(change.revision.epoch().get())).varint(change.time.0);
    if let Some((revision, effect)) = change.previous {
        w.u64(revision.to_u64()).varint(u64::from(effect));
        change.chain.encode(w, change.revision);
    }
    if let Some(value) = &change.value {
        w.u64(value.create.to_u64()).varint(value.version);
    }
    if let Some(expires) = expires {
        w.varint(expires.0);
    }
    if let Some(outcome) = &change.outcome {
        w.u128(outcome.client.0).varint(outcome.sequence).u64(outcome.request);
        w.varint(u64::from(outcome.evicted));
        w.list(outcome.others.iter(), |w, (client, count)| {
            w.u128(client.0).varint(u64::from(*count));
        });
    }
    if change.operation.is_some() || change.origin.is_some() {
        write_extensions(w, change.operation, change.origin);
    }
    w.bytes(&change.key);
    if let Some(value) = &change.value {
        w.raw(&value.bytes);
    }
}

fn write_extensions(w: &mut Writer, operation: Option<NotedOperation>, origin: Option<ReplayOrigin>) {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    w.u8(
        flag(matches!(operation, Some(NotedOperation::Increment(_))), HAS_INCREMENT)
            | flag(matches!(operation, Some(NotedOperation::Append { .. })), HAS_APPEND)
            | flag(origin.is_some(), HAS_ORIGIN)
            | flag(origin.is_some_and(|origin| origin.over_others), OVER_OTHERS),
    );
    match operation {
        Some(NotedOperation::Increment(increment)) => increment.encode(w),
        Some(NotedOperation::Append { len, len_max }) => {
            w.varint(u64::from(len)).varint(u64::from(len_max));
        }
        None => {}
    }
    if let Some(origin) = origin {
        w.u64(origin.revision.to_u64()).varint(u64::from(origin.group.get()));
        w.varint(u64::from(origin.fork));
    }
}

fn read_extensions(r: &mut Reader) -> Result<(Option<NotedOperation>, Option<ReplayOrigin>), Malformed> {
    let flags = r.u8()?;
    let operation = match flags & (HAS_INCREMENT | HAS_APPEND) {
        0 => None,
        HAS_INCREMENT => Some(NotedOperation::Increment(Increment::decode(r)?)),
        HAS_APPEND => Some(NotedOperation::Append {
            len: r.varint_u32()?,
            len_max: r.varint_u32()?,
        }),
        _ => return Err(r.malformed()),
    };
    let origin = (flags & HAS_ORIGIN != 0).then(|| {
        Ok(ReplayOrigin {
            revision: Revision::from_u64(r.u64()?),
            group: GroupId::new(r.varint_u32()?),
            fork: r.varint_u32()?,
            over_others: flags & OVER_OTHERS != 0,
        })
    });
    // A row without any of them has no such flags.
    let is_over_nothing = flags & OVER_OTHERS != 0 && origin.is_none();
    if flags & !EXTENSIONS_KNOWN != 0 || is_over_nothing || (operation.is_none() && origin.is_none()) {
        return Err(r.malformed());
    }
    Ok((operation, origin.transpose()?))
}

/// Reads what [`encode`] wrote under this key.
pub fn decode(sequence: Sequence, effect: u16, row: Bytes) -> Result<Change, Malformed> {
    let mut r = Reader::new(row, "change");
    let flags = r.u8()?;
    if flags & !KNOWN != 0 || (flags & DELETE != 0 && flags & EXPIRES != 0) {
        return Err(r.malformed());
    }
    let cause = if flags & EXPIRED != 0 {
        Cause::Expiry
    } else {
        Cause::Write
    };
    let epoch: Epoch = decode_epoch(&mut r)?;
    let time = TenantTime(r.varint()?);
    let revision = Revision::new(epoch, sequence);
    let (previous, chain) = if flags & HAS_PREVIOUS != 0 {
        (Some(read_previous(&mut r)?), VersionChain::decode(&mut r, revision)?)
    } else {
        (None, VersionChain::default())
    };
    let made = (flags & DELETE == 0)
        .then(|| Ok((Revision::from_u64(r.u64()?), r.varint()?)))
        .transpose()?;
    let expires = (flags & EXPIRES != 0).then(|| r.varint().map(TenantTime)).transpose()?;
    let outcome = (flags & HAS_OUTCOME != 0).then(|| read_outcome(&mut r)).transpose()?;
    let (operation, origin) = if flags & EXTENDED != 0 {
        read_extensions(&mut r)?
    } else {
        (None, None)
    };
    let key = r.bytes()?;
    let value = made.map(|(create, version)| Value {
        create,
        version,
        expires,
        bytes: r.rest(),
    });
    r.end()?;
    Ok(Change {
        revision,
        effect,
        more: flags & MORE != 0,
        cause,
        time,
        previous,
        chain,
        outcome,
        operation,
        origin,
        key,
        value,
    })
}

fn read_previous(r: &mut Reader) -> Result<VersionId, Malformed> {
    let revision = Revision::from_u64(r.u64()?);
    let effect = u16::try_from(r.varint()?).map_err(|_| r.malformed())?;
    Ok((revision, effect))
}

fn read_outcome(r: &mut Reader) -> Result<IdempotencyOutcome, Malformed> {
    Ok(IdempotencyOutcome {
        client: ClientId(r.u128()?),
        sequence: r.varint()?,
        request: r.u64()?,
        evicted: r.varint_u32()?,
        others: r.list(|r| Ok((ClientId(r.u128()?), r.varint_u32()?)))?,
    })
}

impl Change {
    /// Returns the length of key and value.
    pub fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |value| value.bytes.len())
    }

    /// Tells whether key and value are both empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether it created the key, after a delete or for the first time, as far as this copy knows.
    pub fn follows_delete(&self) -> bool {
        self.value.as_ref().is_some_and(|value| value.create == self.revision)
    }

    /// Writes the change with its sequence, as feed batches and chunks carry it. The previous version is left out:
    /// whoever applies the change looks it up.
    pub fn encode_for_feed(&self, w: &mut Writer) {
        let mut row = Writer::with_capacity(64 + self.key.len());
        encode_into(
            &mut row,
            &Self {
                previous: None,
                chain: VersionChain::default(),
                ..self.clone()
            },
        );
        w.varint(self.revision.sequence().get()).varint(u64::from(self.effect));
        w.bytes(&row.finish());
    }

    /// Reads what [`Change::encode_for_feed`] wrote.
    pub fn decode_from_feed(r: &mut Reader) -> Result<Self, Malformed> {
        let sequence = r.varint()?;
        let sequence = Sequence::new(sequence).ok_or_else(|| r.malformed())?;
        let effect = u16::try_from(r.varint()?).map_err(|_| r.malformed())?;
        decode(sequence, effect, r.bytes()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::{GroupId, TenantNumber};

    use super::{
        super::chain::tests::{chains, longest},
        *,
    };
    use crate::{rows::GroupPrefix, shard::idempotency_window::OTHERS_MAX};

    prop_compose! {
        fn outcomes()(client: u128, sequence: u64, request: u64, evicted: u32, gone: Vec<(u128, u32)>) -> IdempotencyOutcome {
            IdempotencyOutcome {
                client: ClientId(client), sequence, request, evicted,
                others: gone.into_iter().take(3).map(|(client, count)| (ClientId(client), count)).collect(),
            }
        }
    }

    fn operations() -> impl Strategy<Value = NotedOperation> {
        let increment = (
            any::<i64>(),
            any::<Option<i64>>(),
            any::<Option<i64>>(),
            prop::option::of(1..u64::MAX),
        );
        prop_oneof![
            increment.prop_map(|(delta, floor, ceiling, window)| {
                NotedOperation::Increment(Increment {
                    delta,
                    floor,
                    ceiling,
                    window,
                })
            }),
            any::<(u32, u32)>().prop_map(|(len, len_max)| NotedOperation::Append { len, len_max }),
        ]
    }

    prop_compose! {
        fn changes()(
            revision: u64, effect: u16, more: bool, time: u64,
            cause in prop_oneof![Just(Cause::Write), Just(Cause::Expiry)],
            previous in prop::option::of((any::<u64>(), any::<u16>(), chains())),
            outcome in prop::option::of(outcomes()),
            operation in prop::option::of(operations()),
            origin in prop::option::of((any::<u64>(), any::<u32>(), any::<u32>(), any::<bool>())),
            key: Vec<u8>,
            value: Option<(u64, u64, Option<u64>, Vec<u8>)>,
        ) -> Change {
            Change {
                revision: Revision::from_u64(revision), effect, more, cause, time: TenantTime(time),
                previous: previous.map(|(revision, effect, _)| (Revision::from_u64(revision), effect)),
                chain: previous.map(|(_, _, chain)| chain).unwrap_or_default(),
                outcome,
                operation,
                origin: origin.map(|(revision, group, fork, over_others)| {
                    ReplayOrigin { revision: Revision::from_u64(revision), group: GroupId::new(group), fork, over_others }
                }),
                key: key.into(),
                value: value.map(|(create, version, expires, bytes)| Value {
                    create: Revision::from_u64(create), version, expires: expires.map(TenantTime), bytes: bytes.into(),
                }),
            }
        }
    }

    #[test]
    fn longest_row_is_within_bound() {
        let largest = u64::MAX;
        let change = Change {
            revision: Revision::from_u64(largest),
            effect: u16::MAX,
            more: true,
            cause: Cause::Write,
            time: TenantTime(largest),
            previous: Some((Revision::from_u64(largest), u16::MAX)),
            chain: longest(),
            outcome: Some(IdempotencyOutcome {
                client: ClientId(u128::MAX),
                sequence: largest,
                request: largest,
                evicted: u32::MAX,
                others: vec![(ClientId(0), u32::MAX); OTHERS_MAX],
            }),
            operation: Some(NotedOperation::Increment(Increment {
                delta: i64::MIN,
                floor: Some(i64::MIN),
                ceiling: Some(i64::MAX),
                window: Some(largest),
            })),
            origin: Some(ReplayOrigin {
                revision: Revision::from_u64(largest),
                group: GroupId::new(u32::MAX),
                fork: u32::MAX,
                over_others: true,
            }),
            key: vec![0; KEY_LEN_MAX].into(),
            value: Some(Value {
                create: Revision::from_u64(largest),
                version: largest,
                expires: Some(TenantTime(largest)),
                bytes: vec![0; VALUE_LEN_MAX].into(),
            }),
        };
        assert!(encode(&change).len() <= ROW_LEN_MAX);
    }

    proptest! {
        #[test]
        fn row_round_trips(change in changes()) {
            let copy = GroupPrefix { group: GroupId::new(1), install: 2 }.copy(TenantNumber::new(3), 4);
            let (sequence, effect) = parse_key(key(copy, change.revision.sequence(), change.effect)).unwrap();
            prop_assert_eq!(decode(sequence, effect, encode(&change)), Ok(change.clone()));
            let mut w = Writer::default();
            change.encode_for_feed(&mut w);
            let mut r = Reader::new(w.finish(), "feed");
            prop_assert_eq!(Change::decode_from_feed(&mut r), Ok(Change { previous: None, chain: VersionChain::default(), ..change }));
            prop_assert_eq!(r.end(), Ok(()));
        }
    }
}
