//! CURRENT: the current version of a key, or its tombstone.
//!
//! Key: kind, group, install, tenant, copy, then the key's bytes. Value: flags, mod revision u64, effect varint,
//! version chain (rows::chain), create revision u64, version varint, length of the value varint, item hash u128, and
//! where the key expires the tenant time varint. A tombstone ends after the chain. The value itself is stored once,
//! in the change (rows::change). The hash is the key's part of the digest, so that overwriting does not have to read
//! the old value.

use bytes::Bytes;
use stead_types::{Revision, TenantTime};

use super::{COPY_PREFIX_LEN, CopyPrefix, chain::VersionChain, kind};
use crate::codec::{Malformed, Reader, Writer};

const TOMBSTONE: u8 = 0;
const LIVE: u8 = 1;
const LIVE_EXPIRING: u8 = 2;

/// Current version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentVersion {
    /// Revision of the change that wrote it.
    pub revision: Revision,
    /// Effect of that change.
    pub effect: u16,
    /// Version chain of the key.
    pub chain: VersionChain,
    /// The live version; `None` for a tombstone.
    pub live: Option<LiveVersion>,
}

/// A version that is not a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveVersion {
    /// Revision of the change that created the key.
    pub create: Revision,
    /// Number of changes since the key was created; 1 is the first.
    pub version: u64,
    /// Length of the value.
    pub len: u32,
    /// Hash that the key adds to the digest.
    pub hash: u128,
    /// Expiry of the key, if it has one.
    pub expires: Option<TenantTime>,
}

impl CurrentVersion {
    /// Tells whether the key is live and has expired at this time: it no longer exists, although no change has
    /// removed it yet.
    pub fn has_expired(&self, now: TenantTime) -> bool {
        let expires = self.live.and_then(|live| live.expires);
        expires.is_some_and(|expires| expires <= now)
    }
}

/// Returns the key of a row.
pub fn key(copy: CopyPrefix, key: &[u8]) -> Bytes {
    copy.key(kind::CURRENT, key.len()).raw(key).finish()
}

/// Parses the tenant's key from a row's key.
pub fn parse_key(row: &Bytes) -> Bytes {
    row.slice(COPY_PREFIX_LEN.min(row.len())..)
}

/// Writes a row's value.
pub fn encode(current: &CurrentVersion) -> Bytes {
    let mut w = Writer::with_capacity(44);
    w.u8(match current.live.map(|live| live.expires) {
        None => TOMBSTONE,
        Some(None) => LIVE,
        Some(Some(_)) => LIVE_EXPIRING,
    });
    w.u64(current.revision.to_u64()).varint(u64::from(current.effect));
    current.chain.encode(&mut w, current.revision);
    if let Some(live) = current.live {
        w.u64(live.create.to_u64())
            .varint(live.version)
            .varint(u64::from(live.len))
            .u128(live.hash);
        if let Some(expires) = live.expires {
            w.varint(expires.0);
        }
    }
    w.finish()
}

/// Tells whether a row's value is a tombstone.
pub fn is_tombstone(value: &[u8]) -> bool {
    value.first() == Some(&TOMBSTONE)
}

/// Reads what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<CurrentVersion, Malformed> {
    let mut r = Reader::new(value, "current version");
    let flags = r.u8()?;
    let revision = Revision::from_u64(r.u64()?);
    let effect = u16::try_from(r.varint()?).map_err(|_| r.malformed())?;
    let chain = VersionChain::decode(&mut r, revision)?;
    let live = match flags {
        TOMBSTONE => None,
        LIVE | LIVE_EXPIRING => Some(LiveVersion {
            create: Revision::from_u64(r.u64()?),
            version: r.varint()?,
            len: r.varint_u32()?,
            hash: r.u128()?,
            expires: (flags == LIVE_EXPIRING)
                .then(|| r.varint().map(TenantTime))
                .transpose()?,
        }),
        3.. => return Err(r.malformed()),
    };
    r.end()?;
    Ok(CurrentVersion {
        revision,
        effect,
        chain,
        live,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::{GroupId, TenantNumber};

    use super::{
        super::{GroupPrefix, chain::tests::chains},
        *,
    };

    proptest! {
        #[test]
        fn row_round_trips(revision: u64, effect: u16, chain in chains(), live: Option<(u64, u64, u32, u128, Option<u64>)>, bytes: Vec<u8>) {
            let current = CurrentVersion {
                revision: Revision::from_u64(revision),
                effect,
                chain,
                live: live.map(|(create, version, len, hash, expires)| LiveVersion {
                    create: Revision::from_u64(create), version, len, hash, expires: expires.map(TenantTime),
                }),
            };
            prop_assert_eq!(decode(encode(&current)), Ok(current));
            let place = GroupPrefix { group: GroupId::new(1), install: 2 };
            prop_assert_eq!(parse_key(&key(place.copy(TenantNumber::new(3), 4), &bytes)), bytes);
        }
    }
}
