//! The journal: building frames, the order in which they become durable, and finding them again.
//!
//! Pure state machines: they do no I/O, so the runner, a stepping host and the simulator drive the same code.

mod assemble;
mod commit;
mod open_frame;
mod prepared;
mod segment_scan;

pub use assemble::{Assembly, AssemblyInput, LostFrames, assemble};
pub use commit::{Commit, SyncTicket};
pub use open_frame::{FrameContext, OpenFrame, SealedFrame};
pub use prepared::{Part, PreparedWrite, WriteKind, interval_part};
pub use segment_scan::{ScannedFrame, SegmentScan, scan_segment};
