//! The answer of a server that is asked for media: two parts, of which the second is the media, or tells where it is.
//!
//! The second part is handed on as it comes; everything before it is bounded.
//! Spec: server-server API, "Content Repository"; RFC 2046, "Multipart Media Type".

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

use crate::content::{Content, ContentError};

/// All before the second part's body may be so long.
const HEAD_BYTES: usize = 64 * 1024;
/// The longest boundary there can be.
const BOUNDARY_BYTES: usize = 70;

/// The boundary that a content type names, if it is that of several parts.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    let (essence, parameters) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (1..=BOUNDARY_BYTES).contains(&boundary.len()).then_some(boundary)
}

/// The headers and the body of the second part.
pub(crate) async fn second_part(mut content: Content, boundary: &str) -> Result<(HeaderMap, Content), ContentError> {
    let mut head = Head { seen: BytesMut::new(), at: 0, delimiter: format!("--{boundary}") };
    let first = format!("{}\r\n", head.delimiter);
    head.find(&mut content, &first).await?;
    // The first part has headers, or an empty line instead.
    head.at -= 2;
    let next = format!("\r\n{}\r\n", head.delimiter);
    head.find(&mut content, &next).await?;
    let headers = if head.starts_with(&mut content, "\r\n").await? {
        HeaderMap::new()
    } else {
        let from = head.at;
        head.find(&mut content, "\r\n\r\n").await?;
        parse(&head.seen[from..head.at])
    };
    let rest = head.seen.split_off(head.at).freeze();
    let end = format!("\r\n{}", head.delimiter);
    Ok((headers, until(content, rest, end)))
}

/// What comes before the second part's body.
struct Head {
    seen: BytesMut,
    at: usize,
    delimiter: String,
}

impl Head {
    /// Goes behind the next occurrence of a text.
    async fn find(&mut self, content: &mut Content, text: &str) -> Result<(), ContentError> {
        loop {
            if let Some(found) = memmem::find(&self.seen[self.at..], text.as_bytes()) {
                self.at += found + text.len();
                return Ok(());
            }
            self.more(content).await?;
        }
    }

    /// Whether a text stands here; if so, goes behind it.
    async fn starts_with(&mut self, content: &mut Content, text: &str) -> Result<bool, ContentError> {
        while self.seen.len() - self.at < text.len() {
            self.more(content).await?;
        }
        let is_there = self.seen[self.at..].starts_with(text.as_bytes());
        if is_there {
            self.at += text.len();
        }
        Ok(is_there)
    }

    async fn more(&mut self, content: &mut Content) -> Result<(), ContentError> {
        if self.seen.len() > HEAD_BYTES {
            return Err(ContentError("the head of the answer has no end".to_owned()));
        }
        match content.next().await {
            Some(piece) => self.seen.extend_from_slice(&piece?),
            None => return Err(ContentError("the answer ended before its second part".to_owned())),
        }
        Ok(())
    }
}

fn parse(text: &[u8]) -> HeaderMap {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let headers = lines.filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(line[..colon].trim_ascii()).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    });
    headers.collect()
}

/// What comes before the end, which must come.
fn until(content: Content, seen: Bytes, end: String) -> Content {
    let state = (content, BytesMut::from(&seen[..]), end, false);
    let pieces = stream::try_unfold(state, async |(mut content, mut seen, end, is_over)| {
        if is_over {
            return Ok(None);
        }
        loop {
            if let Some(at) = memmem::find(&seen, end.as_bytes()) {
                seen.truncate(at);
                return Ok(Some((seen.split().freeze(), (content, seen, end, true))));
            }
            // The end may have begun.
            let safe = seen.len().saturating_sub(end.len());
            if safe > 0 {
                let piece = seen.split_to(safe).freeze();
                return Ok(Some((piece, (content, seen, end, false))));
            }
            match content.next().await {
                Some(piece) => seen.extend_from_slice(&piece?),
                None => return Err(ContentError("the answer ended early".to_owned())),
            }
        }
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of a length.
    async fn read(text: &[u8], length: usize) -> Result<(HeaderMap, Vec<u8>), ContentError> {
        let pieces: Vec<_> = text.chunks(length).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let (headers, mut body) = second_part(stream::iter(pieces).boxed(), "gc0p4Jq0M2Yt08jU534c0p").await?;
        let mut whole = Vec::new();
        while let Some(piece) = body.next().await {
            whole.extend_from_slice(&piece?);
        }
        Ok((headers, whole))
    }

    const SPEC: &[u8] = b"--gc0p4Jq0M2Yt08jU534c0p\r\nContent-Type: application/json\r\n\r\n{}\r\n\
        --gc0p4Jq0M2Yt08jU534c0p\r\nContent-Type: text/plain\r\nContent-Disposition: inline; filename=a.txt\r\n\r\n\
        This is \r\n--gc0p not the end\r\n\r\n--gc0p4Jq0M2Yt08jU534c0p--\r\n";

    #[tokio::test]
    async fn the_second_part_is_the_media() {
        for length in [1, 2, 3, 7, 50, 1000] {
            let (headers, body) = read(SPEC, length).await.unwrap();
            assert_eq!(headers["content-type"], "text/plain");
            assert_eq!(headers["content-disposition"], "inline; filename=a.txt");
            assert_eq!(body, b"This is \r\n--gc0p not the end\r\n", "{length}");
        }
    }

    #[tokio::test]
    async fn parts_may_have_no_headers_and_no_bytes() {
        let empty =
            b"\r\n--gc0p4Jq0M2Yt08jU534c0p\r\n\r\n{}\r\n--gc0p4Jq0M2Yt08jU534c0p\r\n\r\n\r\n--gc0p4Jq0M2Yt08jU534c0p--";
        for length in [1, 5, 1000] {
            assert_eq!(read(empty, length).await.unwrap(), (HeaderMap::new(), Vec::new()));
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_is_an_error() {
        for end in 0..SPEC.len() - 5 {
            assert!(read(&SPEC[..end], 9).await.is_err(), "{end}");
        }
        let endless = [SPEC.split_at(30).0, &vec![b'x'; 200_000]].concat();
        assert!(read(&endless, 1000).await.is_err());
        assert!(read(&vec![b'x'; 200_000], 1000).await.is_err());
    }

    #[test]
    fn boundaries_are_found() {
        for (content_type, found) in [
            ("multipart/mixed; boundary=abc", Some("abc")),
            ("Multipart/Mixed;charset=x; Boundary=\"abc\"", Some("abc")),
            ("multipart/mixed", None),
            ("multipart/form-data; boundary=abc", None),
            ("text/plain; boundary=abc", None),
            ("multipart/mixed; boundary=", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), found, "{content_type}");
        }
    }
}
