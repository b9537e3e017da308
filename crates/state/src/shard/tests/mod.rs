//! The shard against a plain model, and its guards one by one.

mod bounds_test;
mod expected;
mod expired_test;
mod group;
mod histories;
mod idempotency_test;
mod index_test;
mod model;
mod model_test;
mod move_positions_test;
mod ownership_moves_test;
mod ownership_test;
mod position_test;
mod promotion_test;
mod range_test;
mod replay_test;
mod replica_test;
mod rewind_test;
mod work_test;
