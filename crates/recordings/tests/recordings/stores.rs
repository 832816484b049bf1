//! Objects: written whole, read back in full or in part, never outside their folders.

use std::io::Write;

use anyhow::{Result, ensure};
use bytes::Bytes;
use sightline_proto::internal::PlayerPage;
use sightline_recordings::{Page, Store, StoreError};
use sightline_testkit::s3::S3Server;

use crate::{EXPORT, STREAM, on_each, segment};

#[tokio::test]
async fn segments_come_back() -> Result<()> {
    on_each(async |store| {
        let one = segment(0, 4, 0);
        let missing = store.segment(STREAM, one).await;
        ensure!(
            matches!(missing, Err(StoreError::NotFound { .. })),
            "{missing:?}"
        );
        let ts = Bytes::from(vec![0x47; 1_000_000]);
        // Again is harmless.
        for _ in 0..2 {
            store.put_segment(STREAM, one, ts.clone()).await?;
        }
        let body = store.segment(STREAM, one).await?;
        ensure!((body.size, body.range.clone()) == (1_000_000, 0..1_000_000));
        ensure!(body.bytes().await? == ts);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn names_that_are_none_are_not_found() -> Result<()> {
    on_each(async |store| {
        let long = "a".repeat(97);
        let bad = [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            "rts-",
            "%2e%2e",
            "a\0b",
            "ä",
            "Upper",
            &long,
            "rts-01900000-0000-7000-8000-00000000000A",
            "rts-01900000000070008000000000000001",
            "exp-01900000-0000-7000-8000-000000000002/..",
            "01900000-0000-7000-8000-000000000001",
        ];
        for id in bad {
            let page = PlayerPage::default();
            let answers = [
                store.put_segment(id, segment(0, 4, 0), Bytes::new()).await,
                store.segment(id, segment(0, 4, 0)).await.map(drop),
                store.export(id, None).await.map(drop),
                store
                    .put_export(id, std::path::Path::new("/etc/hostname"))
                    .await
                    .map(drop),
            ];
            for (at, answer) in answers.iter().enumerate() {
                ensure!(
                    matches!(answer, Err(StoreError::NotFound { .. })),
                    "{id:?}, {at}: {answer:?}"
                );
            }
            let slug = !id.is_empty()
                && id.len() <= 96
                && id
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            let made = store.create_page(id, &page).await;
            ensure!(made.is_ok() == slug, "{id:?}: {made:?}");
        }
        let times = [
            segment(-600_000_000_000, 4, 0),
            segment(0, 0, 0),
            segment(0, -1, 0),
            segment(0, 601, 0),
        ];
        for times in times {
            let answer = store.put_segment(STREAM, times, Bytes::new()).await;
            ensure!(
                matches!(answer, Err(StoreError::NotFound { .. })),
                "{times:?}: {answer:?}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pages_are_made_once_and_listed_until_they_are_removed() -> Result<()> {
    on_each(async |store| {
        let page = |expires_us| PlayerPage {
            rtstream_id: STREAM.to_owned(),
            start_us: 1,
            expires_us,
            title: "<b>Gate</b> ../".to_owned(),
            description: "д".repeat(2000),
            ..PlayerPage::default()
        };
        ensure!(store.pages().await?.is_empty());
        for (slug, expires_us) in [("never", 0), ("soon", 100)] {
            store.create_page(slug, &page(expires_us)).await?;
            let again = store.create_page(slug, &page(7)).await;
            ensure!(
                matches!(again, Err(StoreError::Exists { .. })),
                "{slug}: {again:?}"
            );
            ensure!(store.page(slug).await? == page(expires_us), "{slug}");
        }
        let mut pages = store.pages().await?;
        pages.sort_unstable_by_key(|page| page.expires_us);
        let listed = |slug: &str, expires_us| Page {
            slug: slug.to_owned(),
            rtstream_id: STREAM.to_owned(),
            expires_us,
        };
        ensure!(
            pages == [listed("never", 0), listed("soon", 100)],
            "{pages:?}"
        );
        // Again is harmless.
        for _ in 0..2 {
            store.remove_page("soon").await?;
        }
        let gone = store.page("soon").await;
        ensure!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
        ensure!(store.pages().await? == [listed("never", 0)]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn damaged_pages_are_said_to_be() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&format!("file://{}", dir.path().display()), [])?;
    std::fs::create_dir(dir.path().join("players"))?;
    for (slug, content) in [("garbage", vec![0xff; 10]), ("huge", vec![0; 20_000])] {
        std::fs::write(dir.path().join("players").join(slug), content)?;
        let page = store.page(slug).await;
        ensure!(
            matches!(page, Err(StoreError::Damaged { .. })),
            "{slug}: {page:?}"
        );
    }
    ensure!(store.pages().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn exports_are_read_in_full_and_in_part() -> Result<()> {
    // More than one part, and a part that is not full.
    let content: Vec<u8> = (0..20_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&content)?;
    on_each(async |store| {
        let missing = store.export(EXPORT, Some(0..1)).await;
        ensure!(
            matches!(missing, Err(StoreError::NotFound { .. })),
            "{missing:?}"
        );
        // Again is harmless.
        for _ in 0..2 {
            store.put_export(EXPORT, file.path()).await?;
            store.remove_export(EXPORT).await?;
            store.remove_export(EXPORT).await?;
            ensure!(store.export(EXPORT, None).await.is_err());
        }
        let size = store.put_export(EXPORT, file.path()).await?;
        ensure!(size == content.len() as u64);
        let ranges = [
            (None, 0..size),
            (Some(0..size), 0..size),
            (Some(0..10), 0..10),
            (Some(16_777_210..16_777_220), 16_777_210..16_777_220),
            (Some(size - 1..u64::MAX), size - 1..size),
            (Some(size..u64::MAX), size..size),
            (Some(size + 5..u64::MAX), size..size),
            (Some(7..7), 7..7),
        ];
        for (asked, given) in ranges {
            let body = store.export(EXPORT, asked.clone()).await?;
            ensure!(
                (body.size, body.range.clone()) == (size, given.clone()),
                "{asked:?}: {body:?}"
            );
            let bytes = body.bytes().await?;
            ensure!(
                bytes == content[given.start as usize..given.end as usize],
                "{asked:?}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_store_that_is_gone_is_an_error_without_secrets() -> Result<()> {
    let mut server = S3Server::start().await?;
    let mut options = server.options();
    options.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned()));
    let store = Store::open(&server.address(), options)?;
    ensure!(
        format!("{store:?}") == "Store(PrefixObjectStore(below/here))",
        "{store:?}"
    );
    server.stop().await?;
    let put = store
        .put_segment(STREAM, segment(0, 4, 0), Bytes::from_static(b"x"))
        .await;
    let said = format!("{put:?}");
    ensure!(
        matches!(put, Err(StoreError::Failed { .. })) && !said.contains("hunter2"),
        "{said}"
    );
    Ok(())
}

#[test]
fn addresses_that_are_none_are_refused_without_secrets() -> Result<()> {
    let addresses = [
        "",
        "recordings",
        "file:relative",
        "file://host/dir",
        "http://minio:9000/bucket",
        "s3:///prefix",
        "s3:bucket",
        "s3://key:hunter2@bucket/prefix",
        "s3://bucket/prefix?key=hunter2",
        "key:hunter2@bucket",
        "memory:///",
    ];
    for address in addresses {
        let error = Store::open(address, []).err();
        let said = format!("{error:?}");
        ensure!(
            matches!(error, Some(StoreError::Address { .. })),
            "{address:?}: {said}"
        );
        ensure!(!said.contains("hunter2"), "{address:?}: {said}");
    }
    Ok(())
}
