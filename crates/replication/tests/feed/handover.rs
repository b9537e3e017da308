//! Handing a tenant over: the baton comes behind everything up to the last change, once, whatever breaks when.

use std::time::Duration;

use bytes::Bytes;
use stead_replication::RetentionLimits;
use stead_state::directory::{
    GroupReport, SourceAfterMove, TenantMove,
    ownership::{self, MoveAccepted, MovePlan, MoveRefused},
};
use stead_state::shard::command::Effect;
use stead_state::shard::record::{Role, TenantRecord};
use stead_types::{Epoch, Revision, TenantNumber};
use tokio::time::{Instant, sleep};

use crate::world::{DISTANCES, FOLLOWER, HOME, World};

/// Writes to the moved tenant before each move.
const WRITES: u64 = 5;

/// Plans a move of a tenant to the follower.
fn plan(world: &mut World, tenant: TenantNumber) -> TenantMove {
    let plan = MovePlan {
        to: FOLLOWER,
        source: SourceAfterMove::Follow,
        time: 0,
    };
    world.change(tenant, |tenant| ownership::plan_move(tenant, &plan).unwrap())
}

/// Records what the directory records once the target has reported.
fn record_accepted(world: &mut World, tenant: TenantNumber, planned: TenantMove) {
    let accepted = MoveAccepted {
        from: planned.to,
        operation: planned.operation,
        epoch: planned.epoch,
    };
    world.change(tenant, |tenant| ownership::record_accepted(tenant, &accepted).unwrap());
}

async fn wait_until_owned(world: &World, tenant: TenantNumber, epoch: Epoch) {
    world
        .eventually("the target to own the tenant", || {
            let owns = |record: TenantRecord| record.owned() == Some(epoch);
            let nodes = world.nodes.values().filter(|node| node.group.id() == FOLLOWER);
            nodes.filter_map(|node| node.record(tenant)).any(owns).then_some(())
        })
        .await;
}

fn last_report(tenant: TenantNumber, planned: TenantMove) -> GroupReport {
    GroupReport::Accepted {
        tenant,
        operation: planned.operation,
        epoch: planned.epoch,
    }
}

#[tokio::test(start_paused = true)]
async fn target_owns_after_last_change_and_source_follows_by_delta() {
    for far in DISTANCES {
        let mut world = World::start_far(1, 1, RetentionLimits::default(), far).await;
        let tenant = world.tenant(5, true);
        let mut last = Revision::ZERO;
        for number in 0..WRITES {
            last = world.put(tenant, "a", &number.to_be_bytes()).await;
        }
        world.wait_until_replicated(tenant, last).await;
        let planned = plan(&mut world, tenant);
        let begun = Instant::now();
        wait_until_owned(&world, tenant, planned.epoch).await;
        assert!(
            begun.elapsed() < far * 2 + Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        world
            .eventually("the report", || {
                world.has_taken(&last_report(tenant, planned)).then_some(())
            })
            .await;
        let source = world.leader_node(HOME).await.record(tenant).unwrap();
        assert!(
            matches!(source.role, Role::Relinquished { to: FOLLOWER, .. }),
            "{source:?}"
        );
        record_accepted(&mut world, tenant, planned);
        let next = world
            .write_at(FOLLOWER, tenant, "b", Effect::put(Bytes::from_static(b"1")))
            .await;
        assert_eq!(next, Revision::new(planned.epoch, last.sequence().next().unwrap()));
        world
            .eventually("the source to follow", || {
                let node = world.nodes.values().find(|node| node.group.id() == HOME)?;
                let record = node.record(tenant)?;
                (record.home() == Some(FOLLOWER) && record.live.revision == next && record.seeds.0 == 0).then_some(())
            })
            .await;
        world.check_equal(tenant).await;
    }
}

#[tokio::test(start_paused = true)]
async fn baton_survives_broken_streams() {
    for delay in [0, 5, 20, 60, 90, 130, 200] {
        let mut world = World::start_far(1, 1, RetentionLimits::default(), DISTANCES[1]).await;
        let tenant = world.tenant(5, true);
        let last = world.put(tenant, "a", b"0").await;
        world.wait_until_replicated(tenant, last).await;
        let planned = plan(&mut world, tenant);
        world
            .eventually("the source to relinquish", || {
                let node = world.nodes.values().find(|node| node.group.id() == HOME)?;
                matches!(node.record(tenant)?.role, Role::Relinquished { .. }).then_some(())
            })
            .await;
        sleep(Duration::from_millis(delay)).await;
        world.break_streams().await;
        wait_until_owned(&world, tenant, planned.epoch).await;
        world.check_equal(tenant).await;
    }
}

#[tokio::test(start_paused = true)]
async fn move_being_aborted_is_refused_and_heir_follows_again() {
    let mut world = World::start_far(1, 1, RetentionLimits::default(), DISTANCES[1]).await;
    let tenant = world.tenant(5, true);
    let last = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, last).await;
    // Aborted in the same step, before anybody acts on it.
    let planned = world.change(tenant, |tenant| {
        let plan = MovePlan {
            to: FOLLOWER,
            source: SourceAfterMove::Follow,
            time: 0,
        };
        let planned = ownership::plan_move(tenant, &plan).unwrap();
        ownership::abort_move(tenant, planned.operation).unwrap();
        planned
    });
    let refused = GroupReport::Refused {
        tenant,
        operation: planned.operation,
    };
    world
        .eventually("the refusal", || world.has_taken(&refused).then_some(()))
        .await;
    let report = MoveRefused {
        from: HOME,
        operation: planned.operation,
    };
    world.change(tenant, |tenant| ownership::record_refused(tenant, &report).unwrap());
    let again = plan(&mut world, tenant);
    wait_until_owned(&world, tenant, again.epoch).await;
    assert!(again.epoch > planned.epoch, "an epoch is handed out once");
}

#[tokio::test(start_paused = true)]
async fn moved_tenant_takes_its_last_writes_ahead_of_others() {
    let mut world = World::start_far(1, 1, RetentionLimits::default(), DISTANCES[1]).await;
    let (tenant, other) = (world.tenant(5, true), world.tenant(6, true));
    let last = world.put(tenant, "a", b"0").await;
    world.wait_until_replicated(tenant, last).await;
    let planned = plan(&mut world, tenant);
    let big = vec![7; 200 << 10];
    let mut acknowledged = Revision::ZERO;
    // Writes go on at home until it has relinquished the tenant.
    loop {
        let home = world.leader_node(HOME).await.record(tenant).unwrap();
        if home.owned().is_none() {
            acknowledged = acknowledged.max(home.live.revision);
            break;
        }
        world.put(other, "a", &big).await;
    }
    wait_until_owned(&world, tenant, planned.epoch).await;
    let target = world.leader_node(FOLLOWER).await.record(tenant).unwrap();
    assert_eq!(target.live.revision, acknowledged);
    assert_eq!(target.accepted.unwrap().revision, acknowledged);
}
