//! Maps as bytes: to copy a map whose layout this weftd's types do not describe. And programs of a few instructions, to try something.
#![allow(unsafe_code)]

use aya::maps::{MapData, MapInfo, MapType};
use nix::libc;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Commands of bpf(2) (Linux `include/uapi/linux/bpf.h`).
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// Write whether the key is there or not; and only if it is not there.
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// Entries that one call reads. A bucket of a hash map must fit; buckets hold a few.
const BATCH: u32 = 4096;

/// What makes two maps interchangeable, and which map it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    /// The kernel's map type; `None` for one that aya does not know.
    pub(super) kind: Option<MapType>,
    /// Bytes of a key.
    pub(super) key_bytes: usize,
    /// Bytes of a value, on one CPU.
    pub(super) value_bytes: usize,
    /// Limit of entries.
    pub(super) max_entries: u32,
    /// Flags that it was made with.
    pub(super) flags: u32,
}

/// How entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Many a call.
    Batch,
    /// One a call.
    Single,
}

/// Where a walk over a hash map goes on: what the kernel says of a batch, or the last key.
#[derive(Clone, Debug)]
pub(super) struct Cursor(Vec<u8>);

/// A pinned map.
#[derive(Debug)]
pub(super) struct RawMap {
    data: MapData,
    id: u32,
    shape: Shape,
    /// Bytes of a value as the system calls carry it.
    stride: usize,
    reads: Reads,
}

