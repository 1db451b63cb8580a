//! The frame pool of the tap, and a tap without its store, for benchmarks and for tests in a process of their own.

pub use crate::capture::tap::{Captured, TapState};

pub use crate::capture::in_flight::InFlightTable;
pub use crate::capture::pool::{
    Consumer, Content, Item, Kind, Next, Pool, PoolOptions, PoolStatistics, Position, Refused, SetAside,
    Stalled, Taken, Write,
};
