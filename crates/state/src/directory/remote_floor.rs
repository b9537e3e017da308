//! Sequence up to which acknowledgements at `REMOTE` may rest on members of a tenant that are gone.

use stead_types::Sequence;

/// Sequence on a tenant's lineage up to which acknowledgements at `REMOTE` may rest on members that are gone, where no
/// follower stayed that holds as much: a promotion that takes over less may lose some. Zero where there is none.
///
/// Five bytes, which every node holds for every tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RemoteFloor([u8; 5]);

impl RemoteFloor {
    /// Returns the floor at a sequence.
    pub fn at(sequence: Sequence) -> Self {
        let [_, _, _, bytes @ ..] = sequence.get().to_be_bytes();
        Self(bytes)
    }

    /// Returns the sequence.
    pub fn sequence(self) -> Sequence {
        let [a, b, c, d, e] = self.0;
        let number = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        Sequence::new(number).expect("a sequence has 40 bits")
    }

    /// Raises the floor to a sequence, if it is below.
    pub fn raise(&mut self, sequence: Sequence) {
        *self = Self::at(self.sequence().max(sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_keeps_sequence_and_never_falls() {
        let mut floor = RemoteFloor::default();
        assert_eq!(floor.sequence(), Sequence::ZERO);
        for number in [1, 0x01_0203_0405, Sequence::MAX.get(), 7] {
            let (before, sequence) = (floor.sequence(), Sequence::new(number).unwrap());
            floor.raise(sequence);
            assert_eq!(floor.sequence(), before.max(sequence));
        }
    }
}
