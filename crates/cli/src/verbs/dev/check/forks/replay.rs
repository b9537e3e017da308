//! Step: the tail of a lost home is listed, classified and written again by two operators at once; a conflict is left, and
//! nothing happens twice.

use anyhow::Context;
use stead_client::{
    Admin, ForkInfo, ForkName, ReceiptStatus, ReplayOptions, ReplayOutcome, ReplayPage, ReplayedChange, Revision,
    Tenant,
};

use super::{Begun, OTHER, restart};
use crate::verbs::dev::{
    check::verdict::Verdict,
    world::{World, until},
};

/// Keys that are put, and increments of one counter, that are cut.
const PUTS: usize = 60;
const INCREMENTS: usize = 30;
/// Changes that are replayed at a time: a replay has several pages.
const PAGE_SIZE: u32 = 20;

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let begun = Begun::start(world, "check-fork").await?;
    begun.near.put("both", "base").await?;
    let point = begun.near.increment("count", 1).await?.header.revision;
    begun.copies_have(world, point).await?;
    let lost = begun.lose(world, write_tail).await;
    let checked = match &lost {
        Ok((acknowledged, _)) => check(world, &begun, acknowledged).await,
        Err(_) => Ok(Verdict::default()),
    };
    begun
        .end(world, lost.as_ref().ok().map(|(_, promotion)| promotion))
        .await?;
    lost?;
    checked
}

/// Writes what nobody else receives: puts of keys of their own, increments, and one key that the new home writes too.
async fn write_tail(near: &Tenant) -> anyhow::Result<Vec<Revision>> {
    let mut acknowledged = Vec::new();
    for number in 0..PUTS {
        acknowledged.push(near.put(format!("cut/{number}"), "cut").await?.header.revision);
        if number < INCREMENTS {
            acknowledged.push(near.increment("count", 1).await?.header.revision);
        }
    }
    acknowledged.push(near.put("both", "cut").await?.header.revision);
    Ok(acknowledged)
}

async fn check(world: &mut World, begun: &Begun, acknowledged: &[Revision]) -> anyhow::Result<Verdict> {
    begun.far.put("both", "live").await?;
    begun.far.increment("count", 100).await?;
    restart(world).await?;
    let fork = the_fork(&begun.admin, &begun.name).await?;
    let name = ForkName {
        tenant: begun.name.clone(),
        group: fork.group,
        number: fork.number,
    };
    let second = world.client(OTHER).await?.admin();
    let (one, other) = tokio::try_join!(replay(&begun.admin, &name), replay(&second, &name))?;
    let again = replay(&begun.admin, &name).await?;
    let written = |changes: &[ReplayedChange]| of(changes, ReplayOutcome::Written);
    let count = begun.far.get("count").await?.item.context("the counter is gone")?;
    let expected = format!("{}", 1 + 100 + INCREMENTS);
    let mut missing = 0;
    for number in 0..PUTS {
        missing += usize::from(begun.far.get(format!("cut/{number}")).await?.item.is_none());
    }
    let both = begun.far.get("both").await?.item.context("the key is gone")?;
    let receipts = begun.far.check_receipts(acknowledged).await?.receipts;
    let neither = receipts.iter().filter(|receipt| match receipt.status {
        // What was under way when the links were cut may have arrived.
        ReceiptStatus::Replayed(_) | ReceiptStatus::Survived => false,
        ReceiptStatus::Cut => receipt.forks.is_empty(),
        ReceiptStatus::Undecided | ReceiptStatus::TooOld | ReceiptStatus::Unknown => true,
    });
    let survived = receipts
        .iter()
        .filter(|receipt| receipt.status == ReceiptStatus::Survived)
        .count();
    let verdict = Verdict::default()
        .none("acknowledged writes neither live nor in the fork", neither.count())
        .none("replayed keys that are missing", missing)
        .none("counts that differ", usize::from(count.value != expected))
        .none(
            "conflicts that were replaced",
            usize::from(both.value.as_ref() != b"live"),
        )
        .none("written by a second replay", written(&again))
        .none(
            "written twice by two operators",
            (written(&one) + written(&other)).abs_diff(PUTS + INCREMENTS - survived),
        )
        .none("conflicts not left", of(&again, ReplayOutcome::Left).abs_diff(1))
        .note(format!(
            "{} changes cut, {survived} not, {} written again by one operator and {} by the other",
            fork.changes,
            written(&one),
            written(&other)
        ));
    begun.admin.discard_fork(&name, "checked").await?;
    let left = begun.admin.forks(&begun.name, None, "").await?.forks.len();
    Ok(verdict.none("forks after the discard", left))
}

fn of(changes: &[ReplayedChange], outcome: ReplayOutcome) -> usize {
    changes.iter().filter(|change| change.outcome == outcome).count()
}

async fn the_fork(admin: &Admin, tenant: &str) -> anyhow::Result<ForkInfo> {
    let mut found = None;
    until("the lost region has a fork", async || {
        let list = admin.forks(tenant, None, "").await?;
        found = list.forks.into_iter().find(|fork| !fork.is_filling);
        Ok(found.is_some())
    })
    .await?;
    found.context("it has one")
}

/// Replays all pages of a fork.
async fn replay(admin: &Admin, name: &ForkName) -> anyhow::Result<Vec<ReplayedChange>> {
    let options = ReplayOptions {
        reason: "checked".into(),
        page_size: PAGE_SIZE,
        ..ReplayOptions::default()
    };
    let (mut changes, mut token) = (Vec::new(), String::new());
    loop {
        let mut page: Option<ReplayPage> = None;
        until("a page is replayed", async || {
            page = Some(admin.replay_fork(name, &options, &token).await?);
            Ok(true)
        })
        .await?;
        let page = page.context("it is")?;
        changes.extend(page.changes);
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(changes);
        }
    }
}
