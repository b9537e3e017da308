//! Tests of [`crate::hermetic`]: a small program over real tonic, hyper and h2, whose behaviour depends on entropy,
//! clocks and hash seeds, repeats exactly under one seed.

use std::{collections::HashMap, time::Duration};

use rand::Rng;
use stead_api::net::{Keepalive, channel};
use stead_server::{
    environment::RetentionConfig,
    listener::{self, Listener},
    tls::ConnectionEntry,
};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use turmoil::Result;

use crate::{child, network};

const SERVERS: [&str; 3] = ["red", "green", "blue"];
const CALLS: usize = 60;
const LENGTH: Duration = Duration::from_secs(60);

#[test]
fn seed_repeats_exactly_and_others_differ() {
    let mut hashes: Vec<String> = child::check_determinism("determinism::small_program", 1..=8)
        .into_iter()
        .map(|e| e.hash)
        .collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 8);
}

#[test]
fn thread_inside_simulation_aborts_the_run() {
    let failed = child::run("determinism::program_with_a_thread", 1, None).unwrap_err();
    assert!(
        failed.contains("a thread was started inside the simulation"),
        "{failed}"
    );
    assert!(failed.contains("program_with_a_thread"), "names the caller: {failed}");
}

#[test]
#[ignore = "a scenario, for a process of its own"]
fn program_with_a_thread() {
    child::run_scenario(|_| {
        drop(std::thread::spawn(|| ()));
        Vec::new()
    });
}

#[test]
#[ignore = "a scenario, for a process of its own"]
fn small_program() {
    child::run_scenario(|_| {
        // One seed for the network, so that runs under two seeds differ by the hermetic process's entropy only.
        let mut sim = network::simulation(1, LENGTH);
        for name in SERVERS {
            sim.host(name, server);
        }
        for client in 0..3 {
            sim.client(format!("client-{client}"), client_of_all());
        }
        while !network::step(&mut sim) {
            match sim.elapsed().as_millis() {
                400 => sim.partition("red", "client-0"),
                700 => sim.crash("green"),
                1500 => sim.bounce("green"),
                2500 => sim.repair("red", "client-0"),
                _ => {}
            }
        }
        Vec::new()
    });
}

async fn server() -> Result {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let router = tonic::service::Routes::new(health).into_axum_router();
    let environment = network::environment(Default::default(), RetentionConfig::default());
    let incoming = (environment.bind)("0.0.0.0:7400".to_owned()).await?;
    let listener = Listener {
        incoming,
        router,
        entry: ConnectionEntry::plain_text(),
        connections_max: 1_024,
    };
    listener::serve(listener, CancellationToken::new(), Duration::from_secs(1)).await?;
    Ok(())
}

/// Calls servers in an order that the process's hasher, its random numbers and its clocks decide.
async fn client_of_all() -> Result {
    let connect = network::connect();
    let dial = |name: &&str| channel(&connect, &format!("{name}:7400"), Keepalive::PEER).map(HealthClient::new);
    let mut clients: HashMap<&str, _> = HashMap::new();
    for name in SERVERS {
        clients.insert(name, dial(&name)?);
    }
    for call in 0..CALLS {
        for (name, client) in &mut clients {
            let within = Duration::from_millis(rand::rng().random_range(20..400));
            let check = client.check(HealthCheckRequest::default());
            let answer = tokio::time::timeout(within, check).await;
            let clock = std::time::SystemTime::now();
            tracing::info!(call, name, ?clock, ok = matches!(answer, Ok(Ok(_))), "called");
        }
        let pause = Duration::from_millis(rand::rng().random_range(0..100));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = tokio::time::sleep(pause) => tracing::info!("the other branch"),
        }
    }
    Ok(())
}
