//! The binary `stead`.

fn main() {}
