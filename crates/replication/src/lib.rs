//! Carries out between regions what `state` decided.

mod views;

pub use views::Views;
