//! `sightline collection`.

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1;

use super::args::CollectionCommand;
use super::call::{answer, ask, given};
use super::output::Output;

/// Does what was said with collections.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, command: CollectionCommand, out: &Output) -> Result<()> {
    match command {
        CollectionCommand::Create { name, description } => {
            let request = v1::CreateCollectionRequest {
                name,
                description: description.unwrap_or_default(),
                ..Default::default()
            };
            let call = client.collections.create_collection(ask(request));
            out.one(&given(answer(call).await?.collection)?)
        }
        CollectionCommand::List { limit } => {
            out.pages(limit, async |page_size, page_token| {
                let request = v1::ListCollectionsRequest {
                    page_size,
                    page_token,
                };
                let page = answer(client.collections.list_collections(ask(request))).await?;
                Ok((page.collections, page.next_page_token))
            })
            .await
        }
        CollectionCommand::Update {
            collection: collection_id,
            name,
            description,
        } => {
            let request = v1::UpdateCollectionRequest {
                collection_id,
                name,
                description,
            };
            let call = client.collections.update_collection(ask(request));
            out.one(&given(answer(call).await?.collection)?)
        }
        CollectionCommand::Delete { collection } => {
            let request = v1::DeleteCollectionRequest {
                collection_id: collection.clone(),
            };
            answer(client.collections.delete_collection(ask(request))).await?;
            out.done("deleted", &collection)
        }
    }
}
