//! Step: faults are made, one after the other and harmlessly, and `stead cluster check` finds each with its exit code and what
//! to do; before, between and after them it finds nothing.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use stead_cert::{LIFETIME, NewCertificate, Overwrite, Validity};
use stead_testing::cluster::SkewDirection;
use stead_tls::{CertificateName, Subject};
use tokio::time::Instant;

use super::{command_line::CommandLine, verdict::Verdict};
use crate::{
    exit::Code,
    verbs::dev::{
        plan::REGIONS,
        world::{World, until},
    },
};

/// Offset of a clock: beyond what the check allows, below what the nodes themselves warn of.
const CLOCK_OFF: Duration = Duration::from_millis(1_500);
/// Validity of a certificate that is to be renewed: less than two weeks.
const SHORT: Duration = Duration::from_secs(10 * 86_400);
const RESERVE: &str = "storage.disk_reserve_bytes";
/// More than any disk has: an EiB.
const RESERVE_LARGE: &str = "1152921504606846976";
/// Longest time from a fault to its finding.
const FOUND: Duration = Duration::from_secs(20);

/// Command line that asks for findings.
struct Checker {
    line: CommandLine,
    /// Longest time from a fault to its finding so far.
    longest: Duration,
}

pub(super) async fn run(world: &mut World, data: &Path) -> anyhow::Result<Verdict> {
    let mut checker = Checker {
        line: CommandLine::prepare(world, data, "check-finds").await?,
        longest: Duration::ZERO,
    };
    let asked = REGIONS[0].0;
    checker.finds_nothing(asked).await.context("at first")?;
    lost_node(world, &mut checker).await.context("a lost node")?;
    wrong_clock(world, &mut checker).await.context("a wrong clock")?;
    cut_link(world, &mut checker).await.context("a cut link")?;
    short_disk(world, &mut checker).await.context("a short disk")?;
    let is_encrypted = world.cluster.lock().await.tls().is_some();
    if is_encrypted {
        old_certificate(world, &mut checker)
            .await
            .context("an old certificate")?;
    }
    let left_out = if is_encrypted {
        ""
    } else {
        ", certificates not: plain text"
    };
    Ok(Verdict::default()
        .time("each found within", checker.longest, FOUND)
        .note(format!(
            "node, spare, clock, link, disk, certificate{left_out}; nothing between them"
        )))
}

/// A node is killed: it is named, and so are the groups that have none to spare.
async fn lost_node(world: &mut World, checker: &mut Checker) -> anyhow::Result<()> {
    let (asked, node) = (REGIONS[0].0, "eu-west-2");
    world.cluster.lock().await.kill_node(node).await?;
    let words = [
        "node eu-west-2",
        "it does not answer: start it, or `stead node replace eu-west-2`",
        "2 of 3 voters answer: the loss of one more stops it",
    ];
    checker.finds(asked, &words).await?;
    world.cluster.lock().await.start_node(node)?;
    world.ready().await?;
    checker.finds_nothing(asked).await
}

async fn wrong_clock(world: &mut World, checker: &mut Checker) -> anyhow::Result<()> {
    let (asked, node) = (REGIONS[0].0, "ap-south-3");
    let set = async |by| world.cluster.lock().await.set_clock(node, by, SkewDirection::Ahead);
    set(CLOCK_OFF).await?;
    let words = [
        "the wall clock of node ap-south-3 is",
        "ms ahead of the median: look at NTP there",
    ];
    checker.finds(asked, &words).await?;
    set(Duration::ZERO).await?;
    checker.finds_nothing(asked).await
}

