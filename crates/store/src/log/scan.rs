//! Reading the log from some record to its end, and telling an unfinished write from damage.

use std::sync::Arc;

use bytes::Bytes;
use daybook_ledger::Height;

use super::{
    Log, SEGMENT_HEADER_BYTES, Segment,
    record::{ALIGN, PREFIX_BYTES, Prefix, Record},
};
use crate::{
    error::{At, StoreError},
    place::Place,
};

/// Bytes read from a segment at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Where a scan begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The segment's number.
    pub(crate) segment: u32,
    /// The first record's offset in it.
    pub(crate) offset: u64,
    /// The height that this record must have.
    pub(crate) height: Height,
}

impl Start {
    /// The genesis.
    pub(crate) const BEGINNING: Start = Start {
        segment: 1,
        offset: SEGMENT_HEADER_BYTES as u64,
        height: Height(0),
    };
}

/// An unfinished last write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Torn {
    /// Bytes from the end of the last whole record to the last byte that is not zero.
    pub(crate) bytes: u64,
}

/// A walk over the records of the log.
pub(crate) struct Scan {
    segments: Vec<Arc<Segment>>,
    at: usize,
    offset: u64,
    next: Height,
    window: Vec<u8>,
    window_start: u64,
    torn: Torn,
    last: Option<Place>,
}

impl Scan {
    /// Begins at `start`.
    pub(crate) fn new(log: &Log, start: Start) -> Result<Scan, StoreError> {
        let segments = log.segments();
        let at = (start.segment as usize).wrapping_sub(1);
        if at >= segments.len() || start.offset > segments[at].bytes {
            return Err(StoreError::damaged(
                &log.dir,
                0,
                format!("the log ends before height {}", start.height),
            ));
        }
        Ok(Scan {
            segments,
            at,
            offset: start.offset,
            next: start.height,
            window: Vec::new(),
            window_start: 0,
            torn: Torn::default(),
            last: None,
        })
    }

    /// The next record; `None` at the end of the log.
    ///
    /// # Errors
    /// `Damaged` when a record is unsound and is not an unfinished last write.
    pub(crate) fn next(&mut self) -> Result<Option<(Place, Record)>, StoreError> {
        loop {
            let segment = self.segments[self.at].clone();
            let offset = self.offset;
            match self.record(&segment)? {
                Ok((place, record)) => {
                    if record.prefix.height != self.next {
                        let what = format!(
                            "height {} where {} belongs",
                            record.prefix.height, self.next
                        );
                        return Err(StoreError::damaged(&segment.path, offset, what));
                    }
                    self.offset += record.prefix.stride();
                    self.next = self.next.next();
                    self.last = Some(place);
                    return Ok(Some((place, record)));
                }
                Err(Missing::Nothing) if self.at + 1 < self.segments.len() => {
                    let following = &self.segments[self.at + 1];
                    if following.first != self.next {
                        let what = format!("records from height {} are missing", self.next);
                        return Err(StoreError::damaged(&segment.path, offset, what));
                    }
                    self.at += 1;
                    self.offset = SEGMENT_HEADER_BYTES as u64;
                    self.window.clear();
                }
                Err(missing) => {
                    if self.at + 1 < self.segments.len() || self.later(&segment)?.is_some() {
                        let (at, what) = match missing {
                            Missing::Nothing => {
                                (0, "records are missing before a later one".into())
                            }
                            Missing::Unsound { at, what } => (at, what),
                        };
                        return Err(StoreError::damaged(&segment.path, offset + at, what));
                    }
                    self.torn = Torn {
                        bytes: self.last_written(&segment)? - offset,
                    };
                    return Ok(None);
                }
            }
        }
    }

    /// After damage: goes on at the next record that seems sound. False when there is none.
    pub(crate) fn pass_over_damage(&mut self) -> Result<bool, StoreError> {
        let segment = self.segments[self.at].clone();
        if let Some((offset, height)) = self.later(&segment)? {
            self.offset = offset;
            self.next = height;
            return Ok(true);
        }
        if self.at + 1 == self.segments.len() {
            return Ok(false);
        }
        self.at += 1;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.next = self.segments[self.at].first;
        self.window.clear();
        Ok(true)
    }

    /// The height that the next record must have.
    pub(crate) fn next_height(&self) -> Height {
        self.next
    }

