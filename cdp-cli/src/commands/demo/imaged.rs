//! The demo without a mount: images are written through the library.
//!
//! Two images stand for Monday and Tuesday. `mke2fs -d` makes them from trees of files where there is such a program; else they
//! are generated, and pieces of [`PIECE_BYTES`] take the place of files.

use super::{
    Counted, DISK_BYTES, DemoDocument, Rewound, Stage, VOLUME, begin, bookmark, document,
    files::{self, Checksums},
    machine::{check, find, is_clean, run},
    note_last_good,
};
use crate::{
    exit::{Failure, Outcome},
    image::ImageSource,
    output,
};
use cdp_core::{ImportSource, Store, Volume, trace::Fill};
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Instant,
};
use twox_hash::XxHash3_128;

/// Unit in which images are compared and written.
const PIECE_BYTES: usize = 64 << 10;
/// How much of a generated image holds data, and where it lies.
const GENERATED_PIECES: u64 = 1024;
const GENERATED_STRIDE: u64 = 5;

/// Tells the story, with a file system or with generated content; `why` says why there is no mount.
pub fn tell(stage: &Stage, why: &str, makes_file_system: bool) -> Outcome<DemoDocument> {
    let started = Instant::now();
    let (mode, how) = if makes_file_system {
        ("mke2fs", "its file system is an ext4 image made by mke2fs, written through the library")
    } else {
        ("generated", "its content is generated, without a file system, and written through the library")
    };
    begin(stage, &format!("{how} ({why})"))?;
    let images = if makes_file_system { Images::with_files(stage)? } else { Images::generated(stage)? };
    let owner = stage.make_store()?;
    let told = play(stage, owner.store(), &images);
    let closed = owner.close();
    let (rewound, counted) = told?;
    closed?;
    document(mode, stage, started, &rewound, &counted)
}

fn play(stage: &Stage, store: &Store, images: &Images) -> Outcome<(Rewound, Counted)> {
    let volume = store.volume(Some(VOLUME))?;
    stage.say("Monday's state of the disk is written")?;
    write_different(stage, &volume, &images.monday)?;
    bookmark(stage, store, "monday")?;
    stage.say("Tuesday's changes are written")?;
    write_different(stage, &volume, &images.tuesday)?;
    bookmark(stage, store, "tuesday")?;
    let expected = pieces_of(&images.tuesday)?;
    let last_good = note_last_good(stage, store)?;

    stage.say("Ransomware overwrites everything that holds data")?;
    damage(stage, &volume, &images.tuesday)?;
    stage.show_timeline(store)?;

    stage.say(&format!("\nThe disk is rewound to seq {last_good}"))?;
    let damaged = stage.path("damaged.img");
    stage.rewind(store, store.newest().seq, &damaged)?;
    let image = stage.path("rewound.img");
    let rewound = stage.rewind(store, last_good, &image)?;
    let same_image = pieces_of(&image)? == expected;
    let counted = match &images.checksums {
        Some(checksums) => Counted {
            files: checksums.count(),
            after_damage: count_in_image(stage, checksums, &damaged, "damaged")?,
            // Where the files cannot be taken out of the image, the equal image stands for them.
            after_rewind: if !same_image {
                0
            } else if find("debugfs").is_some() {
                count_in_image(stage, checksums, &image, "rewound")?
            } else {
                checksums.count()
            },
            clean: is_clean(&image),
        },
        None => {
            let (damaged, rewound) = (pieces_of(&damaged)?, pieces_of(&image)?);
            let equal = |found: &[(u64, u128)]| expected.iter().filter(|piece| found.contains(piece)).count();
            Counted {
                files: expected.len(),
                after_damage: equal(&damaged),
                after_rewind: equal(&rewound),
                clean: None,
            }
        }
    };
    stage.say(&format!("  {} of {} have their old checksums", counted.after_rewind, counted.files))?;
    Ok((rewound, counted))
}

/// The disk on two days.
struct Images {
    monday: PathBuf,
    tuesday: PathBuf,
    /// Of Tuesday's files.
    checksums: Option<Checksums>,
}

impl Images {
    /// Images with a file system.
    fn with_files(stage: &Stage) -> Outcome<Self> {
        let root = stage.path("files");
        let (monday, tuesday) = (stage.path("monday.img"), stage.path("tuesday.img"));
        files::make(&root, &stage.interrupt)?;
        make_file_system(&root, &monday)?;
        files::work(&root, &stage.interrupt)?;
        make_file_system(&root, &tuesday)?;
        Ok(Self { monday, tuesday, checksums: Some(Checksums::of(&root)?) })
    }

