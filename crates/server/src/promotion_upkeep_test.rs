//! Proposals of the directory's leader for promotions, and their time.

use std::cell::RefCell;

use stead_state::{
    lease::{grantor::LeaseGrantor, waiter::PossibleOwners},
    serving::BootTime,
};
use stead_types::{Incarnation, RegionName};
use tokio::time::sleep;

use super::*;
use crate::config::NodeConfig;

const OPERATION: u64 = 7;
const TTL: Duration = Duration::from_secs(60);
const ONE: GroupId = GroupId::new(1);
const TWO: GroupId = GroupId::new(2);

/// The leader's grantor of leases, on virtual time.
struct Grantor {
    origin: Instant,
    grantor: RefCell<LeaseGrantor>,
}

impl Grantor {
    fn new() -> Self {
        let this = Self {
            origin: Instant::now(),
            grantor: RefCell::default(),
        };
        this.lead(1);
        this
    }

    fn lead(&self, term: u64) {
        self.grantor.borrow_mut().lead(self.now(), term);
    }

    fn now(&self) -> BootTime {
        BootTime::new(self.origin.elapsed())
    }
}

impl LeaseWaits for Grantor {
    fn begin_wait(&self, fence: &AppliedFence) -> Option<FenceWait> {
        self.grantor.borrow_mut().begin_wait(self.now(), fence)
    }

    fn wait_state(&self, wait: &FenceWait) -> WaitState {
        self.grantor.borrow().wait_state(self.now(), wait)
    }

    fn since_seen_renewals(&self, owners: &PossibleOwners) -> Vec<(GroupId, Duration)> {
        self.grantor.borrow().since_seen_grants(self.now(), owners)
    }
}

fn upkeep() -> PromotionUpkeep {
    let region: RegionName = "eu".parse().unwrap();
    let node = NodeConfig {
        id: NodeId::new(1),
        name: "node-1".to_owned(),
        region,
        peer: String::new(),
        client: String::new(),
        http: String::new(),
        witness: false,
        engine: String::new(),
    };
    PromotionUpkeep::new(Arc::new(Metrics::of(&node, Arc::default())))
}

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn fence(index: u64) -> AppliedFence {
    AppliedFence {
        version: version(index),
        owners: PossibleOwners::new(ONE, None, []),
        ttl: TTL,
    }
}

fn needs() -> PromotionNeeds {
    PromotionNeeds {
        operation: OPERATION,
        fence: None,
        tells_renewals: false,
        moves: false,
        graceful_until: None,
        due: BTreeMap::new(),
        silent: BTreeSet::new(),
        examines: false,
    }
}

fn action(upkeep: &PromotionUpkeep, waits: &Grantor, needs: PromotionNeeds, now: u64) -> Option<PromotionAdvance> {
    let command = upkeep.command(waits, vec![needs], now, &[])?;
    let Command::AdvancePromotion { operation, action } = command else {
        panic!("{command:?}")
    };
    assert_eq!(operation, OPERATION);
    Some(action)
}

#[tokio::test(start_paused = true)]
async fn wait_ends_one_ttl_after_fence_and_is_told_until_there_is_none() {
    let (upkeep, grantor) = (upkeep(), Grantor::new());
    let fenced = || PromotionNeeds {
        fence: Some(fence(10)),
        ..needs()
    };
    let begun = Instant::now();
    assert_eq!(action(&upkeep, &grantor, fenced(), 0), None);
    let over = loop {
        let due = upkeep.next_due().expect("the wait ends");
        tokio::time::sleep_until(due).await;
        if let Some(over) = action(&upkeep, &grantor, fenced(), 0) {
            break over;
        }
    };
    assert_eq!(over, PromotionAdvance::WaitOver { fence: version(10) });
    assert!(begun.elapsed() >= TTL && begun.elapsed() < TTL + Duration::from_secs(2));
    let later = PromotionNeeds {
        due: [(TWO, 1)].into(),
        ..fenced()
    };
    assert_eq!(
        action(&upkeep, &grantor, later, 0),
        Some(over),
        "more tenants are fenced"
    );
}

#[tokio::test(start_paused = true)]
async fn later_fence_and_later_term_wait_anew() {
    let (upkeep, grantor) = (upkeep(), Grantor::new());
    let fenced = |index| PromotionNeeds {
        fence: Some(fence(index)),
        ..needs()
    };
    assert_eq!(action(&upkeep, &grantor, fenced(10), 0), None);
    sleep(TTL * 2).await;
    grantor.lead(2);
    assert_eq!(
        action(&upkeep, &grantor, fenced(10), 0),
        None,
        "another leader granted leases"
    );
    sleep(TTL * 2).await;
    let over = |index| Some(PromotionAdvance::WaitOver { fence: version(index) });
    assert_eq!(action(&upkeep, &grantor, fenced(10), 0), over(10));
    // Nothing was granted since, so that no lease is waited for.
    assert_eq!(action(&upkeep, &grantor, fenced(20), 0), None);
    assert_eq!(action(&upkeep, &grantor, fenced(20), 0), over(20));
}

