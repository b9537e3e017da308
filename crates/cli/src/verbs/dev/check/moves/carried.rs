//! Step: what callers hold goes on across a move: tokens, conditions, idempotency keys, times to live, counters with
//! windows and watches.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{
    Condition, Consistency, IdempotencyKey, Increment, KeyRange, MoveSource, Operand, ReadOptions, Relation, Revision,
    SessionToken, Tenant, WatchMessage, WatchOptions, Watcher, WriteOptions,
};
use stead_testing::moves::move_to;
use stead_types::ClientId;
use tokio::time::{Instant, timeout};

use super::{SOURCE, TARGET};
use crate::verbs::dev::{
    check::verdict::Verdict,
    plan::REGIONS,
    world::{WAIT_TIMEOUT, World, until},
};

const MOVE_WITHIN: Duration = Duration::from_secs(3);
const TTL: Duration = Duration::from_secs(8);
/// Time after its end until a key is gone.
const END: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(3_600);

/// Session token, page token and watch position of a caller before a move.
struct Held {
    token: SessionToken,
    /// Increment that is sent again after the move.
    repeated: WriteOptions,
    expires: Instant,
}

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world.tenant("check-move", SOURCE, SOURCE).await?;
    let admin = world.client(SOURCE).await?.admin();
    let prefix = format!("move/{}", world.run);
    let mut watchers = Vec::new();
    for (region, _) in REGIONS {
        let seen_from = world.tenant("check-move", SOURCE, region).await?;
        let watch = WatchOptions {
            ranges: vec![KeyRange::prefix(format!("{prefix}/"))],
            ..WatchOptions::default()
        };
        watchers.push((region, seen_from.watch(watch).await?));
    }
    let held = hold(&tenant, &prefix).await?;
    let started = Instant::now();
    move_to(&admin, "check-move", TARGET, MoveSource::Follow).await?;
    let took = started.elapsed();
    let wrong = check(world, &tenant, &prefix, &held).await?;
    let expected = tenant.put(format!("{prefix}/last"), "last").await?.header.revision;
    let mut missed = 0;
    for (region, watcher) in watchers {
        let seen = timeout(WAIT_TIMEOUT, events_until(watcher, &format!("{prefix}/last")))
            .await
            .with_context(|| format!("the watcher in {region} does not see the last write"))??;
        missed += usize::from(!seen.is_sorted() || seen.last() != Some(&expected));
    }
    until("the key with a time to live is gone", async || {
        Ok(tenant.get(format!("{prefix}/ttl")).await?.item.is_none())
    })
    .await?;
    let early = held.expires.saturating_duration_since(Instant::now());
    let late = held.expires.elapsed();
    move_to(&admin, "check-move", SOURCE, MoveSource::Follow).await?;
    Ok(Verdict::default()
        .time("moved", took, MOVE_WITHIN)
        .time("key gone after its end", late, END)
        .none("keys that ended early", usize::from(early > END))
        .none("watchers that missed something", missed)
        .none("wrong answers", wrong.len())
        .note(if wrong.is_empty() {
            "tokens, conditions, repeats, windows, watches".to_owned()
        } else {
            wrong.join(", ")
        }))
}

async fn hold(tenant: &Tenant, prefix: &str) -> anyhow::Result<Held> {
    let put = tenant.put(format!("{prefix}/condition"), "1").await?;
    let expires = Instant::now() + TTL;
    tenant
        .put_expiring(format!("{prefix}/ttl"), "1", TTL, &WriteOptions::default())
        .await?;
    let repeated = WriteOptions {
        idempotency_key: Some(IdempotencyKey {
            client: ClientId(rand::random()),
            sequence: 1,
            first_sent: put.header.tenant_time,
        }),
        ..WriteOptions::default()
    };
    let counted = tenant
        .increment_with(format!("{prefix}/window"), windowed(), &repeated)
        .await?;
    let token = counted
        .header
        .token
        .context("the response to an increment has no token")?;
    Ok(Held {
        token,
        repeated,
        expires,
    })
}

fn windowed() -> Increment {
    Increment {
        window: Some(WINDOW),
        ..Increment::by(5)
    }
}

/// Returns what is wrong after the move.
async fn check(world: &mut World, tenant: &Tenant, prefix: &str, held: &Held) -> anyhow::Result<Vec<&'static str>> {
    let mut wrong = Vec::new();
    for (region, _) in REGIONS {
        let seen_from = world.tenant("check-move", SOURCE, region).await?;
        let read = ReadOptions::at(Consistency::Token(held.token));
        let got = seen_from.get_with(format!("{prefix}/condition"), &read).await?;
        if got.item.is_none() {
            wrong.push("token");
        }
    }
    let item = tenant.get(format!("{prefix}/condition")).await?.item;
    let before = item.context("a key is gone with the move")?.modified;
    let unchanged = WriteOptions {
        precondition: Some(Condition::Compared(Relation::Equal, Operand::Modified(before))),
        ..WriteOptions::default()
    };
    let changed = tenant.put_with(format!("{prefix}/condition"), "2", &unchanged).await;
    if changed.is_err() {
        wrong.push("condition");
    }
    let again = tenant
        .increment_with(format!("{prefix}/window"), windowed(), &held.repeated)
        .await?;
    if !again.repeated || again.value != Some(5) {
        wrong.push("repeat");
    }
    let counted = tenant
        .increment_with(format!("{prefix}/window"), windowed(), &WriteOptions::default())
        .await?;
    if counted.value != Some(10) {
        wrong.push("window");
    }
    ensure!(
        counted.header.revision.epoch() > before.epoch(),
        "the epoch has not grown"
    );
    Ok(wrong)
}

async fn events_until(mut watcher: Watcher, last: &str) -> anyhow::Result<Vec<Revision>> {
    let mut seen = Vec::new();
    loop {
        let WatchMessage::Changes(events) = watcher.next().await? else {
            continue;
        };
        for event in events {
            seen.push(event.item.modified);
            if event.item.key == last {
                return Ok(seen);
            }
        }
    }
}
