//! Media and the bytes that they share.

use hearth_store::{
    BlobClaim, BlobNum, Collected, MediaPlace, NewMedia, Noun, Store, StoreError, StringNum, ThumbnailKind, Tx, Usage,
};

use crate::harness::on_each_engine;

const HASH: [u8; 32] = [7; 32];
const OTHER: [u8; 32] = [8; 32];
const USER: StringNum = StringNum(5);

fn place(media_id: &str) -> MediaPlace {
    MediaPlace { origin: "a.org".to_owned(), media_id: media_id.to_owned() }
}

fn media(media_id: &str, blob: BlobNum, size: i64) -> NewMedia {
    NewMedia {
        place: place(media_id),
        blob,
        size,
        content_type: "a/b".to_owned(),
        file_name: None,
        uploader: Some(USER),
        created_ts: 10,
        is_frozen: true,
    }
}

async fn write<T: Send + 'static>(
    store: &Store,
    write: impl Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    store.write([Noun::Name("blobs".to_owned())], write).await.expect("written")
}

async fn collect(store: &Store, blob: BlobNum, before: i64) -> Collected {
    write(store, move |tx| tx.blobs().collect(blob, before, before)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_is_kept_once_and_goes_with_its_last_use() {
    on_each_engine(async |store| {
        let blob = write(store, |tx| {
            let blob = tx.blobs().keep(&HASH, b"bytes")?;
            tx.media().keep(&media("one", blob, 5))?;
            assert_eq!(tx.blobs().keep(&HASH, b"bytes")?, blob);
            tx.media().keep(&media("two", blob, 5))?;
            Ok(blob)
        })
        .await;
        assert_eq!(write(store, |tx| tx.media().usage(USER)).await, Usage { files: 2, bytes: 10 });
        assert_eq!(write(store, |tx| tx.media().delete(&place("one"), 100)).await, Some(5));
        assert_eq!(write(store, |tx| tx.blobs().loose(101, 10)).await, [(blob, HASH)]);
        assert_eq!(collect(store, blob, 101).await, Collected::Settled);
        assert_eq!(write(store, move |tx| tx.blobs().data(blob)).await.as_deref(), Some(&b"bytes"[..]));
        assert_eq!(write(store, |tx| tx.media().delete(&place("two"), 200)).await, Some(5));
        // Not before its time.
        assert_eq!(collect(store, blob, 200).await, Collected::Settled);
        assert!(write(store, move |tx| tx.blobs().data(blob)).await.is_some());
        assert_eq!(collect(store, blob, 201).await, Collected::Settled);
        assert_eq!(write(store, move |tx| tx.blobs().data(blob)).await, None);
        assert_eq!(write(store, |tx| tx.media().usage(USER)).await, Usage::default());
        assert_eq!(write(store, |tx| tx.media().delete(&place("two"), 200)).await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_the_storage_are_not_deleted_while_somebody_stores_them() {
    on_each_engine(async |store| {
        let claim = |now| write(store, move |tx| tx.blobs().claim(&HASH, 99, now));
        let BlobClaim::Store(blob) = claim(100).await else { panic!("not to be stored") };
        assert_eq!(claim(110).await, BlobClaim::Store(blob));
        // The claim protects it.
        assert_eq!(collect(store, blob, 110).await, Collected::Settled);
        let used = write(store, move |tx| {
            let stored = tx.blobs().stored(blob)?;
            tx.media().keep(&media("one", blob, 99))?;
            Ok(stored)
        });
        assert!(used.await);
        assert!(write(store, |tx| tx.blobs().loose(1000, 10)).await.is_empty());
        assert_eq!(claim(120).await, BlobClaim::Stored(blob));
        assert_eq!(collect(store, blob, 1000).await, Collected::Settled);

        write(store, |tx| tx.media().delete(&place("one"), 130)).await;
        assert_eq!(collect(store, blob, 131).await, Collected::Delete(HASH));
        // Its bytes are going: who comes now waits, or keeps them elsewhere.
        assert_eq!(claim(140).await, BlobClaim::Going);
        assert!(!write(store, move |tx| tx.blobs().stored(blob)).await);
        assert_eq!(collect(store, blob, 1000).await, Collected::Delete(HASH), "after a crash, once more");
        write(store, move |tx| tx.blobs().deleted(blob)).await;
        let BlobClaim::Store(next) = claim(150).await else { panic!("not to be stored") };
        assert_ne!(next, blob);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thumbnail_goes_with_its_picture() {
    on_each_engine(async |store| {
        let kind = ThumbnailKind { width: 32, height: 32, crop: true, animated: false };
        let (picture, thumbnail) = write(store, move |tx| {
            let picture = tx.blobs().keep(&HASH, b"picture")?;
            tx.media().keep(&media("one", picture, 7))?;
            let thumbnail = tx.blobs().keep(&OTHER, b"small")?;
            tx.blobs().keep_thumbnail(picture, kind, thumbnail, "image/png")?;
            tx.blobs().keep_thumbnail(picture, kind, picture, "image/png")?;
            Ok((picture, thumbnail))
        })
        .await;
        let found = write(store, move |tx| tx.blobs().thumbnail(picture, kind)).await.expect("a thumbnail");
        assert_eq!((found.blob.num, found.blob.size, found.content_type.as_str()), (thumbnail, 5, "image/png"));
        let moving = ThumbnailKind { animated: true, ..kind };
        assert_eq!(write(store, move |tx| tx.blobs().thumbnail(picture, moving)).await, None);
        write(store, |tx| tx.media().delete(&place("one"), 100)).await;
        assert_eq!(collect(store, picture, 101).await, Collected::Settled);
        assert_eq!(write(store, move |tx| tx.blobs().thumbnail(picture, kind)).await, None);
        assert_eq!(write(store, |tx| tx.blobs().loose(102, 10)).await, [(thumbnail, OTHER)]);
        assert_eq!(collect(store, thumbnail, 102).await, Collected::Settled);
        assert_eq!(write(store, move |tx| tx.blobs().data(thumbnail)).await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_media_have_an_end() {
    on_each_engine(async |store| {
        write(store, |tx| {
            let blob = tx.blobs().keep(&HASH, b"bytes")?;
            for (at, id) in ["a", "b", "c"].into_iter().enumerate() {
                let created_ts = 10 * (at as i64 + 1);
                tx.media().keep(&NewMedia { created_ts, ..media(id, blob, 5) })?;
                let theirs = MediaPlace { origin: "b.org".to_owned(), media_id: id.to_owned() };
                tx.media().keep(&NewMedia { place: theirs, uploader: None, created_ts, ..media(id, blob, 5) })?;
            }
            tx.media().reserve(&place("later"), USER, 10, 500)?;
            Ok(())
        })
        .await;
        let ids = |pages: Vec<hearth_store::MediaPage>| -> Vec<String> {
            pages.into_iter().map(|page| format!("{}/{}", page.place.origin, page.place.media_id)).collect()
        };
        assert_eq!(ids(write(store, |tx| tx.media().of_uploader(USER, 10, "later", 10)).await), ["a.org/b", "a.org/c"]);
        assert_eq!(ids(write(store, |tx| tx.media().of_server("b.org", "a", 1)).await), ["b.org/b"]);
        assert_eq!(ids(write(store, |tx| tx.media().of_others(30, 10)).await), ["b.org/a", "b.org/b"]);
        write(store, |tx| tx.media().accessed(&place("a"), 100)).await;
        assert_eq!(ids(write(store, |tx| tx.media().of_ours(30, 10)).await), ["a.org/later", "a.org/b"]);
        assert_eq!(write(store, |tx| tx.media().size_of_others()).await, 15);
        assert_eq!(write(store, |tx| tx.media().of_blob(&HASH, ("", ""), 10)).await.len(), 6);
        assert_eq!(write(store, |tx| tx.media().reserved(USER, 499)).await, 1);
        assert_eq!(write(store, |tx| tx.media().overdue(500, 10)).await, [place("later")]);
        assert!(!write(store, |tx| tx.blobs().is_blocked(&HASH)).await);
        write(store, |tx| tx.blobs().block(&HASH, 1)).await;
        assert!(write(store, |tx| tx.blobs().is_blocked(&HASH)).await);
        write(store, |tx| tx.blobs().unblock(&HASH)).await;
        assert!(!write(store, |tx| tx.blobs().is_blocked(&HASH)).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_bytes_are_hidden_wherever_they_are() {
    on_each_engine(async |store| {
        let theirs = |id: &str| MediaPlace { origin: "b.org".to_owned(), media_id: id.to_owned() };
        let is_hidden = async |place: MediaPlace| {
            write(store, move |tx| tx.media().get(&place)).await.map(|media| media.is_quarantined)
        };
        write(store, move |tx| {
            let (blob, other) = (tx.blobs().keep(&HASH, b"bytes")?, tx.blobs().keep(&OTHER, b"others")?);
            tx.media().keep(&media("a", blob, 5))?;
            tx.media().keep(&media("b", other, 6))?;
            tx.media().keep(&NewMedia { place: theirs("a"), uploader: None, ..media("a", blob, 5) })
        })
        .await;
        assert!(write(store, |tx| tx.media().hide(&place("a"), 50)).await);
        assert!(!write(store, |tx| tx.media().hide(&place("x"), 50)).await);
        assert_eq!(is_hidden(place("a")).await, Some(true));
        assert_eq!((is_hidden(theirs("a")).await, is_hidden(place("b")).await), (Some(true), Some(false)));
        // Nor does it grow old, also if somebody looked at it just before.
        write(store, |tx| tx.media().accessed(&place("a"), 60)).await;
        assert_eq!(write(store, |tx| tx.media().of_ours(i64::MAX, 10)).await.len(), 1);
        assert!(write(store, |tx| tx.media().show(&place("a"), 70)).await);
        assert_eq!((is_hidden(place("a")).await, is_hidden(theirs("a")).await), (Some(false), Some(false)));
        assert_eq!(write(store, |tx| tx.media().of_ours(71, 10)).await.len(), 2);
        // What is hidden before it comes.
        write(store, move |tx| tx.media().hide_before(&theirs("later"), 50)).await;
        assert_eq!(is_hidden(theirs("later")).await, Some(true));
        assert_eq!(write(store, |tx| tx.media().size_of_others()).await, 5);
        assert!(write(store, move |tx| tx.media().show(&theirs("later"), 70)).await);
        assert_eq!(is_hidden(theirs("later")).await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_nobody_knows_are_not_deleted_under_the_hands_of_who_brings_them() {
    on_each_engine(async |store| {
        let doomed = write(store, |tx| tx.blobs().doom(&HASH, 5)).await.expect("unknown");
        assert_eq!(write(store, |tx| tx.blobs().claim(&HASH, 5, 10)).await, BlobClaim::Going);
        write(store, move |tx| tx.blobs().deleted(doomed)).await;
        let BlobClaim::Store(claimed) = write(store, |tx| tx.blobs().claim(&HASH, 5, 10)).await else {
            panic!("it is gone")
        };
        assert_eq!(write(store, |tx| tx.blobs().doom(&HASH, 5)).await, None);
        assert!(write(store, move |tx| tx.blobs().stored(claimed)).await);
        assert_eq!(write(store, |tx| tx.blobs().doom(&HASH, 5)).await, None);
        // Whoever could not tell: the collector finds it.
        let doomed = write(store, |tx| tx.blobs().doom(&OTHER, 5)).await.expect("unknown");
        assert_eq!(write(store, |tx| tx.blobs().loose(6, 10)).await, [(doomed, OTHER)]);
        assert_eq!(collect(store, doomed, 6).await, Collected::Delete(OTHER));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thumbnails_that_another_server_made_are_found_by_their_picture() {
    on_each_engine(async |store| {
        let theirs = |id: &str| MediaPlace { origin: "b.org".to_owned(), media_id: id.to_owned() };
        write(store, move |tx| {
            let blob = tx.blobs().keep(&HASH, b"bytes")?;
            for id in ["a", "a#32x32c", "a#320x240", "a-b", "ab#32x32c", "a$"] {
                tx.media().keep(&NewMedia { place: theirs(id), uploader: None, ..media("a", blob, 5) })?;
            }
            Ok(())
        })
        .await;
        let found = write(store, move |tx| tx.media().thumbnails_of(&theirs("a"))).await;
        assert_eq!(found, [theirs("a#320x240"), theirs("a#32x32c")]);
    })
    .await;
}
