//! Tests of images: holes, sizes that are not whole sectors, replacing, and writing only what differs.

use super::*;
use crate::interrupt::Interrupt;
use cdp_core::{ImportSource, RestoreTarget, SharedTarget};
use std::os::unix::fs::{FileExt, MetadataExt};

fn read_all(source: &mut ImageSource, bytes: usize) -> (Vec<u8>, usize) {
    let mut image = vec![0; bytes];
    let mut buf = vec![0xff; 64 << 10];
    let mut yielded = 0;
    while let Some((offset, length)) = source.next(&mut buf).unwrap() {
        let offset = usize::try_from(offset).unwrap();
        assert_eq!((offset % 512, length % 512), (0, 0));
        image[offset..offset + length].copy_from_slice(&buf[..length]);
        yielded += length;
    }
    (image, yielded)
}

/// Goal: an import sees all data, no large hole, and zeroes past an end that is not a whole sector. Method: a sparse file
/// with data at odd places, of an odd size.
#[test]
fn an_image_yields_its_data_in_whole_sectors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let file = File::create_new(&path).unwrap();
    let size = (3 << 20) + 1000;
    file.set_len(size).unwrap();
    file.write_all_at(&[7; 100], (1 << 20) + 700).unwrap();
    file.write_all_at(&[9], size - 1).unwrap();
    let mut source = ImageSource::open(&path, Interrupt::default()).unwrap();
    assert_eq!(source.sector_bytes(), size.next_multiple_of(512));
    let bytes = usize::try_from(source.sector_bytes()).unwrap();
    let (image, yielded) = read_all(&mut source, bytes);
    let mut expected = std::fs::read(&path).unwrap();
    expected.resize(bytes, 0);
    assert!(image == expected);
    assert!(yielded < 1 << 20, "{yielded}");
}

/// Goal: an interrupt ends an import and a restore with an error. Method: set the flag first.
#[test]
fn an_interrupt_ends_reading_and_writing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    std::fs::write(&path, [1; 512]).unwrap();
    let interrupt = Interrupt::default();
    let mut source = ImageSource::open(&path, interrupt.clone()).unwrap();
    let target = NewImage::begin(&directory.path().join("new"), 512, interrupt.clone()).unwrap();
    interrupt.set();
    assert!(source.next(&mut [0; 512]).is_err());
    assert!(target.write(0, &[0; 512]).is_err());
    assert!(target.zero(0, 512).is_err());
    drop(target);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// Goal: a new image is sparse and appears only when finished; an existing file is refused or replaced as asked.
/// Method: look at the directory at each step.
#[test]
fn a_new_image_appears_only_when_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let begin = || {
        let image = NewImage::begin(&path, 8 << 20, Interrupt::default()).unwrap();
        image.write(4096, &[3; 4096]).unwrap();
        image.zero(8192, (8 << 20) - 8192).unwrap();
        image
    };
    let image = begin();
    assert!(!path.exists());
    image.finish(false).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 8 << 20);
    assert!(path.metadata().unwrap().blocks() < 1000);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);

    NewImage::refuse_existing(&path).unwrap_err();
    std::fs::write(&path, b"old").unwrap();
    begin().finish(false).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    begin().finish(true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[4096..8192], [3; 4096]);
    drop(begin());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// Goal: an existing image becomes equal to the state with as few bytes written as differ. Method: an image that
/// differs in one block of data, one block that should be zero, and its size.
#[test]
fn an_existing_image_is_written_only_where_it_differs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let mut content = vec![0; 3 << 20];
    content[..1 << 20].fill(1);
    let state = content.clone();
    content[8192] = 2;
    content[2 << 20] = 5;
    content.extend_from_slice(&[8; 100]);
    std::fs::write(&path, &content).unwrap();
    let mut image = ExistingImage::open(&path, 3 << 20, Interrupt::default()).unwrap();
    image.write(0, &state[..1 << 20]).unwrap();
    image.zero(1 << 20, 2 << 20).unwrap();
    let written = image.written_bytes();
    image.finish(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == state);
    assert!(written <= 4096 + (1 << 20), "{written}");
}
