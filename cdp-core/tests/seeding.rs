//! Seed sets: what is exported and taken over against a model, cut off at every call, harmed in every sector, and given to what they do not fit.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    CreateOptions, Error, ExportOptions, Exported, ImportSeedOptions, ImportedSeed, OpenOptions, SeedSet,
    Store,
    io::{
        MemoryStorage, Storage,
        simulated::{CrashPolicy, SimRng, SimulatedStorage},
    },
    units::{ExtentId, Seq},
};
use std::{ops::ControlFlow, sync::Arc, time::Duration};

/// A state of the volume.
#[derive(Clone)]
struct State {
    seq: Seq,
    image: Vec<u8>,
}

fn open_options() -> OpenOptions {
    OpenOptions { segment_bytes: 4 << 20, run_fanout: 2, ..OpenOptions::default() }
}

fn store_on(storage: Arc<dyn Storage>, bytes: usize) -> Store {
    let create = CreateOptions { volume: "disk".into(), bytes: bytes as u64 };
    Store::create(storage, &create, open_options()).unwrap()
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::default())
}

/// Content of which half packs well.
fn content(rng: &mut SimRng, len: usize) -> Vec<u8> {
    match rng.below(4) {
        0 => vec![0; len],
        1 => vec![rng.below(255) as u8 + 1; len],
        _ => (0..len).map(|_| rng.below(256) as u8).collect(),
    }
}

/// Writes some more, and keeps the model.
fn change(rng: &mut SimRng, store: &Store, image: &mut Vec<u8>, resizes: bool) -> State {
    let volume = store.volume(None).unwrap();
    for _ in 0..1 + rng.below(30) {
        let sectors = image.len() / 512;
        let count = (1 + rng.below(200) as usize).min(sectors);
        let (at, len) = (rng.below((sectors - count + 1) as u64) as usize * 512, count * 512);
        match rng.below(10) {
            0 => {
                volume.write_zeroes(at as u64, len as u64, None).unwrap();
                image[at..at + len].fill(0);
            }
            1 => {
                volume.discard(at as u64, len as u64, None).unwrap();
                image[at..at + len].fill(0);
            }
            2 if resizes => {
                let bytes = 512 * (8 + rng.below(6000)) as usize;
                store.resize_volume("disk", bytes as u64).unwrap();
                image.resize(bytes, 0);
            }
            _ => {
                let data = content(rng, len);
                volume.write(at as u64, &data).unwrap();
                image[at..at + len].copy_from_slice(&data);
            }
        }
    }
    State { seq: store.newest().seq, image: image.clone() }
}

fn export(store: &Store, at: Seq, since: Option<Seq>, to: &dyn Storage) -> Result<Exported, Error> {
    let options = ExportOptions { since, file_bytes_max: 4 << 20, ..ExportOptions::default() };
    store.volume(None).unwrap().export(at, to, &options, &mut |_| ControlFlow::Continue(()))
}

fn import(store: &Store, set: &Arc<dyn Storage>) -> Result<ImportedSeed, Error> {
    let set = Arc::new(SeedSet::open(Arc::clone(set))?);
    let options = ImportSeedOptions { checkpoint_every: Duration::ZERO, ..ImportSeedOptions::default() };
    store.import_seed(&set, None, &options, &mut |_| {}, &|| false)
}

fn newest(store: &Store) -> Vec<u8> {
    let volume = store.volume(Some("disk")).unwrap();
    let snapshot = volume.snapshot(store.newest().seq).unwrap();
    let mut image = vec![0; snapshot.bytes() as usize];
    snapshot.read(0, &mut image).unwrap();
    image
}

fn verified(set: &Arc<dyn Storage>) -> Result<(), Error> {
    SeedSet::open(Arc::clone(set))?.verify(&mut |_| ControlFlow::Continue(()))
}

/// A store elsewhere, with a volume of another name.
fn elsewhere(storage: Arc<dyn Storage>) -> Store {
    let create = CreateOptions { volume: "other".into(), bytes: 1 << 20 };
    Store::create(storage, &create, open_options()).unwrap()
}

