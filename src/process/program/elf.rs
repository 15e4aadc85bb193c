//! ELF files (elf(5)): which machine they are for, whether they are complete, and what loads them.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// What an ELF file begins with.
pub(super) const MAGIC: &[u8] = b"\x7fELF";

const CLASS_64: u8 = 2;
const NATIVE_DATA: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };

/// Types of files that can be run.
const TYPES: [u16; 2] = [2, 3];

const SEGMENT_LOAD: u32 = 1;
const SEGMENT_LOADER: u32 = 3;

/// The largest table of segments.
const MAX_TABLE_BYTES: usize = 65_536;

/// The longest path (`PATH_MAX`).
const MAX_PATH_BYTES: u64 = 4096;

const DAMAGED: &str = "it is damaged: its ELF header makes no sense";
const TRUNCATED: &str = "it is truncated: the file ends before the program does";

/// A machine by its number in the header, its name, and the targets of this program that share a kernel with it.
struct Machine(u16, &'static str, &'static [&'static str]);

const MACHINES: [Machine; 9] = [
    Machine(3, "x86", &["x86", "x86_64"]),
    Machine(62, "x86_64", &["x86", "x86_64"]),
    Machine(40, "arm", &["arm", "aarch64"]),
    Machine(183, "aarch64", &["arm", "aarch64"]),
    Machine(20, "powerpc", &["powerpc", "powerpc64"]),
    Machine(21, "powerpc64", &["powerpc", "powerpc64"]),
    Machine(22, "s390x", &["s390x"]),
    Machine(243, "riscv", &["riscv32", "riscv64"]),
    Machine(258, "loongarch64", &["loongarch64"]),
];

/// The name of the machine that a file is for, if this machine certainly cannot run it.
pub(super) fn foreign_machine(head: &[u8]) -> Option<String> {
    let knows_own = MACHINES.iter().any(|Machine(.., on)| on.contains(&ARCH));
    let data = *head.get(5)?;
    let number = [*head.get(18)?, *head.get(19)?];
    let number = if data == 1 {
        u16::from_le_bytes(number)
    } else {
        u16::from_be_bytes(number)
    };
    let machine = MACHINES.iter().find(|Machine(known, ..)| *known == number);
    let (name, runs_here) = match machine {
        Some(Machine(_, name, on)) => ((*name).to_owned(), on.contains(&ARCH)),
        None => (format!("machine number {number}"), false),
    };
    let is_native = runs_here && data == NATIVE_DATA;
    (knows_own && matches!(data, 1 | 2) && !is_native).then_some(name)
}

/// The program that loads this one, if it is not static. For a file of this machine; an error says what is wrong with it.
pub(super) fn loader(file: &File, head: &[u8]) -> Result<Option<PathBuf>, &'static str> {
    let header = Header::read(head).ok_or(DAMAGED)?;
    let length = file.metadata().map_err(|_| DAMAGED)?.len();
    let mut loader = None;
    for number in 0..u64::from(header.segments) {
        let mut entry = vec![0; header.segment_bytes()];
        let at = number * entry.len() as u64;
        let at = header.segments_at.checked_add(at).ok_or(DAMAGED)?;
        file.read_exact_at(&mut entry, at).map_err(|_| TRUNCATED)?;
        let segment = Segment::read(&entry, header.is_64).ok_or(DAMAGED)?;
        let is_whole = segment
            .at
            .checked_add(segment.bytes)
            .is_some_and(|end| end <= length);
        match segment.kind {
            SEGMENT_LOAD | SEGMENT_LOADER if !is_whole => return Err(TRUNCATED),
            SEGMENT_LOADER if loader.is_none() => {
                loader = Some(read_path(file, &segment).ok_or(DAMAGED)?);
            }
            _ => {}
        }
    }
    Ok(loader)
}

fn read_path(file: &File, segment: &Segment) -> Option<PathBuf> {
    if !(2..=MAX_PATH_BYTES).contains(&segment.bytes) {
        return None;
    }
    let mut path = vec![0; segment.bytes as usize];
    file.read_exact_at(&mut path, segment.at).ok()?;
    let end = path.iter().position(|byte| *byte == 0)?;
    path.truncate(end);
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// What counts of the file's header.
struct Header {
    is_64: bool,
    segments_at: u64,
    segments: u16,
}

impl Header {
    /// `None` if the kernel would not take it.
    fn read(head: &[u8]) -> Option<Self> {
        let is_64 = *head.get(4)? == CLASS_64;
        let (segments_at, sizes_at) = if is_64 {
            (u64::from_ne_bytes(field(head, 32)?), 54)
        } else {
            (u64::from(u32::from_ne_bytes(field(head, 28)?)), 42)
        };
        let header = Self {
            is_64,
            segments_at,
            segments: u16::from_ne_bytes(field(head, sizes_at + 2)?),
        };
        let segment_bytes = u16::from_ne_bytes(field(head, sizes_at)?);
        let is_sound = TYPES.contains(&u16::from_ne_bytes(field(head, 16)?))
            && usize::from(segment_bytes) == header.segment_bytes()
            && (1..=MAX_TABLE_BYTES / header.segment_bytes())
                .contains(&usize::from(header.segments));
        is_sound.then_some(header)
    }

    fn segment_bytes(&self) -> usize {
        if self.is_64 { 56 } else { 32 }
    }
}

/// What counts of an entry in the table of segments.
struct Segment {
    kind: u32,
    at: u64,
    bytes: u64,
}

impl Segment {
    fn read(entry: &[u8], is_64: bool) -> Option<Self> {
        let number = |at: usize| {
            if is_64 {
                field(entry, at).map(u64::from_ne_bytes)
            } else {
                field(entry, at).map(u32::from_ne_bytes).map(u64::from)
            }
        };
        let (at, bytes) = if is_64 { (8, 32) } else { (4, 16) };
        Some(Self {
            kind: u32::from_ne_bytes(field(entry, 0)?),
            at: number(at)?,
            bytes: number(bytes)?,
        })
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> (File, Vec<u8>) {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let mut head = vec![0; 256];
        file.read_exact_at(&mut head, 0).unwrap();
        (file, head)
    }

    #[test]
    fn this_program_is_for_this_machine_and_whole() {
        let (file, head) = own();
        assert_eq!(foreign_machine(&head), None);
        let loader = loader(&file, &head).unwrap();
        assert!(loader.is_none_or(|loader| loader.exists()));
    }

    #[test]
    fn another_number_is_another_machine() {
        let (_, mut head) = own();
        let other: u16 = if ARCH == "s390x" { 62 } else { 22 };
        head[18..20].copy_from_slice(&other.to_ne_bytes());
        assert!(foreign_machine(&head).is_some());
    }

    #[test]
    fn no_cut_and_no_changed_byte_of_the_header_does_harm() {
        let (file, head) = own();
        for length in 0..44 {
            assert!(loader(&file, &head[..length]).is_err(), "{length}");
        }
        for at in 0..64 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = head.clone();
                changed[at] = value;
                let _ = (foreign_machine(&changed), loader(&file, &changed));
            }
        }
    }
}
