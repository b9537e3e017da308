//! What was seen of the cluster last, and what is new since.

use std::{collections::BTreeMap, time::Duration};

use stead_testing::{Cluster, Flow};

use super::event::Event;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    /// Its process runs and does not serve yet.
    Starting(u32),
    Up(u32),
}

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    nodes: BTreeMap<String, State>,
    links: BTreeMap<[String; 2], (Flow, Duration)>,
}

impl Seen {
    /// Returns what is there once all nodes serve.
    pub(super) fn of(cluster: &mut Cluster) -> Self {
        let mut seen = Self::default();
        seen.look(cluster);
        for state in seen.nodes.values_mut() {
            if let State::Starting(process) = *state {
                *state = State::Up(process);
            }
        }
        seen
    }

    /// Returns what is new.
    pub(super) fn look(&mut self, cluster: &mut Cluster) -> Vec<Event> {
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

    /// Returns who was started and is not known to serve.
    pub(super) fn starting(&self) -> Vec<(String, u32)> {
        let starting = |(name, state): (&String, &State)| match state {
            State::Starting(process) => Some((name.clone(), *process)),
            State::Down | State::Up(_) => None,
        };
        self.nodes.iter().filter_map(starting).collect()
    }

    /// Takes notice that a process serves; it may have ended meanwhile.
    pub(super) fn serves(&mut self, node: String, process: u32) -> Option<Event> {
        let state = self.nodes.get_mut(&node)?;
        (*state == State::Starting(process)).then(|| {
            *state = State::Up(process);
            Event::NodeUp { node, process }
        })
    }

    fn node(&mut self, node: &str, process: Option<u32>) -> Option<Event> {
        let state = process.map_or(State::Down, State::Starting);
        let before = self.nodes.insert(node.to_owned(), state)?;
        match (before, process) {
            (State::Up(old), Some(process)) if old == process => {
                self.nodes.insert(node.to_owned(), before);
                None
            }
            (State::Starting(old), Some(process)) if old == process => None,
            (State::Down, _) => None,
            (State::Up(_) | State::Starting(_), _) => Some(Event::NodeDown { node: node.to_owned() }),
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
    fn a_node_goes_down_once_and_is_up_when_it_serves() {
        let mut seen = Seen::default();
        let down = Some(Event::NodeDown { node: "a".into() });
        assert_eq!(seen.node("a", Some(1)), None, "at first");
        assert!(seen.serves("a".into(), 1).is_some());
        assert_eq!(seen.serves("a".into(), 1), None, "once");
        assert_eq!(seen.node("a", Some(1)), None);
        assert!(seen.starting().is_empty());
        assert_eq!(seen.node("a", None), down);
        assert_eq!(seen.node("a", None), None);
        assert_eq!(seen.node("a", Some(2)), None, "it does not serve yet");
        assert_eq!(seen.starting(), [("a".to_owned(), 2)]);
        assert_eq!(seen.node("a", Some(3)), down, "it was started anew between two looks");
        assert_eq!(seen.serves("a".into(), 2), None, "that process is gone");
        assert!(seen.serves("a".into(), 3).is_some());
    }

    #[test]
    fn a_link_is_cut_healed_and_moved() {
        let mut seen = Seen::default();
        let between = || ["a".to_owned(), "b".to_owned()];
        let (near, far) = (Duration::ZERO, Duration::from_millis(150));
        assert_eq!(seen.link(between(), Flow::Open, near), []);
        assert_eq!(
            seen.link(between(), Flow::Held, near),
            [Event::LinkCut { between: between() }]
        );
        assert_eq!(seen.link(between(), Flow::Refused, near), [], "cut as before");
        let healed = Event::LinkHealed { between: between() };
        let delay = Event::LinkDelay {
            between: between(),
            round_trip_ms: 150.0,
        };
        assert_eq!(seen.link(between(), Flow::Open, far), [healed, delay]);
    }
}
