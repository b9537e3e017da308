//! Meter of the history that a tenant's writers have made since a change, in bytes by change.

use stead_types::Sequence;

/// Most marks of a meter; beyond it every second one is dropped.
const MARKS_MAX: usize = 1024;

/// Bytes of history since a change. Between two marks they are shared out evenly over the changes.
#[derive(Clone, Debug)]
pub(crate) struct HistoryMeter {
    /// Changes, each with the bytes up to it; the first one has none.
    marks: Vec<(Sequence, u64)>,
}

impl HistoryMeter {
    /// Returns a meter that counts from a change on.
    pub(crate) fn new(from: Sequence) -> Self {
        Self { marks: vec![(from, 0)] }
    }

    fn last(&self) -> (Sequence, u64) {
        *self.marks.last().expect("the first mark stays")
    }

    /// Returns the bytes of all measured history.
    pub(crate) fn len(&self) -> u64 {
        self.last().1
    }

    /// Returns the last change that is measured.
    pub(crate) fn reached(&self) -> Sequence {
        self.last().0
    }

    /// Adds the bytes of the changes from the last measured one up to another.
    pub(crate) fn add(&mut self, len: u64, reached: Sequence) {
        let (last, before) = self.last();
        if reached <= last {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            let mut place = 0;
            self.marks.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.marks.push((reached, before + len));
    }

    /// Returns the bytes up to a change.
    pub(crate) fn len_up_to(&self, sequence: Sequence) -> u64 {
        let next = self.marks.partition_point(|(mark, _)| *mark <= sequence);
        let Some((from, before)) = next.checked_sub(1).and_then(|last| self.marks.get(last)).copied() else {
            return 0;
        };
        let Some((to, after)) = self.marks.get(next).copied() else {
            return before;
        };
        let (part, whole) = (sequence.get() - from.get(), to.get() - from.get());
        let share = u128::from(after - before) * u128::from(part) / u128::from(whole);
        before + u64::try_from(share).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    #[test]
    fn history_is_shared_out_between_marks() {
        let mut meter = HistoryMeter::new(at(10));
        assert_eq!((meter.len(), meter.reached()), (0, at(10)));
        meter.add(100, at(20));
        meter.add(5, at(20));
        meter.add(60, at(22));
        assert_eq!((meter.len(), meter.reached()), (160, at(22)));
        let up_to = [0, 10, 15, 20, 21, 22, 99].map(|number| meter.len_up_to(at(number)));
        assert_eq!(up_to, [0, 0, 50, 100, 130, 160, 160]);
    }

    #[test]
    fn marks_are_bounded_and_keep_the_sum() {
        let mut meter = HistoryMeter::new(at(0));
        for number in 1..=100_000 {
            meter.add(7, at(number));
        }
        assert!(meter.marks.len() <= MARKS_MAX, "{}", meter.marks.len());
        assert_eq!(meter.len(), 700_000);
        assert_eq!(meter.len_up_to(at(50_000)), 350_000);
    }
}
