//! CURRENT: the current version of a key, or its tombstone.
//!
//! Key: kind, group, install, tenant, copy, then the key's bytes. Value: flags, mod revision u64, effect varint, chain
//! (rows::chain), create revision u64, version varint, length of the value varint, item hash u128, and where the key expires the tenant time
//! varint. A tombstone ends behind the chain. The
//! value itself stands once, in the change (rows::change). The hash is what the key adds to the digest, so that
//! overwriting does not have to read the old value.

use bytes::Bytes;
use stead_types::{Revision, TenantTime};

use super::{COPY_LEN, Copy, chain::Chain, kind};
use crate::codec::{Malformed, Reader, Writer};

const TOMBSTONE: u8 = 0;
const LIVE: u8 = 1;
const LIVE_EXPIRING: u8 = 2;

/// What is current at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The change that made it.
    pub revision: Revision,
    /// Which effect of that change.
    pub effect: u16,
    /// Where it stands among the versions of the key.
    pub chain: Chain,
    /// The live version; `None` for a tombstone.
    pub live: Option<Live>,
}

/// A version that is not a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// The change that created the key.
    pub create: Revision,
    /// Counts the changes since the key was created; 1 is the first.
    pub version: u64,
    /// Length of the value.
    pub len: u32,
    /// What the key adds to the digest.
    pub hash: u128,
    /// When it expires, if it does.
    pub expires: Option<TenantTime>,
}

impl Current {
    /// Tells whether the key is live and past its end at this time: then it is gone, though no change says so yet.
    pub fn is_past_end(&self, now: TenantTime) -> bool {
        let expires = self.live.and_then(|live| live.expires);
        expires.is_some_and(|expires| expires <= now)
    }
}

/// Returns the key of a row.
pub fn key(copy: Copy, key: &[u8]) -> Bytes {
    copy.key(kind::CURRENT, key.len()).raw(key).finish()
}

/// Reads the tenant's key out of a row's key.
pub fn parse_key(row: &Bytes) -> Bytes {
    row.slice(COPY_LEN.min(row.len())..)
}

/// Writes a row's value.
pub fn encode(current: &Current) -> Bytes {
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

/// Reads what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<Current, Malformed> {
    let mut r = Reader::new(value, "current version");
    let flags = r.u8()?;
    let revision = Revision::from_u64(r.u64()?);
    let effect = u16::try_from(r.varint()?).map_err(|_| r.malformed())?;
    let chain = Chain::decode(&mut r, revision)?;
    let live = match flags {
        TOMBSTONE => None,
        LIVE | LIVE_EXPIRING => Some(Live {
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
    Ok(Current {
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
        super::{Place, chain::tests::chains},
        *,
    };

    proptest! {
        #[test]
        fn a_row_reads_back(revision: u64, effect: u16, chain in chains(), live: Option<(u64, u64, u32, u128, Option<u64>)>, bytes: Vec<u8>) {
            let current = Current {
                revision: Revision::from_u64(revision),
                effect,
                chain,
                live: live.map(|(create, version, len, hash, expires)| Live {
                    create: Revision::from_u64(create), version, len, hash, expires: expires.map(TenantTime),
                }),
            };
            prop_assert_eq!(decode(encode(&current)), Ok(current));
            let place = Place { group: GroupId::new(1), install: 2 };
            prop_assert_eq!(parse_key(&key(place.copy(TenantNumber::new(3), 4), &bytes)), bytes);
        }
    }
}
