//! Arguments from C: every pointer is looked at here and nowhere else.
//!
//! [`Caller`] stands for the promise that the header asks of whoever calls an exported function: a pointer that is not NULL points to as much
//! memory as the function says, readable or writable as it says, for the time of the call. Only exported functions, which are unsafe to
//! call, make one. What can be checked is checked: NULL, alignment, lengths that wrap, sizes of structs, unknown flags, text that is not
//! UTF-8.

use crate::{
    failure::{Failure, Outcome},
    handle::{self, Kind},
    status::{CDP_ERR_BUFFER_TOO_SMALL, CDP_ERR_UNSUPPORTED},
};
use std::{
    ffi::{CStr, c_char, c_void},
    io::IoSlice,
    mem::{MaybeUninit, size_of},
    ptr, slice,
};

/// Largest struct that a newer header may pass, bytes.
const STRUCT_BYTES_MAX: u32 = 16 << 10;
/// Most buffers of one write.
const IOVECS_MAX: usize = 1024;
/// Longest text, bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// A struct that begins with its size as a `u32` and grows at the end only.
///
/// # Safety
/// `repr(C)`, begins with `struct_size: u32`, and any bytes are a value of it.
pub unsafe trait Sized32: Copy {
    /// Its size in the first version that had it, bytes.
    const SIZE_FIRST: usize;
    /// Its name.
    const NAME: &'static str;
}

/// Declares structs as [`Sized32`], with their size in the first version.
macro_rules! sized {
    ($name:ident, $first:literal) => {
        const _: () = assert!(std::mem::offset_of!($name, struct_size) == 0 && $first <= size_of::<$name>());
        // SAFETY: `repr(C)` with the size in front; integers, pointers and optional functions take any bytes that C can pass.
        unsafe impl crate::arguments::Sized32 for $name {
            const SIZE_FIRST: usize = $first;
            const NAME: &'static str = stringify!($name);
        }
    };
}
pub(crate) use sized;

/// The one who called an exported function, with the promises of the header.
#[derive(Clone, Copy)]
pub struct Caller(());

/// An output of a call.
#[derive(Clone, Copy)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Stores the value, if it is wanted.
    pub fn put(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: checked for alignment; writable by the promise of the header.
            unsafe { self.0.write(value) };
        }
    }
}

/// An output that begins with its size.
pub struct SizedOut<T> {
    to: *mut T,
    bytes: usize,
}

impl<T: Sized32> SizedOut<T> {
    /// Stores as much of the value as the caller's struct has room for, and zeroes what only a newer header knows. Its size stays.
    pub fn put(self, value: &T) {
        let known = self.bytes.min(size_of::<T>());
        let skip = size_of::<u32>();
        // SAFETY: the caller's struct has `bytes` bytes, writable by the promise of the header; the value has `known`.
        unsafe {
            let from = ptr::from_ref(value).cast::<u8>();
            let to = self.to.cast::<u8>();
            ptr::copy_nonoverlapping(from.add(skip), to.add(skip), known - skip);
            to.add(known).write_bytes(0, self.bytes - known);
        }
    }
}

fn null(name: &str) -> Failure {
    Failure::argument(format!("{name} is NULL"))
}

fn check_pointer<T>(name: &str, pointer: *const T) -> Outcome {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        return Err(Failure::argument(format!("{name} is not aligned")));
    }
    Ok(())
}

/// Whether `len` values at a place stay within the address space.
fn check_length<T>(name: &str, pointer: *const T, len: usize) -> Outcome {
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    match bytes.and_then(|bytes| pointer.addr().checked_add(bytes)) {
        Some(_) => Ok(()),
        None => Err(Failure::argument(format!("{name} cannot have a length of {len}"))),
    }
}

/// Refuses flags that this version does not know.
pub fn check_flags(given: u32, known: u32) -> Outcome {
    match given & !known {
        0 => Ok(()),
        unknown => Err(Failure::new(CDP_ERR_UNSUPPORTED, format!("the flags {unknown:#x} are unknown"))),
    }
}

