//! What strangers send as files, as answers with files in them, and as pages.

use std::io::Cursor;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use hearth_fuzz::{Dice, fuzz};
use hearth_store::ThumbnailKind;
use image::{DynamicImage, ImageFormat, RgbaImage};

use crate::preview::{page, text};
use crate::remote::multipart;
use crate::{PictureError, measure, shrink};

const ANSWER: &[u8] = b"preamble\r\n--bound\r\nContent-Type: application/json\r\n\r\n{}\r\n--bound\r\n\
    Content-Type: text/plain\r\nContent-Disposition: attachment; filename*=utf-8''%e2%82%ac.txt\r\n\r\n\
    the file\r\n--boun\r\n--bound--\r\nepilogue";
const EMPTY: &[u8] = b"--bound\r\n\r\n{}\r\n--bound\r\nLocation: https://cdn.test/x\r\n\r\n\r\n--bound--";

type Parts = Result<(http::HeaderMap, Vec<u8>), ()>;

/// Reads an answer that comes in pieces of these lengths.
fn read(bytes: &[u8], mut length: impl FnMut() -> usize) -> Parts {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(length().clamp(1, rest.len()));
        pieces.push(Ok(Bytes::copy_from_slice(piece)));
        rest = after;
    }
    let reading = async {
        let (headers, mut body) = multipart::second_part(stream::iter(pieces).boxed(), "bound").await.map_err(drop)?;
        let mut whole = Vec::new();
        while let Some(piece) = body.next().await {
            whole.extend_from_slice(&piece.map_err(drop)?);
        }
        Ok((headers, whole))
    };
    reading.now_or_never().expect("nothing is waited for")
}

#[test]
fn answers_with_files() {
    fuzz("answers with files", &[ANSWER, EMPTY], |bytes| {
        let whole = read(bytes, || usize::MAX);
        // However it is cut into pieces, it is the same; only what has no end may be given up sooner or later.
        let mut dice = Dice::new(bytes.len() as u64);
        let in_pieces = read(bytes, || 1 + dice.below(9));
        if bytes.len() < 60_000 {
            assert_eq!(in_pieces, whole);
        }
        if let Ok((_, file)) = whole {
            assert!(bytes.windows(file.len().max(1)).any(|part| part == file) || file.is_empty());
        }
        if let Ok(kind) = std::str::from_utf8(bytes)
            && let Some(boundary) = multipart::boundary(&format!("multipart/mixed; {kind}"))
        {
            assert!(!boundary.is_empty() && boundary.len() <= 70);
        }
    });
}

#[test]
fn pages() {
    let good: [&[u8]; 3] = [
        b"<!DOCTYPE html><html><head><meta charset=utf-8><title>T &amp; U</title><base href=/b>\
          <meta property=\"og:title\" content=\"O&#x110000;\"><meta name=twitter:image content=//x/y.png>\
          <link rel='alternate' type='application/json+oembed' href='o'></head><body><h1>H</h1><p>One <b>two</b></p>\
          <script>if (a < b) { '</title>' }</script><svg><title>no</title></svg><img src=a.png width=1px></body></html>",
        b"\xff\xfe<\0p\0>\0a\0",
        b"<meta http-equiv=Content-Type content='text/html; charset=shift_jis'><p>\x82\xa0<textarea></p></textarea><!--",
    ];
    fuzz("pages", &good, |bytes| {
        for (content_type, is_cut) in [("text/html", true), ("text/html; charset=\"windows-1251\"", false)] {
            let page = page::read(&text::decode(bytes, content_type, is_cut));
            for (name, value) in &page.properties {
                assert!(name.starts_with("og:") && name.len() <= 100, "{name}");
                assert!(!value.is_empty() && value.chars().count() <= 1_000, "{value}");
            }
            assert!(page.properties.len() <= 50);
        }
    });
}

/// Small pictures of each kind.
fn pictures() -> Vec<Vec<u8>> {
    let mut dice = Dice::new(1);
    let picture = DynamicImage::ImageRgba8(RgbaImage::from_fn(40, 30, |x, y| {
        image::Rgba([x as u8 * 6, y as u8 * 8, dice.any() as u8, if x > y { 255 } else { 90 }])
    }));
    [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Jpeg]
        .into_iter()
        .map(|format| {
            let mut bytes = Cursor::new(Vec::new());
            let picture = if format == ImageFormat::Jpeg { picture.to_rgb8().into() } else { picture.clone() };
            picture.write_to(&mut bytes, format).expect("writes");
            bytes.into_inner()
        })
        .collect()
}

#[test]
fn pictures_of_strangers() {
    const MOST_PIXELS: u64 = 1_000_000;
    let pictures = pictures();
    let good: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    let mut shrunk = 0;
    fuzz("pictures of strangers", &good, |bytes| {
        let size = measure(bytes);
        for animated in [false, true] {
            let kind = ThumbnailKind { width: 16, height: 16, crop: animated, animated };
            match shrink(bytes, kind, MOST_PIXELS) {
                Ok(small) => {
                    let (told, (width, height)) = size.clone().expect("what is shrunk can be measured");
                    assert!(u64::from(width) * u64::from(height) <= MOST_PIXELS);
                    let Some(small) = small.bytes else { continue };
                    let (_, (width, height)) = measure(&small).expect("a thumbnail is a picture");
                    assert!(width <= 16 && height <= 16, "{told} became {width} by {height}");
                    shrunk += 1;
                }
                Err(PictureError::TooLarge | PictureError::NotAPicture | PictureError::Broken(_)) => {}
            }
        }
    });
    assert!(shrunk > 50, "{shrunk} thumbnails were made");
}
