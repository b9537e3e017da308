//! Row layouts that are compared. `state` uses the pointer layout and encodes its rows.

use anyhow::Result;
use bytes::Bytes;
use stead_state::codec::{Reader, Writer};
use stead_state::rows::chain::VersionChain;
use stead_state::rows::change::{self, Cause, Change, Value};
use stead_state::rows::current::{self, CurrentVersion, LiveVersion};
use stead_state::rows::{CopyPrefix, GroupPrefix, Rows, RowsMut, kind};
use stead_store::table::Table;
use stead_types::{Epoch, GroupId, Revision, Sequence, TenantNumber, TenantTime};

use crate::key_of;

const VALUE_LEN: usize = 256;
const TENANTS: u64 = 64;
/// Row kind of versions in the moved layout, which no row of `state` has.
const VERSION: u8 = 0x7f;

/// One put.
pub(crate) struct Put {
    copy: CopyPrefix,
    key: Bytes,
    value: Bytes,
    revision: Revision,
    /// Retention floor: versions overwritten below this sequence are deleted.
    floor: u64,
}

impl Put {
    pub(crate) fn new(key: u64, sequence: u64, floor: u64) -> Self {
        let place = GroupPrefix {
            group: GroupId::new(1),
            install: 0,
        };
        let mut value = vec![0; VALUE_LEN];
        // Half of it does not compress.
        let mut noise = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for chunk in value[..VALUE_LEN / 2].chunks_exact_mut(8) {
            noise = noise.wrapping_mul(0xd129_0d3b_3a5f_6b01).rotate_left(29) + 1;
            chunk.copy_from_slice(&noise.to_le_bytes());
        }
        let number = Sequence::new(sequence).expect("it counts from one");
        Self {
            copy: place.copy(TenantNumber::new(key % TENANTS), 0),
            key: key_of(key),
            value: value.into(),
            revision: Revision::new(Epoch::FIRST, number),
            floor,
        }
    }
}

/// Row layout: writes the rows of a put.
pub(crate) trait Layout {
    fn put(&self, table: &mut Table, put: &Put) -> Result<()>;
}

/// Layout whose CURRENT row names the CHANGE row with the value.
pub(crate) struct PointerLayout;

/// Layout whose CURRENT row has the value, which is moved to a VERSION row when it is overwritten.
pub(crate) struct MovedLayout;

impl Layout for PointerLayout {
    fn put(&self, table: &mut Table, put: &Put) -> Result<()> {
        let row = current::key(put.copy, &put.key);
        let before = table.get(&row)?.map(current::decode).transpose()?;
        if let Some(before) = before.filter(|before| before.revision.sequence().get() < put.floor) {
            table.delete(change::key(put.copy, before.revision.sequence(), before.effect));
        }
        let floor = Revision::new(Epoch::FIRST, Sequence::new(put.floor).unwrap_or(Sequence::ZERO));
        let chain = match before {
            Some(before) => before.chain.next((before.revision, before.effect), floor),
            None => VersionChain::default(),
        };
        let change = Change {
            revision: put.revision,
            effect: 0,
            more: false,
            cause: Cause::Write,
            time: TenantTime(1),
            previous: before.map(|before| (before.revision, before.effect)),
            chain,
            outcome: None,
            operation: None,
            origin: None,
            key: put.key.clone(),
            value: Some(Value {
                create: put.revision,
                version: 1,
                expires: None,
                bytes: put.value.clone(),
            }),
        };
        let now = CurrentVersion {
            revision: put.revision,
            effect: 0,
            chain,
            live: Some(LiveVersion {
                create: put.revision,
                version: 1,
                len: VALUE_LEN as u32,
                hash: u128::from(put.revision.to_u64()),
                expires: None,
            }),
        };
        table.put(row, current::encode(&now));
        table.put_new(
            change::key(put.copy, put.revision.sequence(), 0),
            change::encode(&change),
        );
        Ok(())
    }
}

fn version_key(copy: CopyPrefix, key: &[u8], sequence: u64) -> Bytes {
    copy.key(VERSION, key.len() + 8).raw(key).u64(sequence).finish()
}

impl Layout for MovedLayout {
    fn put(&self, table: &mut Table, put: &Put) -> Result<()> {
        let row = put.copy.key(kind::CURRENT, put.key.len()).raw(&put.key).finish();
        if let Some(before) = table.get(&row)? {
            let mut r = Reader::new(before.clone(), "current");
            r.u8()?;
            let sequence = r.u64()?;
            if sequence < put.floor {
                let sequence = Sequence::new(sequence).expect("it counts from one");
                table.delete(change::key(put.copy, sequence, 0));
            } else {
                table.put_new(version_key(put.copy, &put.key, sequence), before);
            }
        }
        let sequence = put.revision.sequence();
        let mut now = Writer::with_capacity(64 + VALUE_LEN);
        now.u8(1).u64(sequence.get()).u64(put.revision.to_u64());
        now.varint(1).u128(u128::from(sequence.get())).raw(&put.value);
        table.put(row, now.finish());
        let mut change = Writer::with_capacity(64);
        change.u8(1).u64(put.revision.to_u64()).bytes(&put.key);
        table.put_new(change::key(put.copy, sequence, 0), change.finish());
        Ok(())
    }
}
