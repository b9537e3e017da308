//! Reconciler: a report that the directory does not take delays nothing else. And what a leader hears of a later epoch.

use std::time::Duration;

use stead_replication::RetentionLimits;
use stead_state::directory::{GroupReport, LeaseLoss};
use stead_state::shard::record::{LeaseLossPolicy, Role};
use tokio::time::sleep;

use crate::world::{FOLLOWER, HOME, ReportResult, World};

#[tokio::test(start_paused = true)]
async fn refused_report_delays_no_other_work() {
    for result in [ReportResult::Refused, ReportResult::Never] {
        let mut world = World::start(1, 1, RetentionLimits::default()).await;
        let [stuck, with_it, after_it] = [5, 6, 7].map(|number| world.tenant(number, true));
        for tenant in [stuck, with_it, after_it] {
            let last = world.put(tenant, "a", b"1").await;
            world.wait_until_replicated(tenant, last).await;
        }
        let refused = GroupReport::Erased(stuck);
        world.on_report(move |reports| {
            if reports.contains(&refused) {
                result
            } else {
                ReportResult::Taken
            }
        });
        // Both reports are one command at first.
        world.remove_follower(&[stuck, with_it]);
        let follower = world.leader_node(FOLLOWER).await;
        let is_erased = |tenant| follower.record(tenant).filter(|record| record.role == Role::Erased);
        world.eventually("the erase", || is_erased(stuck)).await;
        let reported = |tenant| world.has_report(tenant).then_some(());
        world.eventually("the report beside it", || reported(with_it)).await;
        // Later steps are not delayed.
        let later = world.tenant(8, true);
        let last = world.put(later, "a", b"1").await;
        world.wait_until_replicated(later, last).await;
        world.remove_follower(&[after_it]);
        let reported = |tenant| world.has_report(tenant).then_some(());
        world.eventually("the report behind it", || reported(after_it)).await;
        assert!(!world.has_report(stuck));
        world.on_report(|_| ReportResult::Taken);
        world
            .eventually("all reports", || world.has_report(stuck).then_some(()))
            .await;
    }
}

/// protocol.md "Leases", on_lease_loss: what one node has heard counts for every leader of the group, and after a restart.
#[tokio::test(start_paused = true)]
async fn later_epoch_heard_is_noted_in_the_log_of_an_owner_that_would_go_on() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let [tenant, other] = [5, 6].map(|number| world.tenant(number, false));
    for tenant in [tenant, other] {
        world.put(tenant, "a", b"1").await;
        world.change(tenant, |tenant| tenant.on_lease_loss = LeaseLoss::Continue);
    }
    let home = world.leader_node(HOME).await;
    let has = |tenant, policy| home.record(tenant).filter(|record| record.policy == policy);
    let goes_on = || has(tenant, LeaseLossPolicy::Continue).and(has(other, LeaseLossPolicy::Continue));
    world.eventually("the policy of the view", goes_on).await;
    let record = home.record(tenant).unwrap();
    home.epochs_seen.see(tenant, record.epoch.next().unwrap(), &record);
    world
        .eventually("the note", || has(tenant, LeaseLossPolicy::Stop))
        .await;
    world.change(tenant, |_| ());
    sleep(Duration::from_secs(5)).await;
    let policies = [tenant, other].map(|tenant| world.nodes[&1].record(tenant).unwrap().policy);
    assert_eq!(
        policies,
        [LeaseLossPolicy::Stop, LeaseLossPolicy::Continue],
        "a view that may be older does not undo it"
    );
}
