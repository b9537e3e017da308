//! Transactions and range deletes of the mock node, as far as the tests need them.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use stead_api::proto::v1::{
    self, compare::Target, txn_operation::Operation as OperationRequest, txn_result::Result as OperationResponse,
};
use stead_types::Error;

use super::service::{Service, item};

/// Keys of one part of a range delete, so that small ranges have several parts.
const PART_SIZE: usize = 2;

impl Service {
    /// Supports conditions on existence and on the creating revision; gets, puts and deletes.
    pub(super) fn txn(&self, txn: v1::TxnRequest) -> Result<v1::TxnResponse, Error> {
        let row = |key: &Bytes| self.store.rows.lock().get(&(txn.tenant.clone(), key.clone())).cloned();
        let holds = |compare: &v1::Compare| match (&compare.target, row(&compare.key)) {
            (Some(Target::Exists(exists)), row) => *exists == row.is_some(),
            (Some(Target::CreateRevision(made)), Some((_, sequence))) => made.sequence == sequence,
            (_, _) => false,
        };
        let succeeded = txn.compares.iter().all(holds);
        let list = if succeeded { txn.then } else { txn.otherwise };
        let list: Vec<OperationRequest> = list.into_iter().map(|operation| operation.operation.unwrap()).collect();
        let is_read = list
            .iter()
            .all(|operation| matches!(operation, OperationRequest::Get(_)));
        let results = list.iter().map(|operation| match operation {
            OperationRequest::Get(get) => OperationResponse::Get(v1::txn_result::Get {
                item: row(&get.key).map(|(value, sequence)| item(get.key.clone(), value, sequence)),
            }),
            OperationRequest::Delete(delete) => OperationResponse::Delete(v1::txn_result::Delete {
                deleted: row(&delete.key).is_some(),
                previous: None,
            }),
            OperationRequest::Put(_) | OperationRequest::Increment(_) | OperationRequest::Append(_) => {
                OperationResponse::Put(v1::txn_result::Put::default())
            }
        });
        let results = results.map(|result| v1::TxnResult { result: Some(result) }).collect();
        let effect = |sequence| {
            let mut rows = self.store.rows.lock();
            for operation in list {
                match operation {
                    OperationRequest::Put(put) => {
                        drop(rows.insert((txn.tenant.clone(), put.key), (put.value, sequence)))
                    }
                    OperationRequest::Delete(delete) => drop(rows.remove(&(txn.tenant.clone(), delete.key))),
                    OperationRequest::Get(_) | OperationRequest::Increment(_) | OperationRequest::Append(_) => {}
                }
            }
        };
        let (sequence, repeated_outcome) = if is_read {
            (self.store.sequence.load(SeqCst), false)
        } else {
            self.write(txn.idempotency_key, effect)?
        };
        Ok(v1::TxnResponse {
            header: self.header(sequence),
            succeeded,
            results,
            not_admitted: None,
            repeated_outcome,
        })
    }

    /// Deletes one part of the keys that are no newer than the first part.
    pub(super) fn delete_range(&self, range: v1::DeleteRangeRequest) -> Result<v1::DeleteRangeResponse, Error> {
        let (sequence, repeated_outcome) = self.write(range.idempotency_key, |_| {})?;
        let mut rows = self.store.rows.lock();
        let found = rows.iter().filter(|(_, (_, at))| *at <= sequence);
        let found: Vec<_> = found.map(|(key, _)| key.clone()).collect();
        let part: Vec<_> = found.iter().take(PART_SIZE).collect();
        for key in &part {
            rows.remove(*key);
        }
        Ok(v1::DeleteRangeResponse {
            header: self.header(sequence),
            deleted: part.len() as u64,
            changes: 1,
            incomplete: found.len() > part.len(),
            repeated_outcome,
        })
    }
}
