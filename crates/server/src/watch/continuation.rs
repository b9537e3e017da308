//! Continuation of a watch whose copy is no longer served where it was: the node that was asked begins it again after
//! what it has sent, at the replica that has the tenant now. Its caller notices nothing.
//!
//! # Invariants
//!
//! 1. Events are passed on once, in their order, also where an attempt ends in the middle of a revision: every replica
//!    makes the same events of a revision, so those that were sent are skipped by their number.
//! 2. Only a failure that another attempt may not meet is hidden, and for [`RETRY_MAX`] at most. Before its beginning,
//!    and during its initial state, a watch is not continued: its caller begins it again.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use stead_api::{
    proto::v1::{WatchCreate, WatchEnded, WatchResponse, watch_create::From, watch_response::Response},
    status,
};
use stead_types::ErrorKind;
use tokio::time::{Instant, sleep};

use super::Messages;

/// Longest time without success in which a watch is begun again; then its caller gets the last error.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Backoff before the second attempt, doubled; the first one comes at once.
const RETRY_WAIT_FIRST: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);
/// Time after which an attempt counts as a success.
const STABLE_MIN: Duration = Duration::from_secs(1);

/// Returns the messages of a watch that goes on when an attempt ends.
pub(super) fn continued(create: WatchCreate, attempt: impl Fn(WatchCreate) -> Messages + Send + 'static) -> Messages {
    let continuation = Continuation {
        messages: Some(attempt(create.clone())),
        attempt: Box::new(attempt),
        create,
        point: ResumePoint::default(),
        began: None,
        failing: None,
    };
    let messages = stream::unfold(continuation, |mut continuation| async move {
        let message = continuation.next().await?;
        Some((message, continuation))
    });
    messages.boxed()
}

struct Continuation {
    create: WatchCreate,
    attempt: Box<dyn Fn(WatchCreate) -> Messages + Send>,
    /// Messages of the running attempt; `None` after the end.
    messages: Option<Messages>,
    point: ResumePoint,
    /// When the running attempt began.
    began: Option<Instant>,
    failing: Option<Failing>,
}

/// Attempts that failed, one after the other.
#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    wait: Duration,
}

impl Continuation {
    async fn next(&mut self) -> Option<WatchResponse> {
        loop {
            let mut message = self.messages.as_mut()?.next().await?;
            let Some(Response::Ended(ended)) = &message.response else {
                self.began.get_or_insert_with(Instant::now);
                if let Some(message) = self.point.pass(message) {
                    return Some(message);
                }
                continue;
            };
            self.messages = None;
            let resumed = self.point.resume(&self.create).filter(|_| may_pass(ended));
            let Some((create, wait)) = resumed.zip(self.next_wait(Instant::now())) else {
                // Of an attempt at another node that was lost, the end has none.
                if message.resume_token.is_empty() {
                    message.resume_token = self.point.token.clone();
                }
                return Some(message);
            };
            sleep(wait).await;
            self.messages = Some((self.attempt)(create));
        }
    }

    /// Returns the backoff after a failure; `None` once there were failures for too long.
    fn next_wait(&mut self, now: Instant) -> Option<Duration> {
        if self.began.take().is_some_and(|began| now - began >= STABLE_MIN) {
            self.failing = None;
        }
        let Some(failing) = &mut self.failing else {
            self.failing = Some(Failing {
                since: now,
                wait: RETRY_WAIT_FIRST,
            });
            return Some(Duration::ZERO);
        };
        let wait = failing.wait;
        failing.wait = (wait * 2).min(RETRY_WAIT_MAX);
        (now - failing.since < RETRY_MAX).then_some(wait)
    }
}

/// Tells whether another attempt may not meet the error.
fn may_pass(ended: &WatchEnded) -> bool {
    let kind = ended
        .error
        .clone()
        .map(|error| status::from_operation_error(error).kind);
    matches!(
        kind,
        Some(ErrorKind::TenantMoving | ErrorKind::Unavailable | ErrorKind::NoLeader | ErrorKind::NoLease)
    )
}

/// Position up to which the caller of a watch has seen everything.
#[derive(Default)]
struct ResumePoint {
    has_begun: bool,
    /// Token after which everything was sent, but for `sent`; empty before there is one.
    token: Bytes,
    /// Number of events sent after the token's revision.
    sent: usize,
    /// Number of events that the running attempt repeats.
    repeated: usize,
}

