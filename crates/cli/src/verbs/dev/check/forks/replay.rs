//! Step: the tail of a lost home is listed, classified and written again by two operators at once; a conflict is left, and
//! nothing happens twice.

use anyhow::Context;
use stead_client::{ForkName, ReceiptStatus, ReplayOutcome, ReplayedChange, Revision, Tenant};

use super::{Begun, OTHER};
use crate::verbs::dev::{
    check::verdict::Verdict,
    lost_region::{newest_fork, replay, restart},
    world::World,
};

/// Keys that are put, and increments of one counter, that are cut.
const PUTS: usize = 60;
const INCREMENTS: usize = 30;
const REASON: &str = "checked";

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
    let fork = newest_fork(&begun.admin, &begun.name).await?;
    let name = ForkName {
        tenant: begun.name.clone(),
        group: fork.group,
        number: fork.number,
    };
    let second = world.client(OTHER).await?.admin();
    let (one, other) = tokio::try_join!(replay(&begun.admin, &name, REASON), replay(&second, &name, REASON))?;
    let again = replay(&begun.admin, &name, REASON).await?;
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
    begun.admin.discard_fork(&name, REASON).await?;
    let left = begun.admin.forks(&begun.name, None, "").await?.forks.len();
    Ok(verdict.none("forks after the discard", left))
}

fn of(changes: &[ReplayedChange], outcome: ReplayOutcome) -> usize {
    changes.iter().filter(|change| change.outcome == outcome).count()
}
