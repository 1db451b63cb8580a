//! The catalog: volumes, bookmarks and the policy, as the fold of all metadata records so far.
//!
//! Records carry whole values and name what they change, so applying a row of them twice ends in the same catalog:
//! recovery may replay what the manifest already holds.

use crate::{
    bookmark::Bookmark,
    format::{Malformed, meta::MetaRecord},
    units::{Seq, VolumeId},
};
use std::collections::BTreeMap;

/// A volume of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// The first seq at which it can be opened.
    pub exists_from: Seq,
}

/// Volumes, bookmarks and policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    volumes: BTreeMap<VolumeId, VolumeInfo>,
    bookmarks: BTreeMap<String, Bookmark>,
    policy: Option<String>,
    next_volume: VolumeId,
}

impl Catalog {
    /// Whether a record fits: no two volumes have the same name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, record: &MetaRecord) -> Result<(), Malformed> {
        match record {
            MetaRecord::VolumeAdded { id, name, .. }
                if self.volume_named(name).is_some_and(|other| other.id != *id) =>
            {
                Err(Malformed("catalog: two volumes of one name"))
            }
            _ => Ok(()),
        }
    }

    /// Applies one record, which fits.
    pub fn apply(&mut self, record: &MetaRecord) {
        match record {
            MetaRecord::VolumeAdded { id, name, bytes, exists_from } => {
                let info =
                    VolumeInfo { id: *id, name: name.clone(), bytes: *bytes, exists_from: *exists_from };
                self.volumes.insert(*id, info);
                self.next_volume = self.next_volume.max(id.checked_add(1).unwrap_or(*id));
            }
            MetaRecord::VolumeIdsTaken(next) => self.next_volume = self.next_volume.max(*next),
            MetaRecord::BookmarkAdded(bookmark) => {
                self.bookmarks.insert(bookmark.name.clone(), bookmark.clone());
            }
            MetaRecord::BookmarkRemoved(name) => {
                self.bookmarks.remove(name);
            }
            MetaRecord::BookmarkLocked { name, locked } => {
                if let Some(bookmark) = self.bookmarks.get_mut(name) {
                    bookmark.locked = *locked;
                }
            }
            MetaRecord::PolicySet(text) => self.policy = Some(text.clone()),
        }
    }

    /// Records that make this catalog from an empty one.
    pub fn records(&self) -> impl Iterator<Item = MetaRecord> + '_ {
        let volumes = self.volumes.values().map(|info| MetaRecord::VolumeAdded {
            id: info.id,
            name: info.name.clone(),
            bytes: info.bytes,
            exists_from: info.exists_from,
        });
        let bookmarks = self.bookmarks.values().cloned().map(MetaRecord::BookmarkAdded);
        std::iter::once(MetaRecord::VolumeIdsTaken(self.next_volume))
            .chain(volumes)
            .chain(bookmarks)
            .chain(self.policy.iter().cloned().map(MetaRecord::PolicySet))
    }

    /// The volumes in the order in which they were made.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeInfo> {
        self.volumes.values()
    }

    /// A volume by id.
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeInfo> {
        self.volumes.get(&id)
    }

    /// A volume by name.
    pub fn volume_named(&self, name: &str) -> Option<&VolumeInfo> {
        self.volumes.values().find(|info| info.name == name)
    }

    /// The id for the next volume; ids are never reused.
    pub fn next_volume_id(&self) -> VolumeId {
        self.next_volume
    }

    /// The bookmarks, by name.
    pub fn bookmarks(&self) -> impl Iterator<Item = &Bookmark> {
        self.bookmarks.values()
    }

    /// A bookmark by name.
    pub fn bookmark(&self, name: &str) -> Option<&Bookmark> {
        self.bookmarks.get(name)
    }

    /// The policy in force: canonical JSON text.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }
}
