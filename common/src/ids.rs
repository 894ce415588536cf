//! Numbers that must not be mistaken for one another, each a type of its own.
//!
//! The one mistake this prevents is the expensive one: a Raft index is *not* an offset. The
//! Raft log also holds membership changes and blank entries, which take an index and hold no
//! record.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The plain number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number that follows this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// The place of a record in its partition: 0 for the first, rising by one, never reused.
    Offset(u64)
);
number!(
    /// The place of an entry in a partition's Raft log.
    RaftIndex(u64)
);
number!(
    /// A Raft term: one leader at most in each.
    Term(u64)
);
number!(
    /// A partition of the log, counted from 0.
    PartitionId(u32)
);
number!(
    /// A broker of the cluster, counted from 1.
    BrokerId(u64)
);