/// Refuses what must be zero until a later version gives it a meaning.
pub fn check_reserved(reserved: u32) -> Outcome {
    match reserved {
        0 => Ok(()),
        _ => Err(Failure::new(CDP_ERR_UNSUPPORTED, "a reserved member is not zero")),
    }
}

impl Caller {
    /// For exported functions alone.
    pub fn of_exported() -> Self {
        Self(())
    }

    /// A required output.
    pub fn out<T>(self, name: &str, to: *mut T) -> Outcome<Out<T>> {
        check_pointer(name, to)?;
        Ok(Out(to))
    }

    /// An output that may be NULL.
    pub fn out_optional<T>(self, name: &str, to: *mut T) -> Outcome<Out<T>> {
        if to.is_null() { Ok(Out(to)) } else { self.out(name, to) }
    }

    /// A required output for a handle: NULL from now on, until the call succeeds. To be called before anything else, so that it is so after
    /// any failure; what the caller lends is taken over before the answer of this is looked at.
    pub fn out_handle<K: Kind>(self, name: &str, to: *mut *mut K) -> Outcome<Out<*mut K>> {
        let out = self.out(name, to)?;
        out.put(ptr::null_mut());
        Ok(out)
    }

    /// The size that a struct of the caller says it has.
    fn struct_size<T: Sized32>(self, pointer: *const T) -> Outcome<usize> {
        check_pointer(T::NAME, pointer)?;
        // SAFETY: aligned, and the header obliges the caller that a `u32` is there.
        let size = unsafe { pointer.cast::<u32>().read() };
        let bytes = size as usize;
        if bytes < T::SIZE_FIRST || size > STRUCT_BYTES_MAX {
            return Err(Failure::argument(format!(
                "struct_size of {} is {size}: at least {}, at most {STRUCT_BYTES_MAX}",
                T::NAME,
                T::SIZE_FIRST
            )));
        }
        Ok(bytes)
    }

