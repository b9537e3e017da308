//! Progress of an operation until its end: a line that changes on a terminal, a line a step elsewhere.
//!
//! Ctrl-C ends the showing, not the operation: the directory's voters have it.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use stead_client::{Admin, BulkMoveState, OperationInfo, OperationOutcome, PromotionPhase, TopologyProgress};
use tokio::time::timeout;

use super::display;
use crate::{
    exit::{Code, CommandError},
    output::Output,
};

/// Pause before the watch of an operation is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// Most attempts to open a watch, one after the other, without an answer.
const REOPENS_MAX: u32 = 60;
/// Longest time between two changes of the line.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two frames of the line on a terminal.
const FRAME: Duration = Duration::from_millis(120);

/// Shows an operation until it is over, prints it, and returns its failure.
pub(in crate::verbs) async fn to_the_end(admin: &Admin, name: &str, output: Output) -> Result<(), CommandError> {
    let mut progress = Progress::new(output);
    let operation = tokio::select! {
        ended = follow(admin, name, &mut progress) => ended?,
        _ = tokio::signal::ctrl_c() => return Err(detached(name, progress.is_promotion)),
    };
    let failure = failure(&operation).or_else(|| stopped(&operation));
    display::table(&[operation]).print_one(output)?;
    failure.map_or(Ok(()), Err)
}

/// Returns the error of a command that was interrupted while its operation goes on.
fn detached(name: &str, is_promotion: bool) -> CommandError {
    let hint = match is_promotion {
        true => {
            format!("`stead operation watch {name}` shows it again; once it has fenced its tenants nothing gives it up")
        }
        false => format!("`stead operation watch {name}` shows it again, `stead operation cancel {name}` gives it up"),
    };
    CommandError::new(Code::Interrupted, format!("detached: {name} goes on")).hint(hint)
}

/// Returns the error of a command whose operation goes on only when somebody decides something.
fn stopped(operation: &OperationInfo) -> Option<CommandError> {
    paused(operation).or_else(|| blocked(operation))
}

/// Returns the error of a command whose promotion has done all that it may.
fn blocked(operation: &OperationInfo) -> Option<CommandError> {
    let promotion = operation
        .promotion
        .as_ref()
        .filter(|_| display::is_blocked(operation))?;
    let count = promotion.blocked;
    let first = promotion.failures.first();
    let reason = first
        .map(|(tenant, reason)| format!(": {tenant}: {reason}"))
        .unwrap_or_default();
    let hint = format!("`stead operation report {}` names each with its reason", operation.name);
    Some(CommandError::new(Code::Conflict, format!("{count} tenants are blocked{reason}")).hint(hint))
}

/// Returns the error of a command whose operation is paused: it goes on only when somebody resumes it.
fn paused(operation: &OperationInfo) -> Option<CommandError> {
    let BulkMoveState::Paused(reason) = &operation.progress.as_ref()?.state else {
        return None;
    };
    let name = &operation.name;
    let hint = format!("`stead operation resume {name}` goes on, `stead operation cancel {name}` ends it");
    Some(CommandError::new(Code::Conflict, format!("paused: {reason}")).hint(hint))
}

/// Returns the failure of an operation that is over.
pub(in crate::verbs) fn failure(operation: &OperationInfo) -> Option<CommandError> {
    match operation.outcome.as_ref()? {
        OperationOutcome::Moved { .. }
        | OperationOutcome::TenantsMoved(_)
        | OperationOutcome::Promoted(_)
        | OperationOutcome::TopologyChanged(_) => None,
        OperationOutcome::Failed(error) => Some(error.clone().into()),
        OperationOutcome::Cancelled(message) => Some(CommandError::new(Code::Conflict, message.clone())),
    }
}