#[tokio::test(start_paused = true)]
async fn group_is_silent_only_when_none_of_its_reports_comes() {
    let (upkeep, grantor) = (upkeep(), Grantor::new());
    let due = |one, two| PromotionNeeds {
        due: [(ONE, one), (TWO, two)].into(),
        ..needs()
    };
    let half = SILENT_AFTER / 2;
    assert_eq!(action(&upkeep, &grantor, due(5, 5), 0), None);
    sleep(half).await;
    assert_eq!(action(&upkeep, &grantor, due(5, 4), 0), None);
    sleep(half).await;
    let silent = PromotionAdvance::Silent(vec![ONE]);
    assert_eq!(action(&upkeep, &grantor, due(5, 4), 0), Some(silent));
    let told = PromotionNeeds {
        silent: [ONE].into(),
        ..due(5, 3)
    };
    assert_eq!(action(&upkeep, &grantor, told, 0), None);
    let answers = PromotionNeeds {
        silent: [ONE].into(),
        ..due(4, 3)
    };
    let none = PromotionAdvance::Silent(Vec::new());
    assert_eq!(action(&upkeep, &grantor, answers, 0), Some(none), "it answers again");
}

#[tokio::test(start_paused = true)]
async fn command_that_changes_nothing_is_repeated_after_a_pause() {
    let (upkeep, grantor) = (upkeep(), Grantor::new());
    let graceful = || PromotionNeeds {
        graceful_until: Some(5_000),
        ..needs()
    };
    assert_eq!(action(&upkeep, &grantor, graceful(), 4_000), None);
    assert_eq!(upkeep.next_due(), Some(Instant::now() + Duration::from_secs(1)));
    let over = Some(PromotionAdvance::GracefulOver);
    assert_eq!(action(&upkeep, &grantor, graceful(), 5_000), over);
    assert_eq!(action(&upkeep, &grantor, graceful(), 5_001), None);
    sleep(RETRY_PAUSE).await;
    assert_eq!(action(&upkeep, &grantor, graceful(), 5_200), over);
}

#[tokio::test(start_paused = true)]
async fn last_renewals_are_told_once_and_only_where_they_were_seen() {
    let (upkeep, grantor) = (upkeep(), Grantor::new());
    let fenced = |tells_renewals| PromotionNeeds {
        fence: Some(fence(10)),
        tells_renewals,
        ..needs()
    };
    assert_eq!(
        action(&upkeep, &grantor, fenced(true), 9_000),
        None,
        "no renewal was seen"
    );
    let renewal = stead_state::lease::Renewal {
        attempt: stead_state::lease::AttemptNumber(1),
        view: version(1),
        groups: [ONE, TWO].into(),
    };
    let reading = stead_state::lease::grantor::DirectoryReading {
        version: version(10),
        ttl: TTL,
        fences: None,
    };
    let now = grantor.now();
    grantor.grantor.borrow_mut().grant(now, 1, &renewal, reading).unwrap();
    sleep(Duration::from_secs(4)).await;
    let told = PromotionAdvance::Renewals(vec![(ONE, 5_000)]);
    assert_eq!(
        action(&upkeep, &grantor, fenced(true), 9_000),
        Some(told),
        "of owners only"
    );
    assert_eq!(
        action(&upkeep, &grantor, fenced(false), 9_000),
        None,
        "the directory knows"
    );
}

#[tokio::test(start_paused = true)]
async fn group_that_takes_over_is_not_silent_as_long_as_it_gets_further() {
    let (upkeep, grantor) = (upkeep(), Grantor::new());
    let pulling = |progress: u64| PromotionNeeds {
        due: [(ONE, 1 + progress)].into(),
        ..needs()
    };
    for progress in 0..10 {
        assert_eq!(action(&upkeep, &grantor, pulling(progress), 0), None, "{progress}");
        sleep(SILENT_AFTER / 2).await;
    }
    sleep(SILENT_AFTER).await;
    let silent = PromotionAdvance::Silent(vec![ONE]);
    assert_eq!(action(&upkeep, &grantor, pulling(9), 0), Some(silent));
}