    /// What lies behind the last record. Known when [`Scan::next`] has returned `None`.
    pub(crate) fn torn(&self) -> Torn {
        self.torn
    }

    /// Where the last record that was read lies.
    pub(crate) fn last(&self) -> Option<Place> {
        self.last
    }

    /// Segment and offset where the next record goes or is.
    pub(crate) fn end(&self) -> (u32, u64) {
        (self.segments[self.at].number, self.offset)
    }

    fn record(
        &mut self,
        segment: &Segment,
    ) -> Result<Result<(Place, Record), Missing>, StoreError> {
        let offset = self.offset;
        if offset + PREFIX_BYTES as u64 > segment.bytes {
            return Ok(Err(Missing::Nothing));
        }
        let prefix = self.bytes(segment, offset, PREFIX_BYTES as u64)?;
        if prefix.iter().all(|byte| *byte == 0) {
            return Ok(Err(Missing::Nothing));
        }
        let prefix = match Prefix::read(prefix.try_into().expect("a prefix was asked for")) {
            Ok(prefix) => prefix,
            Err(what) => {
                return Ok(Err(Missing::Unsound {
                    what: what.into(),
                    at: 0,
                }));
            }
        };
        if offset + u64::from(prefix.length) > segment.bytes {
            let what = "the record is longer than its segment".into();
            return Ok(Err(Missing::Unsound { what, at: 0 }));
        }
        let bytes =
            Bytes::copy_from_slice(self.bytes(segment, offset, u64::from(prefix.length))?);
        match Record::check(prefix, bytes) {
            Ok(record) => {
                let place = Place {
                    segment: segment.number,
                    offset,
                    length: prefix.length,
                    count: prefix.count,
                };
                Ok(Ok((place, record)))
            }
            Err(flaw) => Ok(Err(Missing::Unsound {
                what: flaw.what,
                at: flaw.offset,
            })),
        }
    }

    /// Where behind the present offset a sound prefix of this height or a later one lies, and its height.
    fn later(&mut self, segment: &Segment) -> Result<Option<(u64, Height)>, StoreError> {
        let mut offset = self.offset + ALIGN;
        let height = self.next;
        // Windows overlap by a prefix, so that none is missed on a border.
        while offset + PREFIX_BYTES as u64 <= segment.bytes {
            let length = (segment.bytes - offset).min(WINDOW_BYTES);
            let window = self.bytes(segment, offset, length)?;
            for start in (0..window.len().saturating_sub(PREFIX_BYTES - 1)).step_by(ALIGN as usize)
            {
                if window[start] == 0 {
                    continue;
                }
                let prefix = window[start..]
                    .first_chunk()
                    .expect("the range leaves a prefix");
                if let Ok(prefix) = Prefix::read(prefix)
                    && prefix.height >= height
                {
                    return Ok(Some((offset + start as u64, prefix.height)));
                }
            }
            offset += (length - PREFIX_BYTES as u64 + 1).next_multiple_of(ALIGN);
        }
        Ok(None)
    }

    /// One beyond the last byte of the segment that is not zero, or the present offset.
    fn last_written(&mut self, segment: &Segment) -> Result<u64, StoreError> {
        let mut last = self.offset;
        let mut offset = self.offset;
        while offset < segment.bytes {
            let length = (segment.bytes - offset).min(WINDOW_BYTES);
            let window = self.bytes(segment, offset, length)?;
            if let Some(at) = window.iter().rposition(|byte| *byte != 0) {
                last = offset + at as u64 + 1;
            }
            offset += length;
        }
        Ok(last)
    }

    /// Bytes of the segment, read in windows.
    fn bytes(&mut self, segment: &Segment, offset: u64, length: u64) -> Result<&[u8], StoreError> {
        let end = offset + length;
        if offset < self.window_start || end > self.window_start + self.window.len() as u64 {
            let wanted = length.max(WINDOW_BYTES).min(segment.bytes - offset);
            self.window.resize(wanted as usize, 0);
            self.window_start = offset;
            let read = segment
                .file()?
                .read_at(&mut self.window, offset)
                .reading(&segment.path, offset);
            if read.is_err() {
                self.window.clear();
            }
            read?;
        }
        let start = (offset - self.window_start) as usize;
        Ok(&self.window[start..start + length as usize])
    }
}

/// Why no record was found.
enum Missing {
    /// Nothing was written there.
    Nothing,
    /// Something was, and it is no sound record.
    Unsound { what: String, at: u64 },
}
