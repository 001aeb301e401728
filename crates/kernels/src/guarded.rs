//! Buffers for tests that lie against memory that may not be touched: one element too far is a fault.

/// Which end of the buffer lies against the forbidden page.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flush {
    Start,
    End,
}

/// `len` elements against a forbidden page (on Unix; elsewhere an ordinary vector).
pub(crate) struct Guarded<T: Copy> {
    #[cfg(unix)]
    mapping: (*mut libc::c_void, usize),
    #[cfg(unix)]
    first: *mut T,
    #[cfg(unix)]
    len: usize,
    #[cfg(not(unix))]
    data: Vec<T>,
}

impl<T: Copy> Guarded<T> {
    #[cfg(unix)]
    pub(crate) fn new(data: &[T], flush: Flush) -> Self {
        let (bytes, len) = (size_of_val(data), data.len());
        // SAFETY: sysconf only reads.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let inner = bytes.div_ceil(page).max(1) * page;
        let total = inner + 2 * page;
        // SAFETY: a new private mapping without address or file touches nothing that exists. Its inner pages, all but
        // the first and last, are then opened. `first` leaves `len` elements inside them, aligned, because pages and
        // `inner - bytes` are multiples of the size of T (2 or 4).
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), total, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED, "mmap");
            let start = base.cast::<u8>().add(page);
            assert_eq!(
                libc::mprotect(start.cast(), inner, libc::PROT_READ | libc::PROT_WRITE),
                0,
                "mprotect"
            );
            let offset = match flush {
                Flush::Start => 0,
                Flush::End => inner - bytes,
            };
            let first = start.add(offset).cast::<T>();
            std::ptr::copy_nonoverlapping(data.as_ptr(), first, len);
            Self { mapping: (base, total), first, len }
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn new(data: &[T], _: Flush) -> Self {
        Self { data: data.to_vec() }
    }
}

impl<T: Copy> std::ops::Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` placed and initialised `len` elements at `first`, in a mapping that lives as long as `self`.
        #[cfg(unix)]
        return unsafe { std::slice::from_raw_parts(self.first, self.len) };
        #[cfg(not(unix))]
        &self.data
    }
}

impl<T: Copy> std::ops::DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` is the only borrow.
        #[cfg(unix)]
        return unsafe { std::slice::from_raw_parts_mut(self.first, self.len) };
        #[cfg(not(unix))]
        &mut self.data
    }
}

#[cfg(unix)]
impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no borrow of it is left.
        unsafe { libc::munmap(self.mapping.0, self.mapping.1) };
    }
}
