//! Limits of requests, responses and stored values, for every layer. Sizes are in bytes.

/// Longest key.
pub const KEY_LEN_MAX: usize = 4 << 10;
/// Longest value.
pub const VALUE_LEN_MAX: usize = 1 << 20;
/// Longest window of an increment, in milliseconds: 366 days.
pub const INCREMENT_WINDOW_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Longest time to live of a key, in milliseconds: 3660 days.
pub const TTL_MS_MAX: u64 = 3660 * 24 * 3_600_000;
/// Most compares, and most operations of either branch, of a transaction.
pub const TXN_STEPS_MAX: usize = 512;
/// Most bytes of keys and values of one change: as much as the largest request carries, so that only appends to long
/// values can exceed it.
pub const CHANGE_LEN_MAX: usize = REQUEST_LEN_MAX;
/// Most ranges of one watch.
pub const WATCH_RANGES_MAX: usize = 64;
/// Largest request.
pub const REQUEST_LEN_MAX: usize = 4 << 20;
/// Most keys of a page.
pub const PAGE_KEYS_MAX: u32 = 10_000;
/// Keys of a page when the caller does not set the size.
pub const PAGE_KEYS_DEFAULT: u32 = 1_000;
/// Keys of a page of a scan stream, which no caller requests. Applying waits while a page is read, so it is short.
pub const PAGE_KEYS_STREAMED: u32 = 2_000;
/// Most bytes of a page: it ends early, with a token, when its keys and values reach this.
pub const PAGE_LEN_MAX: usize = 2 << 20;
/// Most bytes of keys and values of a unary response: stock gRPC clients take messages of up to 4 MiB.
pub const RESPONSE_LEN_MAX: u64 = 3 << 20;
/// Most keys of one `BatchGet`.
pub const BATCH_GET_KEYS_MAX: usize = 1_000;
/// Most hops of a request: one hop to a group and one inside it, twice if the tenant moves meanwhile.
pub const HOPS_MAX: u32 = 4;