    /// Options of the caller; what an older header did not know is zero.
    pub fn options<T: Sized32>(self, pointer: *const T) -> Outcome<T> {
        let bytes = self.struct_size(pointer)?;
        let known = bytes.min(size_of::<T>());
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the caller's struct has `bytes` bytes, readable by the promise of the header, of which the first `known` fit the value;
        // any bytes are a value.
        let (value, tail) = unsafe {
            ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), known);
            (value.assume_init(), slice::from_raw_parts(pointer.cast::<u8>().add(known), bytes - known))
        };
        if tail.iter().any(|byte| *byte != 0) {
            let text = format!("{} has members that this version of the library does not know", T::NAME);
            return Err(Failure::new(CDP_ERR_UNSUPPORTED, text));
        }
        Ok(value)
    }

    /// The same; NULL is all defaults.
    pub fn options_or_default<T: Sized32>(self, pointer: *const T) -> Outcome<T> {
        if !pointer.is_null() {
            return self.options(pointer);
        }
        // SAFETY: any bytes are a value.
        Ok(unsafe { MaybeUninit::<T>::zeroed().assume_init() })
    }

    /// A required output that begins with its size.
    pub fn sized_out<T: Sized32>(self, to: *mut T) -> Outcome<SizedOut<T>> {
        Ok(SizedOut { to, bytes: self.struct_size(to.cast_const())? })
    }

    /// An output that begins with its size, or none.
    pub fn sized_out_optional<T: Sized32>(self, to: *mut T) -> Outcome<Option<SizedOut<T>>> {
        if to.is_null() { Ok(None) } else { self.sized_out(to).map(Some) }
    }

    /// A required text.
    pub fn text<'a>(self, name: &str, text: *const c_char) -> Outcome<&'a str> {
        self.text_optional(name, text)?.ok_or_else(|| null(name))
    }

    /// A text, or NULL.
    pub fn text_optional<'a>(self, name: &str, text: *const c_char) -> Outcome<Option<&'a str>> {
        if text.is_null() {
            return Ok(None);
        }
        // SAFETY: NUL-terminated by the promise of the header.
        let bytes = unsafe { CStr::from_ptr(text) };
        if bytes.count_bytes() > TEXT_BYTES_MAX {
            return Err(Failure::argument(format!("{name} is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let text = bytes.to_str().map_err(|_| Failure::argument(format!("{name} is not UTF-8")))?;
        Ok(Some(text))
    }

    /// Bytes that are read.
    pub fn bytes<'a>(self, name: &str, buf: *const c_void, len: usize) -> Outcome<&'a [u8]> {
        self.items(name, buf.cast(), len)
    }

    /// Values that are read.
    pub fn items<'a, T: Copy>(self, name: &str, items: *const T, len: usize) -> Outcome<&'a [T]> {
        if len == 0 {
            return Ok(&[]);
        }
        check_pointer(name, items)?;
        check_length(name, items, len)?;
        // SAFETY: not NULL, aligned, does not wrap; readable for the time of the call by the promise of the header.
        Ok(unsafe { slice::from_raw_parts(items, len) })
    }

    /// Bytes that are filled. The caller may not have written them yet, so they are zeroed first where that is needed to look at them.
    pub fn bytes_mut<'a>(self, name: &str, buf: *mut c_void, len: usize) -> Outcome<&'a mut [u8]> {
        if len == 0 {
            return Ok(&mut []);
        }
        check_pointer(name, buf.cast_const().cast::<u8>())?;
        check_length(name, buf.cast_const().cast::<u8>(), len)?;
        // SAFETY: not NULL, does not wrap; writable for the time of the call by the promise of the header. Memory that C has not written
        // holds some bytes; the library only writes to it.
        Ok(unsafe { slice::from_raw_parts_mut(buf.cast(), len) })
    }

    /// Values that are filled one by one.
    pub fn items_out<T>(self, name: &str, items: *mut T, len: usize) -> Outcome<ItemsOut<T>> {
        if len > 0 {
            check_pointer(name, items.cast_const())?;
            check_length(name, items.cast_const(), len)?;
        }
        Ok(ItemsOut { items, len })
    }

    /// Several buffers that are one write.
    pub fn parts<'a>(self, iov: *const crate::types::cdp_iovec, count: usize) -> Outcome<Vec<IoSlice<'a>>> {
        if count > IOVECS_MAX {
            return Err(Failure::argument(format!("{count} buffers in one write: at most {IOVECS_MAX}")));
        }
        let parts = self.items("iov", iov, count)?.iter();
        parts.map(|part| self.bytes("base", part.base, part.len).map(IoSlice::new)).collect()
    }

    /// Fills a buffer of the caller as far as it goes and says how much is needed.
    pub fn fill(self, bytes: &[u8], buf: *mut c_void, len: usize, needed_out: *mut usize) -> Outcome {
        let needed = self.out("len_out", needed_out)?;
        let to = self.bytes_mut("buf", buf, len)?;
        needed.put(bytes.len());
        match to.get_mut(..bytes.len()) {
            Some(to) => {
                to.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Failure::new(
                CDP_ERR_BUFFER_TOO_SMALL,
                format!("{} bytes are needed, the buffer has {len}", bytes.len()),
            )),
        }
    }

    /// The handle in the caller's variable, which stays.
    pub fn variable<K: Kind>(self, variable: *mut *mut K) -> Outcome<*mut K> {
        check_pointer("the variable of the handle", variable.cast_const())?;
        // SAFETY: not NULL, aligned; the header obliges the caller that a handle is there.
        Ok(unsafe { variable.read() })
    }

    /// Takes the handle out of the caller's variable, which is NULL from then on. `None`: it was NULL. A handle of another kind stays.
    pub fn close<K: Kind>(self, variable: *mut *mut K) -> Outcome<Option<handle::Held<K::Object>>> {
        let value = self.variable(variable)?;
        if value.is_null() {
            return Ok(None);
        }
        let removed = handle::remove(value.cast_const());
        if !matches!(&removed, Err(failure) if failure.status == crate::status::CDP_ERR_INVALID_ARGUMENT) {
            Out(variable).put(ptr::null_mut());
        }
        removed.map(Some)
    }
}

/// Values that are filled one by one.
#[derive(Clone, Copy)]
pub struct ItemsOut<T> {
    items: *mut T,
    len: usize,
}

impl<T> ItemsOut<T> {
    /// How many there may be.
    pub fn len(self) -> usize {
        self.len
    }

    /// Stores one.
    pub fn put(self, index: usize, value: T) {
        assert!(index < self.len, "within the caller's array");
        // SAFETY: within the array, which was checked for alignment and wrapping; writable by the promise of the header.
        unsafe { self.items.add(index).write(value) };
    }
}

/// Text into a fixed array of a struct, NUL-terminated; what does not fit is cut at a character.
pub fn text_into<const N: usize>(text: &str) -> [c_char; N] {
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(&text.as_bytes()[..end]) {
        *to = from.cast_signed() as c_char;
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::CDP_ERR_INVALID_ARGUMENT;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Options {
        struct_size: u32,
        flags: u32,
        newer: u64,
    }
    sized!(Options, 8);

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Newer {
        known: Options,
        unknown: u64,
    }

    fn read(options: &Newer) -> Result<Options, i32> {
        let pointer = ptr::from_ref(options).cast::<Options>();
        Caller::of_exported().options(pointer).map_err(|failure| failure.status)
    }

    fn given(struct_size: u32, unknown: u64) -> Newer {
        Newer { known: Options { struct_size, flags: 3, newer: 5 }, unknown }
    }

    /// Goal: structs of older and newer headers are understood, and what is not understood is refused. Method: each size from none to too
    /// large, with an unknown tail that is zero and one that is not.
    #[test]
    fn structs_of_other_sizes_are_understood_or_refused() {
        assert_eq!(read(&given(16, 9)).map(|options| (options.flags, options.newer)), Ok((3, 5)));
        assert_eq!(read(&given(8, 9)).map(|options| (options.flags, options.newer)), Ok((3, 0)));
        assert_eq!(read(&given(24, 0)).map(|options| options.newer), Ok(5));
        assert_eq!(read(&given(24, 1)).err(), Some(CDP_ERR_UNSUPPORTED));
        for size in [0, 4, 7, STRUCT_BYTES_MAX + 1, u32::MAX] {
            assert_eq!(read(&given(size, 0)).err(), Some(CDP_ERR_INVALID_ARGUMENT), "{size}");
        }
    }

    /// Goal: an output is filled as far as the caller's struct goes, its size stays, and what only a newer header knows is zero.
    #[test]
    fn outputs_of_other_sizes_are_filled_as_far_as_they_go() {
        let value = Options { struct_size: 0, flags: 1, newer: 2 };
        for (size, newer, unknown) in [(8, 5, 7), (16, 2, 7), (24, 2, 0)] {
            let mut given = given(size, 7);
            let to = ptr::from_mut(&mut given).cast::<Options>();
            Caller::of_exported().sized_out(to).unwrap().put(&value);
            let Newer { known, unknown: left } = given;
            assert_eq!((known.struct_size, known.flags, known.newer, left), (size, 1, newer, unknown));
        }
    }

    /// Goal: lengths that wrap and pointers that are not aligned are errors. Method: one of each.
    #[test]
    fn wrapping_lengths_and_crooked_pointers_are_refused() {
        let caller = Caller::of_exported();
        let word = [0_u64; 2];
        let status = |outcome: Outcome| outcome.err().map(|failure| failure.status);
        let wrong = Some(CDP_ERR_INVALID_ARGUMENT);
        assert_eq!(status(caller.bytes("b", word.as_ptr().cast(), usize::MAX).map(|_| ())), wrong);
        assert_eq!(status(caller.items("i", word.as_ptr(), usize::MAX / 4).map(|_| ())), wrong);
        let crooked = word.as_ptr().cast::<u8>().wrapping_add(1).cast::<u64>();
        assert_eq!(status(caller.items("i", crooked, 1).map(|_| ())), wrong);
        assert_eq!(status(caller.out("o", crooked.cast_mut()).map(|_| ())), wrong);
        assert_eq!(status(caller.bytes("b", ptr::null(), 1).map(|_| ())), wrong);
        assert!(caller.bytes("b", ptr::null(), 0).is_ok_and(<[u8]>::is_empty));
    }
}