async fn follow(admin: &Admin, name: &str, progress: &mut Progress) -> Result<OperationInfo, CommandError> {
    let mut unanswered = 0;
    loop {
        let watched = async {
            let mut watch = admin.watch_operation(name).await?;
            let mut last: Option<OperationInfo> = None;
            loop {
                let operation = match timeout(SHOW_INTERVAL, watch.next()).await {
                    Ok(next) => match next? {
                        Some(operation) => operation,
                        None => break,
                    },
                    // What is left of a wait has become less.
                    Err(_) => match last.clone() {
                        Some(last) => last,
                        None => continue,
                    },
                };
                last = Some(operation.clone());
                unanswered = 0;
                progress.show(&operation);
                if operation.outcome.is_some() || stopped(&operation).is_some() {
                    return Ok(Some(operation));
                }
            }
            Ok(None)
        };
        // A node that stops ends its watches; another one goes on with them.
        let watched: Result<_, stead_client::Error> = watched.await;
        match watched {
            Ok(Some(operation)) => return Ok(operation),
            Ok(None) => {}
            Err(error) if !error.has_no_effect() || error.is_transient() => {
                unanswered += 1;
                if unanswered > REOPENS_MAX {
                    let hint = format!("the operation goes on; `stead operation watch {name}` shows it again");
                    return Err(CommandError::from(error).hint(hint));
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// Returns the style of the line of an operation on many tenants: a bar of these before what it waits for.
fn bulk_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {bar:30} {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Part of an operation that was shown already.
struct Progress {
    /// The line on a terminal.
    bar: Option<ProgressBar>,
    /// Whether anything is shown: a program reads the result only.
    is_silent: bool,
    shown_steps: usize,
    /// Number of the last wave of a bulk move that was shown.
    shown_wave: u64,
    /// Phase of a promotion that was shown.
    shown_phase: Option<PromotionPhase>,
    /// Whether the operation is a promotion.
    is_promotion: bool,
    /// Progress of a change of nodes or regions that was shown.
    shown_topology: Option<TopologyProgress>,
}

impl Progress {
    fn new(output: Output) -> Self {
        let is_silent = output == Output::Json;
        let has_bar = !is_silent && std::io::stderr().is_terminal();
        let bar = has_bar.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(FRAME);
            bar
        });
        Self {
            bar,
            is_silent,
            shown_steps: 0,
            shown_wave: 0,
            shown_phase: None,
            is_promotion: false,
            shown_topology: None,
        }
    }

    fn show(&mut self, operation: &OperationInfo) {
        for step in operation.steps.iter().skip(self.shown_steps) {
            self.line(&display::step_line(operation, step));
        }
        self.shown_steps = self.shown_steps.max(operation.steps.len());
        if let Some(progress) = &operation.progress {
            match &self.bar {
                Some(bar) => {
                    bar.set_style(bulk_style());
                    bar.set_length(progress.selected);
                    bar.set_position(progress.moved);
                }
                None if progress.wave > self.shown_wave => self.line(&display::waiting(operation)),
                None => {}
            }
            self.shown_wave = progress.wave;
        }
        if let Some(promotion) = &operation.promotion {
            self.is_promotion = true;
            match &self.bar {
                Some(bar) => {
                    bar.set_style(bulk_style());
                    bar.set_length(promotion.tenants);
                    bar.set_position(promotion.promoted + promotion.moved);
                }
                None if self.shown_phase != Some(promotion.phase) => self.line(&display::waiting(operation)),
                None => {}
            }
            self.shown_phase = Some(promotion.phase);
        }
        if let Some(topology) = &operation.topology {
            match &self.bar {
                Some(bar) => {
                    bar.set_style(bulk_style());
                    bar.set_length(u64::from(topology.voter_changes.max(1)));
                    bar.set_position(u64::from(topology.voter_changes_done));
                }
                None if self.shown_topology.as_ref() != Some(topology) && operation.outcome.is_none() => {
                    self.line(&display::waiting(operation));
                }
                None => {}
            }
            self.shown_topology = Some(topology.clone());
        }
        let is_over = operation.outcome.is_some() || stopped(operation).is_some();
        match &self.bar {
            Some(bar) if is_over => bar.finish_and_clear(),
            Some(bar) => bar.set_message(display::waiting(operation)),
            None => {}
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.is_silent => {}
            None => eprintln!("{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_client::{Error, ErrorKind, Place};

    use super::{
        super::{bulk_display, promotion_display},
        *,
    };

    #[test]
    fn outcome_decides_exit_code() {
        let of = |outcome| failure(&display::tests::operation(&[], Some(outcome))).map(|failure| failure.code());
        let home = Place {
            region: "us-east".into(),
            group: 5,
        };
        assert_eq!(of(OperationOutcome::Moved { home, epoch: 2 }), None);
        assert_eq!(
            of(OperationOutcome::Cancelled("cancelled".into())),
            Some(Code::Conflict)
        );
        let erased = Error::new(ErrorKind::Conflict, "the tenant was erased");
        assert_eq!(of(OperationOutcome::Failed(erased)), Some(Code::Conflict));
    }

    #[test]
    fn paused_operation_ends_watch_with_way_on() {
        let mut operation = display::tests::operation(&[], None);
        assert!(paused(&operation).is_none());
        let state = BulkMoveState::Paused("wave 3 missed its budget".into());
        operation.progress = Some(bulk_display::tests::progress(state));
        let text = format!("{:?}", paused(&operation).unwrap());
        assert!(text.contains("paused: wave 3 missed its budget"), "{text}");
        assert!(text.contains("stead operation resume operations/7"), "{text}");
    }

    #[test]
    fn blocked_promotion_ends_watch_with_its_report() {
        let mut operation = display::tests::operation(&[], None);
        operation.promotion = Some(promotion_display::tests::progress(PromotionPhase::TakingOver));
        assert!(stopped(&operation).is_none(), "it goes on by itself");
        operation.promotion = Some(promotion_display::tests::progress(PromotionPhase::Blocked));
        let text = format!("{:?}", stopped(&operation).unwrap());
        assert!(
            text.contains("2 tenants are blocked: acme: ap-south is silent"),
            "{text}"
        );
        assert!(text.contains("stead operation report operations/7"), "{text}");
    }

    #[test]
    fn detached_command_names_watch_and_cancel() {
        let detached = super::detached("operations/7", false);
        assert_eq!(detached.code(), Code::Interrupted);
        let text = format!("{detached:?}");
        assert!(text.contains("stead operation watch operations/7"), "{text}");
        assert!(text.contains("stead operation cancel operations/7"), "{text}");
        let promotion = format!("{:?}", super::detached("operations/7", true));
        assert!(!promotion.contains("stead operation cancel"), "{promotion}");
    }
}
