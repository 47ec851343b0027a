//! A picture becomes smaller: decoded within limits, turned as its camera was held, resized, encoded without what it told
//! about its making. Pure: bytes in, bytes out, on the calling thread.
//!
//! What a picture is, its bytes say, not its content type. Opaque photographs become JPEG, other pictures PNG, those that
//! move GIF. Colours stay right: a small colour profile is kept.

use std::io::Cursor;
use std::time::{Duration, Instant};

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use hearth_store::ThumbnailKind;
use image::codecs::gif::{GifDecoder, GifEncoder, Repeat};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngDecoder, PngEncoder};
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder as _, DynamicImage, Frame, Frames, ImageDecoder, ImageEncoder, ImageError, ImageFormat,
    ImageReader, Limits, RgbaImage,
};

use super::reduced;
use super::sizes::{Plan, plan};

const JPEG_QUALITY: u8 = 82;
/// Larger colour profiles are those of printers, or say what is understood anyhow.
const PROFILE_BYTES: usize = 2048;
/// What moves moves so long at most, in frames and in work.
const FRAMES: usize = 400;
const ANIMATION_TIME: Duration = Duration::from_secs(5);
const ANIMATION_PIXELS: u64 = 200_000_000;
/// The quantisation of frames: 1 is the best, 30 the fastest.
const GIF_SPEED: i32 = 20;
/// Memory of a decoder beside the pixels themselves.
const DECODER_BYTES: u64 = 64 * 1024 * 1024;
/// Memory of the pixels, each: as they are read, as they are shown, and what was shown before.
const PIXEL_BYTES: u64 = 16;
/// Memory that the head of a picture may take. A larger colour profile is made to do harm, and is not unpacked.
const HEAD_BYTES: u64 = 16 * 1024 * 1024;

/// A smaller picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// Its bytes; none if the picture itself will do.
    pub bytes: Option<Vec<u8>>,
    /// What they are.
    pub content_type: &'static str,
}

/// Why there is none.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PictureError {
    /// It is no picture, or of a kind that is not understood.
    #[error("not a picture")]
    NotAPicture,
    /// It has too many pixels.
    #[error("the picture is too large")]
    TooLarge,
    /// It is damaged.
    #[error("the picture is damaged: {0}")]
    Broken(String),
}

impl From<ImageError> for PictureError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooLarge,
            ImageError::Unsupported(_) => Self::NotAPicture,
            other => Self::Broken(other.to_string()),
        }
    }
}

/// Which pictures are understood, and what they are called.
fn content_type(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Jpeg => Some("image/jpeg"),
        ImageFormat::Png => Some("image/png"),
        ImageFormat::Gif => Some("image/gif"),
        ImageFormat::WebP => Some("image/webp"),
        _ => None,
    }
}

/// Format and size of a picture, as it stands upright: what its head says.
pub fn measure(bytes: &[u8]) -> Result<(&'static str, (u32, u32)), PictureError> {
    let (format, content_type) = understood(bytes)?;
    let mut decoder = head(bytes, format)?;
    let (width, height) = decoder.dimensions();
    let turned = decoder.orientation().is_ok_and(is_on_its_side);
    Ok((content_type, if turned { (height, width) } else { (width, height) }))
}

/// Makes a picture smaller, if it has no more pixels than this.
pub fn shrink(bytes: &[u8], kind: ThumbnailKind, most_pixels: u64) -> Result<Shrunk, PictureError> {
    let (format, content_type) = understood(bytes)?;
    if kind.animated
        && let Some(shrunk) = shrink_moving(bytes, format, kind, most_pixels)?
    {
        return Ok(shrunk);
    }
    let mut decoder = open(bytes, format, most_pixels)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let plan = plan(decoder.dimensions(), as_it_lies(kind, orientation));
    if plan.is_none() && (kind.animated || !may_move(bytes, format)) {
        return Ok(Shrunk { bytes: None, content_type });
    }
    let profile = decoder.icc_profile().ok().flatten().filter(|profile| profile.len() <= PROFILE_BYTES);
    let mut picture = decode(bytes, format, decoder, plan)?;
    picture.apply_orientation(orientation);
    encode(picture, format, profile)
}

