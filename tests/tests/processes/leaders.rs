//! Leadership is handed to a voter that is alive and caught up by its own answer, or it stays where it is.

use std::time::{Duration, Instant};

use stead_tests::process::{World, http_get};

const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest time of a refusal: well below the timeout of a call, on a busy machine too.
const REFUSAL_MAX: Duration = Duration::from_secs(9);
const LEADS: &str = "stead_raft_is_leader{group=\"1\"} 1";

async fn leads(world: &World, node: usize) -> bool {
    let http = &world.cluster.nodes()[node].http;
    http_get(http, "/metrics")
        .await
        .is_ok_and(|(_, metrics)| metrics.contains(LEADS))
}

async fn move_leader(world: &World, to: &str) -> stead_tests::process::CommandOutput {
    world.stead(["group", "move-leader", "1", "--to", to]).await
}

#[tokio::test]
async fn leadership_is_handed_to_a_living_voter_only() {
    let mut world = World::start(3).await;
    let names: Vec<String> = world.cluster.nodes().iter().map(|node| node.name.clone()).collect();
    let first_leads = async {
        while move_leader(&world, &names[0]).await.code != Some(0) || !leads(&world, 0).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, first_leads).await.unwrap();

    for is_frozen in [true, false] {
        if is_frozen {
            world.cluster.freeze_node(&names[2]).unwrap();
        } else {
            world.cluster.thaw_node(&names[2]).unwrap();
            world.cluster.kill_node(&names[2]).await.unwrap();
        }
        for to in [names[2].as_str(), "3"] {
            let asked = Instant::now();
            let refused = move_leader(&world, to).await;
            assert_eq!(refused.code, Some(5), "{refused:?}");
            assert!(asked.elapsed() < REFUSAL_MAX, "{:?}", asked.elapsed());
            for words in ["nothing happened", "node 3 does not answer"] {
                assert!(refused.stderr.contains(words), "{refused:?}");
            }
            assert!(leads(&world, 0).await, "leadership stays");
        }
        // Without a name it goes to the only one that is alive, and comes back.
        let moved = world.stead(["group", "move-leader", "1"]).await;
        assert_eq!(moved.code, Some(0), "{moved:?}");
        assert!(leads(&world, 1).await);
        let back = move_leader(&world, &names[0]).await;
        assert_eq!(back.code, Some(0), "{back:?}");
    }
}
