//! Collections over gRPC.

use sightline_proto::client::Client;
use sightline_proto::v1;
use tonic::Status;

use crate::harness::{Gateway, KEY, reason_of};

async fn create(
    client: &mut Client,
    name: &str,
    request_id: &str,
) -> Result<v1::Collection, Status> {
    let request = v1::CreateCollectionRequest {
        name: name.to_owned(),
        description: "Where people come in".to_owned(),
        request_id: request_id.to_owned(),
    };
    let answer = client.collections.create_collection(request).await?;
    Ok(answer.into_inner().collection.unwrap_or_default())
}

async fn delete(client: &mut Client, id: &str) -> Result<(), Status> {
    let request = v1::DeleteCollectionRequest {
        collection_id: id.to_owned(),
    };
    client.collections.delete_collection(request).await?;
    Ok(())
}

/// The names on all pages.
async fn names(client: &mut Client, page_size: i32) -> Vec<String> {
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListCollectionsRequest {
            page_size,
            page_token,
        };
        let answer = client.collections.list_collections(request).await;
        let page = answer.expect("a page").into_inner();
        names.extend(
            page.collections
                .into_iter()
                .map(|collection| collection.name),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

#[tokio::test]
async fn collections_are_made_once_listed_changed_and_deleted() {
    let gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address);
    let mut client = Client::connect(&url, KEY).await.expect("connects");
    let request_id = "01890000-0000-7000-8000-000000000000";
    let gates = create(&mut client, "Gates", request_id)
        .await
        .expect("made");
    let again = create(&mut client, "Gates", request_id)
        .await
        .expect("made");
    assert_eq!(gates, again);
    let other = create(&mut client, "Doors", request_id).await;
    assert_eq!(reason_of(&other.expect_err("taken")).0, "ALREADY_EXISTS");
    create(&mut client, "Doors", "").await.expect("made");
    for page_size in [0, 1, 2, 3] {
        assert_eq!(
            names(&mut client, page_size).await,
            ["default", "Gates", "Doors"]
        );
    }

    let request = v1::UpdateCollectionRequest {
        collection_id: gates.id.clone(),
        name: Some("Entries".to_owned()),
        description: None,
    };
    let changed = client.collections.update_collection(request).await;
    let changed = changed.expect("changed").into_inner().collection;
    let expected = v1::Collection {
        name: "Entries".to_owned(),
        ..gates.clone()
    };
    assert_eq!(changed, Some(expected.clone()));
    let request = v1::GetCollectionRequest {
        collection_id: gates.id.clone(),
    };
    let found = client.collections.get_collection(request).await;
    assert_eq!(
        found.expect("found").into_inner().collection,
        Some(expected)
    );

    let request = v1::ConnectRtStreamRequest {
        url: "rtsp://camera.example/1".to_owned(),
        collection_id: gates.id.clone(),
        ..Default::default()
    };
    client
        .streams
        .connect_rt_stream(request)
        .await
        .expect("connected");
    for (id, reason) in [
        (gates.id.as_str(), "FAILED_PRECONDITION"),
        ("default", "FAILED_PRECONDITION"),
        ("c-1", "NOT_FOUND"),
        ("", "INVALID_ARGUMENT"),
    ] {
        let (found, field, _) = reason_of(&delete(&mut client, id).await.expect_err(id));
        assert_eq!(
            (found.as_str(), field.as_str()),
            (reason, "collection_id"),
            "{id}"
        );
    }
    let doors = create(&mut client, "Windows", "").await.expect("made").id;
    delete(&mut client, &doors).await.expect("deleted");
    let gone = delete(&mut client, &doors)
        .await
        .expect_err("deleted before");
    assert_eq!(reason_of(&gone).0, "NOT_FOUND");
    assert_eq!(names(&mut client, 0).await, ["default", "Entries", "Doors"]);
}
