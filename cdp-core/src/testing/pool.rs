//! The frame pool of the tap on its own, for benchmarks and for tests in a process of their own.

pub use crate::capture::pool::{
    Consumer, Content, Item, Kind, Next, Pool, PoolOptions, PoolStatistics, Position, Refused, SetAside,
    Stalled, Taken, Write,
};