/// The pixels of a picture, made smaller, if it has no more than this.
pub(super) fn pixels(bytes: &[u8], kind: ThumbnailKind, most_pixels: u64) -> Result<DynamicImage, PictureError> {
    let (format, _) = understood(bytes)?;
    let mut decoder = open(bytes, format, most_pixels)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let plan = plan(decoder.dimensions(), as_it_lies(kind, orientation));
    let mut picture = decode(bytes, format, decoder, plan)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// What a picture is, if it is one that is understood.
fn understood(bytes: &[u8]) -> Result<(ImageFormat, &'static str), PictureError> {
    let format = image::guess_format(bytes).map_err(|_| PictureError::NotAPicture)?;
    Ok((format, content_type(format).ok_or(PictureError::NotAPicture)?))
}

fn limits(most_bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(most_bytes);
    limits
}

/// Reads the head of a picture.
fn head(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder, PictureError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(HEAD_BYTES));
    Ok(reader.into_decoder()?)
}

/// Reads the head of a picture, if it has no more pixels than this; the rest takes no more memory than its size needs.
fn open(bytes: &[u8], format: ImageFormat, most_pixels: u64) -> Result<impl ImageDecoder, PictureError> {
    let mut decoder = head(bytes, format)?;
    decoder.set_limits(limits_for(decoder.dimensions(), most_pixels)?)?;
    Ok(decoder)
}

/// What a picture of a size may take, if that is no more pixels than this.
fn limits_for((width, height): (u32, u32), most_pixels: u64) -> Result<Limits, PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > most_pixels {
        return Err(PictureError::TooLarge);
    }
    Ok(limits(pixels.saturating_mul(PIXEL_BYTES).saturating_add(DECODER_BYTES)))
}

/// What is wanted of a picture as it lies, since it is turned when it is small.
fn as_it_lies(kind: ThumbnailKind, orientation: Orientation) -> ThumbnailKind {
    if is_on_its_side(orientation) { ThumbnailKind { width: kind.height, height: kind.width, ..kind } } else { kind }
}

/// Reads the rest of a picture, no larger than is needed, and makes it as small as is planned.
fn decode(
    bytes: &[u8],
    format: ImageFormat,
    decoder: impl ImageDecoder,
    plan: Option<Plan>,
) -> Result<DynamicImage, PictureError> {
    let size = decoder.dimensions();
    let reduced = match plan {
        Some(plan) if format == ImageFormat::Jpeg => reduced::read(bytes, size, plan),
        _ => None,
    };
    let picture = match reduced {
        Some(picture) => picture,
        None => DynamicImage::from_decoder(decoder)?,
    };
    match plan {
        Some(plan) => resize(picture, size, plan),
        None => Ok(picture),
    }
}

/// Whether a picture may have several frames, which is not to be shown to somebody who wants one.
fn may_move(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Gif => true,
        ImageFormat::WebP => WebPDecoder::new(Cursor::new(bytes)).is_ok_and(|decoder| decoder.has_animation()),
        ImageFormat::Png => PngDecoder::with_limits(Cursor::new(bytes), limits(HEAD_BYTES))
            .and_then(|decoder| decoder.is_apng())
            .is_ok_and(|is_apng| is_apng),
        _ => false,
    }
}

fn is_on_its_side(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// Resizes a picture as is planned for one of a size, which it may have lost already on the way.
fn resize(picture: DynamicImage, whole: (u32, u32), plan: Plan) -> Result<DynamicImage, PictureError> {
    let broken = |error: &dyn std::fmt::Display| PictureError::Broken(error.to_string());
    let picture = match picture {
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_) | DynamicImage::ImageRgba8(_) => picture,
        other if other.color().has_alpha() => DynamicImage::ImageRgba8(other.into_rgba8()),
        other => DynamicImage::ImageRgb8(other.into_rgb8()),
    };
    let pixels = match &picture {
        DynamicImage::ImageLuma8(_) => PixelType::U8,
        DynamicImage::ImageRgb8(_) => PixelType::U8x3,
        _ => PixelType::U8x4,
    };
    let source =
        ImageRef::new(picture.width(), picture.height(), picture.as_bytes(), pixels).map_err(|error| broken(&error))?;
    let ((left, top, width, height), (new_width, new_height)) = (plan.part, plan.size);
    let mut small = Image::new(new_width, new_height, pixels);
    let across = f64::from(picture.width()) / f64::from(whole.0);
    let down = f64::from(picture.height()) / f64::from(whole.1);
    let (left, top) = (f64::from(left) * across, f64::from(top) * down);
    let width = (f64::from(width) * across).min(f64::from(picture.width()) - left);
    let height = (f64::from(height) * down).min(f64::from(picture.height()) - top);
    let options =
        ResizeOptions::new().crop(left, top, width, height).resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize(&source, &mut small, &options).map_err(|error| broken(&error))?;
    let raw = small.into_vec();
    let resized = match pixels {
        PixelType::U8 => image::GrayImage::from_raw(new_width, new_height, raw).map(DynamicImage::ImageLuma8),
        PixelType::U8x3 => image::RgbImage::from_raw(new_width, new_height, raw).map(DynamicImage::ImageRgb8),
        _ => RgbaImage::from_raw(new_width, new_height, raw).map(DynamicImage::ImageRgba8),
    };
    resized.ok_or_else(|| broken(&"its size changed"))
}

