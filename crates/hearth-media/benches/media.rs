//! What media costs: a thumbnail of a photograph, an upload of 32 KiB.
//!
//! `cargo bench -p hearth-media` prints a table.

use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use futures_util::StreamExt as _;
use hearth_matrix::ruma::{ServerName, UserId};
use hearth_media::{Description, Media, MediaConfig, StorageConfig, Uploader, shrink};
use hearth_store::{DatabaseUrl, Store, StoreOptions, StringNum, ThumbnailKind, WallTime};

fn main() {
    divan::main();
}

/// A photograph of nothing: soft colours with some noise.
fn photograph(width: u32, height: u32) -> Vec<u8> {
    let mut state = 1_u32;
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 28) as u8;
        let soft = |n: u32| ((n / 8) % 200) as u8;
        image::Rgb([soft(x + y) + noise, soft(x * 2) + noise, soft(y * 3) + noise])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).expect("encodes");
    bytes.into_inner()
}

const KINDS: [(u32, u32, bool); 3] = [(96, 96, true), (320, 240, false), (800, 600, false)];

#[divan::bench(args = KINDS)]
fn thumbnail_of_2000x1500_jpeg(bencher: Bencher<'_, '_>, (width, height, crop): (u32, u32, bool)) {
    let bytes = photograph(2000, 1500);
    let kind = ThumbnailKind { width, height, crop, animated: false };
    bencher.bench_local(|| shrink(&bytes, kind, u64::MAX).expect("shrinks"));
}

#[divan::bench(args = [1, 16])]
fn uploads_of_32_kib(bencher: Bencher<'_, '_>, at_once: u64) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let media = runtime.block_on(async {
        let url = DatabaseUrl::Sqlite(directory.path().join("bench.db"));
        let store = Store::open(StoreOptions { url, threads: 2 }).await.expect("opens");
        let name = ServerName::parse("bench.test").expect("a name");
        let config = MediaConfig::new(name, StorageConfig::Disk(directory.path().join("media")));
        Media::open(config, store, WallTime::system(), None).await.expect("opens")
    });
    let user_id = UserId::parse("@alice:bench.test").expect("an id");
    bencher.counter(at_once).bench_local(|| {
        let uploads = (0..at_once).map(|user| {
            let uploader = Uploader { user_id: user_id.clone(), user: StringNum(user as i64 + 1) };
            let mut bytes = vec![7; 32 * 1024];
            bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            let content = futures_util::stream::iter([Ok(bytes.into())]).boxed();
            let media = media.clone();
            async move { media.upload(&uploader, Description::default(), content).await.expect("uploads") }
        });
        runtime.block_on(futures_util::future::join_all(uploads.map(|upload| runtime.spawn(upload))))
    });
}