/// Goal: a volume that took over a whole set and the ones that follow is the original at each of their states, whatever was written, zeroed, discarded and
/// resized between them; nothing but what was written moves. Method: random histories; a set at each of some states; a model.
#[test]
fn sets_in_their_order_make_each_state_of_the_original() {
    for seed in 0..30 {
        let mut rng = SimRng::new(seed);
        let bytes = 512 * (8 + rng.below(12_000)) as usize;
        let (store, mut image) = (store_on(memory(), bytes), vec![0; bytes]);
        let resizes = rng.chance(0.5);
        let states: Vec<State> = (0..4).map(|_| change(&mut rng, &store, &mut image, resizes)).collect();
        let far = elsewhere(memory());
        let mut before = None;
        for state in &states {
            // Taken later, from a store that has gone on.
            let set = memory();
            let done = export(&store, state.seq, before, &*set).unwrap();
            assert!(done.complete && !done.resumed, "seed {seed}: {done:?}");
            verified(&set).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let imported = import(&far, &set).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!((imported.bytes_left, imported.resumed), (0, false), "seed {seed}");
            assert!(newest(&far) == state.image, "seed {seed}, seq {}", state.seq);
            assert!(import(&far, &set).unwrap().resumed, "seed {seed}: it is there already");
            before = Some(state.seq);
        }
        assert!(far.check(true, &mut |_| {}).unwrap().damaged.is_empty());
        far.close().unwrap();
    }
}

