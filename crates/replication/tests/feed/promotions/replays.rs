//! Replays of what a promotion has cut, with a fault at each point: each append that was acknowledged is there once in the
//! end, and none twice.

use std::{collections::BTreeMap, time::Duration};

use stead_state::{
    directory::{OperationResult, PromotionRequest, PromotionSelection},
    shard::{
        ApplyResult,
        apply_result::ReplayOutcome,
        command::{Effect, Operation, Replay, ReplayClasses, Write},
    },
};
use stead_types::{ClientId, GroupId, IdempotencyKey};
use tokio::time::{sleep, timeout};

use super::world::{FAR, HOME, NAME, NEAR, REGIONS, World, request};

/// Key that every append is to.
const KEY: &str = "log";
/// Longest wait for one answer: a leader that has just been killed never answers.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Changes that are read from the fork and proposed at a time.
const PAGE: usize = 3;

/// Appends of numbers to one key, and those that were acknowledged.
#[derive(Default)]
struct Appends {
    written: u64,
    acknowledged: Vec<u64>,
}

impl Appends {
    /// Appends the next number at a group.
    async fn append(&mut self, world: &World, group: GroupId) {
        let number = self.written;
        self.written += 1;
        let effect = Effect::Append {
            bytes: format!("{number:06};").into(),
            len_max: 1 << 20,
        };
        let idempotency = IdempotencyKey {
            client: ClientId(7),
            sequence: number,
            first_sent: world.record(group).map(|record| record.live.time).unwrap_or_default(),
        };
        let write = Write {
            notes_operation: true,
            ..Write::new(world.tenant, Some(idempotency), Operation::new(KEY, effect))
        };
        let Some(node) = world.leader_node(group) else { return };
        let proposed = node.group.propose(world.tenant.get(), vec![write.encode()]);
        if let Ok(Ok(answers)) = timeout(ANSWER_MAX, proposed).await
            && let Some(ApplyResult::Write(_)) = answers.into_iter().next()
        {
            self.acknowledged.push(number);
        }
    }

    /// Checks that what was acknowledged is there once, and nothing twice.
    fn check(&self, world: &World) {
        let home = world.directory.tenant().home;
        let node = world.leader_node(home).expect("the home has a leader");
        let read = |view: stead_store::shard::ReadView<'_>| {
            let reading = view.reading(world.tenant).expect("the home has the tenant");
            reading
                .get(KEY.as_bytes(), None)
                .unwrap()
                .map(|version| version.value.bytes)
        };
        let value = node.machine.read(read).unwrap().unwrap_or_default();
        let text = std::str::from_utf8(&value).unwrap();
        let mut times = BTreeMap::<u64, usize>::new();
        for number in text.split_terminator(';') {
            *times.entry(number.parse().unwrap()).or_default() += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "replayed twice: {twice:?}");
        let missing: Vec<_> = self
            .acknowledged
            .iter()
            .filter(|number| !times.contains_key(number))
            .collect();
        assert!(missing.is_empty(), "neither live nor replayed: {missing:?}");
    }
}

