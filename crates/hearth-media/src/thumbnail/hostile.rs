//! Pictures that are made to do harm.

use std::io::Cursor;
use std::time::{Duration, Instant};

use hearth_store::ThumbnailKind;
use image::{DynamicImage, ImageFormat, RgbImage};

use super::{PictureError, Shrunk, measure, shrink};

/// As `media.max_picture_pixels` says by default.
const MOST_PIXELS: u64 = 48_000_000;

fn small(animated: bool) -> ThumbnailKind {
    ThumbnailKind { width: 32, height: 32, crop: true, animated }
}

/// Still or moving: neither may take long.
fn both(bytes: &[u8]) -> [Result<Shrunk, PictureError>; 2] {
    let began = Instant::now();
    let outcomes = [false, true].map(|animated| shrink(bytes, small(animated), MOST_PIXELS));
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    outcomes
}

fn picture(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(90, 70, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    DynamicImage::from(picture).write_to(&mut bytes, format).expect("writes");
    bytes.into_inner()
}

fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// A picture that says it is larger than it is.
fn grown(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = picture(format);
    match format {
        ImageFormat::Png => {
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let sum = checksum(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&sum.to_be_bytes());
        }
        ImageFormat::Gif => {
            bytes[6..8].copy_from_slice(&(width as u16).to_le_bytes());
            bytes[8..10].copy_from_slice(&(height as u16).to_le_bytes());
        }
        ImageFormat::WebP => {
            // The head of a lossless picture: 14 bits each, less one.
            let size = (width - 1) & 0x3fff | ((height - 1) & 0x3fff) << 14;
            bytes[21..25].copy_from_slice(&size.to_le_bytes());
        }
        ImageFormat::Jpeg => {
            let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
            bytes[frame + 5..frame + 7].copy_from_slice(&(height as u16).to_be_bytes());
            bytes[frame + 7..frame + 9].copy_from_slice(&(width as u16).to_be_bytes());
        }
        _ => unreachable!("not among those that are understood"),
    }
    bytes
}

const FORMATS: [ImageFormat; 4] = [ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Jpeg];

#[test]
fn a_picture_that_claims_to_be_huge_costs_nothing() {
    for format in FORMATS {
        let bytes = grown(format, 16_000, 16_000);
        assert_eq!(measure(&bytes).map(|(_, size)| size), Ok((16_000, 16_000)), "{format:?}");
        for outcome in both(&bytes) {
            assert_eq!(outcome, Err(PictureError::TooLarge), "{format:?}");
        }
    }
    for (width, height) in [(u32::MAX, u32::MAX), (1, u32::MAX), (0, 5)] {
        for outcome in both(&grown(ImageFormat::Png, width, height)) {
            assert!(outcome.is_err(), "{width} by {height}: {outcome:?}");
        }
    }
}

#[test]
fn a_picture_that_ends_early_harms_nobody() {
    for format in FORMATS {
        let bytes = picture(format);
        for end in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
            let _ = both(&bytes[..end]);
        }
    }
}

#[test]
fn a_moving_picture_without_an_end_is_cut() {
    let one = picture(ImageFormat::Gif);
    let frame = one.windows(1).position(|byte| byte == [0x2c]).expect("a frame");
    let mut bytes = one[..one.len() - 1].to_vec();
    for _ in 0..3_000 {
        bytes.extend_from_slice(&one[frame..one.len() - 1]);
    }
    let _ = both(&bytes);
}

#[test]
fn what_only_says_that_it_is_a_picture_is_none() {
    let page = b"<html><script>alert(1)</script></html>";
    let drawing = b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>";
    for bytes in [&page[..], drawing, b"GIF89", b"\x89PNG", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b""] {
        assert!(measure(bytes).is_err(), "{}", bytes.escape_ascii());
        assert!(both(bytes).iter().all(Result::is_err));
    }
    // What is both a picture and a page is a picture, and of its page nothing is left.
    for format in FORMATS {
        let both_at_once = [picture(format), page.to_vec()].concat();
        let Ok(Shrunk { bytes: Some(bytes), .. }) = shrink(&both_at_once, small(false), MOST_PIXELS) else {
            panic!("{format:?} is not shrunk")
        };
        assert!(!bytes.windows(7).any(|part| part == b"<script"), "{format:?}");
    }
}
