//! The demo with the kernel's ext4 on the mounted live disk.

use super::{
    Counted, DemoDocument, Rewound, Stage, begin, bookmark, document,
    files::{self, Checksums},
    machine::{FileSystem, Loop, is_clean, run},
    note_last_good,
};
use crate::{
    commands::mount::{Event, Mounted},
    exit::{Failure, Outcome},
    owner::Owner,
};
use cdp_core::units::Seq;
use std::{
    ffi::OsStr,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

/// Tells the story.
pub fn tell(stage: &Stage) -> Outcome<DemoDocument> {
    let started = Instant::now();
    begin(stage, "its file system is the kernel's ext4, on a loop device on the mounted live disk")?;
    let owner = stage.make_store()?;
    let served = Served::start(stage, &owner)?;
    let lived = live(stage, &owner, &served.disk);
    // The mount goes before the store is closed, whatever came of the story.
    let ended = served.end();
    let told = lived.and_then(|lived| {
        ended?;
        prove(stage, &owner, &lived)
    });
    let closed = owner.close();
    let (rewound, counted) = told?;
    closed?;
    document("mounted", stage, started, &rewound, &counted)
}

/// What is known when the disk has been damaged.
struct Lived {
    last_good: Seq,
    checksums: Checksums,
    after_damage: usize,
}

/// The mounted store.
struct Served {
    mounted: Option<Mounted>,
    events: Receiver<Event>,
    disk: std::path::PathBuf,
}

impl Served {
    fn start(stage: &Stage, owner: &Owner) -> Outcome<Self> {
        let directory = stage.path("mount");
        std::fs::create_dir(&directory).map_err(|source| Failure::io("make", &directory, &source))?;
        let (sender, events) = channel();
        let disk = directory.join(super::VOLUME).join("disk");
        let mounted = Mounted::start(owner, &stage.path("store"), directory, sender)?;
        Ok(Self { mounted: Some(mounted), events, disk })
    }

    fn end(mut self) -> Outcome {
        self.unmount()
    }

    fn unmount(&mut self) -> Outcome {
        self.mounted.take().map_or(Ok(()), |mounted| mounted.end(&self.events))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // What failed before is the failure that is reported.
        let _ = self.unmount();
    }
}

/// Fills the disk with files, works on them and damages them.
fn live(stage: &Stage, owner: &Owner, disk: &Path) -> Outcome<Lived> {
    let store = owner.store();
    let device = Loop::new(disk)?;
    run("mkfs.ext4", &[OsStr::new("-q"), device.path().as_os_str()])?;
    let root = stage.path("files");
    let file_system = FileSystem::mount(device.path(), &root, "noatime")?;

    stage.say("Files are written")?;
    files::make(&root, &stage.interrupt)?;
    files::sync(&root)?;
    bookmark(stage, store, "monday")?;
    stage.say("A day's work is done on them")?;
    files::work(&root, &stage.interrupt)?;
    files::sync(&root)?;
    bookmark(stage, store, "tuesday")?;
    let checksums = Checksums::of(&root)?;
    let last_good = note_last_good(stage, store)?;

    stage.say(&format!(
        "Ransomware encrypts {} files, renames them and deletes a directory",
        checksums.count()
    ))?;
    files::damage(&root, &stage.interrupt)?;
    files::sync(&root)?;
    let after_damage = checksums.count_intact(&root);
    stage.say(&format!("  {after_damage} of {} files are left", checksums.count()))?;
    file_system.end()?;
    device.end()?;
    stage.show_timeline(store)?;
    Ok(Lived { last_good, checksums, after_damage })
}

/// Rewinds, and shows that everything is back.
fn prove(stage: &Stage, owner: &Owner, lived: &Lived) -> Outcome<(Rewound, Counted)> {
    stage.say(&format!("\nThe disk is rewound to seq {}", lived.last_good))?;
    let image = stage.path("rewound.img");
    let rewound = stage.rewind(owner.store(), lived.last_good, &image)?;
    let after_rewind = {
        let device = Loop::new(&image)?;
        // Mounting replays the journal, as after a power cut at that very write.
        let root = stage.path("rewound");
        let file_system = FileSystem::mount(device.path(), &root, "noatime")?;
        let intact = lived.checksums.count_intact(&root);
        file_system.end()?;
        device.end()?;
        intact
    };
    let clean = is_clean(&image);
    stage.say(&format!("  {after_rewind} of {} files have their old checksums", lived.checksums.count()))?;
    let counted =
        Counted { files: lived.checksums.count(), after_damage: lived.after_damage, after_rewind, clean };
    Ok((rewound, counted))
}
