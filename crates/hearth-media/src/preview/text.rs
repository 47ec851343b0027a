//! From the bytes of a page to its text: which encoding it has.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// So far a page is searched for what it says of its encoding.
const HEAD_BYTES: usize = 1024;

/// The text of a page. What it begins with says its encoding, else its server, else itself; if nothing does, and it is no
/// UTF-8, it is of the kind that most such pages are. Its end may be cut off, within a letter.
pub(crate) fn decode(bytes: &[u8], content_type: &str, is_cut: bool) -> String {
    let of_server = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let told = of_server.and_then(|label| Encoding::for_label(label.as_bytes())).or_else(|| of_page(bytes));
    let is_utf8 = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => is_cut && error.error_len().is_none(),
    };
    let guessed = if is_utf8(bytes) { UTF_8 } else { WINDOWS_1252 };
    // Looks at the mark at the beginning first.
    told.unwrap_or(guessed).decode(bytes).0.into_owned()
}

/// What `<meta charset=…>` or `<meta … content="…; charset=…">` says.
fn of_page(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD_BYTES)]).to_ascii_lowercase();
    let at = head.find("<meta").and_then(|meta| head[meta..].find("charset").map(|at| meta + at))?;
    let rest = head[at + "charset".len()..].trim_start().strip_prefix('=')?;
    let label: String = rest
        .trim_start_matches(|c: char| c == '"' || c == '\'' || c.is_whitespace())
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_:.".contains(*c))
        .collect();
    let found = Encoding::for_label(label.as_bytes())?;
    // A page that can say this is none of two bytes a letter.
    Some(if found == encoding_rs::UTF_16LE || found == encoding_rs::UTF_16BE { UTF_8 } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_found() {
        for (bytes, content_type, text) in [
            (&b"\xc3\xa9"[..], "text/html", "é"),
            (b"\xe9", "text/html", "é"),
            (b"\xe9", "text/html; charset=ISO-8859-1", "é"),
            (b"\x82\xa0", "text/html; charset=\"Shift_JIS\"", "あ"),
            (b"<meta charset=koi8-r>\xc1", "text/html", "<meta charset=koi8-r>а"),
            (
                b"<meta http-equiv=Content-Type content='text/html; charset=windows-1251'>\xe0",
                "text/html",
                "<meta http-equiv=Content-Type content='text/html; charset=windows-1251'>а",
            ),
            (b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=ISO-8859-1", "é"),
            (b"\xff\xfea\0", "text/html", "a"),
            (b"<meta charset=utf-16>\xc3\xa9", "text/html", "<meta charset=utf-16>é"),
            (b"<meta charset=nonsense>\xc3\xa9", "text/html; charset=nonsense", "<meta charset=nonsense>é"),
        ] {
            assert_eq!(decode(bytes, content_type, false), text);
        }
        assert_eq!(decode(b"\xc3\xa9\xc3", "text/html", true), "é\u{fffd}");
    }
}
