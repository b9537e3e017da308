//! Conversions of names, numbers, revisions and idempotency keys.

use bytes::Bytes;
use stead_types::{
    ClientId, DirectoryVersion, Epoch, Error, IdempotencyKey, Incarnation, RegionName, Revision, Sequence, TenantName,
    TenantTime,
};

use crate::proto::v1;

/// Reads the name of a tenant from the field `field`.
pub fn tenant(field: &str, name: &str) -> Result<TenantName, Error> {
    name.parse()
        .map_err(|why: stead_types::InvalidTenantName| Error::invalid(field, format!("{field}: {why}; got {name:?}")))
}

/// Reads the name of a region from the field `field`.
pub fn region(field: &str, name: &str) -> Result<RegionName, Error> {
    name.parse()
        .map_err(|why: stead_types::InvalidRegionName| Error::invalid(field, format!("{field}: {why}; got {name:?}")))
}

/// Reads an epoch from the field `field`.
pub fn epoch(field: &str, number: u32) -> Result<Epoch, Error> {
    Epoch::new(number).ok_or_else(|| {
        Error::invalid(
            field,
            format!("{field}: an epoch is at most {}, not {number}", Epoch::MAX),
        )
    })
}

/// Reads a revision from the field `field`.
pub fn revision(field: &str, revision: v1::Revision) -> Result<Revision, Error> {
    let epoch = epoch(&format!("{field}.epoch"), revision.epoch)?;
    let sequence = Sequence::new(revision.sequence).ok_or_else(|| {
        let field = format!("{field}.sequence");
        let message = format!(
            "{field}: a sequence is at most {}, not {}",
            Sequence::MAX,
            revision.sequence
        );
        Error::invalid(field, message)
    })?;
    Ok(Revision::new(epoch, sequence))
}

/// Returns the message of a revision.
pub fn from_revision(revision: Revision) -> v1::Revision {
    v1::Revision {
        epoch: revision.epoch().get(),
        sequence: revision.sequence().get(),
    }
}

/// Reads an idempotency key.
pub fn idempotency_key(key: &v1::IdempotencyKey) -> Result<IdempotencyKey, Error> {
    let client: [u8; 16] = key.client_id.as_ref().try_into().map_err(|_| {
        let len = key.client_id.len();
        let message = format!("idempotency_key.client_id: 16 random bytes are needed, not {len}");
        Error::invalid("idempotency_key.client_id", message)
    })?;
    let client = ClientId(u128::from_be_bytes(client));
    if client == ClientId::REPLAYS {
        let message = "idempotency_key.client_id: this id is reserved for replays of forks: use 16 random bytes";
        return Err(Error::invalid("idempotency_key.client_id", message));
    }
    Ok(IdempotencyKey {
        client,
        sequence: key.sequence,
        first_sent: TenantTime(key.first_sent_ms),
    })
}

/// Returns the message of an idempotency key.
pub fn from_idempotency_key(key: IdempotencyKey) -> v1::IdempotencyKey {
    v1::IdempotencyKey {
        client_id: Bytes::copy_from_slice(&key.client.0.to_be_bytes()),
        sequence: key.sequence,
        first_sent_ms: key.first_sent.0,
    }
}

/// Reads a directory version.
pub fn directory_version(version: v1::DirectoryVersion) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation(version.incarnation),
        index: version.index,
    }
}

/// Returns the message of a directory version.
pub fn from_directory_version(version: DirectoryVersion) -> v1::DirectoryVersion {
    v1::DirectoryVersion {
        incarnation: version.incarnation.0,
        index: version.index,
    }
}
