//! fs-verity: files that the file system makes read-only and checks against a Merkle tree at every
//! read (Documentation/filesystems/fsverity.rst of the kernel).

use std::fs::File;
use std::os::fd::AsRawFd;

/// `FS_IOC_ENABLE_VERITY` of linux/fsverity.h: `_IOW('f', 133, struct fsverity_enable_arg)`.
const ENABLE: libc::c_ulong = 0x4080_6685;
/// `FS_IOC_MEASURE_VERITY`: `_IOWR('f', 134, struct fsverity_digest)`, whose data do not count.
const MEASURE: libc::c_ulong = 0xc004_6686;
/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u16 = 1;
const DIGEST_SIZE: usize = 32;
/// Bytes of a block of data and of the Merkle tree. All kernels support it if pages have this size.
pub const BLOCK_SIZE: u32 = 4096;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArgument {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    __reserved1: u32,
    sig_ptr: u64,
    __reserved2: [u64; 11],
}

/// `struct fsverity_digest`, with room for SHA-256.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; DIGEST_SIZE],
}

/// Makes the kernel build the Merkle tree (SHA-256, blocks of 4096 bytes, no salt) of a file that
/// was opened for reading only and that nobody has open for writing, and protect the file by it
/// from then on. The call reads the whole file and writes about 1/127 of its size.
///
/// # Errors
/// `EOPNOTSUPP` and `ENOTTY` where the file system cannot, `EEXIST` when it is done already,
/// `ETXTBSY` when the file is open for writing.
pub fn enable(file: &File) -> Result<(), nix::Error> {
    let argument = EnableArgument {
        version: 1,
        hash_algorithm: SHA256.into(),
        block_size: BLOCK_SIZE,
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        __reserved1: 0,
        sig_ptr: 0,
        __reserved2: [0; 11],
    };
    // SAFETY: the structure has the kernel's layout and lives until the call returns; salt and
    // signature are absent, so that no other memory is read.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE as _, &raw const argument) };
    nix::Error::result(result).map(drop)
}

/// The SHA-256 digest of a file that fs-verity protects. `None` if the file is not protected, or by
/// another algorithm. The kernel knows it without reading the file.
///
/// # Errors
/// The kernel's answer, except for errors that mean that there is no fs-verity.
pub fn measure(file: &File) -> Result<Option<[u8; DIGEST_SIZE]>, nix::Error> {
    let mut measured = Measured {
        algorithm: 0,
        size: DIGEST_SIZE as u16,
        digest: [0; DIGEST_SIZE],
    };
    // SAFETY: the kernel writes at most `size` bytes behind the two fields, which is the array;
    // the structure lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE as _, &raw mut measured) };
    match nix::Error::result(result) {
        Ok(_) if measured.algorithm == SHA256 && usize::from(measured.size) == DIGEST_SIZE => {
            Ok(Some(measured.digest))
        }
        // A longer digest than SHA-256's: another algorithm.
        Ok(_) | Err(nix::Error::EOVERFLOW) => Ok(None),
        Err(nix::Error::ENODATA | nix::Error::ENOTTY | nix::Error::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!(size_of::<EnableArgument>(), 128);
        assert_eq!(std::mem::offset_of!(Measured, digest), 4);
    }
}
