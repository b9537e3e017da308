//! Test that `docs/errors.md` matches the table of errors.
//!
//! After a change of the table: `UPDATE_GENERATED=1 cargo test -p stead-api --test errors`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{fmt::Write, fs, path::Path};

use stead_api::status::{table, to_operation_error};
use stead_types::{Error, ErrorKind};

const HEAD: &str = "\
# Errors

A failed call carries a gRPC status, `google.rpc.ErrorInfo` with domain `stead`, a reason from this table and metadata,
and, where waiting helps, `google.rpc.RetryInfo` and the trailer `grpc-retry-pushback-ms`, which stock gRPC clients
honour. In a `Pipeline` the same stands in the operation's `OperationError`. Act on the reason and its metadata; the
message is for people and may change.

The trailers of a failed call have at most 4 KiB, because stock clients do not accept more than 8: a message that is too long
ends in `...`, and a list in the metadata, such as `endpoints`, keeps its first items.

Nothing happened, unless the last column says otherwise: such a request may be sent again as a new one. The Rust client
does that by itself as long as the deadline lasts, and it sends an idempotency key with every write, so that an unknown
outcome is asked for again and never written twice.

A status without `ErrorInfo` was made by a gRPC library, a proxy or the caller's own deadline, not by a node. Of a write it
says nothing: treat it as `OUTCOME_UNKNOWN`, whatever its code. And a reason speaks for its own attempt only: when a write
was sent before, a later attempt that is refused does not tell that the first one has not happened.

| reason | status | wait | metadata | what it means, what to do |
| --- | --- | --- | --- | --- |
";

const UNAUTHENTICATED: &str = "There is no credential, or one that does not count: the message names the file or the claim, never the credential. Nothing happened. Get a new token, or look at the clocks.";
const PERMISSION_DENIED: &str = "The caller has no role that allows it: the message names the one that is missing. Nothing happened. `stead auth whoami` shows the roles, a cluster operator grants them.";

fn meaning(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid { .. } => {
            "The request can never succeed as written: `field` is wrong, the message has the limit."
        }
        ErrorKind::NotHome { .. } => "Only with `x-stead-routing: direct`: another region is home. Ask there.",
        ErrorKind::Unauthenticated => UNAUTHENTICATED,
        ErrorKind::PermissionDenied => PERMISSION_DENIED,
        ErrorKind::TenantNotFound => {
            "No such tenant, also after the node has asked the directory for its newest state."
        }
        ErrorKind::NotFound => "No such region, node, group or operation.",
        ErrorKind::AlreadyExists => "The name is taken.",
        ErrorKind::KeyNotFound => {
            "The key does not exist where its absence is an error. A `Get` answers without an item instead."
        }
        ErrorKind::NoLeader => "The group that must answer is electing a leader. Send it again.",
        ErrorKind::NoLease => {
            "The group that was asked as the home may not serve the tenant: its node has no lease of the directory that counts, it does not own the tenant any more, or the directory has fenced it. Nothing happened. The message says since when there is no lease. Send it again; if it lasts, the node cannot reach the directory's leader: look at `stead region status` and at `/readyz?verbose` of the home's nodes."
        }
        ErrorKind::TenantMoving => "The tenant is between two homes. Send it again.",
        ErrorKind::Unavailable => {
            "The node is starting, stopping or overloaded. Send it again, to another node if there is one."
        }
        ErrorKind::OutcomeUnknown { .. } => {
            "**It may have happened.** Ask again with the same idempotency key: the first outcome is answered."
        }
        ErrorKind::Forked { .. } => {
            "A promotion cut what the session has seen. Drop the token, read again, and see what is missing."
        }
        ErrorKind::StaleBeyondBound { .. } => {
            "No replica that may answer is as fresh as asked. Ask the home, or allow more."
        }
        ErrorKind::Compacted { .. } => {
            "The revision is no longer kept. Read anew from the oldest one or the newest state."
        }
        ErrorKind::ConditionFailed { .. } => {
            "The precondition did not hold: the key's last change is `current_revision`, `0.0` if it does not exist. Read again, decide again."
        }
        ErrorKind::RateLimited { .. } => {
            "Too much at once: wait as long as the error says, or ask an operator to raise `limit`."
        }
        ErrorKind::QuotaExceeded { .. } => {
            "Full: `limit` is reached, and waiting does not help. Reads and deletes go on. Delete something, or ask an operator to raise it; for `stream.watches` open another stream."
        }
        ErrorKind::Residency { .. } => {
            "The tenant's policy does not admit the place. Choose another region, or change the policy."
        }
        ErrorKind::IdempotencyExpired { .. } => {
            "The key is outside the window in which outcomes are remembered. If the write was sent only once, by a library that retries by itself too, send it with a new key; else read, and decide anew."
        }
        ErrorKind::IdempotencyKeyMissing => {
            "**It may have happened.** The gRPC library has sent a write again that has no idempotency key; this attempt was not executed, an earlier one may have been. Read, and decide. Send an idempotency key with every write, or switch the library's retries off for those that have none."
        }
        ErrorKind::DurabilityUnmet { .. } => {
            "**It happened**: committed in the home region at `revision`; not confirmed in another region in time. Send it again with the same idempotency key to wait on; it happens once."
        }
        ErrorKind::DeadlineExceeded => "The deadline passed, or the caller cancelled, before anything happened.",
        ErrorKind::Conflict => {
            "The request contradicts the state: an etag, a step that is not due. Read again, decide again."
        }
        ErrorKind::NotCancellable => {
            "The operation has succeeded, or nothing can stop it any more. Reverse it by another one, such as a move back."
        }
        ErrorKind::Unimplemented => {
            "The node's version does not have what is asked for, such as `DeleteOperation`. A method that a node does not know is refused with this status, but without `ErrorInfo`."
        }
        ErrorKind::Internal => {
            "A bug or broken hardware; **what happened is not known**. Please report it with the node's log."
        }
    }
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    for kind in table::samples() {
        let row = table::row(&kind);
        let metadata = to_operation_error(&Error::new(kind.clone(), "")).metadata;
        let metadata: Vec<String> = metadata.keys().map(|name| format!("`{name}`")).collect();
        let wait = match (&kind, row.retry_after) {
            (ErrorKind::RateLimited { .. }, _) => "computed".to_owned(),
            (_, Some(wait)) => format!("{} ms", wait.as_millis()),
            (_, None) => String::new(),
        };
        let status = format!("{:?}", row.code);
        let (metadata, meaning) = (metadata.join(", "), meaning(&kind));
        writeln!(
            text,
            "| `{}` | {status} | {wait} | {metadata} | {meaning} |",
            row.reason
        )
        .unwrap();
    }
    text
}

#[test]
fn error_document_matches_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, document()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == document(),
        "docs/errors.md does not match the table: run with UPDATE_GENERATED=1"
    );
}
