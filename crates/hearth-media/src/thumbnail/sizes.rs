//! Which thumbnails there are, and which one is meant.
//!
//! There are few sizes, so that nobody fills the disk by asking for others: those that the specification recommends, and some
//! larger ones. A thumbnail is never smaller than what is asked for, unless the picture is, and none is larger than the
//! picture: then it is the picture itself.
//! Spec: client-server API, "Thumbnails".

use hearth_store::ThumbnailKind;

/// How a picture becomes smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Whole, within the size.
    Scale,
    /// As much of its middle as has the shape.
    Crop,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedThumbnail {
    /// Its width, or more.
    pub width: u32,
    /// Its height, or more.
    pub height: u32,
    /// How it is made.
    pub method: Method,
    /// It may move.
    pub animated: bool,
}

const SQUARES: [u32; 4] = [32, 96, 320, 640];
const BOXES: [(u32, u32); 4] = [(320, 240), (640, 480), (800, 600), (1600, 1200)];

impl WantedThumbnail {
    /// The thumbnail that is meant. What is larger than all of them is the picture itself: width and height are 0.
    pub(crate) fn kind(self) -> ThumbnailKind {
        let Self { width, height, method, animated } = self;
        let is_square = method == Method::Crop && width == height;
        let square = SQUARES.into_iter().find(|side| is_square && *side >= width).map(|side| (side, side, true));
        let fits = |(w, h): &(u32, u32)| *w >= width && *h >= height;
        let (width, height, crop) = square
            .or_else(|| BOXES.into_iter().find(fits).map(|(width, height)| (width, height, false)))
            .unwrap_or((0, 0, false));
        ThumbnailKind { width, height, crop, animated }
    }
}

/// What is done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What is taken of it: left, top, width, height.
    pub(crate) part: (u32, u32, u32, u32),
    /// The size that this becomes.
    pub(crate) size: (u32, u32),
}

/// What is done to a picture of a size; nothing if it is small enough.
pub(crate) fn plan((width, height): (u32, u32), kind: ThumbnailKind) -> Option<Plan> {
    let whole = (0, 0, width, height);
    if kind.width == 0 || width == 0 || height == 0 || (width <= kind.width && height <= kind.height) {
        return None;
    }
    if !kind.crop {
        // By the side that must shrink more.
        let by_width = u64::from(width) * u64::from(kind.height) >= u64::from(height) * u64::from(kind.width);
        let size = if by_width {
            (kind.width, scaled(height, kind.width, width))
        } else {
            (scaled(width, kind.height, height), kind.height)
        };
        return Some(Plan { part: whole, size });
    }
    // Squares only.
    let side = width.min(height);
    let part = ((width - side) / 2, (height - side) / 2, side, side);
    let small = side.min(kind.width);
    Some(Plan { part, size: (small, small) })
}

fn scaled(length: u32, numerator: u32, denominator: u32) -> u32 {
    let (length, numerator, denominator) = (u64::from(length), u64::from(numerator), u64::from(denominator).max(1));
    u32::try_from((length * numerator + denominator / 2) / denominator).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(width: u32, height: u32, method: Method) -> (u32, u32, bool) {
        let kind = WantedThumbnail { width, height, method, animated: false }.kind();
        (kind.width, kind.height, kind.crop)
    }

    #[test]
    fn the_smallest_one_that_is_large_enough_is_meant() {
        use Method::{Crop, Scale};
        for (width, height, method, meant) in [
            (32, 32, Crop, (32, 32, true)),
            (33, 33, Crop, (96, 96, true)),
            (96, 96, Crop, (96, 96, true)),
            (97, 97, Crop, (320, 320, true)),
            (641, 641, Crop, (1600, 1200, false)),
            (64, 32, Crop, (320, 240, false)),
            (32, 32, Scale, (320, 240, false)),
            (320, 240, Scale, (320, 240, false)),
            (320, 241, Scale, (640, 480, false)),
            (800, 600, Scale, (800, 600, false)),
            (1, 1200, Scale, (1600, 1200, false)),
            (1601, 1, Scale, (0, 0, false)),
            (u32::MAX, u32::MAX, Crop, (0, 0, false)),
        ] {
            assert_eq!(kind(width, height, method), meant, "{width}x{height}");
        }
    }

    #[test]
    fn pictures_keep_their_shape_and_never_grow() {
        let plan = |size, width, height, crop| plan(size, ThumbnailKind { width, height, crop, animated: false });
        let whole = |(w, h), size| Some(Plan { part: (0, 0, w, h), size });
        assert_eq!(plan((2000, 1500), 320, 240, false), whole((2000, 1500), (320, 240)));
        assert_eq!(plan((1500, 2000), 320, 240, false), whole((1500, 2000), (180, 240)));
        assert_eq!(plan((10_000, 1), 320, 240, false), whole((10_000, 1), (320, 1)));
        assert_eq!(plan((320, 240), 320, 240, false), None);
        assert_eq!(plan((10, 1000), 320, 240, false), whole((10, 1000), (2, 240)));
        assert_eq!(plan((200, 100), 32, 32, true), Some(Plan { part: (50, 0, 100, 100), size: (32, 32) }));
        assert_eq!(plan((100, 201), 32, 32, true), Some(Plan { part: (0, 50, 100, 100), size: (32, 32) }));
        assert_eq!(plan((10, 200), 32, 32, true), Some(Plan { part: (0, 95, 10, 10), size: (10, 10) }));
        assert_eq!(plan((32, 20), 32, 32, true), None);
        assert_eq!(plan((5000, 5000), 0, 0, false), None);
        assert_eq!(plan((0, 0), 32, 32, true), None);
    }
}