fn encode(picture: DynamicImage, format: ImageFormat, profile: Option<Vec<u8>>) -> Result<Shrunk, PictureError> {
    let has_alpha = picture.color().has_alpha();
    let mut bytes = Vec::new();
    let is_photograph = match format {
        ImageFormat::Jpeg => true,
        ImageFormat::WebP => !has_alpha,
        _ => false,
    };
    if is_photograph {
        let picture = match picture {
            DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_) => picture,
            other => DynamicImage::ImageRgb8(other.into_rgb8()),
        };
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        if let Some(profile) = profile {
            // An encoder without profiles is one that leaves it out.
            let _ = encoder.set_icc_profile(profile);
        }
        picture.write_with_encoder(encoder)?;
        return Ok(Shrunk { bytes: Some(bytes), content_type: "image/jpeg" });
    }
    let mut encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, PngFilter::Adaptive);
    if let Some(profile) = profile {
        let _ = encoder.set_icc_profile(profile);
    }
    picture.write_with_encoder(encoder)?;
    Ok(Shrunk { bytes: Some(bytes), content_type: "image/png" })
}

/// Makes something smaller that moves, as GIF. Nothing if it does not move, or is too much to look at.
fn shrink_moving(
    bytes: &[u8],
    format: ImageFormat,
    kind: ThumbnailKind,
    most_pixels: u64,
) -> Result<Option<Shrunk>, PictureError> {
    if !may_move(bytes, format) {
        return Ok(None);
    }
    let source = Cursor::new(bytes);
    let (size, frames): ((u32, u32), Frames<'_>) = match format {
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(source)?;
            decoder.set_limits(limits_for(decoder.dimensions(), most_pixels)?)?;
            (decoder.dimensions(), decoder.into_frames())
        }
        ImageFormat::WebP => {
            let mut decoder = WebPDecoder::new(source)?;
            decoder.set_limits(limits_for(decoder.dimensions(), most_pixels)?)?;
            (decoder.dimensions(), decoder.into_frames())
        }
        _ => {
            let mut decoder = PngDecoder::with_limits(source, limits(HEAD_BYTES))?;
            decoder.set_limits(limits_for(decoder.dimensions(), most_pixels)?)?;
            (decoder.dimensions(), decoder.apng()?.into_frames())
        }
    };
    let pixels = u64::from(size.0) * u64::from(size.1);
    let Some(plan) = plan(size, kind) else { return Ok(None) };
    let (began, mut count) = (Instant::now(), 0);
    let mut encoded = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut encoded, GIF_SPEED);
    encoder.set_repeat(Repeat::Infinite)?;
    for frame in frames {
        let frame = match frame {
            Ok(frame) => frame,
            // What came before it can be shown.
            Err(_) if count > 0 => break,
            Err(error) => return Err(error.into()),
        };
        count += 1;
        let is_enough = count > FRAMES || pixels * count as u64 > ANIMATION_PIXELS || began.elapsed() > ANIMATION_TIME;
        if is_enough {
            return Ok(None);
        }
        let delay = frame.delay();
        let small = resize(DynamicImage::ImageRgba8(frame.into_buffer()), size, plan)?.into_rgba8();
        encoder.encode_frame(Frame::from_parts(small, 0, 0, delay))?;
    }
    drop(encoder);
    // One frame does not move.
    Ok((count > 1).then_some(Shrunk { bytes: Some(encoded), content_type: "image/gif" }))
}