/// Goal: a set is taken only by what it fits, and a refusal changes nothing and says what to do. Method: a set too early, too late, onto a volume with data, of
/// another size, after a write, and one of a seq that names another state since a crash.
#[test]
fn a_set_that_does_not_fit_is_refused() {
    let bytes = 1 << 20;
    let mut rng = SimRng::new(3);
    let disk = SimulatedStorage::new(9);
    let (store, mut image) = (store_on(Arc::new(disk.clone()), bytes), vec![0; bytes]);
    let first = change(&mut rng, &store, &mut image, false);
    store.flush().unwrap();
    let crashed = disk.kill();
    let second = change(&mut rng, &store, &mut image, false);
    let third = change(&mut rng, &store, &mut image, false);
    let set = |at: &State, since: Option<&State>| {
        let set = memory();
        export(&store, at.seq, since.map(|since| since.seq), &*set).unwrap();
        set
    };
    let (whole, onwards, later) = (set(&first, None), set(&second, Some(&first)), set(&third, Some(&second)));
    let far = elsewhere(memory());
    let refused = |set: &Arc<dyn Storage>, text: &str| {
        let before = (far.newest(), far.volumes().len());
        let error = import(&far, set).unwrap_err();
        assert!(matches!(&error, Error::SeedRefused(why) if why.contains(text)), "{error} ({text})");
        assert_eq!((far.newest(), far.volumes().len()), before, "nothing was changed");
    };
    refused(&onwards, "there is no volume disk here");
    import(&far, &whole).unwrap();
    refused(&later, &format!("it is in the state of seq:{}", first.seq));
    // The same seq after a crash took the first one away.
    let reborn = Store::open(Arc::new(crashed), open_options()).unwrap();
    while reborn.newest().seq < third.seq {
        reborn.volume(None).unwrap().write(0, &[7; 512]).unwrap();
    }
    let other = memory();
    export(&reborn, third.seq, Some(second.seq), &*other).unwrap();
    import(&far, &onwards).unwrap();
    refused(&other, "it is in the state of seq:");
    // Of what was there before the crash both have the same.
    assert_eq!(reborn.volume(None).unwrap().snapshot(first.seq).unwrap().bytes(), bytes as u64);
    far.volume(Some("disk")).unwrap().write(4096, &[1; 512]).unwrap();
    refused(&later, "it was written, or captured, since");
    refused(&whole, "holds data");
    let small = store_on(memory(), bytes / 2);
    let error = import(&small, &whole).unwrap_err();
    assert!(
        matches!(&error, Error::SeedRefused(why) if why.contains("bytes and the set is of one with")),
        "{error}"
    );
    let wrong = store.volume(None).unwrap().export(
        second.seq,
        &MemoryStorage::default(),
        &ExportOptions { since: Some(third.seq), ..ExportOptions::default() },
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(matches!(wrong, Err(Error::InvalidArgument(_))), "{wrong:?}");
    let onto = export(&store, second.seq, Some(first.seq), &*whole);
    assert!(matches!(onto, Err(Error::Exists { .. })), "another set lies there: {onto:?}");
}

fn crash(rng: &mut SimRng, storage: &SimulatedStorage) -> SimulatedStorage {
    let policy = rng.pick(&[CrashPolicy::Random, CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced]);
    if rng.chance(0.3) { storage.kill() } else { storage.crash(rng.next_u64(), policy) }
}

/// Goal: an export that was cut off anywhere goes on, is no set before it is whole, and is then the set that it would have been. Method: a crash in every changing
/// call, and again some calls into the run that goes on.
#[test]
fn an_export_goes_on_after_a_cut_at_any_call() {
    let mut rng = SimRng::new(5);
    let bytes = 14 << 20;
    let (store, mut image) = (store_on(memory(), bytes), vec![0; bytes]);
    let volume = store.volume(None).unwrap();
    let data: Vec<u8> = (0..11 << 20).map(|_| rng.next_u64() as u8).collect();
    volume.write(0, &data[..4 << 20]).unwrap();
    volume.write(5 << 20, &data[4 << 20..]).unwrap();
    image[..4 << 20].copy_from_slice(&data[..4 << 20]);
    image[5 << 20..(5 << 20) + (7 << 20)].copy_from_slice(&data[4 << 20..]);
    let at = store.newest().seq;
    let (mut stop, mut resumed, mut rounds) = (0, 0, 0);
    loop {
        let mut disk = SimulatedStorage::new(stop);
        disk.stop_at_change(stop);
        let whole = export(&store, at, None, &disk).is_ok();
        while disk.is_stopped() {
            disk = crash(&mut rng, &disk);
            let there: Arc<dyn Storage> = Arc::new(disk.clone());
            if let Ok(set) = SeedSet::open(there) {
                set.verify(&mut |_| ControlFlow::Continue(())).unwrap();
            }
            if rng.chance(0.3) {
                disk.stop_at_change(rng.below(12));
            }
            if let Ok(done) = export(&store, at, None, &disk) {
                resumed += u64::from(done.resumed && done.data_bytes < 11 << 20);
            }
        }
        let disk: Arc<dyn Storage> = Arc::new(disk.crash(stop, CrashPolicy::LoseUnsynced));
        verified(&disk).unwrap_or_else(|error| panic!("cut in call {stop}: {error}"));
        if rounds % 4 == 0 {
            let far = elsewhere(memory());
            import(&far, &disk).unwrap();
            assert!(newest(&far) == image, "cut in call {stop}");
        }
        (stop, rounds) = (stop + 1, rounds + 1);
        if whole {
            break;
        }
    }
    assert!(rounds > 15 && resumed > 5, "{rounds} cuts, {resumed} runs went on behind whole files");
}

/// Goal: an import that was cut off anywhere goes on, and shows nothing but the state before it and the state of the set. Method: a whole set and the next one,
/// also of another size; a crash in every changing call, and again in the run that goes on.
#[test]
fn an_import_goes_on_after_a_cut_at_any_call() {
    let mut resumed = 0;
    for (seed, resize) in [(1, false), (2, true)] {
        let mut rng = SimRng::new(seed);
        let bytes = 2 << 20;
        let (store, mut image) = (store_on(memory(), bytes), vec![0; bytes]);
        let first = change(&mut rng, &store, &mut image, false);
        if resize {
            let bytes = if rng.chance(0.5) { 3 << 20 } else { 1 << 20 };
            store.resize_volume("disk", bytes as u64).unwrap();
            image.resize(bytes, 0);
        }
        let second = change(&mut rng, &store, &mut image, false);
        let (whole, onwards) = (memory(), memory());
        export(&store, first.seq, None, &*whole).unwrap();
        export(&store, second.seq, Some(first.seq), &*onwards).unwrap();
        let mut stop = 0;
        loop {
            let mut disk = SimulatedStorage::new(stop);
            let mut far = Some(elsewhere(Arc::new(disk.clone())));
            disk.stop_at_change(disk.changes() + stop);
            let mut survived = false;
            for (set, state) in [(&whole, &first), (&onwards, &second)] {
                loop {
                    let outcome = import(far.as_ref().unwrap(), set);
                    if !disk.is_stopped() {
                        let done =
                            outcome.unwrap_or_else(|error| panic!("seed {seed}, stop {stop}: {error}"));
                        resumed += u64::from(done.resumed);
                        break;
                    }
                    survived = true;
                    drop(far.take());
                    disk = crash(&mut rng, &disk);
                    let again = rng.chance(0.3).then(|| rng.below(60));
                    let opened = Store::open(Arc::new(disk.clone()), open_options()).unwrap();
                    shows_no_mixture(&opened, &[&first, &second]);
                    again.iter().for_each(|calls| disk.stop_at_change(disk.changes() + calls));
                    far = Some(opened);
                }
                assert!(newest(far.as_ref().unwrap()) == state.image, "seed {seed}, stop {stop}");
            }
            stop += 1 + rng.below(3);
            if !survived {
                break;
            }
        }
    }
    assert!(resumed > 10, "{resumed} imports went on");
}

/// Whatever seq of the volume can be opened shows zeroes or one of the states.
fn shows_no_mixture(store: &Store, states: &[&State]) {
    let Ok(volume) = store.volume(Some("disk")) else { return };
    for seq in 0..=store.newest().seq.get() {
        let Ok(snapshot) = volume.snapshot(Seq::new(seq)) else { continue };
        let mut image = vec![0; snapshot.bytes() as usize];
        snapshot.read(0, &mut image).unwrap();
        let known = image.iter().all(|byte| *byte == 0) || states.iter().any(|state| state.image == image);
        // A volume that was given its new size, and nothing else yet, is the state before at that size.
        let resized = states.iter().any(|state| {
            let common = state.image.len().min(image.len());
            image[..common] == state.image[..common] && image[common..].iter().all(|byte| *byte == 0)
        });
        assert!(known || resized, "seq {seq} shows a mixture");
    }
}

/// Goal: no byte of a set can be other than written without being found, and nothing wrong is ever taken over: afterwards the intact set goes on. Method: a bit in each
/// 64 bytes of each file, files cut, taken away and exchanged.
#[test]
fn every_harmed_part_of_a_set_is_found() {
    let mut rng = SimRng::new(8);
    let bytes = 6 << 20;
    let (store, mut image) = (store_on(memory(), bytes), vec![0; bytes]);
    let volume = store.volume(None).unwrap();
    for (at, len) in [(0, 600 << 10), (1 << 20, 70 << 10), (3 << 20, 4096)] {
        let packs: Vec<u8> = (0..len).map(|at| (at / 600) as u8 | 1).collect();
        volume.write(at as u64, &packs).unwrap();
        image[at..at + len].copy_from_slice(&packs);
    }
    let noise: Vec<u8> = (0..40 << 10).map(|_| rng.next_u64() as u8).collect();
    volume.write(2 << 20, &noise).unwrap();
    image[2 << 20..(2 << 20) + noise.len()].copy_from_slice(&noise);
    let at = store.newest().seq;
    let disk = SimulatedStorage::new(1);
    export(&store, at, None, &disk).unwrap();
    let intact: Arc<dyn Storage> = Arc::new(disk.clone());
    let ids: Vec<ExtentId> = intact.list().unwrap();
    assert_eq!(ids.len(), 3, "plan, manifest and one file");
    let mut tried = 0;
    for id in &ids[1..] {
        let size = intact.open(*id).unwrap().size().unwrap();
        for offset in (0..size).step_by(64) {
            let harmed = disk.fork();
            let offset = offset + rng.below(64);
            assert!(harmed.flip_bit(*id, offset, rng.below(8) as u8).unwrap());
            let harmed: Arc<dyn Storage> = Arc::new(harmed);
            let found = verified(&harmed);
            assert!(matches!(found, Err(Error::Damaged(_))), "extent {id}, byte {offset}: {found:?}");
            tried += 1;
            if tried % 40 == 0 {
                is_not_taken_over(&harmed, &intact, &image);
            }
        }
    }
    assert!(tried > 500, "{tried}");
    for id in &ids[1..] {
        let gone = disk.fork();
        gone.remove(*id).unwrap();
        let gone: Arc<dyn Storage> = Arc::new(gone);
        assert!(verified(&gone).is_err());
        let cut = disk.fork();
        let extent = cut.open(*id).unwrap();
        extent.set_size(extent.size().unwrap() - 4096).unwrap();
        let cut: Arc<dyn Storage> = Arc::new(cut);
        assert!(matches!(verified(&cut), Err(Error::Damaged(_))));
    }
    // The data file of another export of the same state.
    let (other, mixed) = (SimulatedStorage::new(2), disk.fork());
    export(&store, at, None, &other).unwrap();
    let (from, to) = (other.open(ids[2]).unwrap(), mixed.open(ids[2]).unwrap());
    let size = from.size().unwrap();
    let mut buf = cdp_core::io::AlignedBuf::new(size as usize).unwrap();
    from.read_at(0, &mut buf).unwrap();
    to.write_at(0, &buf).unwrap();
    let mixed: Arc<dyn Storage> = Arc::new(mixed);
    assert!(matches!(verified(&mixed), Err(Error::Damaged(_))));
    is_not_taken_over(&mixed, &intact, &image);
}

/// An import from a harmed set fails and shows no wrong state; one from an intact copy goes on to the end.
fn is_not_taken_over(harmed: &Arc<dyn Storage>, intact: &Arc<dyn Storage>, image: &[u8]) {
    let far = elsewhere(memory());
    match import(&far, harmed) {
        Err(Error::Damaged(_)) => {}
        other => panic!("an import from a harmed set: {other:?}"),
    }
    shows_no_mixture(&far, &[]);
    import(&far, intact).unwrap();
    assert!(newest(&far) == image);
}
