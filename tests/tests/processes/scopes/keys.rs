//! Rows of keys and routes.

use stead_api::{
    message_codec::MessageCodec,
    proto::v1::{self, operation},
};

use super::{
    call::{answered, call, of_pipeline, of_watch},
    messages::*,
    table::{Row, row},
};

pub(super) fn reads() -> Vec<Row> {
    vec![
        row!("stead.v1.KvService/Get", "RrxZ", get("acme", "a/1")),
        row!("stead.v1.KvService/Get", "RZ", get("acme", "b")),
        row!("stead.v1.KvService/Get", "RZ", get("acme", "a")),
        row!("stead.v1.KvService/Get", "", get("other", "a/1")),
        row!("stead.v1.KvService/BatchGet", "RrxZ", batch_get(&["a/1", "a/2"])),
        row!("stead.v1.KvService/BatchGet", "RZ", batch_get(&["a/1", "b"])),
        row!("stead.v1.KvService/Scan", "RrxZ", scan("a/", false)),
        row!("stead.v1.KvService/Scan", "RZ", scan("", false)),
        row!("stead.v1.KvService/Scan", "RrxZ", scan("a/", true)),
        row!("stead.v1.KvService/Scan", "RZ", scan("", true)),
        row!("stead.v1.KvService/ScanStream", "RrxZ", scan_stream("a/")),
        row!("stead.v1.KvService/ScanStream", "RZ", scan_stream("")),
    ]
}

pub(super) fn writes() -> Vec<Row> {
    vec![
        row!("stead.v1.KvService/Put", "WwxZ", put("a/1", false)),
        row!("stead.v1.KvService/Put", "WZ", put("b", false)),
        row!("stead.v1.KvService/Put", "xZ", put("a/1", true)),
        row!("stead.v1.KvService/Put", "Z", put("b", true)),
        row!("stead.v1.KvService/Delete", "WwxZ", delete("a/9", false)),
        row!("stead.v1.KvService/Delete", "xZ", delete("a/9", true)),
        row!("stead.v1.KvService/Increment", "xZ", increment("a/1")),
        row!("stead.v1.KvService/Increment", "Z", increment("b")),
        row!("stead.v1.KvService/Append", "xZ", append("a/2")),
        row!("stead.v1.KvService/Append", "Z", append("b/2")),
        row!("stead.v1.KvService/DeleteRange", "WwxZ", delete_range("a/9")),
        row!("stead.v1.KvService/DeleteRange", "WZ", delete_range("b/9")),
        row!(
            "stead.v1.KvService/Txn",
            "RrxZ",
            txn(vec![], vec![step_get("a/1")], vec![])
        ),
        row!(
            "stead.v1.KvService/Txn",
            "WwxZ",
            txn(vec![], vec![step_put("a/1")], vec![])
        ),
        // Both lists count, whichever runs, and what is compared.
        row!(
            "stead.v1.KvService/Txn",
            "RZ",
            txn(vec![], vec![step_get("a/1")], vec![step_get("b")])
        ),
        row!(
            "stead.v1.KvService/Txn",
            "WZ",
            txn(vec![], vec![step_put("a/1")], vec![step_put("b")])
        ),
        row!(
            "stead.v1.KvService/Txn",
            "xZ",
            txn(vec![compare("a/1")], vec![step_put("a/1")], vec![])
        ),
        row!(
            "stead.v1.KvService/Txn",
            "Z",
            txn(vec![compare("b")], vec![step_put("a/1")], vec![])
        ),
    ]
}

pub(super) fn streams() -> Vec<Row> {
    use operation::Request::{Get, Put, Scan};
    vec![
        row!(
            "stead.v1.KvService/Pipeline",
            "RrxZ",
            pipeline(Get(get("acme", "a/1"))),
            of_pipeline
        ),
        row!(
            "stead.v1.KvService/Pipeline",
            "RZ",
            pipeline(Get(get("acme", "b"))),
            of_pipeline
        ),
        row!(
            "stead.v1.KvService/Pipeline",
            "",
            pipeline(Get(get("other", "b"))),
            of_pipeline
        ),
        row!(
            "stead.v1.KvService/Pipeline",
            "RZ",
            pipeline(Scan(scan("", true))),
            of_pipeline
        ),
        row!(
            "stead.v1.KvService/Pipeline",
            "WwxZ",
            pipeline(Put(put("a/1", false))),
            of_pipeline
        ),
        row!(
            "stead.v1.KvService/Pipeline",
            "Z",
            pipeline(Put(put("b", true))),
            of_pipeline
        ),
        row!("stead.v1.KvService/Watch", "RrxZ", watch("acme", "a/", true), of_watch),
        row!("stead.v1.KvService/Watch", "RZ", watch("acme", "", true), of_watch),
        row!("stead.v1.KvService/Watch", "", watch("other", "a/", true), of_watch),
    ]
}

pub(super) fn routes() -> Vec<Row> {
    vec![
        row!(
            "stead.v1.DirectoryService/Lookup",
            "RrWwxAZOPCU",
            v1::LookupRequest { tenant: acme() }
        ),
        row!(
            "stead.v1.DirectoryService/Lookup",
            "BOPCU",
            v1::LookupRequest {
                tenant: "other".to_owned()
            }
        ),
        // Whoever has any role is answered, about the tenants that it may know of: see `lists_show_what_a_role_may_see`.
        row!(
            "stead.v1.DirectoryService/BatchLookup",
            "RrWwxABZOPCU",
            v1::BatchLookupRequest { tenants: vec![acme()] }
        ),
        row!(
            "stead.v1.DirectoryService/Watch",
            "RrWwxABZOPCU",
            v1::DirectoryServiceWatchRequest::default()
        ),
        row!("stead.v1.ReceiptService/CheckReceipts", "RrWwxAZOPCU", receipts("acme")),
        row!("stead.v1.ReceiptService/CheckReceipts", "BOPCU", receipts("other")),
    ]
}
