//! Decompresses modules in the formats that distributions use: xz, zstd, gzip.

use std::io::{self, Read};

/// Largest module that is read, compressed or not, in bytes. A livepatch with debug
/// information has a few MiB.
pub const MAX_MODULE: usize = 64 << 20;

/// Memory that a decompressor may use besides its output, in bytes. Modules are compressed
/// with a window of at most 8 MiB (scripts/Makefile.modinst).
const MAX_WINDOW: u32 = 32 << 20;

/// Compression format of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Compressed by xz, with the ending `.ko.xz`.
    Xz,
    /// Compressed by zstd, with the ending `.ko.zst`.
    Zstd,
    /// Compressed by gzip, with the ending `.ko.gz`.
    Gzip,
}

impl Compression {
    /// Detects the format by the first bytes; the file's name does not matter.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            _ => None,
        }
    }

    /// Name of the format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// A file could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The file is damaged or uses options that modules never use.
    #[error("compressed with {} and cannot be decompressed: {source}", compression.name())]
    Damaged {
        /// Compression format of the file.
        compression: Compression,
        /// What the decompressor reported.
        source: io::Error,
    },
    /// The file is too large.
    #[error("larger than {} MiB when decompressed: no module is that large", MAX_MODULE >> 20)]
    TooLarge,
}

/// Returns the module, decompressed if it was compressed.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(bytes: Vec<u8>) -> Result<Vec<u8>, UnpackError> {
    let Some(compression) = Compression::of(&bytes) else {
        return Ok(bytes);
    };
    let damaged = |source| UnpackError::Damaged {
        compression,
        source,
    };
    match compression {
        Compression::Xz => {
            let reader =
                lzma_rust2::XzReader::new_mem_limit(bytes.as_slice(), true, MAX_WINDOW / 1024);
            bounded(reader)
        }
        Compression::Zstd => {
            let mut rest = bytes.as_slice();
            match ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                &mut rest,
                u64::from(MAX_WINDOW),
            ) {
                Ok(reader) => bounded(reader),
                Err(error) => Err(io::Error::other(error.to_string())),
            }
        }
        Compression::Gzip => bounded(flate2::read::MultiGzDecoder::new(bytes.as_slice())),
    }
    .map_err(damaged)?
    .ok_or(UnpackError::TooLarge)
}

/// Reads to the end; `None` if there is more than [`MAX_MODULE`] bytes.
fn bounded(reader: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_MODULE).unwrap_or(u64::MAX);
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= MAX_MODULE).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// `printf module | xz --check=crc32`, as scripts/Makefile.modinst calls it.
    const XZ: &[u8] = include_bytes!("../../../../tests/fixtures/preflight/word.xz");
    /// `printf module | zstd`
    const ZSTD: &[u8] = include_bytes!("../../../../tests/fixtures/preflight/word.zst");

    #[test]
    fn unpacks_each() {
        for packed in [
            XZ.to_vec(),
            ZSTD.to_vec(),
            gzip(b"module"),
            b"module".to_vec(),
        ] {
            assert_eq!(unpack(packed).unwrap(), b"module");
        }
    }

    #[test]
    fn what_is_cut_is_an_error() {
        for packed in [XZ.to_vec(), ZSTD.to_vec(), gzip(b"module")] {
            let cut = packed[..packed.len() - 5].to_vec();
            let error = unpack(cut).unwrap_err();
            assert!(
                error.to_string().contains("cannot be decompressed"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_bomb_is_too_large() {
        let bomb = gzip(&vec![0; MAX_MODULE + 1]);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(unpack(bomb), Err(UnpackError::TooLarge)));
    }

    proptest! {
        #[test]
        fn never_panics(kind in 0..3, rest in proptest::collection::vec(any::<u8>(), 0..600)) {
            let magic: &[u8] = match kind {
                0 => &[0xfd, b'7', b'z', b'X', b'Z', 0],
                1 => &[0x28, 0xb5, 0x2f, 0xfd],
                _ => &[0x1f, 0x8b],
            };
            let _ = unpack([magic, &rest].concat());
        }
    }
}
