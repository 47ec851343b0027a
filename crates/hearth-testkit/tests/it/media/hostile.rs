//! Files that are not what they are said to be, or more than that.

use hearth_testkit::{Answer, on_each_backend};
use image::ImageFormat;

use super::thumbnail::{encoded, halves, moving, thumbnail};
use super::{download, upload};

const PAGE: &[u8] = b"<html><script>alert(1)</script></html>";

/// Whatever a browser would make of it, it may not.
fn is_harmless(answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("sandbox; default-src 'none'; script-src 'none';"), "{policy}");
}

// endpoint: GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}
#[tokio::test]
async fn what_is_a_picture_and_something_else_is_no_more_than_a_picture() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let archive = [&b"PK\x03\x04"[..], PAGE, b"PK\x05\x06", &[0; 18]].concat();
        let mut script = moving(200, 100, 1);
        // `GIF89a/*`: a size that begins a comment.
        script[6..8].copy_from_slice(b"/*");
        script.extend(b"*/=1;alert(1)");
        for (bytes, tail) in [
            (moving(200, 100, 2), PAGE),
            (script, PAGE),
            (encoded(halves(200, 100), ImageFormat::Jpeg), &archive[..]),
            (encoded(halves(200, 100), ImageFormat::Png), PAGE),
        ] {
            let both = [&bytes[..], tail].concat();
            for (said, shown) in
                [("image/png", "inline"), ("text/html", "attachment"), ("text/javascript", "attachment")]
            {
                let place = upload(&alice, said, None, &both).await;
                let answer = download(&alice, &place).await;
                assert_eq!((answer.status, answer.header("content-disposition")), (200, Some(shown)));
                assert_eq!(answer.header("content-type"), Some(said));
                is_harmless(&answer);
                for query in ["width=32&height=32&method=crop", "width=32&height=32&method=crop&animated=true"] {
                    let small = thumbnail(&alice, &place, query).await;
                    assert_eq!(small.status, 200, "{}", small.text());
                    assert!(small.header("content-type").is_some_and(|kind| kind.starts_with("image/")));
                    assert!(!small.body.windows(5).any(|part| part == b"alert"));
                    is_harmless(&small);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_only_said_to_be_a_picture_gets_no_thumbnail() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let drawing = br#"<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>"#;
        let bitmap =
            [&b"BM\x7a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\x18"[..], &[0; 92]].concat();
        for bytes in [&drawing[..], &bitmap, b"II*\0\x08\0\0\0\0\0", b"MM\0*\0\0\0\x08\0\0", PAGE, b"%PDF-1.7", b""] {
            let place = upload(&alice, "image/png", Some("picture.png"), bytes).await;
            let refused = thumbnail(&alice, &place, "width=32&height=32").await;
            assert_eq!(refused.refusal(), (400, "M_UNKNOWN".to_owned()), "{}", bytes.escape_ascii());
            is_harmless(&download(&alice, &place).await);
            let place = upload(&alice, "image/svg+xml", None, bytes).await;
            assert_eq!(download(&alice, &place).await.header("content-disposition"), Some("attachment"));
        }
    })
    .await;
}
