//! Writing a log.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cursor::{Cursor, Found};
use crate::format::{
    FILE_HEADER, FileHeader, INDEX_ENTRY, INDEX_MAGIC, IndexEntry, LOG_MAGIC, Stream, encode_end,
    encode_output,
};
use crate::index::Index;
use crate::{LogError, index_path, rotated};

/// Distance in bytes between two index entries.
const INDEX_STEP: u64 = 64 * 1024;

/// When a log is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which the file is rotated. A file may be longer by one write.
    pub max_size: u64,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
}

/// The single writer of a log.
pub struct Writer {
    path: PathBuf,
    limits: Rotation,
    file: File,
    /// Made with its first entry: most logs are short, and need none.
    index: Option<File>,
    header: FileHeader,
    size: u64,
    lines: u64,
    next_entry: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Opens a log for appending, and makes it if it does not exist. A record torn by a crash is
    /// cut off.
    pub fn open(path: &Path, limits: Rotation) -> Result<Self, LogError> {
        let limits = Rotation {
            max_files: limits.max_files.max(1),
            ..limits
        };
        if let Some((file, header)) = create(path, None)? {
            return Ok(Self::at_start(path, limits, file, header));
        }
        let (file, header) = match open_current(path)? {
            Some(found) => found,
            None => {
                let new = create(path, None)?.ok_or_else(|| exists(path))?;
                return Ok(Self::at_start(path, limits, new.0, new.1));
            }
        };
        let mut writer = Self::at_start(path, limits, file, header);
        writer.recover()?;
        Ok(writer)
    }

    /// A writer for a file that has only a header.
    fn at_start(path: &Path, limits: Rotation, file: File, header: FileHeader) -> Self {
        Self {
            path: path.to_owned(),
            limits,
            file,
            index: None,
            header,
            size: FILE_HEADER as u64,
            lines: 0,
            next_entry: INDEX_STEP,
            buffer: Vec::new(),
        }
    }

    /// Records output, split into lines, with a single write. Empty output records nothing.
    pub fn append(&mut self, stream: Stream, output: &[u8], time: u64) -> Result<(), LogError> {
        if output.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let lines = encode_output(&mut buffer, stream, time, output);
        let result = self.write(&buffer, lines, time);
        self.buffer = buffer;
        result
    }

    /// Records that the process ended and no output follows, until a later run appends more.
    pub fn finish(&mut self, time: u64) -> Result<(), LogError> {
        let mut bytes = Vec::new();
        encode_end(&mut bytes, time);
        self.write(&bytes, 0, time)
    }

    /// Whether nothing was ever recorded in the current file.
    pub fn is_empty(&self) -> bool {
        self.size == FILE_HEADER as u64
    }

    fn write(&mut self, bytes: &[u8], lines: u64, time: u64) -> Result<(), LogError> {
        if self.size >= self.limits.max_size && self.size > FILE_HEADER as u64 {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            // The written part must not stay between this record and the next.
            let _ = self.file.set_len(self.size);
            return Err(LogError::io("write", &self.path)(error));
        }
        if self.size >= self.next_entry {
            let entry = IndexEntry {
                offset: self.size,
                time,
                lines: self.lines,
            };
            // A log without an index is complete, so a full disk is not an error here.
            let _ = self.write_entry(&entry);
            self.next_entry = self.size + INDEX_STEP;
        }
        self.size += bytes.len() as u64;
        self.lines += lines;
        Ok(())
    }

    fn write_entry(&mut self, entry: &IndexEntry) -> Result<(), LogError> {
        let index = match &mut self.index {
            Some(index) => index,
            none => none.insert(open_index(&self.path, self.header)?),
        };
        index
            .write_all(&entry.encode())
            .map_err(LogError::io("write", &index_path(&self.path)))
    }

    fn rotate(&mut self) -> Result<(), LogError> {
        let last = self.limits.max_files - 1;
        if last == 0 {
            crate::remove_file(&self.path)?;
            crate::remove_file(&index_path(&self.path))?;
        }
        for number in (0..last).rev() {
            let (from, to) = (rotated(&self.path, number), rotated(&self.path, number + 1));
            rename(&from, &to)?;
            rename(&index_path(&from), &index_path(&to))?;
        }
        let (file, header) = create(&self.path, Some(self.header.generation + 1))?
            .ok_or_else(|| exists(&self.path))?;
        self.index = None;
        self.file = file;
        self.header = header;
        self.size = FILE_HEADER as u64;
        self.lines = 0;
        self.next_entry = INDEX_STEP;
        Ok(())
    }

