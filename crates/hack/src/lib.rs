//! Unites dependency features; holds no code.
