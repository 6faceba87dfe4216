//! How much fits into one transaction.

/// Most changes (puts and deletes together), and most compares, of one transaction: etcd's
/// `--max-txn-ops`.
pub const OPERATIONS_MAX: usize = 128;
/// Most bytes of a key. Ours are a word, a slash and an id or a name.
pub const KEY_BYTES_MAX: usize = 512;
/// Most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most bytes of the keys and values of one transaction: etcd takes requests of 1.5 MiB,
/// framing included.
pub const TRANSACTION_BYTES_MAX: usize = VALUE_BYTES_MAX + (1 << 18);