impl ResumePoint {
    /// Returns the request that goes on from here; `None` if none can.
    fn resume(&mut self, create: &WatchCreate) -> Option<WatchCreate> {
        if self.token.is_empty() {
            return None;
        }
        self.repeated = self.sent;
        Some(WatchCreate {
            from: Some(From::ResumeToken(self.token.clone())),
            initial_state: false,
            ..create.clone()
        })
    }

    /// Records a message, without what the caller has; `None` if that is all of it.
    fn pass(&mut self, mut message: WatchResponse) -> Option<WatchResponse> {
        match &mut message.response {
            Some(Response::Created(_)) if std::mem::replace(&mut self.has_begun, true) => return None,
            Some(Response::Events(events)) => {
                let repeated = self.repeated.min(events.events.len());
                events.events.drain(..repeated);
                self.repeated -= repeated;
                if events.events.is_empty() {
                    return None;
                }
                self.sent += events.events.len();
            }
            // Its token is that before the revision of which a part was sent.
            Some(Response::Progress(_)) if self.sent > 0 => return Some(message),
            Some(Response::Created(_) | Response::State(_) | Response::Progress(_) | Response::Ended(_)) | None => {}
        }
        if !message.resume_token.is_empty() {
            self.token = message.resume_token.clone();
            (self.sent, self.repeated) = (0, 0);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use parking_lot::Mutex;
    use stead_api::proto::v1::{Event, KeyValue, WatchCreated, WatchEvents, WatchProgress, WatchState};
    use stead_types::Error;

    use super::{super::ended, *};

    fn message(token: &'static str, response: Response) -> WatchResponse {
        WatchResponse {
            id: 1,
            resume_token: token.into(),
            response: Some(response),
            ..WatchResponse::default()
        }
    }

    fn created(token: &'static str) -> WatchResponse {
        message(token, Response::Created(WatchCreated {}))
    }

    /// Returns a message of events; without a token more events of its last revision follow.
    fn events(token: &'static str, keys: &[&'static str]) -> WatchResponse {
        let event = |key: &&'static str| Event {
            item: Some(KeyValue {
                key: Bytes::from(*key),
                ..KeyValue::default()
            }),
            ..Event::default()
        };
        let events = WatchEvents {
            events: keys.iter().map(event).collect(),
            more: token.is_empty(),
        };
        message(token, Response::Events(events))
    }

    fn state(token: &'static str, more: bool) -> WatchResponse {
        let items = Vec::new();
        message(token, Response::State(WatchState { items, more }))
    }

    fn progress(token: &'static str) -> WatchResponse {
        message(token, Response::Progress(WatchProgress {}))
    }

    fn failed(kind: ErrorKind) -> WatchResponse {
        ended(1, Some(&Error::new(kind, "made by a test")))
    }

    fn moving() -> WatchResponse {
        failed(ErrorKind::TenantMoving)
    }

    fn shown(message: &WatchResponse) -> String {
        match message.response.clone().unwrap() {
            Response::Created(_) => "created".into(),
            Response::State(_) => "state".into(),
            Response::Progress(_) => "progress".into(),
            Response::Events(events) => {
                let key = |event: Event| String::from_utf8(event.item.unwrap().key.to_vec()).unwrap();
                events.events.into_iter().map(key).collect::<Vec<_>>().join(" ")
            }
            Response::Ended(ended) => match ended.error {
                Some(error) => format!("{:?}", status::from_operation_error(error).kind),
                None => "cancelled".into(),
            },
        }
    }

    /// Runs a watch whose attempts send these messages; returns what its caller gets, and where each attempt began.
    async fn run(first: WatchCreate, attempts: Vec<Vec<WatchResponse>>) -> (Vec<String>, Vec<String>) {
        let attempts = Mutex::new(VecDeque::from(attempts));
        let begun = Arc::new(Mutex::new(Vec::new()));
        let log = begun.clone();
        let messages = continued(first, move |create| {
            let from = if let Some(From::ResumeToken(token)) = create.from {
                String::from_utf8(token.to_vec()).unwrap()
            } else if create.initial_state {
                "state".into()
            } else {
                "now".into()
            };
            log.lock().push(from);
            let next = attempts.lock().pop_front().unwrap_or_else(|| vec![moving()]);
            stream::iter(next).boxed()
        });
        let got = messages.map(|message| shown(&message)).collect().await;
        let begun = begun.lock().clone();
        (got, begun)
    }

