//! Lines, tables and exports of promotions.

use stead_client::{PromotedTimes, Revision};
use stead_types::{Epoch, Sequence};

use super::*;

fn at(seconds: u64) -> Option<SystemTime> {
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn group(region: &str, group: u32) -> Place {
    let region = region.to_owned();
    Place { region, group }
}

pub(in super::super) fn progress(phase: PromotionPhase) -> PromotionProgress {
    PromotionProgress {
        selection: "tenants of region eu-west".into(),
        phase,
        tenants: 10,
        promoted: 4,
        moved: 1,
        fenced: 0,
        freezing: 2,
        activating: 1,
        blocked: 2,
        replaced: 0,
        failed: 0,
        waiting: 0,
        wait_until: at(112),
        failures: vec![("acme".into(), "ap-south is silent".into())],
    }
}

fn revision(epoch: u32, sequence: u64) -> Option<Revision> {
    Some(Revision::new(Epoch::new(epoch)?, Sequence::new(sequence)?))
}

fn promoted(tenant: &str, took: u64, loss: LossWindow) -> PromotedTenant {
    PromotedTenant {
        tenant: tenant.into(),
        number: 7,
        state: PromotedState::Promoted,
        from: Some(group("eu-west", 2)),
        to: Some(group("us-east", 1)),
        epoch: 3,
        kept: revision(1, 4_711),
        loss,
        reason: "it has the longest history".into(),
        durability_lowered: false,
        times: PromotedTimes {
            fenced: at(100),
            waited: at(115),
            chosen: at(116),
            ended: at(100 + took),
            last_renewal: at(90),
            ready: None,
        },
        reports: Vec::new(),
    }
}

/// A report of one tenant.
pub(in super::super) fn sample_report() -> PromotionReport {
    report(vec![promoted("acme", 17, LossWindow::None)])
}

fn report(tenants: Vec<PromotedTenant>) -> PromotionReport {
    let operation = super::super::display::tests::operation(&[], None);
    PromotionReport { operation, tenants }
}

#[test]
fn progress_says_what_it_waits_for() {
    let line = waiting(&progress(PromotionPhase::Waiting), at(99).unwrap());
    assert!(
        line.starts_with("the leases of the homes before run out, at most 13 s more: "),
        "{line}"
    );
    assert!(
        line.ends_with("5 of 10 tenants have a new home, 1 by a planned move, 2 are compared, 1 take over, 2 blocked"),
        "{line}"
    );
    assert_eq!(
        blocked_lines(&progress(PromotionPhase::Blocked)),
        ["blocked: acme: ap-south is silent", "blocked: 1 more tenants"]
    );
}

#[test]
fn summary_has_longest_time_and_whole_window() {
    let early = LossWindow::Between(at(90), at(115));
    let late = LossWindow::Between(at(95), at(116));
    let lines = summary_lines(&report(vec![
        promoted("acme", 17, early),
        promoted("globex", 18, late),
        promoted("safe", 16, LossWindow::None),
    ]));
    assert_eq!(lines[1], "longest, from the fence: 18.0 s (globex)");
    assert_eq!(
        lines[2],
        "longest, from the last lease of the home before, which failed later: 28.0 s (globex)"
    );
    assert_eq!(
        lines[3],
        "loss: 2 tenants may lose what was acknowledged between 1970-01-01T00:01:30.000Z and \
         1970-01-01T00:01:56.000Z (26.0 s)"
    );
    let safe = summary_lines(&report(vec![promoted("safe", 16, LossWindow::None)]));
    assert_eq!(safe[3], "loss: none");
}

#[test]
fn unknown_bound_of_one_window_makes_whole_one_unknown() {
    let known = LossWindow::Between(at(90), at(115));
    let unknown = LossWindow::Between(None, at(116));
    for windows in [[known, unknown], [unknown, known]] {
        let [first, second] = windows.map(|window| promoted("acme", 17, window));
        let line = loss_line(&report(vec![first, second]));
        assert!(
            line.contains("between an unknown time and 1970-01-01T00:01:56.000Z"),
            "{line}"
        );
    }
}

#[test]
fn blocked_tenant_is_named_with_command_that_helps() {
    let blocked = PromotedTenant {
        state: PromotedState::Blocked,
        kept: None,
        reason: "ap-south g3 is silent".into(),
        ..promoted("acme", 1, LossWindow::None)
    };
    let text = summary_lines(&report(vec![blocked.clone()])).join("\n");
    assert!(text.contains("blocked: acme: ap-south g3 is silent"), "{text}");
    assert!(text.contains("stead tenant promote acme --replace --dry-run"), "{text}");
    assert_eq!(report_cells(&blocked)[6], "", "no window is known before the choice");
}

#[test]
fn report_has_one_csv_line_for_each_tenant() {
    let csv = report_csv(&report(vec![promoted("acme", 17, LossWindow::Between(None, at(115)))])).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert!(
        lines[1].starts_with("acme,7,STATE_PROMOTED,eu-west,2,us-east,1,3,1.4711,false,,1970-"),
        "{csv}"
    );
}

#[test]
fn plan_names_what_blocks_and_what_may_be_lost() {
    let silent = TenantCopy {
        place: Some(group("eu-west", 2)),
        silent: true,
        role: CopyRole::Other,
        epoch: 0,
        revision: None,
        staleness: None,
        suspect: false,
    };
    let follower = TenantCopy {
        place: Some(group("us-east", 1)),
        silent: false,
        role: CopyRole::Follower,
        epoch: 1,
        revision: revision(1, 4_711),
        staleness: Some(Duration::from_millis(350)),
        ..silent
    };
    let plan = PromotionPlan {
        selection: "tenants of region eu-west".into(),
        tenants: 1,
        tenants_at_risk: 1,
        wait_max: Some(Duration::from_millis(15_200)),
        wait_left: Some(Duration::from_millis(4_100)),
        items: vec![PlannedPromotion {
            tenant: "acme".into(),
            from: Some(group("eu-west", 2)),
            to: Some(group("us-east", 1)),
            kept: revision(1, 4_711),
            loss: LossWindow::Between(at(90), at(115)),
            blocker: String::new(),
            options_needed: Vec::new(),
            copies: vec![silent, follower],
        }],
        ..PromotionPlan::default()
    };
    let lines = plan_lines(&plan);
    assert_eq!(
        lines,
        [
            "tenants of region eu-west: 1 tenant",
            "wait: at most 15.2 s after the fence; 4100 ms if it began now; no region serves these tenants then",
            "loss: possible for 1 tenant, of what their homes acknowledge in the windows below",
            "acme: to us-east g1, keeps 1.4711, may lose what was acknowledged between 1970-01-01T00:01:30.000Z and \
             1970-01-01T00:01:55.000Z (25.0 s)",
            "  eu-west g2: silent",
            "  us-east g1: follower at 1.4711, at most 350 ms old",
        ]
    );
}
