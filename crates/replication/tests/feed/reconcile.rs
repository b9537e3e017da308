//! Reconciler: a report that the directory does not take delays nothing else.

use stead_replication::RetentionLimits;
use stead_state::directory::GroupReport;
use stead_state::shard::record::Role;

use crate::world::{FOLLOWER, ReportResult, World};

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
