//! What the directory does not take holds up nothing else.

use stead_replication::Limits;
use stead_state::directory::Report;
use stead_state::shard::record::Role;

use crate::world::{FOLLOWER, Told, World};

#[tokio::test(start_paused = true)]
async fn report_that_is_never_taken_holds_up_nothing_else() {
    for told in [Told::Refused, Told::Never] {
        let mut world = World::start(1, 1, Limits::default()).await;
        let [stuck, with_it, after_it] = [5, 6, 7].map(|number| world.tenant(number, true));
        for tenant in [stuck, with_it, after_it] {
            let last = world.put(tenant, "a", b"1").await;
            world.reaches(tenant, last).await;
        }
        let refused = Report::Erased(stuck);
        world.directory_takes(move |reports| if reports.contains(&refused) { told } else { Told::Taken });
        // Both reports are one command at first.
        world.leave(&[stuck, with_it]);
        let follower = world.leading(FOLLOWER).await;
        let is_erased = |tenant| follower.record(tenant).filter(|record| record.role == Role::Erased);
        world.eventually("the erase", || is_erased(stuck)).await;
        let reported = |tenant| world.has_report(tenant).then_some(());
        world.eventually("the report beside it", || reported(with_it)).await;
        // What comes later is done.
        let later = world.tenant(8, true);
        let last = world.put(later, "a", b"1").await;
        world.reaches(later, last).await;
        world.leave(&[after_it]);
        let reported = |tenant| world.has_report(tenant).then_some(());
        world.eventually("the report behind it", || reported(after_it)).await;
        assert!(!world.has_report(stuck));
        world.directory_takes(|_| Told::Taken);
        world
            .eventually("all reports", || world.has_report(stuck).then_some(()))
            .await;
    }
}
