//! `stead operation`.

pub(super) mod bulk;
mod bulk_display;
mod cancel;
pub(super) mod display;
pub(super) mod follow;
mod list;
mod pause;
pub(super) mod promote;
/// Displays of promotions for other nouns.
pub(super) mod promotion {
    pub(in crate::verbs) use super::{
        promotion_display::item_lines,
        promotion_value::{clock, item_value},
    };
}
mod promotion_digest;
mod promotion_display;
mod promotion_value;
mod report;
mod show;
mod tenants;
mod topology_display;
mod watch;

use clap::Subcommand;

use crate::{
    args::Target,
    exit::{Code, CommandError},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show operations, newest first; they are kept for seven days after their end
    List(list::List),
    /// Show an operation with its steps
    Show(show::Show),
    /// Show the steps of an operation until it is over; Ctrl-C ends only this
    Watch(watch::Watch),
    /// Give up an operation that is in flight; of many moves, no further ones begin
    Cancel(cancel::Cancel),
    /// Let an operation that moves many tenants begin no further moves
    Pause(pause::Pause),
    /// Let an operation that moves many tenants go on
    Resume(pause::Resume),
    /// Show what a promotion has decided, tenant by tenant: kept revisions, windows of loss, times
    Report(report::Report),
    /// Show the tenants of an operation that moves many
    Tenants(tenants::Tenants),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::List(verb) => verb.run(target).await,
            Self::Show(verb) => verb.run(target).await,
            Self::Watch(verb) => verb.run(target).await,
            Self::Cancel(verb) => verb.run(target).await,
            Self::Pause(verb) => verb.run(target).await,
            Self::Resume(verb) => verb.run(target).await,
            Self::Report(verb) => verb.run(target).await,
            Self::Tenants(verb) => verb.run(target).await,
        }
    }
}

impl Verb {
    /// Tells whether the verb handles Ctrl-C itself, because what it shows goes on.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Watch(_))
    }
}

/// Parses the name of an operation: `operations/7`, or its number alone.
fn name(text: &str) -> Result<String, CommandError> {
    let number = text.strip_prefix("operations/").unwrap_or(text);
    let invalid = |_| {
        let message = format!("{text:?} is no operation: one is named operations/7, or 7");
        CommandError::new(Code::Usage, message)
    };
    let number: u64 = number.parse().map_err(invalid)?;
    Ok(format!("operations/{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_is_named_with_or_without_collection() {
        for text in ["7", "operations/7"] {
            assert_eq!(name(text).unwrap(), "operations/7");
        }
        for text in ["", "x", "operations/", "tenants/7"] {
            assert_eq!(name(text).unwrap_err().code(), Code::Usage, "{text}");
        }
    }
}
