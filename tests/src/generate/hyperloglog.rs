//! Templates of random commands for HyperLogLogs. Their bytes are read again and again: they must be the same.

use super::Reply::{Random, Same, Unharmed};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (14, Same, "PFADD hll member+"),
    (10, Same, "PFADD hll seen+ seen+ seen+ seen+"),
    (2, Same, "PFADD hll"),
    (6, Same, "PFCOUNT hll"),
    (4, Same, "PFCOUNT hll hll |hll"),
    (5, Same, "PFMERGE hll hll |hll"),
    (1, Same, "PFMERGE hll"),
    (8, Same, "GET hll"),
    (2, Same, "STRLEN hll"),
    (1, Unharmed, "PFDEBUG ENCODING|DECODE|DECODE|TODENSE hll"),
    (2, Same, "DEL hll"),
    // Not in transactions: those run under the settings that they began with.
    (1, Random, "CONFIG SET hll-sparse-max-bytes 3000|3000|40|100|0"),
];
