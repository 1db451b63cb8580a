//! The table of handles: what C holds is a number in the shape of a pointer, and never an address.
//!
//! Layout of the number, 64 bits: generation (32) | kind (7) | index (24) | 1. The last bit keeps it apart from NULL and from every aligned
//! address. Invariants:
//! - *no wrong object*: a number is good for one object of one kind; when that is closed its generation is used up, and a slot whose
//!   generations are used up is not used again;
//! - *families*: everything that comes from one store belongs to its family. Closing the store takes the whole family off the table, so that
//!   its children answer `CDP_ERR_CLOSED`; a panic poisons the family;
//! - *alive in use*: a call that is under way holds the object, whoever closes it meanwhile.

use crate::{
    failure::{Failure, Outcome},
    status::{CDP_ERR_CLOSED, CDP_ERR_NO_MEMORY, CDP_ERR_POISONED},
};
use parking_lot::RwLock;
use std::{
    any::Any,
    ops::Deref,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

const INDEX_BITS: u32 = 24;
const KIND_BITS: u32 = 7;
/// Most handles at a time.
const HANDLES_MAX: usize = 1 << INDEX_BITS;

/// A kind of handle: the opaque type that C sees, and what stands behind it.
pub trait Kind {
    /// Its number, 1 to 127.
    const NUMBER: u8;
    /// How messages name it.
    const NAME: &'static str;
    /// What stands behind it.
    type Object: Send + Sync + 'static;
}

/// Declares the opaque types of C and what stands behind each.
macro_rules! kind {
    ($opaque:ident, $number:literal, $name:literal, $object:ty) => {
        impl crate::handle::Kind for $opaque {
            const NUMBER: u8 = $number;
            const NAME: &'static str = $name;
            type Object = $object;
        }
    };
}
pub(crate) use kind;

/// Everything that comes from one store.
#[derive(Debug, Default)]
pub struct Family {
    poisoned: AtomicBool,
    closed: AtomicBool,
}

impl Family {
    /// Whether it was taken off the table.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// From now on everything of it answers `CDP_ERR_POISONED`.
    pub fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }
}

type Object = Arc<dyn Any + Send + Sync>;

/// What stands behind a handle, with its family: one count of users for both, since calls from many threads meet at it.
pub struct Member<T> {
    object: T,
    family: Arc<Family>,
}

impl<T> Deref for Member<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.object
    }
}

struct Entry {
    kind: u8,
    /// A [`Member`].
    object: Object,
    family: Arc<Family>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: std::collections::VecDeque<usize>,
}

static TABLE: RwLock<Table> =
    RwLock::new(Table { slots: Vec::new(), free: std::collections::VecDeque::new() });

/// The parts of a handle.
struct Parts {
    index: usize,
    kind: u8,
    generation: u32,
}

impl Parts {
    fn of(address: usize) -> Option<Self> {
        let kind = u8::try_from(address >> (INDEX_BITS + 1) & ((1 << KIND_BITS) - 1)).ok()?;
        let generation = u32::try_from(address >> 32).ok()?;
        let index = address >> 1 & (HANDLES_MAX - 1);
        (address & 1 == 1).then_some(Self { index, kind, generation })
    }

    fn address(&self) -> usize {
        (self.generation as usize) << 32 | usize::from(self.kind) << (INDEX_BITS + 1) | self.index << 1 | 1
    }
}

/// An object in use by a call. Dropped by a panic, it poisons its family.
pub struct Held<T>(Arc<Member<T>>);

impl<T> Held<T> {
    /// The family that it belongs to.
    pub fn family(&self) -> &Arc<Family> {
        &self.0.family
    }

    /// The object, for who goes on with it in another thread.
    pub fn object(&self) -> Arc<Member<T>> {
        self.0.clone()
    }
}

impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.object
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.family().poison();
        }
    }
}

fn no_handle<K: Kind>() -> Failure {
    Failure::argument(format!("this is not a handle of a {}", K::NAME))
}

fn closed<K: Kind>() -> Failure {
    Failure::new(CDP_ERR_CLOSED, format!("the {}, or the store that it belongs to, was closed", K::NAME))
}

fn parts<K: Kind>(handle: *const K) -> Outcome<Parts> {
    if handle.is_null() {
        return Err(Failure::argument(format!("the handle of a {} is NULL", K::NAME)));
    }
    Parts::of(handle.addr()).filter(|parts| parts.kind == K::NUMBER).ok_or_else(no_handle::<K>)
}

impl Table {
    fn entry<K: Kind>(&self, parts: &Parts) -> Outcome<&Entry> {
        let slot = self.slots.get(parts.index).ok_or_else(no_handle::<K>)?;
        match &slot.entry {
            Some(entry) if slot.generation == parts.generation && entry.kind == K::NUMBER => Ok(entry),
            _ if (1..=slot.generation).contains(&parts.generation) => Err(closed::<K>()),
            _ => Err(no_handle::<K>()),
        }
    }

    fn take(&mut self, index: usize) -> Option<Entry> {
        let slot = &mut self.slots[index];
        let entry = slot.entry.take()?;
        if slot.generation < u32::MAX {
            self.free.push_back(index);
        }
        Some(entry)
    }
}

fn held<K: Kind>(object: Object) -> Outcome<Held<K::Object>> {
    object.downcast().map(Held).map_err(|_| no_handle::<K>())
}

