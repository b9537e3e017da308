//! Rows of the directory: `DIRECTORY`, then the type of the row, then its identity.
//!
//! | key after the kind | value |
//! | --- | --- |
//! | `0` | counters, version, first nodes |
//! | identity of an object (first byte 1 to 15) | the object, as a change |
//! | `16`, number u64 | an audit record of a change |
//! | `17`, number u64 | an operation |
//! | `18`, number u64 of an operation, number u64 of a tenant | a tenant of a bulk move |
//! | `19`, number u64 of an operation, number u64 of a tenant | a tenant of a promotion |
//! | `20`, number u64 | an audit record of calls |
//! | `21`, number u64 of a tenant | its residency evidence |
//! | `22` | numbers of the last reports of nodes about what they have sent; only once there is one |
//!
//! The whole directory is held in memory; rows are read when a node starts.

use bytes::Bytes;

use stead_types::TenantNumber;

use super::{Order, Rows, RowsMut, Unreadable, kind, prefix::prefix_end};
use crate::{
    codec::{Malformed, Reader, Writer},
    directory::{
        ApplyOutput, AuditRecord, BulkMoveItem, Directory, DirectoryChange, Operation, PromotionItem, TenantEvidence,
    },
};

const META: u8 = 0;
const AUDIT: u8 = 16;
const OPERATION: u8 = 17;
const ITEM: u8 = 18;
const PROMOTION_ITEM: u8 = 19;
const CALLS: u8 = 20;
const EVIDENCE: u8 = 21;
const SENT_REPORTS: u8 = 22;

fn key(rest: &[u8]) -> Bytes {
    let mut key = Writer::with_capacity(1 + rest.len());
    key.u8(kind::DIRECTORY).raw(rest);
    key.finish()
}

fn audit_key(record: &AuditRecord) -> Bytes {
    numbered_key(if record.is_of_calls { CALLS } else { AUDIT }, record.number)
}

fn operation_key(id: u64) -> Bytes {
    numbered_key(OPERATION, id)
}

fn item_key(row: u8, id: u64, tenant: TenantNumber) -> Bytes {
    let mut key = Writer::with_capacity(18);
    key.u8(kind::DIRECTORY).u8(row).u64(id).u64(tenant.get());
    key.finish()
}

/// Reads an [`item_key`].
fn item_of(key: &Bytes) -> Result<(u64, TenantNumber), Malformed> {
    let mut r = Reader::new(key.slice(2..), "key of a tenant of an operation");
    let item = (r.u64()?, TenantNumber::new(r.u64()?));
    r.end()?;
    Ok(item)
}

fn numbered_key(row: u8, number: u64) -> Bytes {
    let mut key = Writer::with_capacity(10);
    key.u8(kind::DIRECTORY).u8(row).u64(number);
    key.finish()
}

/// Writes the changes of applying a command.
pub fn write(rows: &mut dyn RowsMut, directory: &Directory, applied: &ApplyOutput) {
    for change in &applied.changes {
        if change.is_removal() {
            rows.delete(key(&change.identity()));
        } else {
            rows.put(key(&change.identity()), change.encode());
        }
    }
    for record in &applied.audit.records {
        rows.put(audit_key(record), record.encode());
    }
    for record in &applied.audit.dropped {
        rows.delete(audit_key(record));
    }
    for id in &applied.operations {
        match directory.operations().get(*id) {
            Some(operation) => rows.put(operation_key(*id), operation.encode()),
            None => rows.delete(operation_key(*id)),
        }
    }
    for (id, tenant) in &applied.items {
        match directory.operations().item(*id, *tenant) {
            Some(item) => rows.put(item_key(ITEM, *id, *tenant), item.encode()),
            None => rows.delete(item_key(ITEM, *id, *tenant)),
        }
    }
    for (id, tenant) in &applied.promotion_items {
        match directory.operations().promotions().get(*id, *tenant) {
            Some(item) => rows.put(item_key(PROMOTION_ITEM, *id, *tenant), item.encode()),
            None => rows.delete(item_key(PROMOTION_ITEM, *id, *tenant)),
        }
    }
    for tenant in &applied.evidence {
        let key = numbered_key(EVIDENCE, tenant.get());
        match directory.evidence().tenant(*tenant) {
            Some(evidence) => rows.put(key, evidence.encode()),
            None => rows.delete(key),
        }
    }
    if !applied.evidence.is_empty() {
        rows.put(key(&[SENT_REPORTS]), directory.encode_sent_reports());
    }
    write_meta(rows, directory);
}

