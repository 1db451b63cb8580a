//! What the kernel is told when the engine refuses or fails.

use cdp_core::Error;
use fuser::Errno;
use std::io;

/// The errno for an error of the engine.
pub fn of(error: &Error) -> Errno {
    match error {
        Error::NoSpace | Error::OverBound { .. } | Error::OutOfRange { .. } => Errno::ENOSPC,
        Error::PointUnavailable(_) | Error::NotFound { .. } => Errno::ENOENT,
        Error::Unaligned { .. } | Error::InvalidArgument(_) => Errno::EINVAL,
        Error::Exists { .. } => Errno::EEXIST,
        Error::ReadOnly => Errno::EROFS,
        Error::Owned => Errno::EBUSY,
        Error::Io { source, .. } => of_io(source),
        // Damage, a store that stopped, one that was taken over, and whatever else there will be: the data cannot be
        // had, and trying again does not help.
        _ => Errno::EIO,
    }
}

fn of_io(source: &io::Error) -> Errno {
    match source.raw_os_error() {
        // Codes that would make a caller of read or write do something odd are hidden behind the honest one.
        Some(code) if matches!(source.kind(), io::ErrorKind::OutOfMemory) => Errno::from_i32(code),
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what a client can act on keeps its meaning, everything else is an I/O error. Method: one of each.
    #[test]
    fn errors_become_the_errno_a_client_can_act_on() {
        assert_eq!(of(&Error::NoSpace), Errno::ENOSPC);
        assert_eq!(of(&Error::ReadOnly), Errno::EROFS);
        assert_eq!(of(&Error::Poisoned("x".to_owned())), Errno::EIO);
        assert_eq!(of(&Error::NotFound { what: "volume", name: "x".to_owned() }), Errno::ENOENT);
        let io = |code| Error::Io {
            operation: "read",
            target: "x".to_owned(),
            source: io::Error::from_raw_os_error(code),
        };
        assert_eq!(of(&io(Errno::ENOMEM.into())), Errno::ENOMEM);
        assert_eq!(of(&io(Errno::EAGAIN.into())), Errno::EIO);
    }
}
