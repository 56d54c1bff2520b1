//! The bytes of an archive, in pieces, while it is made.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use keelson_oci::archive::SparsePart;
use keelson_oci::tar_header::{END, padding};

use super::at;
use crate::error::ImageError;
use crate::pipe::PIECE;

/// Pieces that wait to be filled again. New memory for each would cost more than reading a file
/// into it.
const SPARE: usize = 8;

/// Receives a piece of an archive, and returns whether the next is still wanted.
pub(crate) type Send<'a> = dyn FnMut(Bytes) -> bool + std::marker::Send + 'a;

/// Collects an archive's bytes into pieces.
pub(crate) struct TarStream<'a> {
    /// Always of full length; the first `filled` bytes are used.
    piece: Vec<u8>,
    filled: usize,
    used: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    send: &'a mut Send<'a>,
}

/// A sent piece. Its memory returns when the reader drops it.
struct Filled {
    piece: Vec<u8>,
    length: usize,
    back: SyncSender<Vec<u8>>,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.piece.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let _ = self.back.try_send(std::mem::take(&mut self.piece));
    }
}

impl<'a> TarStream<'a> {
    /// Pieces go to `send`.
    pub(crate) fn new(send: &'a mut Send<'a>) -> Self {
        let (used, spare) = sync_channel(SPARE);
        Self {
            piece: vec![0; PIECE],
            filled: 0,
            used,
            spare,
            send,
        }
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        let spare = self.spare.try_recv();
        let next = spare.unwrap_or_else(|_| vec![0; PIECE]);
        let filled = Filled {
            piece: std::mem::replace(&mut self.piece, next),
            length: std::mem::take(&mut self.filled),
            back: self.used.clone(),
        };
        if (self.send)(Bytes::from_owner(filled)) {
            return Ok(());
        }
        Err(ImageError::Interrupted("its reader went away".to_owned()))
    }

    /// Space for at most this many bytes. It is empty only if none are wanted. [`Self::advance`]
    /// counts the bytes that were put there.
    fn room(&mut self, wanted: u64) -> &mut [u8] {
        let rest = self.piece.get_mut(self.filled..).unwrap_or_default();
        let length = usize::try_from(wanted).map_or(rest.len(), |wanted| wanted.min(rest.len()));
        rest.get_mut(..length).unwrap_or_default()
    }

    fn advance(&mut self, length: usize) -> Result<(), ImageError> {
        self.filled += length;
        match self.filled >= self.piece.len() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), ImageError> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64);
            let length = room.len();
            let (now, rest) = bytes.split_at(length);
            room.copy_from_slice(now);
            bytes = rest;
            self.advance(length)?;
        }
        Ok(())
    }

    /// Writes a part of a file. If the file has become shorter, zeros follow, because the header
    /// has promised the length.
    pub(super) fn put_file(
        &mut self,
        file: &File,
        part: SparsePart,
        path: &[u8],
    ) -> Result<(), ImageError> {
        let mut done = 0;
        let mut ended = false;
        while done < part.length {
            let room = self.room(part.length - done);
            let mut length = room.len();
            if ended {
                room.fill(0);
            } else {
                match file.read_at(room, part.offset + done) {
                    Ok(0) => {
                        ended = true;
                        continue;
                    }
                    Ok(count) => length = count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(at(path)(error)),
                }
            }
            done += length as u64;
            self.advance(length)?;
        }
        Ok(())
    }

    pub(super) fn pad(&mut self, length: u64) -> Result<(), ImageError> {
        self.put(END.get(..padding(length)).unwrap_or_default())
    }

    /// The end of the archive.
    pub(crate) fn end(mut self) -> Result<(), ImageError> {
        self.put(&END)?;
        match self.filled {
            0 => Ok(()),
            _ => self.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_filled_again_and_hold_what_was_put() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..PIECE * 2 + 1000).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        let mut taken = Vec::new();
        let mut send = |piece: Bytes| {
            taken.extend_from_slice(&piece);
            true
        };
        let mut stream = TarStream::new(&mut send);
        // Longer than the file by half a piece, after pieces with other bytes.
        let length = content.len() as u64 + PIECE as u64 / 2;
        stream.put(&[7; 3 * PIECE - 100]).unwrap();
        let part = SparsePart { offset: 10, length };
        stream.put_file(&file, part, b"/file").unwrap();
        stream.end().unwrap();
        let mut expected = vec![7; 3 * PIECE - 100];
        expected.extend_from_slice(&content[10..]);
        expected.resize(3 * PIECE - 100 + length as usize, 0);
        expected.extend_from_slice(&END);
        assert!(taken == expected);
    }
}