/// Writes the version and the counters, after an entry.
pub fn write_meta(rows: &mut dyn RowsMut, directory: &Directory) {
    rows.put(key(&[META]), directory.encode_meta());
}

/// Returns every row of a directory: the content of a snapshot.
pub fn all(directory: &Directory) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
    let meta = std::iter::once((key(&[META]), directory.encode_meta()));
    let things = directory.view().as_changes();
    let things = things.map(|thing| (key(&thing.identity()), thing.encode()));
    let records = directory.audit().newest_first();
    let records = records.map(|record| (audit_key(record), record.encode()));
    let (calls, records): (Vec<_>, Vec<_>) = records.partition(|(key, _)| key.get(1) == Some(&CALLS));
    let (records, calls) = (records.into_iter().rev(), calls.into_iter().rev());
    let operations = directory.operations().newest_first(None);
    let operations = operations.map(|operation| (operation_key(operation.id), operation.encode()));
    let items = directory.operations().all_items();
    let items = items.map(|((id, tenant), item)| (item_key(ITEM, *id, *tenant), item.encode()));
    let promoted = directory.operations().promotions().all();
    let promoted = promoted.map(|((id, tenant), item)| (item_key(PROMOTION_ITEM, *id, *tenant), item.encode()));
    let evidence = directory.evidence().from(TenantNumber::new(0));
    let evidence = evidence.map(|(tenant, of)| (numbered_key(EVIDENCE, tenant.get()), of.encode()));
    let reports = directory
        .has_evidence()
        .then(|| (key(&[SENT_REPORTS]), directory.encode_sent_reports()));
    let operations = operations
        .chain(items)
        .chain(promoted)
        .chain(calls)
        .chain(evidence)
        .chain(reports);
    meta.chain(things).chain(records).chain(operations)
}

/// Restores one row.
pub fn read(directory: &mut Directory, row: &(Bytes, Bytes)) -> Result<(), Malformed> {
    let (key, value) = row;
    match key.get(1).copied() {
        Some(META) => directory.decode_meta(value.clone()),
        Some(AUDIT) => {
            directory.restore_record(AuditRecord::decode(value.clone(), false)?);
            Ok(())
        }
        Some(CALLS) => {
            directory.restore_record(AuditRecord::decode(value.clone(), true)?);
            Ok(())
        }
        Some(OPERATION) => {
            directory.restore_operation(Operation::decode(value.clone())?);
            Ok(())
        }
        Some(ITEM) => {
            let (id, tenant) = item_of(key)?;
            directory.restore_item(id, tenant, BulkMoveItem::decode(value.clone())?);
            Ok(())
        }
        Some(PROMOTION_ITEM) => {
            let (id, tenant) = item_of(key)?;
            directory.restore_promotion_item(id, tenant, PromotionItem::decode(value.clone())?);
            Ok(())
        }
        Some(EVIDENCE) => {
            let mut r = Reader::new(key.slice(2..), "key of residency evidence");
            let tenant = TenantNumber::new(r.u64()?);
            directory.restore_evidence(tenant, TenantEvidence::decode(value.clone())?);
            r.end()
        }
        Some(SENT_REPORTS) => directory.decode_sent_reports(value.clone()),
        Some(1..AUDIT) => {
            directory.restore(DirectoryChange::decode(value.clone())?);
            Ok(())
        }
        Some(_) | None => Err(Malformed { what: "directory row" }),
    }
}

/// Reads a directory; a new one if there are no rows.
pub fn load(rows: &dyn Rows) -> Result<Directory, Unreadable> {
    let mut directory = Directory::default();
    let start = [kind::DIRECTORY];
    for row in rows.range(&start[..]..&prefix_end(&start), Order::Ascending) {
        read(&mut directory, &row?)?;
    }
    Ok(directory)
}
