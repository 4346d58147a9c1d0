//! A store file seen through glass: reads come from the file, writes stay in memory.
//!
//! redb repairs a file while it opens it. Before that may touch the only copy of what this node promised,
//! we let it do so here, look at the result, and throw the writes away.

use redb::StorageBackend;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

const PAGE: u64 = 4096;
/// Checking and repairing writes a header and the allocator's state; more than this is not a check any more.
const PAGES_MAX: usize = 1024;

#[derive(Debug)]
pub struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// The file counts up to here: what was cut off and grown again reads as zeros.
    file_len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Overlay {
    /// # Errors
    /// The file's length cannot be read.
    pub fn over(file: File) -> io::Result<Overlay> {
        let len = file.metadata()?.len();
        Ok(Overlay { file, written: Mutex::new(Written { len, file_len: len, pages: BTreeMap::new() }) })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Nothing below can panic half way through a change.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's own bytes of `[offset, offset + out.len())`, zeros past its end.
    fn read_below(&self, file_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let in_file = usize::try_from(file_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (from_file, past_end) = out.split_at_mut(in_file);
        self.file.read_exact_at(from_file, offset)?;
        past_end.fill(0);
        Ok(())
    }
}

/// The parts of `[offset, offset + len)` that lie in one page each: page number, where in the page, where in the range.
fn by_page(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < len).then(|| {
            let position = offset + at as u64;
            let in_page = (position % PAGE) as usize;
            let end = len.min(at + PAGE as usize - in_page);
            let part = (position / PAGE, in_page, at..end);
            at = end;
            part
        })
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let written = self.written();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(written.file_len, offset, out)?;
        for (number, in_page, range) in by_page(offset, out.len()) {
            if let Some(page) = written.pages.get(&number) {
                let len = range.len();
                out[range].copy_from_slice(&page[in_page..in_page + len]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut written = self.written();
        if len < written.len {
            written.file_len = written.file_len.min(len);
            written.pages.retain(|number, _| number * PAGE < len);
            if let Some(page) = written.pages.get_mut(&(len / PAGE)) {
                page[(len % PAGE) as usize..].fill(0);
            }
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut written = self.written();
        for (number, in_page, range) in by_page(offset, data.len()) {
            if !written.pages.contains_key(&number) {
                if written.pages.len() == PAGES_MAX {
                    return Err(io::Error::other("checking it would rewrite it"));
                }
                let mut page = Box::new([0; PAGE as usize]);
                self.read_below(written.file_len, number * PAGE, &mut page[..])?;
                written.pages.insert(number, page);
            }
            let page = written.pages.get_mut(&number).expect("inserted above");
            page[in_page..in_page + range.len()].copy_from_slice(&data[range]);
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }
}
