//! What is held, and who comes too late, without Raft.

use super::*;

fn proposer() -> Arc<Proposer> {
    let pause = Duration::from_millis(10);
    Arc::new(Proposer::new(Arc::new(GroupClock::standing()), pause, pause))
}

fn commands(count: usize, len: usize) -> (Vec<Bytes>, usize) {
    let commands: Vec<Bytes> = (0..count).map(|_| Bytes::from(vec![1; len])).collect();
    let bytes = weight(&commands);
    (commands, bytes)
}

fn proposal(command: &'static [u8], deadline: Instant) -> Proposal {
    Proposal {
        command: Bytes::from_static(command),
        work: 0,
        deadline,
    }
}

fn held(proposer: &Proposer) -> (usize, usize) {
    let held = proposer.held.lock();
    (held.bytes, held.classes.len())
}

/// Invariant 2.
#[tokio::test]
async fn who_comes_finds_room_however_many_flood() {
    let proposer = proposer();
    let mut waiting = Vec::new();
    for class in 0..20 {
        loop {
            match proposer.enqueue(class, commands(16, 4 << 10), None) {
                Ok(item) => waiting.push(item),
                Err(error) => break assert_eq!(error, ProposeError::Overloaded),
            }
        }
        assert!(held(&proposer).0 < BYTES_MAX, "class {class} took all");
        assert!(
            proposer.enqueue(1_000 + class, commands(1, 100), None).is_ok(),
            "a quiet class after {class}"
        );
    }
    let mut order = Vec::new();
    let (_, last) = proposer.enqueue(5_000, commands(1, 100), None).unwrap();
    while let Some((_, flight)) = proposer.next_entry() {
        order.push(flight.items.iter().any(|item| item.class == 5_000));
        drop(flight);
        if order.last() == Some(&true) {
            break;
        }
    }
    assert!(order.len() <= 4, "one turn of each class is not long: {}", order.len());
    drop(last);
    drop(waiting);
    proposer.stop();
    assert_eq!(held(&proposer), (0, 0), "all is given back");
}

/// Invariant 4.
#[tokio::test(start_paused = true)]
async fn what_is_late_is_no_part_of_an_entry_and_certainly_did_not_happen() {
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
    let (_, mut flight) = proposer.next_entry().expect("one is in time");
    let items = std::mem::take(&mut flight.items);
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].commands, [Bytes::from_static(b"b")]);
    let number: Answer = Box::new(42);
    answer(items, vec![number]);
    let answers = asking.await.unwrap().unwrap();
    let which: Vec<bool> = answers.iter().map(Option::is_some).collect();
    assert_eq!(which, [false, true, false]);
    assert!(matches!(all_late.await.unwrap().unwrap()[..], [None]));
    drop(flight);
    assert_eq!(held(&proposer), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_its_deadline_may_have_happened() {
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
async fn what_may_have_been_committed_is_not_proposed_again() {
    let proposer = proposer();
    let asking = tokio::spawn({
        let proposer = proposer.clone();
        async move { proposer.propose(7, vec![Bytes::from_static(b"a")]).await }
    });
    tokio::task::yield_now().await;
    let (_, flight) = proposer.next_entry().expect("it waits");
    flight.finish(Err(Refusal::Final(ProposeError::LeaderChanged)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    proposer.state.lock().paused_until = None;
    assert!(proposer.next_entry().is_none());
    let outcome = asking.await.unwrap().map(|answers| answers.len());
    assert_eq!(outcome, Err(ProposeError::LeaderChanged));
}
