//! Names and attributes: what leads where, and what the kernel is told about it.

use super::{errno, handles::Entry, node::Node};
use cdp_core::{
    Point, Store, Volume,
    units::{Seq, TimeNs, VolumeId},
};
use fuser::{Errno, FileAttr, FileType, INodeNo};
use rustix::process::{getegid, geteuid};
use std::{
    ffi::OsStr,
    time::{Duration, UNIX_EPOCH},
};

/// Block size that is reported for a disk: the unit of the index.
const BLOCK_BYTES: u32 = 4096;
const DISK: &str = "disk";
const POINTS: &str = "points";

/// Finds nodes in a store.
pub struct Names {
    store: Store,
}

impl Names {
    /// The names of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The volume with this id.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub fn volume(&self, id: VolumeId) -> Result<Volume, Errno> {
        let volumes = self.store.volumes();
        let info = volumes.iter().find(|volume| volume.id == id).ok_or(Errno::ENOENT)?;
        self.store.volume(Some(&info.name)).map_err(|error| errno::of(&error))
    }

    /// The node that `name` leads to from `parent`.
    ///
    /// # Errors
    /// `ENOENT` when there is none, also for a point that cannot be opened; `EIO` when damage is in the way.
    pub fn lookup(&self, parent: Node, name: &OsStr) -> Result<Node, Errno> {
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        match parent {
            Node::Root => {
                let volumes = self.store.volumes();
                let volume = volumes.iter().find(|volume| volume.name == name).ok_or(Errno::ENOENT)?;
                Ok(Node::Volume(volume.id))
            }
            Node::Volume(volume) if name == DISK => Ok(Node::Disk(volume)),
            Node::Volume(volume) if name == POINTS => Ok(Node::Points(volume)),
            Node::Points(volume) => self.point(volume, name),
            Node::Point(volume, seq) if name == DISK => Ok(Node::PointDisk(volume, seq)),
            Node::Volume(_) | Node::Point(..) => Err(Errno::ENOENT),
            Node::Disk(_) | Node::PointDisk(..) | Node::PointLink(..) => Err(Errno::ENOTDIR),
        }
    }

    /// The node of a point: the directory for its plain seq, a link to that for every other spelling.
    fn point(&self, volume: VolumeId, name: &str) -> Result<Node, Errno> {
        let point: Point = name.parse().map_err(|_| Errno::ENOENT)?;
        let seq = self.store.resolve(&point).map_err(|error| errno::of(&error))?.seq;
        self.volume(volume)?.snapshot(seq).map_err(|error| errno::of(&error))?;
        let plain = name == seq_name(seq);
        Ok(if plain { Node::Point(volume, seq) } else { Node::PointLink(volume, seq) })
    }

    /// What a directory shows.
    ///
    /// # Errors
    /// `ENOENT` when it is gone, `ENOTDIR` when it is none.
    pub fn entries(&self, directory: Node) -> Result<Vec<Entry>, Errno> {
        let entry = |name: &str, node, kind| Entry { name: name.to_owned(), node, kind };
        let mut entries =
            vec![entry(".", directory, FileType::Directory), entry("..", Node::Root, FileType::Directory)];
        match directory {
            Node::Root => {
                for volume in self.store.volumes() {
                    entries.push(entry(&volume.name, Node::Volume(volume.id), FileType::Directory));
                }
            }
            Node::Volume(volume) => {
                entries.push(entry(DISK, Node::Disk(volume), FileType::RegularFile));
                entries.push(entry(POINTS, Node::Points(volume), FileType::Directory));
            }
            Node::Points(volume) => {
                for bookmark in self.store.bookmarks() {
                    let name = Point::Bookmark(bookmark.name).to_string();
                    entries.push(entry(&name, Node::PointLink(volume, bookmark.seq), FileType::Symlink));
                }
            }
            Node::Point(volume, seq) => {
                entries.push(entry(DISK, Node::PointDisk(volume, seq), FileType::RegularFile));
            }
            Node::Disk(_) | Node::PointDisk(..) | Node::PointLink(..) => return Err(Errno::ENOTDIR),
        }
        Ok(entries)
    }

    /// What the kernel is told about a node.
    ///
    /// # Errors
    /// `ENOENT` when it is gone.
    pub fn attributes(&self, node: Node) -> Result<FileAttr, Errno> {
        let (kind, permissions, size) = match node {
            Node::Root | Node::Volume(_) | Node::Points(_) | Node::Point(..) => {
                (FileType::Directory, 0o500, 0)
            }
            Node::Disk(volume) => (FileType::RegularFile, 0o600, self.volume(volume)?.bytes()),
            Node::PointDisk(volume, seq) => {
                let snapshot = self.volume(volume)?.snapshot(seq).map_err(|error| errno::of(&error))?;
                (FileType::RegularFile, 0o400, snapshot.bytes())
            }
            Node::PointLink(_, seq) => {
                (FileType::Symlink, 0o777, u64::try_from(seq_name(seq).len()).unwrap_or_default())
            }
        };
        let time = UNIX_EPOCH + Duration::from_nanos(self.time_of(node).get());
        Ok(FileAttr {
            ino: INodeNo(node.number().ok_or(Errno::EOVERFLOW)?),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: permissions,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    /// The time of a node: that of the state it shows.
    fn time_of(&self, node: Node) -> TimeNs {
        match node {
            Node::Point(_, seq) | Node::PointDisk(_, seq) | Node::PointLink(_, seq) => {
                self.store.resolve(&Point::Seq(seq)).map_or(TimeNs::ZERO, |point| point.time)
            }
            Node::Root | Node::Volume(_) | Node::Disk(_) | Node::Points(_) => self.store.newest().time,
        }
    }
}

/// The plain spelling of a seq, which is the name of its directory and the target of all links to it.
pub fn seq_name(seq: Seq) -> String {
    Point::Seq(seq).to_string()
}