/// Reads all changes of the forks that a group has, as commands.
fn replays(world: &World, group: GroupId) -> Option<Vec<Replay>> {
    let node = world.leader_node(group)?;
    node.machine
        .read(|view| {
            let forks = &view.record(world.tenant)?.forks;
            let mut all = Vec::new();
            for fork in forks {
                let reader = view.fork(world.tenant, fork.copy.number)?;
                let mut after = None;
                loop {
                    let page = reader.replays(after, PAGE, 1 << 20).unwrap();
                    all.extend(page.replays.into_iter().map(|replay| replay.command));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
            Some(all)
        })
        .unwrap()
}

/// Goes once through the forks of a group; tells whether all of it was there already, `None` if it was interrupted.
async fn replay_once(world: &World, group: GroupId) -> Option<bool> {
    let mut is_done = true;
    for replay in replays(world, group)? {
        let allowed = ReplayClasses {
            clean: true,
            commutative: true,
            uncertain: true,
            ..ReplayClasses::default()
        };
        let command = Replay { allowed, ..replay };
        let home = world.directory.tenant().home;
        let node = world.leader_node(home)?;
        let proposed = node.group.propose(world.tenant.get(), vec![command.encode()]);
        let answers = timeout(ANSWER_MAX, proposed).await.ok()?.ok()?;
        let answer = answers.into_iter().next()?;
        if matches!(answer, ApplyResult::GuardFailed(_)) {
            return None;
        }
        let ApplyResult::Replay(result) = answer else {
            panic!("{answer:?}")
        };
        match result.outcome {
            ReplayOutcome::Written(_) => is_done = false,
            ReplayOutcome::Found(_) => {}
            // Other keys are written with values alone.
            ReplayOutcome::Left => assert!(command.effects.iter().all(|effect| effect.key != KEY), "{result:?}"),
            ReplayOutcome::Nothing | ReplayOutcome::Failed(_) | ReplayOutcome::NoRoom => panic!("{result:?}"),
        }
    }
    Some(is_done)
}

/// Replays until there is nothing left to do.
async fn replay_all(world: &World, group: GroupId) {
    let until = tokio::time::Instant::now() + Duration::from_secs(240);
    while replay_once(world, group).await != Some(true) {
        assert!(tokio::time::Instant::now() < until, "the replay does not end");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Lets the home acknowledge appends that nobody else receives, promotes, and brings it back with its fork.
async fn with_fork() -> (&'static World, Appends) {
    // Faults borrow it for as long as they like.
    let world: &'static World = Box::leak(Box::new(World::start().await));
    let mut appends = Appends::default();
    for _ in 0..5 {
        appends.append(world, HOME).await;
    }
    world.write_somewhere().await;
    world.wait_until_replicated(&[NEAR, FAR]).await;
    world.set_region_cut(HOME, true);
    for _ in 0..20 {
        appends.append(world, HOME).await;
    }
    let to = Some(REGIONS[1].parse().unwrap());
    let operation = world
        .directory
        .begin_promotion(PromotionRequest { to, ..request(true) });
    assert_eq!(world.wait_until_over(operation).await, OperationResult::Succeeded);
    appends.append(world, NEAR).await;
    world.set_region_cut(HOME, false);
    world.wait_until_settled().await;
    assert!(
        replays(world, HOME).is_some_and(|replays| replays.len() >= 20),
        "there is a fork"
    );
    (world, appends)
}

#[tokio::test(start_paused = true)]
async fn replay_by_two_operators_writes_each_change_once() {
    let (world, appends) = with_fork().await;
    tokio::join!(replay_all(world, HOME), replay_all(world, HOME));
    world.wait_until_settled().await;
    appends.check(world);
    // Every replica remembers: the old home's copy, too.
    let found = replay_once(world, HOME).await;
    assert_eq!(found, Some(true));
}

/// A leader is killed after each number of changes that were replayed; the replay goes on with another one.
#[tokio::test(start_paused = true)]
async fn replay_survives_loss_of_leader_of_home_or_fork_at_each_point() {
    for (group, point) in [(NEAR, 0_u64), (NEAR, 7), (HOME, 3)] {
        let (world, appends) = with_fork().await;
        let kill = async {
            let replayed = |world: &World| {
                let node = world.leader_node(NEAR)?;
                let replayed = node.machine.read(|view| {
                    let clients = view.shard().clients(world.tenant)?;
                    Some(clients.replays().map_or(0, |window| window.len() as u64))
                });
                (replayed.unwrap()? >= point).then_some(())
            };
            world.eventually("some changes are replayed", replayed).await;
            world.kill_leader(group);
        };
        tokio::join!(replay_all(world, HOME), kill);
        world.wait_until_settled().await;
        appends.check(world);
    }
}

/// The home that replays is lost in the middle, and with it what only it had: its fork has replays, and both forks bring
/// each change once.
#[tokio::test(start_paused = true)]
async fn replays_that_are_cut_are_done_again_once_from_either_fork() {
    let (world, mut appends) = with_fork().await;
    world.set_region_cut(NEAR, true);
    // Operators beside it go on replaying, and it acknowledges.
    replay_all_beside_home(world).await;
    appends.append(world, NEAR).await;
    let again = PromotionRequest {
        to: Some(REGIONS[2].parse().unwrap()),
        selection: PromotionSelection::Tenants(vec![NAME.parse().unwrap()]),
        ..request(true)
    };
    let operation = world.directory.begin_promotion(again);
    assert_eq!(world.wait_until_over(operation).await, OperationResult::Succeeded);
    world.set_region_cut(NEAR, false);
    world.wait_until_settled().await;
    tokio::join!(replay_all(world, NEAR), replay_all(world, HOME));
    world.wait_until_settled().await;
    appends.check(world);
}

/// Replays at the home that is cut off, from what was read of the fork before.
async fn replay_all_beside_home(world: &World) {
    let read = replays(world, HOME).expect("the fork is there");
    for replay in read {
        let allowed = ReplayClasses {
            clean: true,
            commutative: true,
            uncertain: true,
            ..ReplayClasses::default()
        };
        let command = Replay { allowed, ..replay };
        let node = world.leader_node(NEAR).expect("it has a leader");
        let proposed = node.group.propose(world.tenant.get(), vec![command.encode()]);
        timeout(ANSWER_MAX, proposed).await.unwrap().unwrap();
    }
}
