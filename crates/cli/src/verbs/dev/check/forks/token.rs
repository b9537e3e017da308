//! Step: tokens, conditions and watches of what a promotion has cut are answered so, exactly, and go on.

use anyhow::{Context, bail};
use stead_client::{
    Condition, Consistency, ErrorKind, ReadOptions, Revision, SessionToken, Tenant, WatchFrom, WatchMessage,
    WatchOptions, WriteOptions,
};
use tokio::time::timeout;

use super::{Begun, GIVEN_UP};
use crate::verbs::dev::{check::verdict::Verdict, plan::REGIONS, world::World};

/// Writes before the cut, and behind it.
const KEPT: usize = 30;
const CUT: usize = 30;

/// Part of the lost home's tail that a client beside it has seen.
struct Seen {
    revisions: Vec<Revision>,
    token: SessionToken,
}

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let begun = Begun::start(world, "check-forked").await?;
    let mut kept = Vec::new();
    for number in 0..KEPT {
        kept.push(begun.near.put(format!("kept/{number}"), "v").await?.header.revision);
    }
    let point = *kept.last().context("something was written")?;
    begun.copies_have(world, point).await?;
    let lost = begun.lose(world, write_tail).await;
    let checked = match &lost {
        Ok((seen, promotion)) => {
            let point = promotion.tenant(&begun.name).and_then(|tenant| tenant.kept);
            let point = point.context("the report has no position that was taken over")?;
            // What was under way when the links were cut may have arrived.
            let is_cut = |revision: &Revision| *revision > point;
            let (cut, survived): (Vec<_>, Vec<_>) = seen.revisions.iter().copied().partition(is_cut);
            kept.extend(survived);
            let seen = Seen {
                revisions: cut,
                token: seen.token,
            };
            check(world, &begun, &kept, &seen).await
        }
        Err(_) => Ok(Verdict::default()),
    };
    begun
        .end(world, lost.as_ref().ok().map(|(_, promotion)| promotion))
        .await?;
    lost?;
    checked
}

async fn write_tail(near: &Tenant) -> anyhow::Result<Seen> {
    let mut revisions = Vec::new();
    for number in 0..CUT {
        revisions.push(near.put(format!("cut/{number}"), "v").await?.header.revision);
    }
    let token = near.token().context("the session has no token")?;
    Ok(Seen { revisions, token })
}

async fn check(world: &mut World, begun: &Begun, kept: &[Revision], seen: &Seen) -> anyhow::Result<Verdict> {
    let after = begun.far.put("after", "v").await?.header.revision;
    let (first, last) = (seen.revisions.first().copied(), seen.revisions.last().copied());
    let (first, last) = first.zip(last).context("something was cut")?;
    let point = *kept.last().context("something was kept")?;
    let is_exact = |kind: &ErrorKind, revision: Revision| {
        let expected = ErrorKind::Forked {
            epoch: revision.epoch(),
            first,
            last: revision,
            kept: point,
        };
        *kind == expected
    };
    let (mut wrong, mut checked) = (0, 0);
    for (region, _) in REGIONS.iter().filter(|(region, _)| *region != super::HOME) {
        let tenant = world.client(region).await?.tenant(&begun.name)?;
        let read = async |revision| {
            let token = SessionToken {
                tenant: seen.token.tenant,
                revision,
            };
            tenant
                .get_with("after", &ReadOptions::at(Consistency::Token(token)))
                .await
        };
        for revision in &seen.revisions {
            wrong += usize::from(
                !read(*revision)
                    .await
                    .is_err_and(|error| is_exact(&error.kind, *revision)),
            );
        }
        for revision in kept.iter().chain([&after]) {
            wrong += usize::from(read(*revision).await.is_err());
        }
        checked += seen.revisions.len() + kept.len() + 1;
    }
    let condition = WriteOptions {
        precondition: Some(Condition::modified_at(last)),
        ..WriteOptions::default()
    };
    let refused = begun.far.put_with("cut/0", "w", &condition).await;
    wrong += usize::from(!refused.is_err_and(|error| is_exact(&error.kind, last)));
    let session = session(begun, seen, world).await?;
    let watch = watch(begun, seen, last, point, after).await?;
    Ok(Verdict::default()
        .none("answers that are not exact", wrong)
        .none("sessions that were not told once", session)
        .none("watches that did not go on", watch)
        .note(format!(
            "{checked} tokens at two regions, {} cut",
            2 * seen.revisions.len()
        )))
}

/// Returns whether a session of what was cut is not told once, or does not go on by itself.
async fn session(begun: &Begun, seen: &Seen, world: &mut World) -> anyhow::Result<usize> {
    let tenant = world.nearest_only_client("ap-south").await?.tenant(&begun.name)?;
    tenant.resume(seen.token)?;
    let session = ReadOptions::at(Consistency::Session);
    let told = tenant.get_with("after", &session).await;
    let is_told = told.is_err_and(|error| matches!(error.kind, ErrorKind::Forked { .. }));
    let goes_on = tenant.get_with("after", &session).await?.item.is_some();
    Ok(usize::from(!is_told || !goes_on))
}

/// Returns whether a watch of what was cut is not told, or does not go on with what came instead.
async fn watch(begun: &Begun, seen: &Seen, last: Revision, point: Revision, after: Revision) -> anyhow::Result<usize> {
    let options = WatchOptions {
        from: WatchFrom::Token(seen.token),
        ..WatchOptions::default()
    };
    let mut watcher = begun.far.watch(options).await?;
    let mut told = 0;
    loop {
        match timeout(GIVEN_UP, watcher.next()).await?? {
            WatchMessage::Forked { last: to, kept, .. } => told += usize::from((to, kept) == (last, point)),
            WatchMessage::Changes(events) => {
                let first = events.first().context("changes without an event")?;
                return Ok(usize::from(told != 1 || first.item.modified != after));
            }
            WatchMessage::Progress => {}
            WatchMessage::State { .. } => bail!("no state was asked for"),
        }
    }
}
