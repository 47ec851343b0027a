//! Media ids: what comes behind the server in an `mxc://` URI.
//!
//! Spec: client-server API, "Matrix Content (`mxc://`) URIs" and "Security considerations" there.

use rand::RngExt as _;

const LENGTH: usize = 24;
const MOST: usize = 255;

/// Whether a media id has only characters that the specification allows.
pub fn is_media_id(text: &str) -> bool {
    (1..=MOST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A media id that nobody guesses: 143 bits.
pub(crate) fn new_media_id() -> String {
    let mut random = rand::rng();
    (0..LENGTH).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
}

/// What stands between the parts of an answer, and nobody guesses.
pub fn new_boundary() -> String {
    new_media_id() + &new_media_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_ids_lead_nowhere_else() {
        for good in ["a", "AQwafuaFswefuhsfAFAgsw", "a-b_c", &"x".repeat(255)] {
            assert!(is_media_id(good), "{good}");
        }
        for bad in ["", ".", "..", "../a", "a/b", "a%2fb", "a.b", "ä", "a b", "a\0", &"x".repeat(256)] {
            assert!(!is_media_id(bad), "{bad}");
        }
        let (one, other) = (new_media_id(), new_media_id());
        assert!(is_media_id(&one) && one != other);
    }
}
