//! Steps: a home acknowledges writes that no other region receives, and is lost. What a promotion cuts of them is told to
//! clients, kept as a fork, and written again.

mod replay;
mod token;

use std::time::Duration;

use anyhow::Context;
use stead_client::{Admin, Consistency, PromotionRequest, PromotionSelection, ReadOptions, Revision, Tenant};
use stead_testing::{
    Link,
    promotions::{Promotion, promote},
};

pub(super) use self::{replay::run as replay, token::run as token};
use super::promote::move_back;
use crate::verbs::dev::{
    lost_region::{kill_region, leases_are_short, links, restart},
    plan::REGIONS,
    world::{World, until},
};

/// Region whose home is lost.
const HOME: &str = "eu-west";
/// Region beside which an operator and a client go on.
const OTHER: &str = "us-east";
/// Time after which a promotion is given up by the step.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// Feature level from which on forks are replayed.
const LEVEL: u32 = 4;

/// A tenant whose copies are equal, as seen from its home's region and from another one.
struct Begun {
    name: String,
    near: Tenant,
    far: Tenant,
    admin: Admin,
}

impl Begun {
    /// Makes a tenant with its home in [`HOME`].
    async fn start(world: &mut World, name: &str) -> anyhow::Result<Self> {
        let name = format!("{name}-{}", world.run);
        let near = world.tenant(&name, HOME, HOME).await?;
        let far = world.tenant(&name, HOME, OTHER).await?;
        let admin = world.client(OTHER).await?.admin();
        until("the cluster has the feature level", async || {
            Ok(admin.cluster().await?.feature_level >= LEVEL)
        })
        .await?;
        until("the tenant takes writes", async || {
            near.put("first", "v").await?;
            Ok(true)
        })
        .await?;
        leases_are_short(world, &admin, HOME, &name).await?;
        Ok(Self { name, near, far, admin })
    }

    /// Waits until the copies have a revision, so that it is not cut.
    async fn copies_have(&self, world: &mut World, revision: Revision) -> anyhow::Result<()> {
        for (region, _) in REGIONS.iter().filter(|(region, _)| *region != HOME) {
            let copy = world.client(region).await?.tenant(&self.name)?;
            let local = ReadOptions::at(Consistency::Local);
            until("the copies follow", async || {
                let got = copy.get_with("first", &local).await?;
                Ok(got.header.revision >= revision)
            })
            .await?;
        }
        Ok(())
    }

    /// Has `write` write at the home while nobody else receives it; then all nodes of the home are killed, and another
    /// region takes over.
    async fn lose<T>(
        &self,
        world: &mut World,
        write: impl AsyncFnOnce(&Tenant) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Promotion)> {
        let links = links(world, HOME).await?;
        links.iter().for_each(Link::cut);
        let written = write(&self.near).await;
        let killed = kill_region(world, HOME).await;
        links.iter().for_each(Link::heal);
        killed?;
        let request = PromotionRequest {
            reason: "checked".into(),
            ..PromotionRequest::new(PromotionSelection::Region(HOME.into()))
        };
        let promotion = promote(&self.admin, request, GIVEN_UP).await?;
        promotion.tenant(&self.name).context("the report lacks the tenant")?;
        Ok((written?, promotion))
    }

    /// Starts the lost region again, and brings its tenants back, so that later steps find them.
    async fn end(&self, world: &mut World, promotion: Option<&Promotion>) -> anyhow::Result<()> {
        restart(world).await?;
        match promotion {
            Some(promotion) => move_back(&self.admin, promotion).await,
            None => Ok(()),
        }
    }
}