    /// Finds the end of the last complete record and the number of lines, and cuts off the rest.
    fn recover(&mut self) -> Result<(), LogError> {
        let length = self
            .file
            .metadata()
            .map_err(LogError::io("stat", &self.path))?
            .len();
        let index = Index::open(&self.path, self.header);
        let count = index.partition(&|entry: &IndexEntry| entry.offset < length);
        if let Some(entry) = index.last_where(|entry| entry.offset < length) {
            self.size = entry.offset;
            self.lines = entry.lines;
            self.next_entry = entry.offset + INDEX_STEP;
        }
        let file = self.file.try_clone();
        let file = file.map_err(LogError::io("open", &self.path))?;
        let mut cursor = Cursor::new(file, self.path.clone(), self.size);
        loop {
            match cursor.find()? {
                Found::Record(record) => {
                    self.lines += u64::from(!record.partial);
                    cursor.pass(&record);
                }
                Found::End => {}
                Found::Nothing => break,
            }
            self.size = cursor.position();
        }
        if self.size < length {
            self.file
                .set_len(self.size)
                .map_err(LogError::io("truncate", &self.path))?;
        }
        if index.is_there() {
            let index = open_index(&self.path, self.header)?;
            index
                .set_len(FILE_HEADER as u64 + count * INDEX_ENTRY as u64)
                .map_err(LogError::io("truncate", &index_path(&self.path)))?;
            self.index = Some(index);
        }
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), LogError> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::io("rename", from)(error))
        }
        _ => Ok(()),
    }
}

fn append_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    options
}

/// Opens the current file. `None`: there is none, or its header is incomplete.
fn open_current(path: &Path) -> Result<Option<(File, FileHeader)>, LogError> {
    let file = match append_options().open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("open", path)(error)),
    };
    let mut bytes = [0; FILE_HEADER];
    let length = file
        .read_at(&mut bytes, 0)
        .map_err(LogError::io("read", path))?;
    if length < FILE_HEADER || bytes == [0; FILE_HEADER] {
        crate::remove_file(path)?;
        return Ok(None);
    }
    let header = FileHeader::decode(&bytes, LOG_MAGIC).map_err(|reason| LogError::NotALog {
        path: path.to_owned(),
        reason,
    })?;
    Ok(Some((file, header)))
}

/// The generation that follows the newest rotated file's: a crash between the renames of a
/// rotation and the creation of the new file leaves a log without a current file.
fn next_generation(path: &Path) -> u64 {
    let generation = || {
        let mut bytes = [0; FILE_HEADER];
        let file = File::open(rotated(path, 1)).ok()?;
        file.read_exact_at(&mut bytes, 0).ok()?;
        Some(FileHeader::decode(&bytes, LOG_MAGIC).ok()?.generation)
    };
    generation().map_or(1, |generation| generation + 1)
}

/// Makes the current file. `None`: it exists already. If no generation is given, it is one higher
/// than that of the newest file.
fn create(path: &Path, generation: Option<u64>) -> Result<Option<(File, FileHeader)>, LogError> {
    let mut file = match append_options().create_new(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
        other => other.map_err(LogError::io("create", path))?,
    };
    let created = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    let header = FileHeader {
        generation: generation.unwrap_or_else(|| next_generation(path)),
        created,
    };
    file.write_all(&header.encode(LOG_MAGIC))
        .map_err(LogError::io("write", path))?;
    Ok(Some((file, header)))
}

fn exists(path: &Path) -> LogError {
    LogError::io("create", path)(std::io::ErrorKind::AlreadyExists.into())
}

/// Opens the index that belongs to a log file, or begins a new one.
fn open_index(log: &Path, header: FileHeader) -> Result<File, LogError> {
    let path = index_path(log);
    let mut file = append_options()
        .create(true)
        .open(&path)
        .map_err(LogError::io("open", &path))?;
    let mut bytes = [0; FILE_HEADER];
    let known = file.read_exact_at(&mut bytes, 0).is_ok()
        && FileHeader::decode(&bytes, INDEX_MAGIC) == Ok(header);
    if !known {
        file.set_len(0).map_err(LogError::io("truncate", &path))?;
        file.write_all(&header.encode(INDEX_MAGIC))
            .map_err(LogError::io("write", &path))?;
    }
    Ok(file)
}
