//! Keys: operators make, list and revoke them; what their holders watch is their own.

use futures::StreamExt;
use sightline_proto::client::Client;
use sightline_proto::v1;
use sightline_proto::v1::watch_response::Message;
use tonic::{Code, Status, Streaming};

use crate::harness::{Gateway, LONG, reason_of, transcript};
use crate::tenants::connect;

async fn next(watch: &mut Streaming<v1::WatchResponse>) -> Result<v1::WatchResponse, Status> {
    let next = tokio::time::timeout(LONG, watch.next()).await;
    next.expect("in time").expect("ends with an error alone")
}

async fn watch(client: &mut Client, cursor: &str) -> (Streaming<v1::WatchResponse>, String) {
    let request = v1::WatchRequest {
        cursor: cursor.to_owned(),
        ..Default::default()
    };
    let mut watch = client
        .watch
        .watch(request)
        .await
        .expect("watches")
        .into_inner();
    let ready = next(&mut watch).await.expect("a message");
    (watch, ready.cursor)
}

/// The stream of the next message, which is a transcript.
async fn heard(watch: &mut Streaming<v1::WatchResponse>) -> String {
    match next(watch).await.expect("a message").message {
        Some(Message::Transcript(segment)) => segment.rtstream_id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_tells_of_its_tenants_streams_and_of_none_that_are_gone() {
    let gateway = Gateway::start().await;
    let mut owner = gateway.operator().await;
    let mut other = gateway.of_tenant("other").await;
    let gone = connect(&mut other, "").await.id;
    let (owned, others) = (
        connect(&mut owner, "").await.id,
        connect(&mut other, "").await.id,
    );
    let request = v1::DeleteRtStreamRequest {
        rtstream_id: gone.clone(),
    };
    let deleted = other.streams.delete_rt_stream(request).await;
    deleted.expect("deleted");
    let (mut owner_watch, start) = watch(&mut owner, "").await;
    let (mut other_watch, _) = watch(&mut other, "").await;
    for (number, id) in [&owned, &gone, &others, "rts-nobody", &owned, &others]
        .into_iter()
        .enumerate()
    {
        gateway.observe(&transcript(id, number as u64)).await;
    }
    // Live, and when catching up from a cursor.
    let mut late = watch(&mut other, &start).await.0;
    for (watch, id) in [
        (&mut owner_watch, &owned),
        (&mut other_watch, &others),
        (&mut late, &others),
    ] {
        assert_eq!(heard(watch).await, *id);
        assert_eq!(heard(watch).await, *id);
    }
}

#[tokio::test]
async fn operators_make_list_and_revoke_keys() {
    let gateway = Gateway::start().await;
    let mut operator = gateway.operator().await;
    let mut create = async |tenant: &str, operator_too: bool| {
        let request = v1::CreateKeyRequest {
            name: "a key".to_owned(),
            tenant: tenant.to_owned(),
            operator: operator_too,
        };
        let created = operator.keys.create_key(request).await;
        created.expect("created").into_inner()
    };
    let guest = create("guests", false).await;
    let own = create("", false).await;
    let second = create("guests", true).await;
    let (guest_key, own_key) = (guest.key.expect("set"), own.key.expect("set"));
    assert_eq!(own_key.tenant, own_key.id, "a tenant of its own");

    let mut guests = gateway.with_key(&guest.secret).await;
    let request = v1::ListKeysRequest::default();
    let refused = guests.keys.list_keys(request.clone()).await;
    assert_eq!(
        reason_of(&refused.expect_err("no operator")).0,
        "PERMISSION_DENIED"
    );
    let refused = guests.keys.create_key(v1::CreateKeyRequest::default());
    assert_eq!(
        reason_of(&refused.await.expect_err("no operator")).0,
        "PERMISSION_DENIED"
    );
    let revoke = v1::RevokeKeyRequest {
        key_id: guest_key.id.clone(),
    };
    let refused = guests.keys.revoke_key(revoke.clone()).await;
    assert_eq!(
        reason_of(&refused.expect_err("no operator")).0,
        "PERMISSION_DENIED"
    );

    let refused = guests.system.get_system(v1::GetSystemRequest {}).await;
    assert_eq!(
        reason_of(&refused.expect_err("no operator")).0,
        "PERMISSION_DENIED"
    );

    let mut operators = gateway.with_key(&second.secret).await;
    let listed = operators.keys.list_keys(request.clone()).await;
    let listed = listed.expect("lists").into_inner().keys;
    let expected = [guest_key, own_key, second.key.expect("set")];
    assert_eq!(
        listed, expected,
        "of all tenants, oldest first, without secrets"
    );

    let (mut open, _) = watch(&mut guests, "").await;
    let (mut others, _) = watch(&mut operators, "").await;
    let revoked = operators.keys.revoke_key(revoke.clone()).await;
    revoked.expect("revoked");
    let ended = tokio::time::timeout(LONG, open.next()).await;
    let ended = ended.expect("in time").expect("with an error");
    assert_eq!(ended.expect_err("revoked").code(), Code::Unauthenticated);
    let refused = guests
        .streams
        .list_rt_streams(v1::ListRtStreamsRequest::default());
    assert_eq!(
        refused.await.expect_err("revoked").code(),
        Code::Unauthenticated
    );
    let listed = operators.keys.list_keys(request).await;
    assert_eq!(listed.expect("lists").into_inner().keys, expected[1..]);
    let (reason, field, _) = reason_of(&operators.keys.revoke_key(revoke).await.expect_err("gone"));
    assert_eq!((reason.as_str(), field.as_str()), ("NOT_FOUND", "key_id"));

    // Another key of the same tenant goes on.
    let own = connect(&mut operators, "").await.id;
    gateway.observe(&transcript(&own, 1)).await;
    assert_eq!(heard(&mut others).await, own);
}
