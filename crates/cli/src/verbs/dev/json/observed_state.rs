//! Last observed state of the cluster, and its changes as events.

use std::{collections::BTreeMap, time::Duration};

use stead_testing::{Cluster, Flow};

use super::event::Event;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeState {
    Down,
    /// Its process runs and does not serve yet.
    Starting(u32),
    Up(u32),
}

/// Last observed state of nodes and links.
#[derive(Debug, Default)]
pub(super) struct ObservedState {
    nodes: BTreeMap<String, NodeState>,
    links: BTreeMap<[String; 2], (Flow, Duration)>,
}

impl ObservedState {
    /// Returns the state of a cluster whose nodes all serve.
    pub(super) fn of(cluster: &mut Cluster) -> Self {
        let mut observed = Self::default();
        observed.refresh(cluster);
        for state in observed.nodes.values_mut() {
            if let NodeState::Starting(process) = *state {
                *state = NodeState::Up(process);
            }
        }
        observed
    }

    /// Observes the cluster again, and returns the changes as events.
    pub(super) fn refresh(&mut self, cluster: &mut Cluster) -> Vec<Event> {
        let mut events = Vec::new();
        for node in cluster.nodes().to_vec() {
            let process = cluster.process(&node.name);
            events.extend(self.node(&node.name, process));
        }
        for (from, to, link) in cluster.links() {
            let between = [from.to_owned(), to.to_owned()];
            events.extend(self.link(between, link.there.shape().flow, link.round_trip()));
        }
        events
    }

    /// Returns the nodes that were started and do not serve yet.
    pub(super) fn starting(&self) -> Vec<(String, u32)> {
        let starting = |(name, state): (&String, &NodeState)| match state {
            NodeState::Starting(process) => Some((name.clone(), *process)),
            NodeState::Down | NodeState::Up(_) => None,
        };
        self.nodes.iter().filter_map(starting).collect()
    }

    /// Records that a process serves; it may have ended meanwhile.
    pub(super) fn serves(&mut self, node: String, process: u32) -> Option<Event> {
        let state = self.nodes.get_mut(&node)?;
        (*state == NodeState::Starting(process)).then(|| {
            *state = NodeState::Up(process);
            Event::NodeUp { node, process }
        })
    }

    fn node(&mut self, node: &str, process: Option<u32>) -> Option<Event> {
        let state = process.map_or(NodeState::Down, NodeState::Starting);
        let before = self.nodes.insert(node.to_owned(), state)?;
        match (before, process) {
            (NodeState::Up(old), Some(process)) if old == process => {
                self.nodes.insert(node.to_owned(), before);
                None
            }
            (NodeState::Starting(old), Some(process)) if old == process => None,
            (NodeState::Down, _) => None,
            (NodeState::Up(_) | NodeState::Starting(_), _) => Some(Event::NodeDown { node: node.to_owned() }),
        }
    }

    fn link(&mut self, between: [String; 2], flow: Flow, round_trip: Duration) -> Vec<Event> {
        let before = self.links.insert(between.clone(), (flow, round_trip));
        let Some((old_flow, old_round_trip)) = before else {
            return Vec::new();
        };
        let mut events = Vec::new();
        if (old_flow == Flow::Open) != (flow == Flow::Open) {
            let between = between.clone();
            events.push(if flow == Flow::Open {
                Event::LinkHealed { between }
            } else {
                Event::LinkCut { between }
            });
        }
        if old_round_trip != round_trip {
            let round_trip_ms = round_trip.as_secs_f64() * 1e3;
            events.push(Event::LinkDelay { between, round_trip_ms });
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_events_are_emitted_once_per_change() {
        let mut observed = ObservedState::default();
        let down = Some(Event::NodeDown { node: "a".into() });
        assert_eq!(observed.node("a", Some(1)), None, "at first");
        assert!(observed.serves("a".into(), 1).is_some());
        assert_eq!(observed.serves("a".into(), 1), None, "once");
        assert_eq!(observed.node("a", Some(1)), None);
        assert!(observed.starting().is_empty());
        assert_eq!(observed.node("a", None), down);
        assert_eq!(observed.node("a", None), None);
        assert_eq!(observed.node("a", Some(2)), None, "it does not serve yet");
        assert_eq!(observed.starting(), [("a".to_owned(), 2)]);
        assert_eq!(
            observed.node("a", Some(3)),
            down,
            "it was started anew between two looks"
        );
        assert_eq!(observed.serves("a".into(), 2), None, "that process is gone");
        assert!(observed.serves("a".into(), 3).is_some());
    }

    #[test]
    fn link_events_cover_cut_heal_and_delay() {
        let mut observed = ObservedState::default();
        let between = || ["a".to_owned(), "b".to_owned()];
        let (near, far) = (Duration::ZERO, Duration::from_millis(150));
        assert_eq!(observed.link(between(), Flow::Open, near), []);
        assert_eq!(
            observed.link(between(), Flow::Held, near),
            [Event::LinkCut { between: between() }]
        );
        assert_eq!(observed.link(between(), Flow::Refused, near), [], "cut as before");
        let healed = Event::LinkHealed { between: between() };
        let delay = Event::LinkDelay {
            between: between(),
            round_trip_ms: 150.0,
        };
        assert_eq!(observed.link(between(), Flow::Open, far), [healed, delay]);
    }
}