    fn now() -> WatchCreate {
        WatchCreate::default()
    }

    #[tokio::test(start_paused = true)]
    async fn watch_goes_on_after_its_last_message() {
        let attempts = vec![
            vec![created("t0"), events("t1", &["a", "b"]), moving()],
            vec![failed(ErrorKind::NoLeader)],
            vec![
                created("t1"),
                events("t2", &["c"]),
                progress("t3"),
                failed(ErrorKind::Unavailable),
            ],
            vec![created("t3"), events("t4", &["d"]), ended(1, None)],
        ];
        let (got, begun) = run(now(), attempts).await;
        assert_eq!(got, ["created", "a b", "c", "progress", "d", "cancelled"]);
        assert_eq!(begun, ["now", "t1", "t1", "t3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn watch_cut_inside_revision_repeats_no_event() {
        // Invariant 1: the second attempt fails inside it too, and messages end elsewhere.
        let attempts = vec![
            vec![created("t0"), events("", &["a1", "b1", "b2"]), moving()],
            vec![
                created("t0"),
                events("", &["a1"]),
                progress("t0"),
                events("", &["b1", "b2", "b3"]),
                moving(),
            ],
            vec![
                created("t0"),
                events("", &["a1", "b1", "b2", "b3"]),
                events("t2", &["b4"]),
                moving(),
            ],
            vec![created("t2"), events("t3", &["c"]), ended(1, None)],
        ];
        let (got, begun) = run(now(), attempts).await;
        assert_eq!(got, ["created", "a1 b1 b2", "progress", "b3", "b4", "c", "cancelled"]);
        assert_eq!(begun, ["now", "t0", "t0", "t2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn final_errors_and_unbegun_watches_end() {
        // Invariant 2.
        let compacted = ErrorKind::Compacted {
            oldest: "1.7".parse().unwrap(),
        };
        let (got, _) = run(now(), vec![vec![created("t0"), failed(compacted.clone())]]).await;
        assert_eq!(got, ["created".to_owned(), format!("{compacted:?}")]);
        let (got, begun) = run(now(), vec![vec![moving()], vec![created("t0")]]).await;
        assert_eq!((got.len(), begun.len()), (1, 1), "it has not begun");
        let from_state = || WatchCreate {
            initial_state: true,
            ..now()
        };
        let attempts = vec![vec![created(""), state("", true), moving()]];
        let (got, _) = run(from_state(), attempts).await;
        assert_eq!(got, ["created", "state", "TenantMoving"]);
        let attempts = vec![
            vec![created(""), state("t5", false), moving()],
            vec![created("t5"), events("t6", &["a"]), ended(1, None)],
        ];
        let (got, begun) = run(from_state(), attempts).await;
        assert_eq!(got, ["created", "state", "a", "cancelled"]);
        assert_eq!(begun, ["state", "t5"]);
    }

    #[tokio::test(start_paused = true)]
    async fn watch_that_cannot_go_on_ends_in_time() {
        let asked = Instant::now();
        let (got, begun) = run(now(), vec![vec![created("t0"), moving()]]).await;
        assert_eq!(got, ["created", "TenantMoving"]);
        assert!(
            (RETRY_MAX..2 * RETRY_MAX).contains(&asked.elapsed()),
            "{:?}",
            asked.elapsed()
        );
        assert!(begun.len() < 20, "{} attempts", begun.len());
        // One that begins each time, and fails at once, is no success either.
        let flapping = std::iter::repeat_with(|| vec![created("t0"), moving()]).take(100);
        let (got, begun) = run(now(), flapping.collect()).await;
        assert_eq!(got, ["created", "TenantMoving"]);
        assert!(begun.len() < 20, "{} attempts", begun.len());
    }

    #[tokio::test(start_paused = true)]
    async fn end_of_attempt_without_token_has_last_token_of_watch() {
        let attempts = Mutex::new(VecDeque::from([vec![created("t0"), events("t1", &["a"]), moving()]]));
        let messages = continued(now(), move |_| {
            let next = attempts.lock().pop_front().unwrap_or_else(|| vec![moving()]);
            stream::iter(next).boxed()
        });
        let last = messages.fold(None, async |_, message| Some(message)).await.unwrap();
        assert_eq!(
            (shown(&last).as_str(), &last.resume_token[..]),
            ("TenantMoving", &b"t1"[..])
        );
    }
}
