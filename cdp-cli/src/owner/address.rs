//! Where the socket of an owner lies.
//!
//! Its name is the device and inode of the store's directory, so that every path to the store leads to it. It lies outside
//! of the store, in a directory that nobody else can write to: `$XDG_RUNTIME_DIR/cdp`, `/run/cdp` for root, or
//! `/tmp/cdp-UID`. The owner takes the first of them that works; a client tries all of them, and root also those of the user
//! that the store belongs to.
//!
//! Invariant *private*: a directory is used only when it is a real directory of mode 0700 that belongs to this user, to
//! root, or, for root, to the user that the store belongs to.

use rustix::process::geteuid;
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What a store's socket is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    name: String,
    /// User that the store belongs to.
    uid: u32,
}

impl StoreAddress {
    /// The address of the store at `path`.
    ///
    /// # Errors
    /// Those of looking at the path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { name: format!("{:x}-{:x}.sock", metadata.dev(), metadata.ino()), uid: metadata.uid() })
    }

    /// A path for the socket of an owner; its directory is there.
    ///
    /// # Errors
    /// The reason why the last candidate cannot be used.
    pub fn for_owner(&self) -> io::Result<PathBuf> {
        let euid = geteuid().as_raw();
        let mut last = io::Error::other("no directory for it");
        for directory in own_directories() {
            match make_private(&directory, euid) {
                Ok(()) => return Ok(directory.join(&self.name)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Paths under which a client looks for the socket.
    pub fn for_client(&self) -> Vec<PathBuf> {
        let euid = geteuid().as_raw();
        let mut directories = own_directories();
        directories.push(PathBuf::from("/run/cdp"));
        if euid == 0 && self.uid != 0 {
            directories.push(PathBuf::from(format!("/run/user/{}/cdp", self.uid)));
            directories.push(PathBuf::from(format!("/tmp/cdp-{}", self.uid)));
        }
        let trusted = |directory: &Path| {
            let allowed = |uid| uid == 0 || uid == euid || (euid == 0 && uid == self.uid);
            check_private(directory).is_ok_and(allowed)
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        for directory in directories {
            let path = directory.join(&self.name);
            if !paths.contains(&path) && trusted(&directory) {
                paths.push(path);
            }
        }
        paths
    }
}

/// Candidates of this user, best first.
fn own_directories() -> Vec<PathBuf> {
    let euid = geteuid().as_raw();
    let mut directories = Vec::new();
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && runtime.is_absolute()
    {
        directories.push(runtime.join("cdp"));
    }
    if euid == 0 {
        directories.push(PathBuf::from("/run/cdp"));
    }
    directories.push(PathBuf::from(format!("/tmp/cdp-{euid}")));
    directories
}

/// Makes a private directory, or checks that it is one that belongs to `euid`.
fn make_private(directory: &Path, euid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if check_private(directory)? == euid {
        Ok(())
    } else {
        Err(io::Error::other(format!("{} belongs to somebody else", directory.display())))
    }
}

/// The user that a private directory belongs to.
fn check_private(directory: &Path) -> io::Result<u32> {
    // Not followed: a link that somebody else planted is not ours.
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() || metadata.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is not a directory of mode 0700", directory.display())));
    }
    Ok(metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a store has one address under all its paths, and another store another. Method: a link and a sibling.
    #[test]
    fn an_address_belongs_to_the_directory_not_to_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let (store, other, link) =
            (directory.path().join("a"), directory.path().join("b"), directory.path().join("c"));
        fs::create_dir(&store).unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&store, &link).unwrap();
        assert_eq!(StoreAddress::of(&store).unwrap(), StoreAddress::of(&link).unwrap());
        assert_ne!(StoreAddress::of(&store).unwrap(), StoreAddress::of(&other).unwrap());
        assert!(StoreAddress::of(&directory.path().join("d")).is_err());
    }

    /// Goal: a directory that others can enter, or that is a link, is not trusted. Method: one of each.
    #[test]
    fn only_private_directories_are_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let euid = geteuid().as_raw();
        let private = directory.path().join("private");
        make_private(&private, euid).unwrap();
        make_private(&private, euid).unwrap();
        assert!(make_private(&private, euid + 1).is_err());

        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(check_private(&open).is_err());

        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&private, &link).unwrap();
        assert!(check_private(&link).is_err());
        assert!(make_private(&link, euid).is_err());
    }
}
