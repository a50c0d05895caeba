//! Parcels: records on their way from the thread that scans a file to the thread that builds a shard's data.
//!
//! A parcel holds whole records, but the last value may go on in the parcels that follow, so that a value may be of any
//! size. So many parcels exist for each shard; who scans waits for an empty one, which bounds the memory in flight.

use std::io::{self, Read};
use std::ops::Range;

use crossbeam_channel::{Receiver, Sender, bounded};
use shardis_storage::rdb::file::Head;

use crate::limits::{LOAD_PARCEL_BYTES, LOAD_PARCELS};

/// Records of a file for one shard.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Bytes at the beginning that continue the last value of the parcel before.
    continued: usize,
    /// The last value goes on in the next parcel.
    goes_on: bool,
}

/// A key of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Number of the database.
    pub(super) db: u16,
    /// Slot of the key.
    pub(super) slot: u16,
    /// Expiry, form of the value and use.
    pub(super) head: Head,
    /// Place of the value in the file.
    pub(super) offset: u64,
    /// Place of the key in the parcel's bytes.
    key: u32,
    /// Place of the value in the parcel's bytes.
    value: u32,
}

/// Makes the way of parcels from the thread that scans to one that builds.
pub(super) fn route() -> (Dispatch, Arrival) {
    let (full, arrived) = bounded(LOAD_PARCELS);
    let (used, empty) = bounded(LOAD_PARCELS);
    for _ in 0..LOAD_PARCELS {
        // There is room for all of them.
        let _ = used.send(Parcel::default());
    }
    let dispatch = Dispatch {
        full,
        empty,
        parcel: None,
    };
    let arrival = Arrival {
        arrived,
        used,
        parcel: Parcel::default(),
    };
    (dispatch, arrival)
}

/// Sender of the parcels for one shard.
#[derive(Debug)]
pub(super) struct Dispatch {
    full: Sender<Parcel>,
    empty: Receiver<Parcel>,
    /// The parcel that is being filled.
    parcel: Option<Parcel>,
}

/// The thread that builds has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

impl Dispatch {
    /// The parcel that is being filled.
    fn parcel(&mut self) -> Result<&mut Parcel, Gone> {
        if self.parcel.is_none() {
            self.parcel = Some(self.empty.recv().map_err(|_| Gone)?);
        }
        self.parcel.as_mut().ok_or(Gone)
    }

    /// Begins a record: its value follows in pieces.
    pub(super) fn begin(
        &mut self,
        (db, slot): (u16, u16),
        key: &[u8],
        head: Head,
        offset: u64,
    ) -> Result<(), Gone> {
        let parcel = self.parcel()?;
        let place = parcel.bytes.len() as u32;
        parcel.bytes.extend_from_slice(key);
        parcel.records.push(Record {
            db,
            slot,
            head,
            offset,
            key: place,
            value: parcel.bytes.len() as u32,
        });
        Ok(())
    }

    /// Adds a piece of the value that was begun.
    pub(super) fn add(&mut self, mut piece: &[u8]) -> Result<(), Gone> {
        loop {
            let parcel = self.parcel()?;
            // A long key may have taken more than there was.
            let end = LOAD_PARCEL_BYTES.max(parcel.bytes.len());
            let (here, rest) = piece.split_at((end - parcel.bytes.len()).min(piece.len()));
            parcel.bytes.extend_from_slice(here);
            if parcel.records.is_empty() {
                parcel.continued = parcel.bytes.len();
            }
            if rest.is_empty() {
                return Ok(());
            }
            parcel.goes_on = true;
            self.send()?;
            piece = rest;
        }
    }

    /// Ends the value that was begun. A full parcel is sent.
    pub(super) fn end(&mut self) -> Result<(), Gone> {
        let is_full = self
            .parcel
            .as_ref()
            .is_some_and(|parcel| parcel.bytes.len() >= LOAD_PARCEL_BYTES);
        if is_full { self.send() } else { Ok(()) }
    }

    /// Sends what there is.
    pub(super) fn send(&mut self) -> Result<(), Gone> {
        match self.parcel.take() {
            Some(parcel) => self.full.send(parcel).map_err(|_| Gone),
            None => Ok(()),
        }
    }
}

/// Receiver of the parcels for one shard.
#[derive(Debug)]
pub(super) struct Arrival {
    arrived: Receiver<Parcel>,
    used: Sender<Parcel>,
    /// The parcel that is being read.
    parcel: Parcel,
}

impl Arrival {
    /// Gives the present parcel back, and takes the next one; false behind the last.
    pub(super) fn next(&mut self) -> bool {
        let Ok(next) = self.arrived.recv() else {
            return false;
        };
        let mut parcel = std::mem::replace(&mut self.parcel, next);
        if parcel.bytes.capacity() > 0 {
            parcel.bytes.clear();
            parcel.records.clear();
            (parcel.continued, parcel.goes_on) = (0, false);
            // The scan may have ended; there is room for all parcels.
            let _ = self.used.send(parcel);
        }
        true
    }

