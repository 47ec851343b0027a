//! Pictures that are made to do harm.

use std::io::Cursor;
use std::time::{Duration, Instant};

use hearth_media::{PictureError, Shrunk, measure, shrink};
use hearth_store::ThumbnailKind;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, ImageEncoder as _, ImageFormat, RgbImage};

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

/// A part of a PNG file.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [&kind[..], data].concat();
    let length = u32::try_from(data.len()).expect("a length").to_be_bytes();
    [&length[..], &named, &checksum(&named).to_be_bytes()].concat()
}

/// Where the first part of a kind begins in a PNG file, and what it holds.
fn found<'a>(png: &'a [u8], kind: &[u8; 4]) -> (usize, &'a [u8]) {
    let at = png.windows(4).position(|window| window == kind).expect("a part") - 4;
    let length = u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes")) as usize;
    (at, &png[at + 8..at + 8 + length])
}

/// A PNG file with a colour profile that unpacks to so many bytes.
fn with_profile(bytes: usize) -> Vec<u8> {
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_icc_profile(vec![0; bytes]).expect("takes a profile");
    DynamicImage::from(GrayImage::new(90, 70)).write_with_encoder(encoder).expect("writes");
    png
}

#[test]
fn a_colour_profile_is_not_unpacked_without_bounds() {
    assert!(both(&with_profile(3_000_000)).iter().all(Result::is_ok));
    let bomb = with_profile(80_000_000);
    assert!(bomb.len() < 500_000, "{}", bomb.len());
    for outcome in both(&bomb) {
        assert!(outcome.expect("a thumbnail").bytes.expect("a smaller one").len() < 10_000);
    }
}

#[test]
fn texts_of_a_picture_are_not_unpacked() {
    let bomb = with_profile(80_000_000);
    let (_, profile) = found(&bomb, b"iCCP");
    let name = profile.iter().position(|byte| *byte == 0).expect("an end of the name");
    let packed = &profile[name + 2..];
    let mut png = picture(ImageFormat::Png);
    let (at, _) = found(&png, b"IDAT");
    for _ in 0..20 {
        let latin = [&b"Comment\0\0"[..], packed].concat();
        let unicode = [&b"XML:com.adobe.xmp\0\x01\0\0\0"[..], packed].concat();
        png.splice(at..at, [chunk(b"zTXt", &latin), chunk(b"iTXt", &unicode)].concat());
    }
    for outcome in both(&png) {
        assert!(outcome.expect("a thumbnail").bytes.expect("a smaller one").len() < 10_000);
    }
}

#[test]
fn what_a_camera_tells_is_read_no_further_than_it_must() {
    let jpeg = picture(ImageFormat::Jpeg);
    // More entries than there are, one that leads back to the first, and one that leads nowhere.
    for (entries, next) in [(u16::MAX, 8_u32), (1, 8), (1, u32::MAX)] {
        let entry = [&0x0112_u16.to_be_bytes()[..], &3_u16.to_be_bytes(), &u32::MAX.to_be_bytes(), &next.to_be_bytes()];
        let told = [b"Exif\0\0MM\0*\0\0\0\x08", &entries.to_be_bytes()[..], &entry.concat(), &next.to_be_bytes()];
        let told = told.concat();
        let length = u16::try_from(told.len() + 2).expect("a length").to_be_bytes();
        let hostile = [&jpeg[..2], &[0xff, 0xe1], &length, &told, &jpeg[2..]].concat();
        assert!(both(&hostile).iter().all(Result::is_ok), "{entries} {next}");
    }
}

#[test]
fn a_frame_may_not_be_larger_than_its_picture() {
    let gif = picture(ImageFormat::Gif);
    let frame = gif.windows(9).position(|window| window == [0x2c, 0, 0, 0, 0, 90, 0, 70, 0]).expect("a frame");
    for side in [10_000_u16, u16::MAX] {
        let mut hostile = gif.clone();
        hostile[frame + 5..frame + 7].copy_from_slice(&side.to_le_bytes());
        hostile[frame + 7..frame + 9].copy_from_slice(&side.to_le_bytes());
        assert_eq!(both(&hostile), [Err(PictureError::TooLarge), Err(PictureError::TooLarge)], "{side}");
    }
}