    /// Images of noise with holes between.
    fn generated(stage: &Stage) -> Outcome<Self> {
        let (monday, tuesday) = (stage.path("monday.img"), stage.path("tuesday.img"));
        for (path, changed) in [(&monday, 0), (&tuesday, 10)] {
            let failed = |source: io::Error| Failure::io("write", path, &source);
            let file = File::create_new(path).map_err(failed)?;
            file.set_len(DISK_BYTES).map_err(failed)?;
            let mut piece = vec![0; PIECE_BYTES];
            for number in 0..GENERATED_PIECES {
                check(&stage.interrupt)?;
                let offset = number * GENERATED_STRIDE * 65_536;
                // Every tenth piece differs from one day to the other.
                let version = if changed > 0 && number % changed == 0 { 2 } else { 1 };
                Fill::Random.fill(offset, version, &mut piece);
                file.write_all_at(&piece, offset).map_err(failed)?;
            }
        }
        Ok(Self { monday, tuesday, checksums: None })
    }
}

fn make_file_system(root: &Path, image: &Path) -> Outcome {
    // The same identity for both images, so that they differ only in what changed.
    let options = "-q -F -t ext4 -U 8e7f1d6a-6c1f-4f0e-9d6e-1c0a3b5d7f91";
    let blocks = format!("{}k", DISK_BYTES >> 10);
    let mut arguments: Vec<&OsStr> = options.split(' ').map(OsStr::new).collect();
    arguments.extend([OsStr::new("-d"), root.as_os_str(), image.as_os_str(), OsStr::new(&blocks)]);
    run("mke2fs", &arguments).map(drop)
}

/// Walks over the data of an image, piece by piece.
fn for_each_piece(image: &Path, mut visit: impl FnMut(u64, &[u8]) -> Outcome) -> Outcome {
    let mut source = ImageSource::open(image, crate::interrupt::Interrupt::default())?;
    let mut buf = vec![0; PIECE_BYTES];
    let failed = |source: io::Error| Failure::io("read", image, &source);
    while let Some((offset, length)) = source.next(&mut buf).map_err(failed)? {
        visit(offset, &buf[..length])?;
    }
    Ok(())
}

/// Writes the blocks of an image that differ from what is on the volume.
fn write_different(stage: &Stage, volume: &Volume, image: &Path) -> Outcome {
    const BLOCK_BYTES: usize = 4096;
    let mut found = vec![0; PIECE_BYTES];
    for_each_piece(image, |offset, piece| {
        check(&stage.interrupt)?;
        let found = &mut found[..piece.len()];
        volume.read(offset, found)?;
        let blocks = piece.chunks(BLOCK_BYTES).zip(found.chunks(BLOCK_BYTES));
        for (at, (wanted, found)) in (offset..).step_by(BLOCK_BYTES).zip(blocks) {
            if wanted != found {
                volume.write(at, wanted)?;
            }
        }
        Ok(())
    })
}

/// Overwrites everything that holds data with noise.
fn damage(stage: &Stage, volume: &Volume, image: &Path) -> Outcome {
    let (mut noise, mut overwritten) = (vec![0; PIECE_BYTES], 0);
    for_each_piece(image, |offset, piece| {
        check(&stage.interrupt)?;
        if piece.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let noise = &mut noise[..piece.len()];
        Fill::Random.fill(offset, u64::MAX, noise);
        volume.write(offset, noise)?;
        overwritten += u64::try_from(piece.len()).unwrap_or(0);
        Ok(())
    })?;
    stage.say(&format!("  {} overwritten", output::human_size(overwritten)))
}

/// Offset and checksum of every piece that is not zero.
fn pieces_of(image: &Path) -> Outcome<Vec<(u64, u128)>> {
    let file = File::open(image).map_err(|source| Failure::io("open", image, &source))?;
    let failed = |source: io::Error| Failure::io("read", image, &source);
    let mut pieces = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    let step = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
    let mut offset = 0;
    while offset < DISK_BYTES {
        file.read_exact_at(&mut piece, offset).map_err(failed)?;
        if piece.iter().any(|byte| *byte != 0) {
            pieces.push((offset, XxHash3_128::oneshot(&piece)));
        }
        offset += step;
    }
    Ok(pieces)
}

/// Takes the files out of an image and counts those that are intact; none when there is no file system to find.
fn count_in_image(stage: &Stage, checksums: &Checksums, image: &Path, name: &str) -> Outcome<usize> {
    let directory = stage.path(name);
    std::fs::create_dir(&directory).map_err(|source| Failure::io("make", &directory, &source))?;
    let command = format!("rdump / {}", directory.display());
    // On a damaged image it fails, or finds nothing.
    let _ = run("debugfs", &[OsStr::new("-R"), OsStr::new(&command), image.as_os_str()]);
    Ok(checksums.count_intact(&directory))
}
