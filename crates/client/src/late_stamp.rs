//! Stamp of a write that was sent before the client knew any time of its tenant.
//!
//! Without a stamp the outcome of a write can be asked for only until the tenant forgets its first outcome. So the tenant's
//! time is read from the nearest copy while the first attempt is under way, and the write gets a stamp once an attempt may
//! have happened. The read begins late enough that a write that succeeds at once costs none.

use std::{pin::Pin, time::Duration};

use stead_api::proto::v1;
use stead_types::{ErrorKind, TenantTime};
use tokio::{select, time::Instant};

use crate::{cluster_map::NodePreference, failure::AttemptFailure, retry, session::TenantSession, state::ClientState};

/// Time after which an attempt without an answer makes the client read the tenant's time.
const READ_AFTER: Duration = Duration::from_millis(100);
/// Longest time for the read.
const READ_TIME_MAX: Duration = Duration::from_secs(1);

/// Time of a tenant that is found out while a write without a stamp is under way.
pub(crate) struct LateStamp<'a> {
    state: &'a ClientState,
    session: &'a TenantSession,
    begun: Instant,
    deadline: Instant,
    reading: Option<Pin<Box<dyn Future<Output = TenantTime> + Send + 'a>>>,
    /// Time that the tenant had not passed when the write was sent first, by the read; 0: none was read. It is worked out
    /// when the read ends: an attempt that fails late would take more off than the whole time of a young tenant.
    first_sent: TenantTime,
}

impl<'a> LateStamp<'a> {
    pub(crate) fn new(state: &'a ClientState, session: &'a TenantSession, deadline: Instant) -> Self {
        let begun = Instant::now();
        let after = READ_AFTER.min(deadline.saturating_duration_since(begun) / 4);
        let reading = async move {
            tokio::time::sleep_until(begun + after).await;
            read_time(state, session, deadline).await
        };
        Self {
            state,
            session,
            begun,
            deadline,
            reading: Some(Box::pin(reading)),
            first_sent: TenantTime(0),
        }
    }

    /// Waits for an attempt, and reads the tenant's time meanwhile.
    pub(crate) async fn during<T>(&mut self, attempt: impl Future<Output = T>) -> T {
        let mut attempt = std::pin::pin!(attempt);
        if let Some(reading) = &mut self.reading {
            select! {
                biased;
                outcome = &mut attempt => return outcome,
                time = reading => self.first_sent = retry::first_sent(time, self.begun.elapsed()),
            }
            self.reading = None;
        }
        attempt.await
    }

    /// Returns a time that the tenant cannot have passed when the write was sent first, from a refusal, another answer
    /// meanwhile or the nearest copy; `None`: no time of the tenant was found.
    pub(crate) async fn find(&mut self, failure: &AttemptFailure) -> Option<TenantTime> {
        let first_sent = if let ErrorKind::IdempotencyExpired { now, .. } = failure.error().kind {
            retry::first_sent(now, self.begun.elapsed())
        } else {
            self.find_first_sent().await
        };
        (first_sent > TenantTime(0)).then_some(first_sent)
    }

    async fn find_first_sent(&mut self) -> TenantTime {
        if let Some(reading) = self.reading.take() {
            self.first_sent = retry::first_sent(reading.await, self.begun.elapsed());
        }
        let known = self
            .first_sent
            .max(retry::first_sent(self.session.time(), self.begun.elapsed()));
        if known > TenantTime(0) {
            return known;
        }
        let time = read_time(self.state, self.session, self.deadline).await;
        retry::first_sent(time, self.begun.elapsed())
    }
}

/// Reads a tenant's time from the nearest copy; 0 if none tells it at once.
async fn read_time(state: &ClientState, session: &TenantSession, deadline: Instant) -> TenantTime {
    let local = v1::consistency::Level::Local(v1::consistency::Local {});
    let read = v1::GetRequest {
        tenant: session.tenant.to_string(),
        key: bytes::Bytes::from_static(b"time"),
        consistency: Some(v1::Consistency { level: Some(local) }),
        ..v1::GetRequest::default()
    };
    let Ok(node) = state.pick(NodePreference::Nearest, &[]) else {
        return TenantTime(0);
    };
    let until = deadline.min(Instant::now() + READ_TIME_MAX);
    let answer = node.pipeline.call(v1::operation::Request::Get(read), until).await;
    let header = match answer {
        Ok(v1::answer::Response::Get(got)) => got.header,
        Ok(_) | Err(_) => None,
    };
    header.map_or(TenantTime(0), |header| TenantTime(header.tenant_time_ms))
}
