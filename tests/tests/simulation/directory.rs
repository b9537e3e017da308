//! The directory's leader is gone for good, and nobody is told: changes go on under the next one.

use std::time::Duration;

use stead_client::Client;
use tokio::time::sleep;

use crate::{
    child,
    cluster::{NODES_PER_REGION, Order, Orders, World},
    faults::Strikes,
    load, story,
};

const LENGTH: Duration = Duration::from_secs(90);
/// The group that is the directory.
const DIRECTORY: u32 = 0;
/// Where the operator's client is.
const REGION: usize = 0;
/// So long that a new leader has been elected.
const ELECTED: Duration = Duration::from_secs(10);

#[test]
fn changes_of_the_directory_go_on_after_its_leader_has_gone() {
    child::check("directory::leader_gone", 1..2);
}

#[test]
#[ignore = "a scenario, for a process of its own"]
fn leader_gone() {
    child::scenario(|seed| {
        let mut world = World::new(seed, LENGTH);
        world.client(REGION, "operator", operator(seed, world.orders.clone()));
        world.run()
    });
}

async fn operator(seed: u64, orders: Orders) -> turmoil::Result {
    let client = Client::lazy(load::config(REGION, seed))?;
    let admin = client.admin();
    let groups = story::create_tenants(&admin).await;
    let strikes = Strikes {
        admin: &admin,
        groups: &groups,
        orders: &orders,
    };
    let mut leader = strikes.leader_of(DIRECTORY).await.expect("it has just taken changes");
    // The node that is asked must live.
    while leader / NODES_PER_REGION == REGION {
        admin.move_leader(DIRECTORY, None, "a test").await?;
        leader = strikes.leader_of(DIRECTORY).await.expect("one was chosen");
    }
    // From here on every node asks this leader first.
    strikes.admit_everywhere().await;
    // Its machine dies and nobody is told: whoever asks it hears nothing, not even that nobody listens.
    orders.give(Order::Silence(leader));
    sleep(ELECTED).await;
    strikes.admit_everywhere().await;
    Ok(())
}
