//! Photographs that are read smaller than they are: of each block of a JPEG only as much is computed as is needed, which takes
//! half of the time.
//!
//! Only of the plain kind, whose work is bounded by its bytes. What can't be read so is read whole, by the other decoder.

use image::{DynamicImage, GrayImage, RgbImage};
use jpeg_decoder::{CodingProcess, Decoder, PixelFormat};
use memchr::memmem;

use super::sizes::Plan;

const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
/// One for each colour, and those of small pictures in its head. Each goes over all blocks, even if it has no bytes.
const MOST_SCANS: usize = 16;

/// A picture of a size, or one that is smaller and still large enough for the plan. None if it is to be read whole.
pub(super) fn read(bytes: &[u8], (width, height): (u32, u32), plan: Plan) -> Option<DynamicImage> {
    let ((_, _, part_width, part_height), (new_width, new_height)) = (plan.part, plan.size);
    let needed = |whole: u32, part: u32, new: u32| {
        let needed = (u64::from(whole) * u64::from(new)).div_ceil(u64::from(part).max(1));
        u16::try_from(needed).ok()
    };
    let wanted = (needed(width, part_width, new_width)?, needed(height, part_height, new_height)?);
    // Only what becomes half as large or less.
    if u32::from(wanted.0) * 2 > width || u32::from(wanted.1) * 2 > height {
        return None;
    }
    if memmem::find_iter(bytes, &START_OF_SCAN).nth(MOST_SCANS).is_some() {
        return None;
    }
    let mut decoder = Decoder::new(bytes);
    decoder.read_info().ok()?;
    let info = decoder.info()?;
    let is_as_measured = (u32::from(info.width), u32::from(info.height)) == (width, height);
    if !is_as_measured || info.coding_process != CodingProcess::DctSequential {
        return None;
    }
    let (width, height) = decoder.scale(wanted.0, wanted.1).ok()?;
    if width < wanted.0 || height < wanted.1 {
        return None;
    }
    let (width, height) = (u32::from(width), u32::from(height));
    decoder.set_max_decoding_buffer_size(usize::try_from(width * height * 3).ok()?);
    let pixels = decoder.decode().ok()?;
    match info.pixel_format {
        PixelFormat::L8 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::RGB24 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb};

    use super::*;

    fn photograph(width: u32, height: u32) -> Vec<u8> {
        let soft = |n: u32, whole: u32| u8::try_from(n * 255 / whole).expect("a shade");
        let picture = RgbImage::from_fn(width, height, |x, y| Rgb([soft(x, width), soft(y, height), 90]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Jpeg).expect("encodes");
        bytes.into_inner()
    }

    #[test]
    fn a_photograph_is_read_no_larger_than_is_needed_and_looks_the_same() {
        let bytes = photograph(1003, 701);
        let whole = image::load_from_memory(&bytes).expect("a picture").into_rgb8();
        for (part, size, read_as) in [
            ((0, 0, 1003, 701), (320, 224), Some((502, 351))),
            ((0, 0, 1003, 701), (120, 84), Some((126, 88))),
            ((151, 0, 701, 701), (32, 32), Some((126, 88))),
            ((0, 0, 1003, 701), (800, 559), None),
        ] {
            let read = read(&bytes, (1003, 701), Plan { part, size });
            assert_eq!(read.as_ref().map(|read| (read.width(), read.height())), read_as, "{size:?}");
            let Some(read) = read.map(DynamicImage::into_rgb8) else { continue };
            for (x, y, pixel) in read.enumerate_pixels() {
                let at = |n: u32, small: u32, large: u32| ((2 * n + 1) * large / (2 * small)).min(large - 1);
                let expected = whole.get_pixel(at(x, read.width(), 1003), at(y, read.height(), 701));
                let far = pixel.0.iter().zip(expected.0).any(|(a, b)| a.abs_diff(b) > 12);
                assert!(!far, "{x} {y}: {pixel:?} for {expected:?}");
            }
        }
        // What is cut off is for the other decoder to judge.
        assert!(
            read(&bytes[..bytes.len() / 2], (1003, 701), Plan { part: (0, 0, 1003, 701), size: (32, 22) }).is_none()
        );
        assert!(read(b"no picture", (1003, 701), Plan { part: (0, 0, 1003, 701), size: (32, 22) }).is_none());
    }
}