/// A large JPEG file: what comes before its scans, and the head of a scan over all of it.
fn scans() -> (Vec<u8>, Vec<u8>) {
    let mut jpeg = Cursor::new(Vec::new());
    RgbImage::new(2000, 2000).write_to(&mut jpeg, ImageFormat::Jpeg).expect("writes");
    let jpeg = jpeg.into_inner();
    let scan = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
    let length = usize::from(u16::from_be_bytes([jpeg[scan + 2], jpeg[scan + 3]]));
    (jpeg[..scan].to_vec(), jpeg[scan..scan + 2 + length].to_vec())
}

#[test]
fn scans_without_end_are_not_all_read() {
    let (head, scan) = scans();
    let _ = both(&[&head[..], &scan.repeat(20_000), &[0xff, 0xd9]].concat());
    // The same bit by bit: first what all have in common, then one colour over and over.
    let mut progressive = head;
    let frame = progressive.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    progressive[frame + 1] = 0xc2;
    let (first, again) = (scan.len() - 2, [0xff, 0xda, 0, 8, 1, 1, 0, 1, 0x3f, 0]);
    let mut common = scan;
    common[first] = 0;
    let _ = both(&[&progressive[..], &common, &again.repeat(20_000), &[0xff, 0xd9]].concat());
}

/// A PNG file that moves, with the same frame again and again.
fn moving_png(side: u32, frames: u32) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    GrayImage::new(side, side).write_to(&mut png, ImageFormat::Png).expect("writes");
    let png = png.into_inner();
    let (at, data) = found(&png, b"IDAT");
    let control = |sequence: u32| {
        let numbers = [sequence, side, side, 0, 0].map(u32::to_be_bytes).concat();
        chunk(b"fcTL", &[&numbers[..], &[0, 1, 0, 10, 0, 0]].concat())
    };
    let mut moving = [&png[..at], &chunk(b"acTL", &[frames.to_be_bytes(), [0; 4]].concat()), &control(0)].concat();
    moving.extend(chunk(b"IDAT", data));
    for frame in 1..frames {
        moving.extend(control(2 * frame - 1));
        moving.extend(chunk(b"fdAT", &[&(2 * frame).to_be_bytes()[..], data].concat()));
    }
    moving.extend(chunk(b"IEND", b""));
    moving
}

/// A WebP file that moves.
fn moving_webp(canvas: u32, frames: usize) -> Vec<u8> {
    let still = picture(ImageFormat::WebP);
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let length = u32::try_from(data.len()).expect("a length").to_le_bytes();
        [&kind[..], &length, data, &[0][..data.len() % 2]].concat()
    };
    let three = |number: u32| number.to_le_bytes()[..3].to_vec();
    let head = [vec![2, 0, 0, 0], three(canvas - 1), three(canvas - 1)].concat();
    let place = [three(0), three(0), three(89), three(69), three(10), vec![0]].concat();
    let frame = chunk(b"ANMF", &[&place[..], &still[12..]].concat());
    let all = [&b"WEBP"[..], &chunk(b"VP8X", &head), &chunk(b"ANIM", &[0; 6]), &frame.repeat(frames)].concat();
    chunk(b"RIFF", &all)
}

#[test]
fn what_moves_moves_within_bounds() {
    for few in [moving_png(100, 3), moving_webp(100, 3)] {
        let [_, moving] = both(&few);
        assert_eq!(moving.map(|shrunk| shrunk.content_type), Ok("image/gif"));
    }
    for (many, name) in [(moving_png(1000, 2_000), "PNG"), (moving_webp(1000, 2_000), "WebP")] {
        let [_, moving] = both(&many);
        assert!(moving.is_ok_and(|shrunk| shrunk.content_type != "image/gif"), "{name}");
    }
    for huge in [moving_webp(16_000, 2_000), grown(ImageFormat::Gif, u16::MAX.into(), u16::MAX.into())] {
        assert_eq!(both(&huge), [Err(PictureError::TooLarge), Err(PictureError::TooLarge)]);
    }
}
