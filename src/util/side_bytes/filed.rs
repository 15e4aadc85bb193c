//! The side in a file: large buffers go there from where they are, and from there to where they belong, with no copy between.
//! Small ones go together.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// As much as is written, or read, at once of what is small.
const CHUNK_BYTES: usize = 1 << 16;

/// A file to which buffers are written.
pub(super) struct ToFile {
    file: BufWriter<File>,
    written: usize,
}

impl ToFile {
    /// From where the file stands.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let file = BufWriter::with_capacity(CHUNK_BYTES, file.try_clone()?);
        Ok(Self { file, written: 0 })
    }

    /// Returns where they begin.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let start = self.written;
        self.file.write_all(bytes)?;
        self.written += bytes.len();
        Ok(start)
    }

    /// Returns how many there are.
    pub(super) fn finish(mut self) -> io::Result<usize> {
        self.file.flush()?;
        Ok(self.written)
    }
}

/// A part of a file from which buffers are read, mostly one after the other.
pub(super) struct FromFile {
    file: File,
    part: Range<u64>,
    /// What was read last for small buffers, and where it begins in the part.
    chunk: Vec<u8>,
    chunk_start: usize,
}

impl FromFile {
    pub(super) fn new(file: &File, part: Range<u64>) -> io::Result<Self> {
        Ok(Self {
            file: file.try_clone()?,
            part,
            chunk: Vec::new(),
            chunk_start: 0,
        })
    }

    /// `None` if the part is not as long.
    pub(super) fn take(&mut self, start: usize, len: usize) -> io::Result<Option<Vec<u8>>> {
        let size = (self.part.end - self.part.start) as usize;
        let Some(end) = start.checked_add(len).filter(|end| *end <= size) else {
            return Ok(None);
        };
        if len >= CHUNK_BYTES {
            return Ok(Some(self.read(start, len)?));
        }
        let chunk = self.chunk_start..self.chunk_start + self.chunk.len();
        if start < chunk.start || end > chunk.end {
            self.chunk = self.read(start, CHUNK_BYTES.min(size - start))?;
            self.chunk_start = start;
        }
        let start = start - self.chunk_start;
        Ok(Some(self.chunk[start..start + len].to_vec()))
    }

    fn read(&self, start: usize, len: usize) -> io::Result<Vec<u8>> {
        // Of a large one, the system has zeros at hand.
        let mut bytes = vec![0; len];
        let at = self.part.start + start as u64;
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_buffers_come_back_in_any_order() {
        let mut file = tempfile();
        file.write_all(b"before").unwrap();
        let buffers: Vec<Vec<u8>> = [3, 0, CHUNK_BYTES - 1, 5, CHUNK_BYTES, 1, 3 * CHUNK_BYTES, 7]
            .into_iter()
            .zip(b'a'..)
            .map(|(len, byte)| vec![byte; len])
            .collect();
        let mut to = ToFile::new(&file).unwrap();
        let starts: Vec<usize> = buffers.iter().map(|it| to.put(it).unwrap()).collect();
        let size = to.finish().unwrap();
        file.write_all(b"after").unwrap();
        let all: Vec<(usize, &Vec<u8>)> = starts.into_iter().zip(&buffers).collect();
        let mut from = FromFile::new(&file, 6..6 + size as u64).unwrap();
        for (start, bytes) in all.iter().chain(all.iter().rev()) {
            let read = from.take(*start, bytes.len()).unwrap();
            assert!(read.as_ref() == Some(*bytes), "{} at {start}", bytes.len());
        }
        assert_eq!(from.take(size - 1, 2).unwrap(), None);
        assert_eq!(from.take(usize::MAX, 1).unwrap(), None);
        assert_eq!(from.take(0, usize::MAX).unwrap(), None);
    }

    #[test]
    fn a_file_that_takes_no_more_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut to = ToFile::new(&full).unwrap();
        assert_eq!(to.put(b"x").unwrap(), 0, "it waits for more");
        assert!(to.finish().is_err());
        let mut to = ToFile::new(&full).unwrap();
        assert!(to.put(&vec![0; CHUNK_BYTES]).is_err());
    }

    fn tempfile() -> File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        rustix::fs::memfd_create("side", flags).unwrap().into()
    }
}