impl RawMap {
    /// Opens the map that is pinned there; `None` if nothing is.
    pub(super) fn open(path: &Path, reads: Reads) -> io::Result<Option<RawMap>> {
        if !path.try_exists()? {
            return Ok(None);
        }
        let data = MapData::from_pin(path).map_err(io::Error::other)?;
        let info: MapInfo = data.info().map_err(io::Error::other)?;
        let shape = Shape {
            kind: info.map_type().ok(),
            key_bytes: info.key_size() as usize,
            value_bytes: info.value_size() as usize,
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        };
        let per_cpu = matches!(
            shape.kind,
            Some(MapType::PerCpuHash | MapType::PerCpuArray | MapType::LruPerCpuHash)
        );
        let stride = if per_cpu {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            shape.value_bytes.next_multiple_of(8) * cpus
        } else {
            shape.value_bytes
        };
        Ok(Some(RawMap {
            data,
            id: info.id(),
            shape,
            stride,
            reads,
        }))
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// The kernel's number of the map.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether its entries mean the same in another map: those of maps that refer to programs or maps do not.
    pub(super) fn is_copied(&self) -> bool {
        !matches!(
            self.shape.kind,
            Some(MapType::ProgramArray | MapType::ArrayOfMaps | MapType::HashOfMaps)
        )
    }

    /// Whether its keys are places, of which a smaller one has fewer.
    pub(super) fn is_array(&self) -> bool {
        matches!(self.shape.kind, Some(MapType::Array | MapType::PerCpuArray))
    }

    /// Whether it takes every entry, if need be in the place of another.
    pub(super) fn is_lru(&self) -> bool {
        matches!(self.shape.kind, Some(MapType::LruHash | MapType::LruPerCpuHash))
    }

    pub(super) fn refers_to_programs(&self) -> bool {
        self.shape.kind == Some(MapType::ProgramArray)
    }

    /// Whether the kernel hands out many entries at once.
    fn has_batches(&self) -> bool {
        self.reads == Reads::Batch && matches!(self.shape.kind, Some(MapType::Hash | MapType::LruHash | MapType::Array))
    }

    /// Whether an entry that nobody wrote yet is there, with zeros.
    pub(super) fn begins_with_zeros(&self) -> bool {
        self.shape.kind == Some(MapType::Array)
    }

    /// Hands every entry to `each`, which may stop the walk by an error. While the kernel writes, an entry may be missed or come twice.
    pub(super) fn entries(&self, mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        if self.has_batches() {
            self.by_batches(&mut each)
        } else {
            self.one_by_one(&mut each)
        }
    }

    fn by_batches(&self, each: &mut impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut cursor = self.part(None, BATCH, &mut *each)?;
        while cursor.is_some() {
            cursor = self.part(cursor, BATCH, &mut *each)?;
        }
        Ok(())
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        self.entries(|_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Hands the next `count` entries of a hash map to `each`, or some fewer; where to go on, unless these were the last.
    pub(super) fn part(
        &self,
        from: Option<Cursor>,
        count: u32,
        mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
    ) -> io::Result<Option<Cursor>> {
        if self.reads == Reads::Single {
            return self.singly(from.map(|Cursor(key)| key), count, &mut each);
        }
        let mut capacity = count;
        loop {
            let mut keys = vec![0; capacity as usize * self.shape.key_bytes];
            let mut values = vec![0; capacity as usize * self.stride];
            let mut next = vec![0; 4];
            let mut attributes = BatchAttributes {
                in_batch: from.as_ref().map_or(0, |Cursor(position)| address(position)),
                out_batch: address_mut(&mut next),
                keys: address_mut(&mut keys),
                values: address_mut(&mut values),
                count: capacity,
                map_fd: self.fd(),
                elem_flags: 0,
                flags: 0,
            };
            let result = call(BPF_MAP_LOOKUP_BATCH, &mut attributes);
            let last = match result {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A bucket with more entries than there was room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && capacity < self.shape.max_entries => {
                    capacity = capacity.saturating_mul(4);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = attributes.count as usize;
            let entries = keys
                .chunks_exact(self.shape.key_bytes)
                .zip(values.chunks_exact(self.stride));
            for (key, value) in entries.take(count) {
                each(key, value)?;
            }
            return Ok((!last).then_some(Cursor(next)));
        }
    }

    fn one_by_one(&self, each: &mut impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        // A walk over a map that changes may start again; more steps than entries are not needed.
        self.singly(None, self.shape.max_entries, each).map(drop)
    }

    /// Hands the next `count` entries to `each`; where to go on, unless these were the last.
    fn singly(
        &self,
        mut key: Option<Vec<u8>>,
        count: u32,
        each: &mut impl FnMut(&[u8], &[u8]) -> io::Result<()>,
    ) -> io::Result<Option<Cursor>> {
        for _ in 0..count {
            let mut next = vec![0; self.shape.key_bytes];
            let mut attributes = ElementAttributes {
                map_fd: self.fd(),
                padding: 0,
                key: key.as_ref().map_or(0, |key| address(key)),
                value: address_mut(&mut next),
                flags: 0,
            };
            match call(BPF_MAP_GET_NEXT_KEY, &mut attributes) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
                result => drop(result?),
            }
            if let Some(value) = self.get(&next)? {
                each(&next, &value)?;
            }
            key = Some(next);
        }
        Ok(key.map(Cursor))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key.len(), self.shape.key_bytes, "key")?;
        let mut value = vec![0; self.stride];
        let mut attributes = ElementAttributes {
            map_fd: self.fd(),
            padding: 0,
            key: address(key),
            value: address_mut(&mut value),
            flags: 0,
        };
        match call(BPF_MAP_LOOKUP_ELEM, &mut attributes) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an entry, whether its key is there or not.
    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.update(key, value, BPF_ANY)
    }

    /// Writes an entry unless its key is there.
    pub(super) fn put_missing(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match self.update(key, value, BPF_NOEXIST) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.check(key.len(), self.shape.key_bytes, "key")?;
        self.check(value.len(), self.stride, "value")?;
        let mut attributes = ElementAttributes {
            map_fd: self.fd(),
            padding: 0,
            key: address(key),
            value: address(value),
            flags,
        };
        call(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
    }

    /// The kernel reads and writes as many bytes as the map says, whatever the buffers hold.
    fn check(&self, found: usize, wanted: usize, what: &str) -> io::Result<()> {
        if found == wanted {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "a {what} of {found} bytes for a map with {wanted}"
            )))
        }
    }

    fn fd(&self) -> u32 {
        self.data.fd().as_fd().as_raw_fd().cast_unsigned()
    }
}

/// The words of an array, in this process's memory. Programs write them meanwhile.
#[derive(Debug)]
pub(super) struct Words {
    start: NonNull<AtomicU64>,
    count: usize,
}

impl RawMap {
    /// Maps an array of words that was made for it (`BPF_F_MMAPABLE`, Linux 5.5) into memory.
    pub(super) fn words(&self) -> io::Result<Words> {
        self.check(size_of::<u64>(), self.shape.value_bytes, "word")?;
        let count = self.shape.max_entries as usize;
        // SAFETY: a new mapping at an address of the kernel's choice, of a map that is open. Needed because bits are set in words that
        // programs set bits in, too, and a system call can only write a word whole.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<AtomicU64>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Words { start, count }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl std::ops::Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many words, is aligned to a page, stays until this is dropped, and is only accessed atomically, here
        // as by the programs. Needed because memory that was mapped is no slice yet.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's, and no borrow of it is left. Needed to give it back.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<u64>()) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread. Needed because it is held by a pointer.
unsafe impl Send for Words {}
// SAFETY: all access is atomic. Needed because it is held by a pointer.
unsafe impl Sync for Words {}

/// `union bpf_attr` of the commands on one element.
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` of the commands on batches.
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr() as u64
}

fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are laid out as the kernel's union for this command and live across the call; the buffers that they
    // point to are borrowed by the callers until it returns, and are as long as the map's key and value sizes say, which the kernel
    // goes by: `check` and the batches' allocations see to it. Needed because aya's maps take types whose size is known when this is
    // compiled, and a map of another version has another one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>() as libc::c_uint,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // A descriptor, or zero.
    Ok(result as libc::c_int)
}

/// The same for commands that make something.
fn make<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let made = call(command, attributes)?;
    // SAFETY: the command succeeded, so the kernel has just made this descriptor, and nobody else has it. Needed because system calls
    // give integers.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// `union bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
struct PinAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_LINK_UPDATE`.
#[repr(C)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// Gives the link that is pinned there another program, whatever it is attached to; `ENOLINK` if that is gone.
pub(super) fn update_link(pin: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let link = open_pin(pin)?;
    let mut attributes = UpdateAttributes {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old: 0,
    };
    call(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Detaches what the link that is pinned there is attached to, at once (Linux 5.9): the last pin's end only does so by and by.
pub(super) fn detach_link(pin: &Path) -> io::Result<()> {
    call(BPF_LINK_DETACH, &mut open_pin(pin)?.as_raw_fd()).map(drop)
}

fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let (path, fd, flags) = (address(path.as_bytes_with_nul()), 0, 0);
    make(BPF_OBJ_GET, &mut PinAttributes { path, fd, flags })
}

/// `union bpf_attr` of `BPF_MAP_CREATE`.
#[repr(C)]
struct CreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// Whether the kernel hands out many entries of a hash map at once, tried on an empty one.
pub(super) fn has_batches() -> io::Result<bool> {
    const SIZE: u32 = 8;
    let map = make(
        BPF_MAP_CREATE,
        &mut CreateAttributes {
            map_type: MapType::Hash as u32,
            key_size: SIZE,
            value_size: SIZE,
            max_entries: 1,
            map_flags: 0,
        },
    )?;
    let (mut keys, mut values, mut next) = ([0; SIZE as usize], [0; SIZE as usize], [0; 4]);
    let mut attributes = BatchAttributes {
        in_batch: 0,
        out_batch: address_mut(&mut next),
        keys: address_mut(&mut keys),
        values: address_mut(&mut values),
        count: 1,
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    match call(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
        Err(error) => Ok(error.raw_os_error() == Some(libc::ENOENT)),
        Ok(_) => Ok(true),
    }
}

/// Operations of instructions (Linux `include/uapi/linux/bpf_common.h` and `bpf.h`).
pub(super) const MOV64_IMMEDIATE: u8 = 0xb7;
pub(super) const MOV64_REGISTER: u8 = 0xbf;
pub(super) const OR64_IMMEDIATE: u8 = 0x47;
pub(super) const SHIFT_LEFT64_IMMEDIATE: u8 = 0x67;
pub(super) const LOAD_WORD: u8 = 0x61;
pub(super) const JUMP_IF_NOT_IMMEDIATE: u8 = 0x55;
pub(super) const CALL: u8 = 0x85;
pub(super) const EXIT: u8 = 0x95;

/// An instruction as it lies in memory.
pub(super) const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let registers = if cfg!(target_endian = "little") {
        destination | source << 4
    } else {
        destination << 4 | source
    };
    let ([e, f], [g, h, i, j]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, registers, e, f, g, h, i, j]
}

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// `union bpf_attr` of `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

/// `union bpf_attr` of `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct RunAttributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// The verifier gives up with EAGAIN when a signal waits for the process, which says nothing about the program.
const LOAD_ATTEMPTS: usize = 16;

/// Runs a TC program of these instructions once on a frame that goes nowhere; what it returned.
pub(super) fn run_classifier(instructions: &[[u8; 8]], frame: &[u8]) -> io::Result<i32> {
    let mut attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: instructions.len() as u32,
        insns: address(instructions.as_flattened()),
        license: address(c"Dual MIT/GPL".to_bytes_with_nul()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
    };
    let mut loaded = make(BPF_PROG_LOAD, &mut attributes);
    for _ in 1..LOAD_ATTEMPTS {
        match &loaded {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => loaded = make(BPF_PROG_LOAD, &mut attributes),
            _ => break,
        }
    }
    let program = loaded?;
    let mut attributes = RunAttributes {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        retval: 0,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: address(frame),
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    call(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.retval.cast_signed())
}
