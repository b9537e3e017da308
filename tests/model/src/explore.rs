//! Exploration of a model: breadth first, so that a counterexample is as short as can be.

use std::{
    fmt,
    hash::Hash,
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

/// How far a model is explored.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time after which exploring ends.
    pub time: Duration,
    /// Number of distinct states after which exploring ends.
    pub states: usize,
    /// Threads.
    pub threads: usize,
}

/// Result of an exploration.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Distinct states.
    pub states: usize,
    /// Steps on the longest of the shortest ways to a state.
    pub depth: usize,
    /// Time that it took.
    pub time: Duration,
    /// Whether all reachable states were seen.
    pub is_exhausted: bool,
    /// Properties with a counterexample, the shortest one first.
    pub violated: Vec<Finding>,
    /// Corners that were reached, with an example.
    pub reached: Vec<Finding>,
    /// Corners that were not reached.
    pub missed: Vec<&'static str>,
}

/// Property with an example or a counterexample.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Name of the property.
    pub property: &'static str,
    /// The actions of the example.
    pub actions: Vec<String>,
    /// Its last state.
    pub state: String,
}

/// Explores a model until its states or the limits are exhausted, or a property fails.
pub fn explore<M>(model: M, limits: Limits) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Send + Sync + fmt::Debug + PartialEq + Clone + 'static,
    M::Action: fmt::Debug + Clone + PartialEq,
{
    explore_until(model, limits, HasDiscoveries::AnyFailures, |state| {
        format!("{state:#?}")
    })
}

/// Explores a model as [`explore`] does, with a description of the last state of each finding.
pub fn explore_described<M>(model: M, limits: Limits, describe: impl Fn(&M::State) -> String) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Send + Sync + fmt::Debug + PartialEq + Clone + 'static,
    M::Action: fmt::Debug + Clone + PartialEq,
{
    explore_until(model, limits, HasDiscoveries::AnyFailures, describe)
}

/// Explores a model until each of its properties has an example.
pub fn cover<M>(model: M, limits: Limits) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Send + Sync + fmt::Debug + PartialEq + Clone + 'static,
    M::Action: fmt::Debug + Clone + PartialEq,
{
    explore_until(model, limits, HasDiscoveries::All, |_| String::new())
}

fn explore_until<M>(model: M, limits: Limits, end: HasDiscoveries, describe: impl Fn(&M::State) -> String) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Send + Sync + fmt::Debug + PartialEq + Clone + 'static,
    M::Action: fmt::Debug + Clone + PartialEq,
{
    let started = Instant::now();
    let is_corner = |property: &Property<M>| matches!(property.expectation, Expectation::Sometimes);
    let properties = model.properties();
    let corners: Vec<&'static str> = properties
        .iter()
        .filter(|found| is_corner(found))
        .map(|found| found.name)
        .collect();
    let checker = model
        .checker()
        .threads(limits.threads)
        .timeout(limits.time)
        .target_state_count(limits.states)
        .finish_when(end)
        .spawn_bfs()
        .join();
    let time = started.elapsed();
    let mut found: Vec<Finding> = checker
        .discoveries()
        .into_iter()
        .map(|(property, path)| {
            let state = describe(path.last_state());
            let actions = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
            Finding {
                property,
                actions,
                state,
            }
        })
        .collect();
    found.sort_by_key(|finding| (finding.actions.len(), finding.property));
    let (reached, violated): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| corners.contains(&found.property));
    let is_reached = |corner: &&'static str| reached.iter().any(|found| found.property == *corner);
    Outcome {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        is_exhausted: violated.is_empty() && time < limits.time && checker.state_count() < limits.states,
        time,
        missed: corners.iter().copied().filter(|corner| !is_reached(corner)).collect(),
        violated,
        reached,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.property)?;
        for action in &self.actions {
            writeln!(f, "    {action}")?;
        }
        write!(f, "{}", self.state)
    }
}
