//! Round trips of the codec primitives, and rejection of malformed bytes.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn primitives_round_trip(a: u8, b: u32, c: u64, d: u128, bytes in prop::collection::vec(any::<u8>(), 0..300), o: Option<u64>, l: Vec<u64>) {
        let mut writer = Writer::default();
        writer.u8(a).u32(b).u64(c).u128(d).varint(c).bytes(&bytes).bool(a > 7);
        writer.option(o, |w, v| { w.varint(v); }).list(l.iter(), |w, v| { w.varint(*v); });
        let mut reader = Reader::new(writer.finish(), "test");
        prop_assert_eq!(reader.u8(), Ok(a));
        prop_assert_eq!(reader.u32(), Ok(b));
        prop_assert_eq!(reader.u64(), Ok(c));
        prop_assert_eq!(reader.u128(), Ok(d));
        prop_assert_eq!(reader.varint(), Ok(c));
        prop_assert_eq!(reader.bytes().unwrap(), bytes);
        prop_assert_eq!(reader.bool(), Ok(a > 7));
        prop_assert_eq!(reader.option(Reader::varint), Ok(o));
        prop_assert_eq!(reader.list(Reader::varint), Ok(l));
        prop_assert_eq!(reader.end(), Ok(()));
    }
}

#[test]
fn varint_beyond_64_bits_is_rejected() {
    let mut reader = Reader::new(vec![0xff; 10].into(), "test");
    assert_eq!(reader.varint(), Err(Malformed { what: "test" }));
}

#[test]
fn list_count_beyond_buffer_is_rejected_before_allocation() {
    let mut writer = Writer::default();
    let mut reader = Reader::new(writer.varint(u64::MAX / 2).finish(), "test");
    assert_eq!(reader.list(Reader::u8), Err(Malformed { what: "test" }));
}
