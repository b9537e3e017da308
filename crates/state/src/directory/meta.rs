//! Rows of a directory beside its objects: counters, version and first nodes, and what is restored from rows.

use stead_types::{Incarnation, TenantNumber};

use super::{
    AuditRecord, BulkMoveItem, Directory, DirectoryChange, InitialCluster, Operation, PromotionItem, TenantEvidence,
    command::{decode_version, encode_version},
    fences::FenceHistory,
};
use crate::codec::{Malformed, Reader, Writer};

impl Directory {
    /// Writes the counters, the version and the first nodes.
    pub(crate) fn encode_meta(&self) -> bytes::Bytes {
        let mut w = Writer::default();
        encode_version(&mut w, self.view.version());
        w.varint(u64::from(self.incarnation.0));
        w.option(self.initial.as_ref(), |w, initial| initial.encode(w));
        w.varint(self.next_tenant)
            .varint(self.next_node)
            .varint(u64::from(self.next_group));
        w.option(self.refresh_members_from, |w, from| {
            w.varint(from.get());
        });
        // An earlier version reads the row up to here, and writes nothing after it.
        if self.next_operation > 1 {
            w.varint(self.next_operation);
        }
        w.finish()
    }

    /// Reads what [`Directory::encode_meta`] wrote.
    pub(crate) fn decode_meta(&mut self, bytes: bytes::Bytes) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes, "directory counters");
        self.view.reach(decode_version(&mut r)?);
        self.incarnation = Incarnation(r.varint_u32()?);
        self.initial = r.option(InitialCluster::decode)?;
        self.next_tenant = r.varint()?;
        self.next_node = r.varint()?;
        self.next_group = r.varint_u32()?;
        self.refresh_members_from = r.option(|r| r.varint().map(TenantNumber::new))?;
        if !r.is_empty() {
            self.next_operation = r.varint()?;
        }
        self.fences = FenceHistory::after(self.view.version().index);
        r.end()
    }

    /// Restores an object from a row.
    pub(crate) fn restore(&mut self, thing: DirectoryChange) {
        self.view.apply(thing);
    }

    /// Restores an operation from a row.
    pub(crate) fn restore_operation(&mut self, operation: Operation) {
        self.operations.put(operation);
    }

    /// Restores a tenant of a bulk move from a row; rows of operations come before.
    pub(crate) fn restore_item(&mut self, id: u64, tenant: TenantNumber, item: BulkMoveItem) {
        self.operations.put_item(id, tenant, item);
    }

    /// Restores a tenant of a promotion from a row; rows of operations come before.
    pub(crate) fn restore_promotion_item(&mut self, id: u64, tenant: TenantNumber, item: PromotionItem) {
        self.operations.put_promotion_item(id, tenant, item);
    }

    /// Restores the residency evidence of a tenant from a row.
    pub(crate) fn restore_evidence(&mut self, tenant: TenantNumber, evidence: TenantEvidence) {
        self.evidence.restore(tenant, evidence);
    }

    /// Writes the numbers of the last reports of nodes about what they have sent.
    pub(crate) fn encode_sent_reports(&self) -> bytes::Bytes {
        self.evidence.encode_reports()
    }

    /// Reads what [`Directory::encode_sent_reports`] wrote.
    pub(crate) fn decode_sent_reports(&mut self, bytes: bytes::Bytes) -> Result<(), Malformed> {
        self.evidence.decode_reports(bytes)
    }

    /// Restores an audit record from a row; rows come in the order of numbers.
    pub(crate) fn restore_record(&mut self, record: AuditRecord) {
        drop(self.audit.push(record));
    }
}