/// The link between two regions is cut; the third one leads the directory, so that both keep their leases, and is asked.
async fn cut_link(world: &mut World, checker: &mut Checker) -> anyhow::Result<()> {
    let leader = world.leader_of_group(0).await?;
    let names = REGIONS.map(|(name, _)| name);
    let leads = |name: &&str| leader.starts_with(&format!("{name}-"));
    let asked = names.into_iter().find(leads).context("a region leads the directory")?;
    let cut: Vec<&str> = names.into_iter().filter(|name| !leads(name)).collect();
    let link = world.cluster.lock().await.link(cut[0], cut[1])?;
    link.cut();
    let found = checker.finds(asked, &["it does not reach group", cut[0], cut[1]]).await;
    link.heal();
    found?;
    checker.finds_nothing(asked).await
}

/// The reserve of one node is above what its disk has: the other two of its groups go on.
async fn short_disk(world: &mut World, checker: &mut Checker) -> anyhow::Result<()> {
    let (asked, node) = (REGIONS[0].0, "us-east-3");
    restart(world, node, Some(RESERVE_LARGE)).await?;
    checker.finds(asked, &["node us-east-3", "disk: "]).await?;
    restart(world, node, None).await?;
    checker.finds_nothing(asked).await
}

async fn restart(world: &mut World, node: &str, reserve: Option<&str>) -> anyhow::Result<()> {
    {
        let mut cluster = world.cluster.lock().await;
        cluster.terminate_node(node).await?;
        cluster.set_option(RESERVE, reserve);
        let started = cluster.start_node(node);
        cluster.set_option(RESERVE, None);
        started?;
    }
    world.ready().await
}

/// A node gets a certificate of ten days, and then one of a year again.
async fn old_certificate(world: &mut World, checker: &mut Checker) -> anyhow::Result<()> {
    let asked = REGIONS[0].0;
    issue(world, SHORT).await?;
    let words = [
        "node eu-west-3",
        "this node's certificate expires in 9 days: run `stead cert rotate`",
    ];
    checker.finds(asked, &words).await?;
    issue(world, LIFETIME).await?;
    checker.finds_nothing(asked).await
}

async fn issue(world: &World, lifetime: Duration) -> anyhow::Result<()> {
    let certificates = world.cluster.lock().await.certificates();
    let subject = Subject::Node {
        region: "eu-west".into(),
        name: "eu-west-3".into(),
    };
    let new = NewCertificate {
        name: CertificateName {
            cluster: certificates.cluster()?,
            subject,
        },
        hosts: ["127.0.0.1", "localhost"].map(str::to_owned).into(),
        validity: Validity::from_now(std::time::SystemTime::now(), lifetime),
    };
    certificates.issue(&new, Overwrite::Allowed)?;
    Ok(())
}

impl Checker {
    /// Looks, from a region; returns the exit code and what was printed.
    async fn look(&self, from: &str) -> anyhow::Result<(Option<i32>, String)> {
        let ended = self
            .line
            .command_from(from, &["cluster", "check", "--allow-notes"])?
            .output()
            .await?;
        let printed = [ended.stdout, ended.stderr].concat();
        Ok((ended.status.code(), String::from_utf8_lossy(&printed).into_owned()))
    }

    /// Waits until all of these words are found, with the exit code of what is unhealthy.
    async fn finds(&mut self, from: &str, words: &[&str]) -> anyhow::Result<()> {
        let began = Instant::now();
        until(&format!("{words:?} are found"), async || {
            let (code, printed) = self.look(from).await?;
            ensure!(code == Some(Code::Unhealthy as i32), "exit code {code:?}: {printed}");
            let missing = words.iter().find(|word| !printed.contains(**word));
            ensure!(missing.is_none(), "{missing:?} is not in: {printed}");
            Ok(true)
        })
        .await?;
        self.longest = self.longest.max(began.elapsed());
        Ok(())
    }

    async fn finds_nothing(&self, from: &str) -> anyhow::Result<()> {
        until("nothing is found", async || {
            let (code, printed) = self.look(from).await?;
            ensure!(code == Some(0), "exit code {code:?}: {printed}");
            Ok(true)
        })
        .await
    }
}
