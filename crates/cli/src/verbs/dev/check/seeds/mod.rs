//! Steps: tenants are copied to regions and nodes that do not have them, or only what they were, while they are written to.

mod far_behind;
mod hopeless;
mod large;
mod writer;

pub(super) use self::{far_behind::run as far_behind, hopeless::run as hopeless, large::run as large};

use std::ops::Range;

use anyhow::Context;
use stead_client::{Client, Followers, NewTenant, Tenant};
use stead_testing::{Link, process};
use tokio::task::JoinSet;

use crate::verbs::dev::world::World;

const SOURCE: &str = "eu-west";
/// Region that follows no tenant of these steps.
const TARGET: &str = "us-east";
const FOLLOWER: &str = "ap-south";
const VALUE_LEN: usize = 256 << 10;
/// Writers that fill a tenant.
const FILLERS: usize = 8;

/// Makes a tenant that only one other region follows, with this many values, and returns it as its home's clients see it.
async fn filled(world: &mut World, name: &str, values: usize) -> anyhow::Result<Tenant> {
    let client = world.client(SOURCE).await?;
    let new = NewTenant {
        name: name.to_owned(),
        home_region: SOURCE.into(),
        followers: Followers::Regions(vec![FOLLOWER.into()]),
        ..NewTenant::default()
    };
    client.admin().create_tenant(new).await?;
    fill(&client, name, 0..values).await?;
    Ok(client.tenant(name)?)
}

/// Writes the values of some keys of a tenant.
async fn fill(client: &Client, name: &str, values: Range<usize>) -> anyhow::Result<()> {
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let (tenant, values) = (client.tenant(name)?, values.clone());
        fillers.spawn(async move {
            for at in values.skip(filler).step_by(FILLERS) {
                tenant.put(key(at), value(at)).await?;
            }
            Ok::<_, stead_client::Error>(())
        });
    }
    while let Some(filled) = fillers.join_next().await {
        filled?.context("the tenant cannot be filled")?;
    }
    Ok(())
}

fn key(at: usize) -> String {
    format!("k/{at:06}")
}

/// Returns a value that does not compress.
fn value(seed: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..VALUE_LEN / 8).flat_map(|_| next()).collect()
}

fn limit(link: &Link, bytes_per_second: Option<u64>) {
    for direction in [&link.there, &link.back] {
        direction.set(|shape| shape.bytes_per_second = bytes_per_second);
    }
}

/// Returns the resident memory of each node, in bytes.
async fn resident(world: &World) -> anyhow::Result<Vec<u64>> {
    let mut cluster = world.cluster.lock().await;
    let names: Vec<String> = cluster.nodes().iter().map(|node| node.name.clone()).collect();
    let of = |name: &String| {
        let process = cluster.process(name).context("a node is not running")?;
        Ok(process::usage(process)?.resident)
    };
    names.iter().map(of).collect()
}
