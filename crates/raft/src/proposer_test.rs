//! Tests of the proposer's bounds and deadlines, without Raft.

use super::*;

fn proposer() -> Arc<Proposer<u32>> {
    let retry_delay = Duration::from_millis(10);
    let clock = Arc::new(GroupClock::fixed());
    Arc::new(Proposer::new(clock, Arc::default(), retry_delay, retry_delay))
}

fn commands(count: usize, len: usize) -> CommandBatch {
    let commands: Vec<Bytes> = (0..count).map(|_| Bytes::from(vec![1; len])).collect();
    let bytes = weight(&commands);
    CommandBatch { commands, bytes }
}

fn proposal(command: &'static [u8], deadline: Instant) -> Proposal {
    Proposal {
        command: Bytes::from_static(command),
        work: 0,
        deadline,
    }
}

fn queued_bytes(proposer: &Proposer<u32>) -> (usize, usize) {
    let queued_bytes = proposer.queued_bytes.lock();
    (queued_bytes.bytes, queued_bytes.classes.len())
}

/// Invariant 2.
#[tokio::test]
async fn new_class_finds_room_under_overload() {
    let proposer = proposer();
    let mut waiting = Vec::new();
    for class in 0..20 {
        loop {
            match proposer.enqueue(class, commands(16, 4 << 10), None) {
                Ok(item) => waiting.push(item),
                Err(error) => break assert_eq!(error, ProposeError::Overloaded),
            }
        }
        assert!(queued_bytes(&proposer).0 < QUEUE_BYTES_MAX, "class {class} took all");
        assert!(
            proposer.enqueue(1_000 + class, commands(1, 100), None).is_ok(),
            "a quiet class after {class}"
        );
    }
    let mut order = Vec::new();
    let (_, last) = proposer.enqueue(5_000, commands(1, 100), None).unwrap();
    while let Some((_, in_flight_entry)) = proposer.next_entry() {
        order.push(in_flight_entry.items.iter().any(|item| item.class == 5_000));
        drop(in_flight_entry);
        if order.last() == Some(&true) {
            break;
        }
    }
    assert!(order.len() <= 4, "one turn of each class is not long: {}", order.len());
    drop(last);
    drop(waiting);
    proposer.stop();
    assert_eq!(queued_bytes(&proposer), (0, 0), "all is given back");
}

/// Invariant 4.
#[tokio::test(start_paused = true)]
async fn expired_command_is_not_proposed() {
    let proposer = proposer();
    let now = Instant::now();
    let after = move |millis| now + Duration::from_millis(millis);
    let dues = [50, 500, 60].map(after);
    let commands = [b"a", b"b", b"c"].into_iter().zip(dues);
    let asked: Vec<Proposal> = commands.map(|(command, due)| proposal(command, due)).collect();
    let asking = tokio::spawn({
        let proposer = proposer.clone();
        async move { proposer.propose_by(7, asked).await }
    });
    let all_late = tokio::spawn({
        let proposer = proposer.clone();
        async move { proposer.propose_by(8, vec![proposal(b"d", after(60))]).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_, mut in_flight_entry) = proposer.next_entry().expect("one is in time");
    let items = std::mem::take(&mut in_flight_entry.items);
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].commands, [Bytes::from_static(b"b")]);
    answer(items, vec![42]);
    assert_eq!(asking.await.unwrap(), Ok(vec![None, Some(42), None]));
    assert!(matches!(all_late.await.unwrap().unwrap()[..], [None]));
    drop(in_flight_entry);
    assert_eq!(queued_bytes(&proposer), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn in_flight_command_at_deadline_has_unknown_outcome() {
    let proposer = proposer();
    let soon = Instant::now() + Duration::from_millis(50);
    let asking = tokio::spawn({
        let proposer = proposer.clone();
        async move { proposer.propose_by(7, vec![proposal(b"a", soon)]).await }
    });
    tokio::task::yield_now().await;
    let taken = proposer.next_entry().expect("it waits");
    let outcome = asking.await.unwrap().map(|answers| answers.len());
    assert_eq!(outcome, Err(ProposeError::TimedOut));
    assert!(!ProposeError::TimedOut.has_no_effect());
    drop(taken);
}

/// Invariant 1.
#[tokio::test(start_paused = true)]
async fn possibly_committed_command_is_not_proposed_again() {
    let proposer = proposer();
    let asking = tokio::spawn({
        let proposer = proposer.clone();
        async move { proposer.propose(7, vec![Bytes::from_static(b"a")]).await }
    });
    tokio::task::yield_now().await;
    let (_, in_flight_entry) = proposer.next_entry().expect("it waits");
    in_flight_entry.finish(Err(WriteRejection::Final(ProposeError::LeaderChanged)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    proposer.state.lock().paused_until = None;
    assert!(proposer.next_entry().is_none());
    let outcome = asking.await.unwrap().map(|answers| answers.len());
    assert_eq!(outcome, Err(ProposeError::LeaderChanged));
}
