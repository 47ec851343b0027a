//! A file's SHA-256 as people write it.

use std::str::FromStr;

/// The SHA-256 of a file, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHash(pub [u8; 32]);

impl FromStr for FileHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        crate::storage::parse_hexadecimal(text).map(Self).ok_or(())
    }
}