/// What stands behind a handle.
pub fn get<K: Kind>(handle: *const K) -> Outcome<Held<K::Object>> {
    let parts = parts(handle)?;
    let object = TABLE.read().entry::<K>(&parts)?.object.clone();
    let held = held::<K>(object)?;
    if held.family().poisoned.load(Ordering::SeqCst) {
        return Err(Failure::new(
            CDP_ERR_POISONED,
            "a defect was met in an earlier call; close the store and open it again",
        ));
    }
    Ok(held)
}

/// Makes a handle for an object; `family`: `None` begins one.
pub fn put<K: Kind>(object: K::Object, family: Option<&Arc<Family>>) -> Outcome<*mut K> {
    let family = family.cloned().unwrap_or_default();
    let member = Member { object, family: family.clone() };
    let entry = Entry { kind: K::NUMBER, object: Arc::new(member), family };
    let mut table = TABLE.write();
    if entry.family.is_closed() {
        // The store was closed by another thread while this call was under way.
        drop(table);
        return Err(closed::<K>());
    }
    let index = match table.free.pop_front() {
        Some(index) => index,
        None if table.slots.len() < HANDLES_MAX => {
            table.slots.push(Slot::default());
            table.slots.len() - 1
        }
        None => {
            drop(table);
            return Err(Failure::new(CDP_ERR_NO_MEMORY, format!("there are {HANDLES_MAX} handles already")));
        }
    };
    let slot = &mut table.slots[index];
    slot.generation += 1;
    slot.entry = Some(entry);
    let parts = Parts { index, kind: K::NUMBER, generation: slot.generation };
    Ok(ptr::without_provenance_mut(parts.address()))
}

/// Takes a handle off the table.
pub fn remove<K: Kind>(handle: *const K) -> Outcome<Held<K::Object>> {
    let parts = parts(handle)?;
    let entry = {
        let mut table = TABLE.write();
        table.entry::<K>(&parts)?;
        table.take(parts.index)
    };
    let entry = entry.ok_or_else(closed::<K>)?;
    held::<K>(entry.object)
}

/// Takes all handles of a family off the table; their objects go when no call uses them any more.
pub fn remove_family(family: &Arc<Family>) -> Vec<Object> {
    family.closed.store(true, Ordering::SeqCst);
    let mut table = TABLE.write();
    let of_family = |slot: &Slot| slot.entry.as_ref().is_some_and(|entry| Arc::ptr_eq(&entry.family, family));
    let indexes: Vec<usize> =
        (0..table.slots.len()).filter(|index| of_family(&table.slots[*index])).collect();
    indexes.into_iter().filter_map(|index| table.take(index)).map(|entry| entry.object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::CDP_ERR_INVALID_ARGUMENT;

    struct Apple;
    struct Pear;
    kind!(Apple, 100, "apple", u32);
    kind!(Pear, 101, "pear", String);

    fn status<T>(outcome: Outcome<T>) -> Option<i32> {
        outcome.err().map(|failure| failure.status)
    }

    /// Goal: a handle is good for its object alone. Method: NULL, another kind, a made-up one, one that was closed, and its slot in new use.
    #[test]
    fn a_handle_is_good_for_its_object_alone() {
        let apple = put::<Apple>(7, None).unwrap();
        assert_eq!(*get(apple).unwrap(), 7);
        assert_eq!(status(get::<Apple>(ptr::null())), Some(CDP_ERR_INVALID_ARGUMENT));
        assert_eq!(status(get(apple.cast::<Pear>())), Some(CDP_ERR_INVALID_ARGUMENT));
        let made_up: *const Apple = ptr::without_provenance(apple.addr() + (1 << 32));
        assert_eq!(status(get(made_up)), Some(CDP_ERR_INVALID_ARGUMENT));
        let aligned: *const Apple = ptr::without_provenance(apple.addr() - 1);
        assert_eq!(status(get(aligned)), Some(CDP_ERR_INVALID_ARGUMENT));
        assert_eq!(*remove(apple).unwrap(), 7);
        let pears: Vec<*mut Pear> = (0..64).map(|_| put::<Pear>("pear".into(), None).unwrap()).collect();
        assert_eq!(status(get(apple)), Some(CDP_ERR_CLOSED));
        assert_eq!(status(remove(apple)), Some(CDP_ERR_CLOSED));
        for pear in pears {
            assert_eq!(*remove(pear).unwrap(), "pear");
        }
    }

    /// Goal: a family goes as one, and nobody else with it. Method: two families, one taken off.
    #[test]
    fn a_family_goes_as_one() {
        let first = put::<Apple>(1, None).unwrap();
        let family = get(first).unwrap().family().clone();
        let second = put::<Pear>("child".into(), Some(&family)).unwrap();
        let other = put::<Apple>(2, None).unwrap();
        assert_eq!(remove_family(&family).len(), 2);
        assert_eq!(status(get(first)), Some(CDP_ERR_CLOSED));
        assert_eq!(status(get(second)), Some(CDP_ERR_CLOSED));
        assert_eq!(*remove(other).unwrap(), 2);
        assert_eq!(status(put::<Pear>("late".into(), Some(&family))), Some(CDP_ERR_CLOSED));
    }
}
