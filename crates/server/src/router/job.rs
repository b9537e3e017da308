//! Operation whose tenant is resolved.

use std::sync::Arc;

use stead_state::directory::Tenant;
use stead_types::Error;
use tokio::time::Instant;

use super::{call::Call, rejections};

/// An operation whose tenant is resolved.
pub(super) struct Job<R> {
    /// The operation on its way.
    pub(super) call: Call,
    /// Its tenant, as the directory view had it when the operation was routed.
    pub(super) tenant: Arc<Tenant>,
    /// The validated read or write.
    pub(super) request: R,
}

impl<R> Job<R> {
    /// Fails if the call was cancelled or has exceeded its deadline.
    pub(super) fn check_active(&self) -> Result<(), Error> {
        if self.call.responder.is_abandoned() {
            return Err(rejections::cancelled());
        }
        if self.call.deadline <= Instant::now() {
            return Err(rejections::deadline_exceeded());
        }
        Ok(())
    }
}