    /// Number of records in the parcel.
    pub(super) fn len(&self) -> usize {
        self.parcel.records.len()
    }

    /// A record of the parcel and its key.
    pub(super) fn record(&self, index: usize) -> (Record, &[u8]) {
        let record = self.parcel.records[index];
        (
            record,
            &self.parcel.bytes[record.key as usize..record.value as usize],
        )
    }

    /// The value of a record, as far as it is in this parcel.
    pub(super) fn value(&self, index: usize) -> &[u8] {
        &self.parcel.bytes[self.place(index)]
    }

    fn place(&self, index: usize) -> Range<usize> {
        let parcel = &self.parcel;
        let end = parcel
            .records
            .get(index + 1)
            .map_or(parcel.bytes.len(), |next| next.key as usize);
        parcel.records[index].value as usize..end
    }

    /// Whether the value of the last record goes on in the next parcel.
    pub(super) fn goes_on(&self) -> bool {
        self.parcel.goes_on && !self.parcel.records.is_empty()
    }

    /// The value of the last record, which goes on: the rest is taken from the parcels that follow, as it is read.
    pub(super) fn rest(&mut self) -> Rest<'_> {
        let piece = self.place(self.len() - 1);
        Rest {
            arrival: self,
            piece,
            is_last: false,
        }
    }
}

/// A value that fills several parcels.
#[derive(Debug)]
pub(super) struct Rest<'a> {
    arrival: &'a mut Arrival,
    /// Place of what is still to be read in the present parcel.
    piece: Range<usize>,
    /// The value ends in the present parcel.
    is_last: bool,
}

impl Read for Rest<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.is_last {
                return Ok(0);
            }
            if !self.arrival.next() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let parcel = &self.arrival.parcel;
            self.piece = 0..parcel.continued;
            self.is_last = !(parcel.goes_on && parcel.records.is_empty());
        }
        let len = self.piece.len().min(target.len());
        let bytes = &self.arrival.parcel.bytes[self.piece.clone()];
        target[..len].copy_from_slice(&bytes[..len]);
        self.piece.start += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use shardis_storage::rdb::file::{FileScanner, Part};

    use super::*;

    /// A head of a string.
    fn head() -> Head {
        let mut scanner = FileScanner::open(&b"REDIS0010\x00\x01k"[..], false).unwrap();
        match scanner.next_part() {
            Ok(Some(Part::Key(head))) => head,
            part => panic!("{part:?}"),
        }
    }

    #[test]
    fn values_of_any_size_arrive_as_they_were_sent() {
        let (mut dispatch, mut arrival) = route();
        let sizes = [
            0,
            1,
            LOAD_PARCEL_BYTES - 3,
            5,
            3 * LOAD_PARCEL_BYTES + 7,
            0,
            LOAD_PARCEL_BYTES,
            100_000,
            9,
        ];
        let sent =
            move |index: usize| -> Vec<u8> { (0..sizes[index]).map(|n| (n * 7 + index) as u8).collect() };
        let thread = std::thread::spawn(move || {
            for index in 0..sizes.len() {
                dispatch
                    .begin((0, 0), format!("{index}").as_bytes(), head(), 0)
                    .unwrap();
                for piece in sent(index).chunks(50_001) {
                    dispatch.add(piece).unwrap();
                }
                dispatch.end().unwrap();
            }
            dispatch.send().unwrap();
        });
        let mut found = Vec::new();
        let mut has_more = arrival.next();
        while has_more {
            let whole = arrival.len() - usize::from(arrival.goes_on());
            for index in 0..whole {
                let (_, key) = arrival.record(index);
                found.push((key.to_vec(), arrival.value(index).to_vec()));
            }
            if arrival.goes_on() {
                let (_, key) = arrival.record(whole);
                let (key, mut value) = (key.to_vec(), Vec::new());
                arrival.rest().read_to_end(&mut value).unwrap();
                found.push((key, value));
            } else {
                has_more = arrival.next();
            }
        }
        thread.join().unwrap();
        assert_eq!(found.len(), sizes.len());
        for (index, (key, value)) in found.into_iter().enumerate() {
            assert!(
                key == format!("{index}").as_bytes() && value == sent(index),
                "{index}"
            );
        }
    }

    #[test]
    fn a_value_that_is_cut_off_is_an_error() {
        let (mut dispatch, mut arrival) = route();
        dispatch.begin((0, 0), b"k", head(), 0).unwrap();
        dispatch.add(&vec![1; LOAD_PARCEL_BYTES + 10]).unwrap();
        drop(dispatch);
        assert!(arrival.next() && arrival.goes_on());
        assert!(arrival.rest().read_to_end(&mut Vec::new()).is_err());
    }
}
